"""Operations on keypoints: votes against numpy, targets against stored ones.

  python -m benchmarks.pose_ops [--out benchmarks/results/pose_ops.md]

Votes are those of one person: 17 keypoints on 353x257 pixels, of a map of
45x33 features with noise. numpy has the interpolated map for nothing and adds
the votes of all pixels with bincount; ours starts from the features. What the
cheaper votes change is in a table of its own, over --people of them.

The loss is that of 4 people, value and gradient by maps of all pixels, with
targets that are made inside and with stored ones, which lie on the device.

Contestants take turns in one process, a round each, after one to warm up; what
they give is compared first.
"""

import argparse
import functools
import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import train_step
from benchmarks.contests import Runs, contest, ready, table
from big_vision_like.losses import pose as losses
from big_vision_like.ops import interpolation
from big_vision_like.ops.keypoints import discs, maps, poses, voting
from big_vision_like.runtime import cpu_tuning

STRIDE, RADIUS = 8, 25.0
_ERROR = 2.0  # pixels, of offsets inside of a disc
_RISES = {'a clear border': 2.0, 'a soft border': 4.0}  # pixels a logit


class Size(NamedTuple):
  """What the operations are on."""

  height: int
  width: int
  keypoints: int
  batch: int

  @property
  def shape(self) -> tuple[int, int]:
    return self.height, self.width


