"""Which folder holds the checkpoint of a run, and whether it is whole.

A save appears under its final name, the step, only when complete; but a copy
that broke off, or files that someone deleted, leave folders of that name too.
These are passed over, and it is said. Reading is reading.py.
"""

import pathlib
import sys
from collections.abc import Callable

FOLDER = 'checkpoints'
# What a complete checkpoint has; Orbax gives a folder its name after them.
_FILES = (
  'params/_METADATA', 'extra/_METADATA', 'train/_METADATA', 'meta/metadata',
)  # fmt: skip


class DamagedError(ValueError):
  """A checkpoint that is not whole, or cannot be read."""


def _missing(path: pathlib.Path) -> str:
  """The first file that the checkpoint of a step lacks; '' if it has all."""
  return next((name for name in _FILES if not (path / name).is_file()), '')


def _by_step(folder: pathlib.Path) -> list[pathlib.Path]:
  """Folders of steps, the newest first; those of unfinished saves are none."""
  if not folder.is_dir():
    return []
  found = [p for p in folder.iterdir() if p.name.isdigit() and p.is_dir()]
  return sorted(found, key=lambda p: int(p.name), reverse=True)


def _to_stderr(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def find(
  path: str | pathlib.Path,
  where: str = 'init_from.path',
  say: Callable[[str], None] = _to_stderr,
) -> pathlib.Path:
  """The folder of one step for a workdir, a checkpoint root or that folder.

  Args:
    path: of any of the three. The newest complete checkpoint counts.
    where: flag or key of the path, for messages.
    say: is told which incomplete checkpoints were passed over.

  Raises:
    FileNotFoundError: there is no checkpoint.
    DamagedError: there are only incomplete ones.
  """
  root = pathlib.Path(path).expanduser().absolute()
  steps = _by_step(root / FOLDER) or _by_step(root)
  if not steps and root.name.isdigit() and (root / 'params').is_dir():
    steps = [root]
  for step in steps:
    missing = _missing(step)
    if not missing:
      return step
    if len(steps) > 1:
      say(f'checkpoint {step} is incomplete (no {missing}): passed over')
  if steps:
    raise DamagedError(
      f'checkpoint {steps[0]} is damaged or incomplete: no {_missing(steps[0])}'
    )
  raise FileNotFoundError(
    f'{where}={str(path)!r}: no checkpoint there; give the workdir of a run '
    f'or a folder <workdir>/{FOLDER}/<step>'
  )


def set_incomplete_aside(
  workdir: str | pathlib.Path,
) -> list[tuple[pathlib.Path, pathlib.Path, str]]:
  """Renames incomplete checkpoints of a workdir, so that its run can go on.

  A copy that broke off leaves such. Under its own name one would be taken for
  the newest, and stand in the way of the save that replaces it.

  Returns:
    (old path, new path, missing file) of each.
  """
  renamed = []
  for step in _by_step(pathlib.Path(workdir).absolute() / FOLDER):
    missing = _missing(step)
    if missing:
      aside = step.with_name(f'{step.name}.incomplete')
      number = 2
      while aside.exists():
        aside = step.with_name(f'{step.name}.incomplete-{number}')
        number += 1
      step.rename(aside)
      renamed.append((step, aside, missing))
  return renamed
