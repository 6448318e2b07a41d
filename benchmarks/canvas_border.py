"""What the padding of a canvas changes for a detector: maps and precisions.

The images of a run's evaluation lie on canvases of several sizes, the content
the same. Of the map of block3, the difference from that of the smallest canvas,
by the distance in features from the lower and right border: its root mean
square over that of the map. Beside it, the evaluator's figures.

  python -m benchmarks.canvas_border --checkpoint workdirs/detection

Nothing is timed.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--checkpoint', required=True, help='workdir of a detector, square pad')
  add('--pad', type=int, nargs='+', default=[0, 32, 64], help='pixels')
  add('--images', type=int, default=40, help='of the map; figures are of all')
  return parser.parse_args(argv)


def rings(change: np.ndarray) -> np.ndarray:
  """Mean square by distance from the lower and right border: [h].

  Args:
    change: [B, h, h, C].
  """
  side = change.shape[1]
  row, column = np.indices((side, side))
  distance = np.minimum(side - 1 - row, side - 1 - column)
  square = (change.astype(np.float64) ** 2).mean((0, 3))
  return np.array([square[distance == d].mean() for d in range(side)])


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
  """A dict for each canvas: 'side', 'rings', 'ap', 'ap50'."""
  import jax

  from big_vision_like import evaluate, experiment
  from big_vision_like.inference import stored_model
  from input_pipeline import pipeline

  model = stored_model.load(args.checkpoint, '--checkpoint')
  one = jax.devices()[:1]
  state = model.state(jax.sharding.SingleDeviceSharding(one[0]))
  found, first = [], np.zeros(0)
  for pixels in args.pad:
    config = model.config.copy_and_resolve_references()
    config.unlock()
    ops = [dict(op) for op in config.evals.val.ops]
    (pad,) = (op for op in ops if op['op'] == 'pad')
    pad['size'] += pixels
    config.evals.val.ops = ops
    config.evals.val.num_worst = 0
    exp = experiment.build(config, model.space, devices=one)
    evals = evaluate.from_config(exp, None, lambda name: None)
    figures = evals['val'].evaluator.run(state)
    source = pipeline.open_source(config.evals.val.data.to_dict())
    batches = pipeline.evaluation(
      source, pipeline.build_ops(ops, source), batch_size=args.images
    )
    frozen_map = jax.jit(exp.task.frozen_map)
    image = next(iter(batches))['image']
    map_ = np.asarray(frozen_map(state.params, state.extra, {'image': image}))
    first = map_ if not found else first
    side = first.shape[1]
    change = map_[:, :side, :side] - first
    scale = np.sqrt((first.astype(np.float64) ** 2).mean())
    found.append(
      dict(
        side=pad['size'],
        rings=np.sqrt(rings(change)) / scale,
        **{name: figures[name] for name in ('ap', 'ap50')},
      )
    )
  return found


def report(found: Sequence[dict[str, Any]]) -> str:
  """Markdown: a row for each canvas."""
  shown = range(min(6, len(found[0]['rings'])))
  lines = [
    '| canvas | ap | ap50 | change of the map at the border | '
    + ' | '.join(f'{d} in' for d in shown if d)
    + ' | largest farther in |',
    '|---' * (4 + len(shown)) + '|',
  ]
  for row in found:
    cells = [f'{row["rings"][d]:.1%}' for d in shown]
    rest = row['rings'][len(shown) :]
    lines.append(
      f'| {row["side"]} | {row["ap"]:.2f} | {row["ap50"]:.2f} | '
      + ' | '.join([*cells, f'{max(rest, default=0):.2%}'])
      + ' |'
    )
  return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
  print(report(measure(parse(argv))))
  return 0


if __name__ == '__main__':
  sys.exit(main())