def noisy_person(
  size: Size, seed: int, rise: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
  """(keypoints float32 [K, 3], map float32 [h, w, 3 K]) of a net that errs.

  Logits are 0 at the radius and rise by 1 in so many pixels, to 6 at most, with
  noise of 1 on them; offsets err by some pixels inside the disc and by more
  outside.
  """
  rng = np.random.default_rng(seed)
  places = rng.uniform(20, np.array(size.shape) - 20, (size.keypoints, 2))
  rows, columns = (np.arange(0, n, STRIDE) + 0.5 for n in size.shape)
  down = np.broadcast_to(
    places[:, 0, None, None] - rows[:, None],
    (size.keypoints, len(rows), len(columns)),
  )
  right = np.broadcast_to(places[:, 1, None, None] - columns, down.shape)
  distance = np.hypot(down, right)
  logits = np.clip((RADIUS - distance) / rise, -6, 6)
  logits += rng.normal(0, 1, logits.shape)
  error = _ERROR * np.maximum(distance / RADIUS, 1)
  ways = [way + error * rng.normal(0, 1, down.shape) for way in (down, right)]
  found = np.moveaxis(np.concatenate([logits, *ways]), 0, -1)
  keypoints = np.concatenate([places, np.full((size.keypoints, 1), 2)], 1)
  return keypoints.astype(np.float32), found.astype(np.float32)


def fine(size: Size, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Probabilities [K, H, W] and offsets [2, K, H, W] of all pixels."""
  program = lambda x: interpolation.to_pixels(x[None], *size.shape)[0]
  logits, offsets = maps.split(jax.jit(program)(found))
  return np.asarray(jax.nn.sigmoid(logits)), np.asarray(offsets)


def by_bincount(
  probabilities: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """(places [K, 2], votes [K]) of the best pixels; every pixel votes."""
  num, height, width = probabilities.shape
  rows, columns = np.indices((height, width), np.float32)
  places, values = [], []
  for k in range(num):
    y, x = rows + offsets[0, k], columns + offsets[1, k]
    top, left = np.floor(y), np.floor(x)
    total = np.zeros(height * width)
    for row in (top, top + 1):
      for column in (left, left + 1):
        weight = (1 - abs(y - row)) * (1 - abs(x - column)) * probabilities[k]
        within = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        index = (row[within] * width + column[within]).astype(np.int64)
        total += np.bincount(index, weight[within], height * width)
    best = total.argmax()
    places.append((best // width + 0.5, best % width + 0.5))
    values.append(total[best] / (math.pi * RADIUS**2))
  return np.array(places), np.array(values)


# Contestant -> options of the vote.
_OURS: dict[str, dict[str, Any]] = {
  'ours': dict(voting='top'),
  'ours, products': dict(voting='top', method='matmul'),
  'ours, all pixels': dict(voting='exact'),
  'ours, features alone': dict(voting='grid'),
  'ours, features alone, products': dict(voting='grid', method='matmul'),
}


def _reader(size: Size, **options: Any) -> Callable[[Any], Any]:
  fuse = functools.partial(
    voting.fuse, shape=size.shape, radius=RADIUS, **options
  )
  return lambda found: poses.peaks(fuse(found))


def voters(size: Size) -> Runs:
  """The best pixel of every keypoint of one person."""
  _, found = noisy_person(size, 0)
  given = fine(size, found)
  runs: Runs = {
    name: ready(_reader(size, **options), found)
    for name, options in _OURS.items()
  }
  places, values = by_bincount(*given)
  for name in ('ours', 'ours, products', 'ours, all pixels'):
    found, confidences = runs[name]()
    np.testing.assert_array_equal(found, places, err_msg=name)
    rtol = 1e-4 if 'all' in name else 0.02
    np.testing.assert_allclose(confidences, values, rtol=rtol, err_msg=name)
  return {**runs, 'numpy bincount': lambda: by_bincount(*given)}


def losers(size: Size) -> Runs:
  """Value and gradient of both losses by maps of all pixels."""
  rng = np.random.default_rng(1)
  keypoints = np.stack(
    [noisy_person(size, n)[0] for n in range(size.batch)]
  )  # [B, K, 3]
  channels = maps.PER_KEYPOINT * size.keypoints
  values = rng.normal(0, 1, (size.batch, channels, *size.shape))
  values = values.astype(np.float32)

  def loss(found: jax.Array, targets: discs.Targets) -> jax.Array:
    logits, offsets = maps.split(found)
    heatmap = losses.of_heatmaps(logits, targets)
    return (4 * heatmap + losses.of_offsets(offsets, targets)).sum()

  def make(keypoints: jax.Array) -> discs.Targets:
    return discs.targets(keypoints, size.shape, stride=1, radius=RADIUS)

  def store(keypoints: jax.Array) -> discs.Targets:
    made = make(keypoints)
    full = made.inside.shape
    return discs.Targets(*(jnp.broadcast_to(x, full) for x in made))

  both = jax.value_and_grad(loss)
  inside = lambda found, keypoints: both(found, make(keypoints))
  stored = jax.jit(store)(keypoints)
  runs = {
    'ours': ready(inside, values, keypoints),
    'stored targets': ready(both, values, stored),
    'making targets to store': ready(store, keypoints),
  }
  (a, b), (c, d) = runs['ours'](), runs['stored targets']()
  np.testing.assert_allclose(a, c, rtol=1e-5)
  np.testing.assert_allclose(b, d, rtol=1e-5, atol=1e-12)
  return runs


CONTESTS: dict[str, Callable[[Size], Runs]] = {
  'votes of one person': voters,
  'loss of a batch, value and gradient': losers,
}


def differences(size: Size, people: int, rise: float) -> str:
  """Markdown: how far cheaper votes are from those of all pixels."""
  rows: dict[str, list[np.ndarray]] = {}
  readers = {
    which: jax.jit(_reader(size, voting=which)) for which in voting.VOTING
  }
  for seed in range(people):
    keypoints, found = noisy_person(size, seed, rise)
    results = {name: read(found) for name, read in readers.items()}
    exact, exact_values = (np.asarray(x) for x in results['exact'])
    for name, (places, values) in results.items():
      moved = np.hypot(*np.moveaxis(np.asarray(places) - exact, -1, 0))
      off = np.hypot(*np.moveaxis(places - keypoints[:, :2], -1, 0))
      less = np.asarray(values) / exact_values
      rows.setdefault(name, []).append(np.stack([moved, off, less]))
  lines = [
    '| votes | peaks at another pixel | moved, at most | error, median '
    '| error, mean | peak over that of all pixels |',
    '|---|---|---|---|---|---|',
  ]
  for name, parts in rows.items():
    moved, off, less = np.stack(parts, 1)
    lines.append(
      f'| {name} | {(moved > 0).mean():.1%} | {moved.max():.2f} px '
      f'| {np.median(off):.2f} px | {off.mean():.2f} px '
      f'| {less.min():.4f} .. {less.max():.4f} |'
    )
  return '\n'.join(lines)


def report(args: argparse.Namespace) -> str:
  """Runs the contests asked for and returns the results as Markdown."""
  machine = train_step.describe_machine(args).partition('; ')[0]
  size = Size(args.height, args.width, args.keypoints, args.batch)
  tables = [
    table(name, contest(make(size), args.rounds, args.seconds))
    for name, make in CONTESTS.items()
    if args.only in name
  ]
  for border, rise in _RISES.items() if args.people else ():
    tables.append(
      f'Votes of {args.people} noisy people, discs with {border}, offsets off '
      f'by {_ERROR} pixels in each direction:\n\n'
      f'{differences(size, args.people, rise)}'
    )
  return '\n\n'.join(
    [
      '# Operations on keypoints',
      f'`python -m benchmarks.pose_ops {" ".join(sys.argv[1:])}`',
      f'{machine}; {size.keypoints} keypoints on {size.height}x{size.width} '
      f'pixels, a batch of {size.batch}, at most {args.rounds} rounds.',
      *tables,
    ]
  )


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--height', type=int, default=353, help='pixels, 8 n + 1')
  add('--width', type=int, default=257)
  add('--keypoints', type=int, default=17)
  add('--batch', type=int, default=4, help='people in the loss')
  add('--people', type=int, default=50, help='whose votes are compared')
  add('--rounds', type=int, default=15)
  add('--seconds', type=float, default=60, help='a contest')
  add('--only', default='', help='contests with this in a name')
  add('--out', help='Markdown file to write as well')
  args = parser.parse_args(argv)
  args.device, args.steps = jax.default_backend(), 1
  text = report(args)
  print(text)
  if args.out:
    pathlib.Path(args.out).write_text(f'{text}\n', encoding='utf-8')


if __name__ == '__main__':
  cpu_tuning.reexec()
  main()
