"""Scoring of segmentation and the two forms of its head, against their peers.

  python -m benchmarks.segmentation [--out benchmarks/results/segmentation.md]

Scoring: a set as large as VOC 2012 val (1,449 images) at 513x513 with 21
classes. The confusion matrix on the device, by both methods of
ops/confusion.py, against the usual numpy bincount of the pixels that are not
void; and all that the evaluator does once the logits exist, interpolation,
argmax and count, against torch's interpolate, argmax and bincount. 14 images
are used over and over, to bound memory.

Head: `native` against `matmul` of models/deeplab.py, on 65x65x2048 features.

Contestants take turns in one process, a round each, after one to warm up; what
they give is compared first. The train step is benchmarks/segmentation_step.py.
"""

import argparse
import functools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import train_step
from big_vision_like.metrics import segmentation
from big_vision_like.models.parts import deeplab
from big_vision_like.ops import confusion
from big_vision_like.runtime import cpu_tuning
from evaluators import semantic_segmentation

VOID, STRIDE = 255, 8
BATCH, DISTINCT = 7, 14  # images; 1,449 are 9 rounds of 23 batches
ROUNDS = 9
Run = Callable[[int], Any]  # of a number of batches


def make_set(size: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
  """Logits float32 [14, h, w, C] and masks uint8 [14, size, size], 5% void.

  Masks are blocks of classes, which the logits of their place prefer.
  """
  rng = np.random.default_rng(0)
  grid = -(-size // STRIDE)
  coarse = rng.integers(0, classes, (DISTINCT, grid, grid))
  logits = rng.standard_normal((*coarse.shape, classes)).astype(np.float32)
  logits += 3 * np.eye(classes, dtype=np.float32)[coarse]
  masks = coarse.repeat(STRIDE, 1).repeat(STRIDE, 2)[:, :size, :size]
  masks[rng.random(masks.shape) < 0.05] = VOID
  return logits, masks.astype(np.uint8)


def batch_of(number: int) -> slice:
  first = number * BATCH % DISTINCT
  return slice(first, first + BATCH)


def by_bincount(
  labels: np.ndarray, predicted: np.ndarray, classes: int
) -> np.ndarray:
  """int64 [C, C], as scripts that score segmentation have it."""
  valid = labels < classes
  place = classes * labels[valid].astype(np.int64) + predicted[valid]
  counts = np.bincount(place, minlength=classes**2)
  return counts.reshape(classes, classes)


def counters(
  masks: np.ndarray, predicted: np.ndarray, classes: int
) -> dict[str, Run]:
  """name -> the matrix of that many batches, summed."""

  def on_device(method: str) -> Run:
    count = functools.partial(
      confusion.matrix, num_classes=classes, method=method
    )
    mapped = jax.jit(lambda *maps: jax.lax.map(lambda m: count(*m), maps))
    resident = jnp.asarray(predicted)  # the net's; masks come from the host
    slices = [resident[:BATCH], resident[BATCH:]]

    def run(batches: int) -> np.ndarray:
      total = np.zeros((classes, classes), np.int64)
      for n in range(batches):
        counts = mapped(masks[batch_of(n)], slices[n % 2])
        total += np.asarray(counts, np.int64).sum(axis=0)
      return total

    return run

  def bincount(batches: int) -> np.ndarray:
    total = np.zeros((classes, classes), np.int64)
    for n in range(batches):
      for pair in zip(masks[batch_of(n)], predicted[batch_of(n)]):
        total += by_bincount(*pair, classes)
    return total

  return {
    'device, scatter': on_device('scatter'),
    'device, product': on_device('product'),
    'numpy bincount': bincount,
  }


def scorers(
  logits: np.ndarray, masks: np.ndarray, classes: int
) -> dict[str, Run]:
  """name -> the matrix of that many batches, from the logits on."""
  size = masks.shape[-1]
  count = jax.jit(
    functools.partial(semantic_segmentation._confusion, stride=STRIDE)
  )
  sizes = np.full((BATCH, 2), size, np.int32)
  resident = [jnp.asarray(logits[batch_of(n)]) for n in (0, 1)]

  def ours(batches: int) -> np.ndarray:
    total = np.zeros((classes, classes), np.int64)
    for n in range(batches):
      counts = count((resident[n % 2], masks[batch_of(n)], sizes, sizes))
      total += np.asarray(counts, np.int64).sum(axis=0)
    return total

  nchw = torch.from_numpy(logits).permute(0, 3, 1, 2)
  labels = torch.from_numpy(masks)

  def by_torch(memory_format: Any, batches: int) -> np.ndarray:
    total = torch.zeros(classes**2, dtype=torch.int64)
    first = nchw.contiguous(memory_format=memory_format)
    for n in range(batches):
      fine = torch.nn.functional.interpolate(
        first[batch_of(n)],
        size=(size, size),
        mode='bilinear',
        align_corners=True,
      )
      true, best = labels[batch_of(n)], fine.argmax(dim=1)
      valid = true < classes
      place = classes * true[valid].long() + best[valid]
      total += torch.bincount(place, minlength=classes**2)
    return total.numpy().reshape(classes, classes)

  formats = torch.contiguous_format, torch.channels_last
  usual, fast = (functools.partial(by_torch, form) for form in formats)
  return {'ours': ours, 'torch': usual, 'torch, channels last': fast}


def heads(size: int, classes: int, images: int) -> dict[str, dict[str, Run]]:
  """'forward' and 'forward and backward' -> method -> run."""
  grid = -(-size // STRIDE)
  rng = np.random.default_rng(1)
  shape = images, grid, grid, 2048
  features = jnp.asarray(rng.standard_normal(shape, dtype=np.float32))
  weight = jnp.asarray(rng.standard_normal((*shape[:3], classes)))
  runs: dict[str, dict[str, Run]] = {'forward': {}, 'forward and backward': {}}
  for method in ('native', 'matmul'):
    head = deeplab.AtrousPyramid(classes, method=method)
    params = head.init(jax.random.key(0), features)
    forward = jax.jit(head.apply)

    def loss(params, features, head=head):
      return (head.apply(params, features) * weight).sum()

    both = jax.jit(jax.grad(loss, (0, 1)))
    for name, fn in (('forward', forward), ('forward and backward', both)):
      runs[name][method] = lambda _, fn=fn, params=params: (
        jax.block_until_ready(fn(params, features))
      )
  return runs


def contest(
  runs: dict[str, Run], rounds: int, batches: int = 1
) -> dict[str, list[float]]:
  """name -> seconds of each round; they take turns after one to warm up."""
  for run in runs.values():
    run(batches)
  seconds: dict[str, list[float]] = {name: [] for name in runs}
  for _ in range(rounds):
    for name, run in runs.items():
      start = time.perf_counter()
      run(batches)
      seconds[name].append(time.perf_counter() - start)
  return seconds


def table(
  seconds: dict[str, list[float]], images: int, first: str, title: str
) -> str:
  """Markdown; `first` is what the others are divided by."""
  per_image = {n: [1e3 * s / images for s in v] for n, v in seconds.items()}
  base = statistics.median(per_image[first])
  lines = [
    f'| {title} | ms an image, median | fastest .. slowest round '
    f'| this / {first} |',
    '|---|---|---|---|',
  ]
  for name, values in per_image.items():
    median = statistics.median(values)
    lines.append(
      f'| {name} | {median:.2f} | {min(values):.2f} .. {max(values):.2f} '
      f'| {median / base:.2f} |'
    )
  return '\n'.join(lines)


def check_counts(counts: dict[str, Run]) -> None:
  matrices = [run(2) for run in counts.values()]
  for other in matrices[1:]:
    np.testing.assert_array_equal(matrices[0], other)


def check_scores(scores: dict[str, Run]) -> str:
  """Compares the matrices; says by how much they differ."""
  ours, peer, other = (run(2) for run in scores.values())
  np.testing.assert_array_equal(peer, other)
  assert ours.sum() == peer.sum()
  moved = int(np.abs(ours - peer).sum()) // 2
  figures = [segmentation.figures(m)['miou'] for m in (ours, peer)]
  assert abs(figures[0] - figures[1]) < 1e-3, figures
  return (
    f'{moved} of {ours.sum():,} pixels fall into another cell (logits within '
    f'rounding of each other); mIoU {figures[0]:.4f} and {figures[1]:.4f}.'
  )


def check_heads(runs: dict[str, dict[str, Run]]) -> None:
  for by_method in runs.values():
    native, matmul = (
      jax.tree.leaves(by_method[m](1)) for m in ('native', 'matmul')
    )
    for a, b in zip(native, matmul, strict=True):
      error = float(jnp.linalg.norm((a - b).ravel()))
      assert error < 1e-5 * float(jnp.linalg.norm(a.ravel()))


def report_scoring(args: argparse.Namespace) -> str:
  """Two tables: the count alone, and all from the logits on."""
  logits, masks = make_set(args.size, args.classes)
  batches = max(1, round(args.images / (ROUNDS * BATCH)))
  images = batches * BATCH
  predicted = logits.argmax(-1).repeat(STRIDE, 1).repeat(STRIDE, 2)
  predicted = predicted[:, : args.size, : args.size].astype(np.int32)
  counts = counters(masks, predicted, args.classes)
  check_counts(counts)
  counted = contest(counts, ROUNDS, batches)
  scores = scorers(logits, masks, args.classes)
  agreement = check_scores(scores)
  scored = contest(scores, ROUNDS, batches)
  return f"""### Confusion matrix

{args.size}x{args.size}, {args.classes} classes, {ROUNDS} rounds of {images} \
images each ({ROUNDS * images:,} in all, {DISTINCT} distinct), batches of \
{BATCH}. All matrices are equal.

{table(counted, images, 'device, scatter', 'count')}

### From the logits to the matrix

The same images; logits of {logits.shape[1]}x{logits.shape[2]} in memory. \
{agreement}

{table(scored, images, 'ours', 'interpolation, argmax, count')}
"""


def report_head(args: argparse.Namespace) -> str:
  """Two tables: forward, and forward and backward."""
  runs = heads(args.size, args.classes, args.head_images)
  check_heads(runs)
  tables = [
    table(contest(by_method, args.rounds), args.head_images, 'matmul', name)
    for name, by_method in runs.items()
  ]
  grid = -(-args.size // STRIDE)
  return '\n\n'.join(
    [
      '### Head',
      f'{grid}x{grid}x2048 features of {args.head_images} images, '
      f'{args.rounds} rounds; logits and gradients agree to 1e-5 in the '
      '2-norm.',
      *tables,
    ]
  )


PARTS = {'scoring': report_scoring, 'head': report_head}


def report(args: argparse.Namespace) -> str:
  """Runs the parts asked for and returns the results as Markdown."""
  machine = train_step.describe_machine(args).partition('; ')[0]
  found = '\n'.join(PARTS[name](args) for name in args.parts)
  return f"""## Scoring and head

`python -m benchmarks.segmentation {' '.join(sys.argv[1:])}`

{machine}

{found}
"""


def main() -> None:
  parser = argparse.ArgumentParser(
    description='Scoring of segmentation and the two forms of its head.'
  )
  parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
  parser.add_argument('--images', type=int, default=1449)
  parser.add_argument('--size', type=int, default=513, help='pixels, 8 n + 1')
  parser.add_argument('--classes', type=int, default=21)
  parser.add_argument('--head_images', type=int, default=2)
  parser.add_argument('--rounds', type=int, default=5, help='of the head')
  parser.add_argument('--out', help='append to this Markdown file')
  args = parser.parse_args()
  args.device, args.steps = jax.default_backend(), 1
  text = report(args)
  print(text)
  if args.out:
    with pathlib.Path(args.out).open('a', encoding='utf-8') as file:
      file.write(f'\n{text}')


if __name__ == '__main__':
  cpu_tuning.reexec()
  main()
