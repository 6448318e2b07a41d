"""Where a run keeps its checkpoints: in its workdir, or where ckpt.dir says.

A pointer in the workdir and a file beside the checkpoints hold the same id, so
that whoever has the workdir finds them, and no run takes those of another.
"""

import json
import pathlib
import uuid
from typing import Any

from big_vision_like.checkpoints import folders
from big_vision_like.config import json_text, redaction
from input_pipeline.files import atomic

_RUN_FILE = 'run.json'  # beside checkpoints that are not in their workdir


def settle(
  workdir: str | pathlib.Path, directory: str | None, fresh: bool
) -> pathlib.Path:
  """The folder of a run's checkpoints, which is known to the workdir by now.

  Args:
    workdir: of the run; it exists.
    directory: ckpt.dir.
    fresh: nothing was trained in the workdir yet.

  Raises:
    ValueError: the checkpoints of the run are elsewhere, those of another run
      are there, it cannot be reached, or has a secret in it.
  """
  workdir = pathlib.Path(workdir).absolute()
  try:
    return _settled(workdir, directory, fresh)
  except OSError as error:
    key = '--workdir' if directory is None else 'ckpt.dir'
    raise ValueError(
      f'{key}={directory or str(workdir)!r}: checkpoints cannot be kept there: '
      f'{error.strerror or error}: {error.filename}'
    ) from error


def _settled(
  workdir: pathlib.Path, directory: str | None, fresh: bool
) -> pathlib.Path:
  pointer = workdir / folders.POINTER
  before = folders.of_workdir(workdir)
  if directory is None:
    wanted = workdir / folders.FOLDER
  elif redaction.text(directory) != directory:
    raise ValueError(
      f'ckpt.dir={redaction.text(directory)!r} has a secret in it, which would '
      'be stored; give it to the library by the environment'
    )
  else:
    folders.check_name(directory, 'ckpt.dir')
    wanted = folders.as_path(directory)
  there = _steps(wanted, directory)
  if str(before) != str(wanted) and _steps(before, directory):
    raise ValueError(
      f'ckpt.dir={directory!r}: the checkpoints of --workdir={str(workdir)!r} '
      f'are in {before}; leave ckpt.dir as it was, or move them first'
    )
  if directory is None:
    pointer.unlink(missing_ok=True)
    return wanted
  number = _id(pointer)
  owner = _id(wanted / _RUN_FILE)
  if (owner or number) != number or (there and fresh):
    raise ValueError(
      f'ckpt.dir={directory!r} holds the checkpoints of another run than that '
      f'of --workdir={str(workdir)!r}; take another folder'
    )
  number = number or uuid.uuid4().hex
  atomic.write_json(pointer, {'dir': str(wanted), 'run': number})
  if owner is None:
    wanted.mkdir(parents=True, exist_ok=True)
    (wanted / _RUN_FILE).write_text(json.dumps({'run': number}))
  return wanted


def _steps(folder: pathlib.Path, directory: str | None) -> list[pathlib.Path]:
  try:
    return folders.by_step(folder)
  except folders.UnreachableError as error:
    raise ValueError(f'ckpt.dir={directory!r}: {error}') from error
  except OSError as error:
    raise ValueError(
      f'ckpt.dir={directory!r}: {folder} cannot be reached: {error}'
    ) from error


def _id(path: pathlib.Path) -> str | None:
  """The id in a file; None without the file."""
  try:
    found: Any = json_text.parse(path.read_bytes())
  except FileNotFoundError:
    return None
  except ValueError:
    found = None
  if not isinstance(found, dict) or not isinstance(found.get('run'), str):
    raise ValueError(f'{path} is damaged: it has no key "run"')
  return found['run']
