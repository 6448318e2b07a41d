"""ResNet weights of torchvision or timm -> a checkpoint to start from.

  python -m tools.convert_torch --input r50.safetensors --output weights/r50
  python -m main --config configs/imagenet_transfer.py:init=./weights/r50,\\
layout=torch,depth=50,path=DIR --workdir ...

The input is a state dict of ResNet-50, 101 or 152 as safetensors. A .pth file
is first turned into one by a process of its own (tools/convert_pth.py), which
needs torch. docs/weights.md has the table of names and what else differs.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

_PICKLED = ('.pth', '.pt', '.bin')


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m tools.convert_torch',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  p.add_argument('--input', required=True, help='.safetensors or .pth file')
  p.add_argument('--output', required=True, help='folder of the checkpoint')
  p.add_argument(
    '--pixels', choices=('imagenet', 'inception'), default='imagenet',
    help='how the weights want pixels: standardised by channel, or in [-1, 1]; '
    'default: %(default)s',
  )  # fmt: skip
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  try:
    convert(args.input, args.output, args.pixels)
    return 0
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2


def convert(source: str, output: str, pixels: str) -> None:
  """Writes the checkpoint of a state dict.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not the weights of a ResNet, with the names that do not fit; or
      `output` holds something already.
  """
  from big_vision_like import safetensors_files, torch_weights

  folder = pathlib.Path(output)
  if folder.exists() and any(folder.iterdir()):
    raise ValueError(f'--output {output!r} is not empty')
  if not os.path.isfile(source):
    raise FileNotFoundError(f'--input {source!r}: no such file')
  with tempfile.TemporaryDirectory() as scratch:
    if source.endswith(_PICKLED):
      target = os.path.join(scratch, 'weights.safetensors')
      _unpickle(os.path.abspath(source), target)
      source = target
    tree = torch_weights.from_tensors(safetensors_files.read(source))
  depth = torch_weights.depth_of(tree)
  if 'kernel' not in tree['params'].get('head', {}):
    raise ValueError(
      'there is no classifier (fc.weight, fc.bias) in the file; a checkpoint '
      'has one: keep it when saving the state dict'
    )
  num_classes = tree['params']['head']['kernel'].shape[1]
  config = _config(depth, num_classes, pixels)
  step = _save(config, tree, num_classes, folder)
  print(
    f'ResNet-{depth}, {num_classes:,} classes, pixels={pixels}: wrote {step}\n'
    f'start from it with init_from.path={output} and the same layout '
    '(configs: layout=torch)'
  )


def _unpickle(source: str, target: str) -> None:
  done = subprocess.run(
    [sys.executable, '-m', 'tools.convert_pth', source, target],
    stderr=subprocess.PIPE,
    text=True,
    cwd=pathlib.Path(__file__).resolve().parent.parent,
    env={
      k: v for k, v in os.environ.items() if k in ('PATH', 'LD_LIBRARY_PATH')
    },
  )
  if done.returncode:
    said = done.stderr.strip().splitlines() or ['it was killed']
    raise ValueError(said[-1].removeprefix('error: '))


def _config(depth: int, num_classes: int, pixels: str) -> Any:
  from configs import imagenet_transfer

  config = imagenet_transfer.get_config(
    f'init=random,layout=torch,depth={depth},num_classes={num_classes}'
  )
  config.unlock()
  config.task.pixels = pixels
  config.optim = dict(type='sgd')  # no slots: there is no history
  config.device = 'any'
  return config.lock()


def _save(
  config: Any, tree: dict[str, Any], num_classes: int, folder: pathlib.Path
) -> pathlib.Path:
  """Step 0 of a run of this config with these weights; its folder."""
  import jax

  from big_vision_like import checkpoint, experiment, settings

  exp = experiment.build(config, devices=jax.devices()[:1])
  state = exp.init(0)
  extra = {'batch_stats': tree['batch_stats']}
  _check_fit(checkpoint, (state.params, state.extra), (tree['params'], extra))
  place = lambda new, old: jax.tree.map(
    lambda a, b: jax.device_put(a, b.sharding), new, old
  )
  state = state.replace(
    params=place(tree['params'], state.params), extra=place(extra, state.extra)
  )
  ckpt = checkpoint.Checkpointer(str(folder))
  meta = {
    'config': json.loads(exp.config.to_json()),
    'data': '',
    'num_classes': num_classes,
    'total_steps': exp.total_steps,
    'versions': {},
    'step': 0,
  }
  ckpt.save(0, state, meta)
  ckpt.wait()
  ckpt.close()
  stored = settings.to_json(exp.config)
  (folder / settings.FILE).write_text(stored, encoding='utf-8')
  return ckpt.path(0)


def _check_fit(checkpoint: Any, ours: Any, theirs: Any) -> None:
  here, there = checkpoint.shapes(ours), checkpoint.shapes(theirs)
  lines = [
    f'  {name}: {there.get(name, "absent")} in the file, '
    f'{here.get(name, "absent")} in the model'
    for name in sorted(here.keys() | there.keys())
    if here.get(name) != there.get(name)
  ]
  if lines:
    raise ValueError(
      f'{len(lines)} arrays do not fit a ResNet of this depth:\n'
      + '\n'.join(lines[:10])
    )


if __name__ == '__main__':
  sys.exit(main())
