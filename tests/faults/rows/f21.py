"""F21: folders that cannot be written, disks without room, missing paths."""

import contextlib
import random
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.faults.field import Field, Run
from tests.faults.rows import Row
from tests.faults.small_disk import mounted

_MOST_S = 10.0

# (what is changed or given, words of the message) of a run in its folder.
Case = tuple[list[str], list[str]]


def _below_a_file(run: Run, stack: contextlib.ExitStack) -> Case:
  (run.folder / 'file').write_text('')
  run.workdir = run.folder / 'file' / 'w'
  return [], ['--workdir=', str(run.workdir)]


def _workdir_without_permission(run: Run, stack: Any) -> Case:
  run.workdir = _closed(run) / 'w'
  return [], ['--workdir=', str(run.workdir)]


def _checkpoints_without_permission(run: Run, stack: Any) -> Case:
  folder = _closed(run)
  return [f'--config.ckpt.dir={folder}/c'], ['ckpt.dir', str(folder)]


def _checkpoints_are_a_file(run: Run, stack: Any) -> Case:
  path = run.folder / 'file'
  path.write_text('')
  return [f'--config.ckpt.dir={path}'], ['ckpt.dir', str(path)]


def _own_checkpoints_are_a_file(run: Run, stack: Any) -> Case:
  run.workdir.mkdir()
  (run.workdir / 'checkpoints').write_text('')
  return [], ['--workdir', str(run.workdir / 'checkpoints')]


def _read_only_disk(run: Run, stack: contextlib.ExitStack) -> Case:
  disk = stack.enter_context(mounted(run.folder / 'disk', '20m'))
  command = ['mount', '-o', 'remount,ro', str(disk)]
  subprocess.run(command, check=True, capture_output=True)
  run.workdir = disk / 'w'
  return [], ['--workdir=', str(run.workdir), 'Read-only file system']


def _no_room(run: Run, stack: contextlib.ExitStack) -> Case:
  disk = stack.enter_context(mounted(run.folder / 'disk', '64k'))
  return [f'--config.ckpt.dir={disk}/c'], ['ckpt.dir', str(disk), 'GB free']


def _no_config(run: Run, stack: Any) -> Case:
  run.config = run.folder / 'missing.py'
  return [], [str(run.config)]


def _no_start(run: Run, stack: Any) -> Case:
  path = run.folder / 'missing'
  return [f'--config.init_from.path={path}'], ['init_from.path', str(path)]


def _no_images(run: Run, stack: Any) -> Case:
  path = str(run.folder / 'missing')
  source = dict(type='folder', path=path, split='train')
  run.change(**{'input.source': source})
  return [], ['input.source.path', path]


def _no_images_to_evaluate(run: Run, stack: Any) -> Case:
  path = str(run.folder / 'missing')
  data = dict(type='folder', path=path, split='val')
  run.change(**{'evals.fasteval.data': data})
  return [], ['evals.fasteval.data.path', path]


def _no_records(run: Run, stack: Any) -> Case:
  path = str(run.folder / 'missing')
  source = dict(type='records', path=path, split='train')
  run.change(**{'input.source': source})
  return [], ['input.source', path]


def _closed(run: Run) -> Any:
  folder = run.folder / 'closed'
  folder.mkdir()
  folder.chmod(0o555)
  return folder


_CASES: tuple[Callable[[Run, contextlib.ExitStack], Case], ...] = (
  _below_a_file,
  _workdir_without_permission,
  _checkpoints_without_permission,
  _checkpoints_are_a_file,
  _own_checkpoints_are_a_file,
  _read_only_disk,
  _no_room,
  _no_config,
  _no_start,
  _no_images,
  _no_images_to_evaluate,
  _no_records,
)


def trial(field: Field, number: int, rng: random.Random) -> str:
  case = _CASES[number % len(_CASES)]
  run = field.run(f'f21-{number}')
  name = case.__name__.strip('_').replace('_', ' ')
  with contextlib.ExitStack() as stack:
    given, words = case(run, stack)
    begun = time.monotonic()
    trainer = run.start('--trust', *given, inject=[('heed_permissions',)])
    code = trainer.wait(60)
    seconds = time.monotonic() - begun
  said = trainer.output()
  last = said.splitlines()[-1]
  assert code == 2, f'{name}: ended with {code}\n{said[-3000:]}'
  assert seconds <= _MOST_S, f'{name}: {seconds:.1f} s'
  assert 'compiling' not in said, f'{name}: {said}'
  assert last.startswith('error: '), f'{name}: {said[-3000:]}'
  missing = [word for word in words if word not in last]
  assert not missing, f'{name}: {missing} not in {last}'
  return f'{name}: {seconds:.1f} s'


ROW = Row(
  'F21',
  'no permission, read-only, a file in the way, no room, a path that is '
  'missing: 12 places',
  'one line with path and key within 10 s, before anything is compiled; exit 2',
  trial,
  trials=len(_CASES),
  per_commit=3,
)
