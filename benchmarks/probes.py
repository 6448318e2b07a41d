"""Linear and few-shot probes against scikit-learn, side by side in one run.

  python -m benchmarks.probes [--out benchmarks/results/probes.md]

Features like those of a pretrained net: clusters with noise through a ReLU,
10,000 x 2,048 to learn from and as many to score, 1,000 classes, standardised.
Timed is the solve alone, after a call that compiles. Linear probe: our L-BFGS
in the eigenbasis against LogisticRegression (lbfgs, float32) on the same
objective. Few-shot: ridge regression against Ridge (cholesky, float32).
"""

import argparse
import importlib.metadata
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from scipy.special import logsumexp

from big_vision_like.ops import least_squares, logistic_regression

_PACKAGES = ('jax', 'numpy', 'scikit-learn')


def make_features(
  num: int, dim: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """(features float32 [2 num, dim], classes int32 [2 num]), standardised."""
  rng = np.random.default_rng(0)
  centres = 0.2 * rng.standard_normal((num_classes, dim), np.float32)
  label = rng.integers(0, num_classes, 2 * num, dtype=np.int32)
  noise = rng.standard_normal((2 * num, dim), np.float32)
  x = np.maximum(centres[label] + noise, 0)
  return (x - x[:num].mean(0)) / x[:num].std(0), label


def timed(fn: Callable[[], Any], repeats: int) -> tuple[Any, list[float]]:
  """(last result, seconds of each call)."""
  seconds, result = [], None
  for _ in range(repeats):
    start = time.perf_counter()
    result = jax.block_until_ready(fn())
    seconds.append(time.perf_counter() - start)
  return result, seconds


def linear(x, label, num, num_classes, l2, repeats) -> list[str]:
  """Rows of the table: ours and scikit-learn's logistic regression."""
  from sklearn.linear_model import LogisticRegression

  def ours():
    basis = logistic_regression.basis(x[:num])
    return logistic_regression.fit(basis, label[:num], num_classes, l2)

  ours()
  fit, mine = timed(ours, repeats)
  model = LogisticRegression(C=1 / (num * l2), max_iter=2000, tol=1e-5)
  model, theirs = timed(lambda: model.fit(x[:num], label[:num]), 1)
  kernel, bias = np.asarray(fit.kernel), np.asarray(fit.bias)
  objectives = [
    objective(x[:num], label[:num], *weights, l2)
    for weights in ((kernel, bias), (model.coef_.T, model.intercept_))
  ]
  scores = x[num:] @ kernel + bias
  steps = f'{int(fit.num_steps)} / {int(np.max(model.n_iter_))}'
  return _rows(
    f'linear probe, l2 = {l2:g}', steps, mine, theirs, objectives,
    scores.argmax(1) == label[num:], model.predict(x[num:]) == label[num:],
  )  # fmt: skip


def few_shot(x, label, num, num_classes, l2, repeats) -> list[str]:
  """Rows of the table: ours and scikit-learn's ridge regression."""
  from sklearn.linear_model import Ridge

  ours = lambda: least_squares.fit(x[:num], label[:num], num_classes, l2)
  ours()
  fit, mine = timed(ours, repeats)
  targets = 2 * np.eye(num_classes, dtype=np.float32)[label[:num]] - 1
  model = Ridge(alpha=l2, solver='cholesky')
  mean, std = x[:num].mean(0), x[:num].std(0) + 1e-5
  model, theirs = timed(
    lambda: model.fit((x[:num] - mean) / std, targets), repeats
  )
  scores = np.asarray(least_squares.scores(fit, x[num:]))
  peer = model.predict((x[num:] - mean) / std)
  return _rows(
    f'few-shot probe, l2 = {l2:g}', 'direct', mine, theirs, (),
    scores.argmax(1) == label[num:], peer.argmax(1) == label[num:],
  )  # fmt: skip


def objective(x, label, kernel, bias, l2: float) -> float:
  """What both minimise, summed in float64."""
  scores = (x @ kernel + bias).astype(np.float64)
  losses = logsumexp(scores, axis=1) - scores[np.arange(len(x)), label]
  return losses.mean() + l2 / 2 * np.sum(kernel.astype(np.float64) ** 2)


def _rows(name, steps, mine, theirs, objectives, hits, peer_hits) -> list[str]:
  ours, peer = statistics.median(mine), statistics.median(theirs)
  spread = f'{min(mine):.2f}-{max(mine):.2f}'
  return [
    f'| {name} | {steps} | {ours:.2f} ({spread}) | {peer:.2f} | '
    f'{peer / ours:.2f} | {" / ".join(f"{o:.7f}" for o in objectives)} | '
    f'{100 * hits.mean():.2f} | '
    f'{100 * peer_hits.mean():.2f} | {(hits == peer_hits).mean():.4f} |'
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--num', type=int, default=10_000)
  parser.add_argument('--dim', type=int, default=2_048)
  parser.add_argument('--classes', type=int, default=1_000)
  parser.add_argument('--repeats', type=int, default=3)
  parser.add_argument('--l2', type=float, nargs='+', default=[1e-1, 1e-2])
  parser.add_argument('--out', type=pathlib.Path)
  args = parser.parse_args()
  x, label = make_features(args.num, args.dim, args.classes)
  sizes = (args.num, args.classes)
  rows = few_shot(x, label, *sizes, 1024.0, args.repeats)
  print(rows[-1], flush=True)
  for l2 in args.l2:
    rows += linear(x, label, *sizes, l2, args.repeats)
    print(rows[-1], flush=True)
  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}' for name in _PACKAGES
  )
  text = f"""# Probes on frozen features

Command: `python -m benchmarks.probes`
Machine: {os.cpu_count()} cores ({platform.machine()}), Python \
{platform.python_version()}, {versions}, JAX on {jax.default_backend()}

{args.num:,} x {args.dim:,} float32 features, {args.classes:,} classes; seconds
of the solve, median of {args.repeats} (least-most) after a call that compiles;
scikit-learn's logistic regression runs once. Steps, objective: of ours /
scikit-learn.

| probe | steps | ours, s | scikit-learn, s | scikit-learn / ours | \
objective | top-1 | top-1 scikit-learn | same verdict |
|---|---|---|---|---|---|---|---|---|
""" + '\n'.join([*rows, ''])
  print(text)
  if args.out:
    args.out.write_text(text, encoding='utf-8')


if __name__ == '__main__':
  main()
