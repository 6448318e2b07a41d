"""ResNet weights of torchvision or timm -> a checkpoint to start from.

  python -m tools.convert_torch --input r50.safetensors --output weights/r50
  python -m main --config configs/imagenet_transfer.py:init=./weights/r50,\\
layout=torch,depth=50,path=DIR --workdir ...

The input is a state dict of ResNet-50, 101 or 152 as safetensors, or what
tools.export wrote, whose header says what net it is. A .pth file is first
turned into one by a process of its own (tools/convert_pth.py), which needs
torch. docs/weights.md has the table of names and what else differs.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from big_vision_like.config import shipped
from input_pipeline.files import atomic

from .cli import command
from .weights import weights_header

_PICKLED = ('.pth', '.pt', '.bin')


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.convert_torch'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  p.add_argument('--input', required=True, help='.safetensors or .pth file')
  p.add_argument('--output', required=True, help='folder of the checkpoint')
  p.add_argument(
    '--pixels', choices=('imagenet', 'inception'),
    help='how the weights want pixels: standardised by channel, or in [-1, 1]; '
    'default: what the file says, else imagenet',
  )  # fmt: skip
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(lambda: convert(args.input, args.output, args.pixels))


def convert(source: str, output: str, pixels: str | None = None) -> None:
  """Writes the checkpoint of a state dict.

  Args:
    source: file of weights.
    output: folder of the checkpoint, empty or not there.
    pixels: how the weights want them; None: what the file says, else
      'imagenet'.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not the weights of a ResNet, with the names that do not fit;
      numbers that are not finite; `pixels` that the file contradicts; or
      `output` holds something already.
  """
  from big_vision_like.checkpoints import safetensors_files, torch_weights

  folder = pathlib.Path(output)
  if folder.exists() and any(folder.iterdir()):
    raise ValueError(f'--output {output!r} is not empty')
  if not os.path.isfile(source):
    raise FileNotFoundError(f'--input {source!r}: no such file')
  with tempfile.TemporaryDirectory() as scratch:
    file = source
    if source.endswith(_PICKLED):
      file = os.path.join(scratch, 'weights.safetensors')
      _unpickle(os.path.abspath(source), file)
    tensors = safetensors_files.read(file)
    notes = safetensors_files.metadata(file)
  tree = torch_weights.from_tensors(tensors)
  torch_weights.check_finite(tensors, source)
  depth = torch_weights.depth_of(tree)
  if 'kernel' not in tree['params'].get('head', {}):
    raise ValueError(
      'there is no classifier (fc.weight, fc.bias) in the file; a checkpoint '
      'has one: keep it when saving the state dict'
    )
  config = _config(depth, tree, notes, source)
  if pixels is not None:
    if notes.get('task.pixels', pixels) != pixels:
      raise ValueError(
        f'--pixels={pixels}, but the header of {source} says '
        f'task.pixels={notes["task.pixels"]}'
      )
    config.task.pixels = pixels
  num_classes = config.task.num_classes
  with _emptied_on_failure(folder):
    step = _save(config, tree, num_classes, folder)
  layout = {k: weights_header.option(config, k) for k in torch_weights.LAYOUT}
  print(
    f'ResNet-{depth}, {num_classes:,} classes, pixels={config.task.pixels}: '
    f'wrote {step}\n'
    f'start from it with init_from.path={output} and the same layout '
    f'({_arguments(layout)})'
  )


def _arguments(layout: Mapping[str, str]) -> str:
  """How configs are given a layout."""
  from big_vision_like.checkpoints import torch_weights

  if layout == torch_weights.LAYOUT:
    return 'configs: layout=torch'
  return ', '.join(f'{key}={value}' for key, value in layout.items())


@contextlib.contextmanager
def _emptied_on_failure(folder: pathlib.Path) -> Iterator[None]:
  """Half a checkpoint, as after Ctrl-C, would keep the command from working."""
  try:
    yield
  except BaseException:
    for entry in folder.iterdir() if folder.exists() else ():
      shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    raise


def _unpickle(source: str, target: str) -> None:
  tools = shipped.package('tools')
  done = subprocess.run(
    [sys.executable, '-m', f'{tools}.convert_pth', source, target],
    stderr=subprocess.PIPE,
    text=True,
    cwd=shipped.folder('tools').parents[tools.count('.')],
    env={
      k: v for k, v in os.environ.items() if k in ('PATH', 'LD_LIBRARY_PATH')
    },
  )
  if done.returncode:
    said = done.stderr.strip().splitlines() or ['it was killed']
    raise ValueError(said[-1].removeprefix('error: '))


def _config(
  depth: int, tree: Mapping[str, Any], notes: Mapping[str, str], source: str
) -> Any:
  """The config of a net: arrays tell its size, the header all else."""
  from configs import imagenet_transfer

  params = tree['params']
  config = imagenet_transfer.get_config('init=random,layout=torch')
  config.unlock()
  config.model.depth = depth
  stem = params['backbone'].get('conv1', {}).get('kernel')
  if stem is not None:
    config.model.width = stem.shape[-1]
  config.task.num_classes = params['head']['kernel'].shape[1]
  config.optim = dict(type='sgd')  # no slots: there is no history
  config.device = 'any'
  weights_header.into_config(config, notes, source)
  return config


def _save(
  config: Any, tree: dict[str, Any], num_classes: int, folder: pathlib.Path
) -> pathlib.Path:
  """Step 0 of a run of this config with these weights; its folder."""
  import jax
  import numpy as np

  from big_vision_like import experiment
  from big_vision_like.checkpoints import manager
  from big_vision_like.config import settings

  exp = experiment.build(config, devices=jax.devices()[:1])
  blank = exp.abstract_state
  extra = {'batch_stats': tree['batch_stats']}
  _check_fit((blank.params, blank.extra), (tree['params'], extra))
  rng = jax.random.key(0)
  # Not by exp.init: compiling it takes longer than all the rest.
  state = blank.replace(
    step=np.int32(0),
    params=tree['params'],
    extra=extra,
    opt_state=jax.tree.map(
      lambda x: np.zeros(x.shape, x.dtype), blank.opt_state
    ),
    rng=rng,
    nonfinite_step=np.int32(-1),
  )
  state = jax.tree.map(lambda x, y: jax.device_put(x, y.sharding), state, blank)
  meta = {
    'config': settings.stored(exp.config),
    'data': '',
    'num_classes': num_classes,
    'total_steps': exp.total_steps,
    'versions': {},
    'step': 0,
  }
  with _ctrl_c_waits():
    ckpt = manager.Checkpointer(str(folder))
    ckpt.save(0, state, meta)
    ckpt.wait()
    ckpt.close()
  stored = settings.to_json(exp.config)
  atomic.write_text(folder / settings.FILE, stored)
  return ckpt.path(0)


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
  """Ctrl-C is heard afterwards: the threads that save do not survive it."""
  heard: list[int] = []
  before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)
  if heard:
    raise KeyboardInterrupt


def _check_fit(ours: Any, theirs: Any) -> None:
  from big_vision_like.checkpoints import reading

  here, there = reading.shapes(ours), reading.shapes(theirs)
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
