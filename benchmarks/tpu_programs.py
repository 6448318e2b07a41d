"""What the TPU's own compiler makes of a config's programs, without a TPU.

Compiles the train step and, with --predict, a prediction for a slice that is
described, not there, and prints the compiler's account of a chip: bytes of
arguments and temporaries, operations and bytes moved a step, and collectives.
Nothing runs, so nothing is timed. It needs libtpu (requirements-tpu.txt).

  python -m benchmarks.tpu_programs \
    --config configs/coco_detection.py:recipe=accelerator --predict detections
  python -m benchmarks.tpu_programs --topology v5p:4x4x4 --batch 64 \
    --set model.compute_dtype=bfloat16 --config configs/voc_detection.py

--batch is that of all chips together, by default the config's where the chips
divide it, else an image a chip.
"""

import argparse
import ast
import collections
import dataclasses
import os
import re
import sys
import time
from collections.abc import Sequence
from typing import Any

# Read by libtpu: no machine of a slice is asked what it is part of.
ENVIRONMENT = {
  'JAX_PLATFORMS': 'cpu',
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-8',
}
_COLLECTIVE = re.compile(
  r' = .*? (all-gather|all-reduce|reduce-scatter|all-to-all|'
  r'collective-permute)(?:-start)?\('
)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--config', required=True, help='FILE[:ARGUMENTS]')
  add('--topology', default='v5e:2x4', help='%(default)s')
  add('--batch', type=int, help='images a step')
  add('--classes', type=int, default=80, help='where the config leaves it open')
  add('--keypoints', type=int, default=0, help='of an object, for pose')
  add('--examples', type=int, default=100_000, help='of the training set')
  add('--predict', nargs='*', default=[], help='predictions to compile too')
  add('--set', nargs='*', default=[], metavar='KEY=VALUE')
  return parser.parse_args(argv)


def _config(args: argparse.Namespace, num_devices: int) -> Any:
  from big_vision_like.config import loading

  config = loading.load(args.config, '--config')
  config.unlock()
  batch = args.batch or config.input.batch_size
  if batch % num_devices:
    batch = num_devices
  config.input.batch_size = batch
  config.mesh.data = num_devices
  for pair in args.set:
    key, _, text = pair.partition('=')
    try:
      value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
      value = text
    config.update_from_flattened_dict({key: value})
  return config


def account(compiled: Any) -> dict[str, float]:
  """Of a chip: GiB and billions; collectives by kind."""
  memory = compiled.memory_analysis()
  costs = compiled.cost_analysis() or {}
  found = collections.Counter(_COLLECTIVE.findall(compiled.as_text()))
  return {
    'arguments, GiB': memory.argument_size_in_bytes / 2**30,
    'temporaries, GiB': memory.temp_size_in_bytes / 2**30,
    'GFLOP': costs.get('flops', float('nan')) / 1e9,
    'GB moved': costs.get('bytes accessed', float('nan')) / 1e9,
    **{f'{kind}s': float(count) for kind, count in sorted(found.items())},
  }


def _space(num_classes: int, num_keypoints: int) -> Any:
  """The labels of no data."""
  from input_pipeline.labels.space import LabelSpace, Skeleton

  space = LabelSpace.of_count(num_classes)
  if not num_keypoints:
    return space
  names = tuple(f'keypoint {n}' for n in range(num_keypoints))
  return dataclasses.replace(space, keypoints=Skeleton(names))


def _spec(name: str, image: Any) -> Any:
  """Of a field that predictions read and training does not."""
  import jax

  from input_pipeline.examples import fields

  form = fields.FIELDS[name].batch
  assert form is not None, name
  return jax.ShapeDtypeStruct(
    (image.shape[0], *form.shape), form.dtype, sharding=image.sharding
  )


def programs(args: argparse.Namespace) -> dict[str, dict[str, float]]:
  """Program -> its account and 'compiling, s'."""
  import jax
  from jax.experimental import topologies

  from big_vision_like import experiment

  described = topologies.get_topology_desc(
    platform='tpu', topology_name=args.topology
  )
  config = _config(args, len(described.devices))
  exp = experiment.build(
    config,
    _space(config.task.num_classes or args.classes, args.keypoints),
    num_examples=args.examples,
    devices=described.devices,
  )
  state, batch = exp.abstract_state, exp.batch_spec
  lowered = {'train step': lambda: exp.jitted_train_step.lower(state, batch)}
  for name in args.predict:
    prediction = exp.predict[name]
    seen = {
      n: batch[n] if n in batch else _spec(n, batch['image'])
      for n in prediction.reads
    }
    lowered[name] = lambda p=prediction, b=seen: jax.jit(p.fn).lower(state, b)
  found = {}
  for name, lower in lowered.items():
    start = time.perf_counter()
    with jax.set_mesh(exp.mesh):
      compiled = lower().compile()
    found[name] = account(compiled)
    found[name]['compiling, s'] = time.perf_counter() - start
  return found


def report(args: argparse.Namespace, found: dict[str, dict[str, float]]) -> str:
  """Markdown, a column for each program."""
  rows = list(dict.fromkeys(key for of in found.values() for key in of))
  lines = [
    f'`{args.config}` on {args.topology}, of a chip:',
    '',
    '| | ' + ' | '.join(found) + ' |',
    '|---|' + '---|' * len(found),
  ]
  for row in rows:
    cells = (f'{of[row]:.4g}' if row in of else '0' for of in found.values())
    lines.append(f'| {row} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
  args = parse(argv)
  os.environ.update(ENVIRONMENT)
  print(report(args, programs(args)))
  return 0


if __name__ == '__main__':
  sys.exit(main())
