"""Which folder holds the checkpoint of a run, and whether it is whole.

A save appears under its final name, the step, only when complete; but a copy
that broke off, a disk, or files that someone changed leave folders of that name
too. What manifest.py finds in them is said, and they are not read. Reading is
reading.py.
"""

import contextlib
import functools
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from big_vision_like.checkpoints import (
  folder_files,
  leases,
  manifest,
  step_names,
)
from big_vision_like.checkpoints.leases import Lease
from big_vision_like.config import json_text

FOLDER = 'checkpoints'
_PATTERNS = '*?[\\'
POINTER = 'checkpoints.json'  # of a workdir whose checkpoints are elsewhere
BEST = 'best'  # in the place of a step: that of best.json
BEST_FILE = 'best.json'
# What a complete checkpoint has; Orbax gives a folder its name after them.
_FILES = (
  'params/_METADATA', 'extra/_METADATA', 'train/_METADATA', 'meta/metadata',
)  # fmt: skip
_MISNAMED = 'is not named as the folder of a step is, by its number alone'
ASIDE = '.damaged'  # end of the name of one that is set aside
_DELETION_S = 0.01  # between the lock of a deletion and the new name
Say = Callable[[str], None]


class DamagedError(ValueError):
  """A checkpoint that is not whole, or cannot be read."""


class UnreachableError(ValueError):
  """A URL that cannot be read here: a package is missing, or a right."""


@contextlib.contextmanager
def reaching(path: str | pathlib.Path) -> Iterator[None]:
  """Turns what libraries say of a URL that they cannot read into one line."""
  try:
    yield
  except (ValueError, FileNotFoundError):
    raise
  except Exception as error:  # ImportError: what to install
    if '://' not in str(path):
      raise
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UnreachableError(
      f'{path} cannot be reached: {reason:.300}'
    ) from error


class Proof:
  """Whether a checkpoint is whole, see `manifest.Check`.

  Older versions wrote no manifest: `say` is told so.

  Attributes:
    first: what is wrong as far as it is known at once; '' where nothing is.
  """

  def __init__(self, step: pathlib.Path, say: Say):
    self.step = step
    self._check = manifest.Check(step)
    if not self._check.found:
      missing = next((n for n in _FILES if not (step / n).is_file()), '')
      self._check.found += [f'no {missing}'] * bool(missing)
    self.first = self._line(self._check.found)
    if not self.first and not self._check.proved:
      _say_once(
        say,
        f'checkpoint {step} has no manifest, as those of older versions: that '
        'its arrays are what was written cannot be proved',
      )

  def _line(self, found: list[str]) -> str:
    more = f', and {len(found) - 1} more' if len(found) > 1 else ''
    return f'{found[0]}{more}' if found else ''

  def problem(self) -> str:
    """What is wrong in all; '' where nothing is. Waits until it is known."""
    return self._line(self._check.finish())

  def cancel(self) -> None:
    self._check.cancel()


class Held:
  """A checkpoint that stays while it is read.

  Attributes:
    path: its folder.
  """

  def __init__(self, lease: Lease, proof: Proof | None):
    self.path = lease.path
    self._lease, self._proof = lease, proof

  def prove(self) -> None:
    """Raises DamagedError where what was read is not what was written."""
    problem = self._proof.problem() if self._proof is not None else ''
    if problem:
      raise _not_whole(self.path, problem, _before(self.path))

  @contextlib.contextmanager
  def proving(self) -> Iterator[None]:
    """For a block that reads: what it meets comes with the name of the file."""
    try:
      yield
    except DamagedError:
      self.prove()
      raise
    self.prove()

  def close(self) -> None:
    if self._proof is not None:
      self._proof.cancel()
    self._lease.close()

  def __enter__(self) -> 'Held':
    return self

  def __exit__(self, *exception: Any) -> None:
    self.close()


def as_path(path: str | pathlib.Path) -> pathlib.Path:
  """A local path, absolute, or a URL as a path of etils.

  Raises:
    ValueError: a URL of a kind that nothing here reads, or bytes that are not
      UTF-8, which tensorstore does not take.
  """
  try:
    str(path).encode()
  except UnicodeEncodeError:
    raise ValueError(
      f'{str(path)!a} is not UTF-8: checkpoints cannot be in such a folder'
    ) from None
  if '://' in str(path):
    try:
      remote: Any = epath.Path(path)
    except KeyError:
      raise ValueError(
        f'{path} cannot be reached: gs:// and s3:// can'
      ) from None
    return remote
  return pathlib.Path(path).expanduser().absolute()


def check_name(path: str | pathlib.Path, where: str) -> None:
  """Whether checkpoints can be written below a path.

  Orbax takes it for a pattern where it gathers what processes have written: of
  `run[1]` it finds nothing and leaves a checkpoint without arrays, and `run*`
  may be another run.

  Args:
    path: of the workdir, or ckpt.dir.
    where: flag or key that it is of.

  Raises:
    ValueError: naming the character.
  """
  name = str(as_path(path))
  bad = next((c for c in name if c in _PATTERNS), None)
  if bad is not None:
    raise ValueError(
      f'{where}={str(path)!r}: Orbax takes {bad!r} in the path of a checkpoint '
      'for a pattern and loses arrays; take a path without * ? [ and \\'
    )


def of_workdir(workdir: str | pathlib.Path) -> pathlib.Path:
  """The folder of the checkpoints of a workdir, in it or elsewhere."""
  workdir = as_path(workdir)
  try:
    with reaching(workdir):
      pointer = json_text.parse(folder_files.read(workdir / POINTER))
    return as_path(pointer['dir'])
  except UnreachableError:
    raise
  except (FileNotFoundError, NotADirectoryError):
    return workdir / FOLDER
  except (ValueError, KeyError, TypeError, OSError):
    raise ValueError(
      f'{workdir / POINTER} does not say where the checkpoints are'
    ) from None


def by_step(folder: pathlib.Path) -> list[pathlib.Path]:
  """Folders of steps, the newest first; those of unfinished saves are none.

  What is named nearly as a step is none either, which is said once.
  """
  found = []
  for path in _entries(folder):
    step = step_names.step_of(path.name)
    if step is not None and path.is_dir():
      found.append((step, path))
    elif step is None and step_names.looks_like_one(path.name):
      _say_once(_to_stderr, f'{path} {_MISNAMED}: it is not used')
  return [path for _, path in sorted(found, reverse=True, key=lambda x: x[0])]


def misnamed(folder: pathlib.Path) -> list[pathlib.Path]:
  """What is named nearly as a step is, and so not used."""
  return sorted(
    p for p in _entries(folder) if step_names.looks_like_one(p.name)
  )


def _entries(folder: pathlib.Path) -> list[pathlib.Path]:
  with reaching(folder):
    return list(folder.iterdir()) if folder.is_dir() else []


def check_names(folder: pathlib.Path) -> None:
  """Refuses to begin anew where the only checkpoints have other names.

  Raises:
    DamagedError: naming one.
  """
  wrong = misnamed(folder)
  if wrong and not by_step(folder):
    raise DamagedError(
      f'{wrong[-1]} {_MISNAMED}, and no other checkpoint is there: call it '
      'what it was called, or delete it to begin anew'
    )


def find(
  path: str | pathlib.Path, where: str = 'init_from.path'
) -> pathlib.Path:
  """The folder of one step that a path means; nobody has looked into it.

  Args:
    path: of a workdir or of its checkpoints, of which the newest counts, with
      /best behind it the best; or the folder of a step.
    where: flag or key of the path, for messages.

  Raises:
    FileNotFoundError: there is no checkpoint.
  """
  return candidates(path, where)[0]


def hold(
  path: str | pathlib.Path,
  where: str = 'init_from.path',
  say: Say | None = None,
  *,
  fall_back: bool = False,
  later: bool = False,
) -> Held:
  """The checkpoint that a path means, whole, and there while it is read.

  Args:
    path, where: see `find`.
    say: is told what was passed over, and what cannot be proved.
    fall_back: take the newest whole one where the newest is not.
    later: the arrays are compared while they are read; `Held.prove` has to be
      called before they are used.

  Raises:
    FileNotFoundError: there is no checkpoint.
    DamagedError: it is not whole; or, with `fall_back`, none is.
  """
  say = say or _to_stderr
  damaged: dict[pathlib.Path, str] = {}
  while True:
    for step in candidates(path, where):
      if step in damaged:
        continue
      lease = leases.take(step)
      if lease is None:  # deleted meanwhile: a newer one is there
        time.sleep(_DELETION_S)
        break
      proof = Proof(step, say)
      problem = proof.first if later else proof.problem()
      if not problem:
        for other, what in damaged.items():
          say(f'checkpoint {other} is damaged ({what}): passed over')
        return Held(lease, proof)
      lease.close()
      damaged[step] = problem
      if not fall_back:
        raise _not_whole(step, problem, _before(step))
    else:
      step, problem = next(iter(damaged.items()))
      raise _not_whole(step, problem, None)


def _not_whole(
  step: pathlib.Path, problem: str, before: pathlib.Path | None
) -> DamagedError:
  text = f'checkpoint {step} is damaged or incomplete: {problem}'
  return DamagedError(
    text + (f'. Before it there is {before}' if before else '')
  )


def _before(step: pathlib.Path) -> pathlib.Path | None:
  """The checkpoint before one."""
  older = [p for p in by_step(step.parent) if int(p.name) < int(step.name)]
  return older[0] if older else None


def candidates(path: str | pathlib.Path, where: str) -> list[pathlib.Path]:
  """What `find` chooses from, the one that it means first.

  Raises:
    FileNotFoundError: there is no checkpoint.
  """
  root = as_path(path)
  try:
    with reaching(path):
      there = root.exists()
  except UnreachableError as error:
    raise ValueError(f'{where}={str(path)!r}: {error}') from error
  if root.name == BEST and not there:
    found = _best(root.parent)
    if found is None:
      raise FileNotFoundError(
        f'{where}={str(path)!r}: no best checkpoint there; a run keeps one '
        'with ckpt.best'
      )
    return [found]
  if root.parent.name == FOLDER and not there:
    root = of_workdir(root.parent.parent) / root.name  # with ckpt.dir
  steps = by_step(of_workdir(root)) or by_step(root)
  if not steps and root.is_dir():
    if step_names.step_of(root.name) is not None:
      steps = [root]
    elif step_names.looks_like_one(root.name):
      raise ValueError(f'{where}={str(path)!r} {_MISNAMED}: it is not used')
  if not steps:
    raise FileNotFoundError(
      f'{where}={str(path)!r}: no checkpoint there; give the workdir of a run '
      f'or a folder <workdir>/{FOLDER}/<step>'
    )
  return steps


def _best(root: pathlib.Path) -> pathlib.Path | None:
  """The best checkpoint of a workdir or of the folder of its checkpoints."""
  for folder in (of_workdir(root), root):
    best = read_best(folder)
    if best is not None and (folder / str(best['step'])).is_dir():
      return folder / str(best['step'])
  return None


def read_best(folder: pathlib.Path) -> dict[str, Any] | None:
  """best.json of a folder of checkpoints; None without.

  Returns:
    {'metric', 'mode', 'step', 'value'}.

  Raises:
    DamagedError: it cannot be read.
  """
  path = folder / BEST_FILE
  try:
    with reaching(path):
      found = json_text.parse(folder_files.read(path))
  except (FileNotFoundError, NotADirectoryError):
    return None
  except UnreachableError:
    raise
  except (ValueError, OSError):
    found = None
  if not isinstance(found, dict) or type(found.get('step')) is not int:
    raise DamagedError(f'{path} is damaged; delete it to go on without')
  return found


def _say_once(say: Say, text: str) -> None:
  if text not in _said():
    _said().add(text)
    say(text)


@functools.cache
def _said() -> set[str]:
  return set()


def _to_stderr(text: str) -> None:
  print(text, file=sys.stderr, flush=True)


def set_damaged_aside(
  folder: pathlib.Path, say: Say
) -> Iterator[tuple[pathlib.Path, pathlib.Path, str]]:
  """Renames checkpoints that are newer than the newest whole one.

  Under its own name one would be taken for the newest, and stand in the way of
  the save that replaces it.

  Args:
    folder: of the checkpoints.
    say: see `Proof`.

  Yields:
    (old path, new path, what is wrong) of each.

  Raises:
    DamagedError: there are checkpoints, but none is whole; nothing is renamed.
  """
  damaged: list[tuple[pathlib.Path, str]] = []
  for step in by_step(folder):
    problem = Proof(step, say).problem()
    if not problem:
      break
    damaged.append((step, problem))
  else:
    if damaged:
      step, problem = damaged[0]
      raise DamagedError(
        f'checkpoint {step} is damaged or incomplete: {problem}; no other is '
        f'whole. To train anew, take another workdir or delete {folder}'
      )
  for step, problem in damaged:
    yield step, set_aside(step, problem), problem


def set_aside(step: pathlib.Path, problem: str) -> pathlib.Path:
  """Renames a damaged checkpoint; returns its new path.

  Raises:
    DamagedError: it cannot be renamed.
  """
  aside = step.with_name(f'{step.name}{ASIDE}')
  number = 2
  while aside.exists() or os.path.lexists(aside):
    aside = step.with_name(f'{step.name}{ASIDE}-{number}')
    number += 1
  try:
    step.rename(aside)
  except OSError as error:
    raise DamagedError(
      f'checkpoint {step} is damaged or incomplete: {problem}; it cannot be '
      f'renamed: {error.strerror or error}'
    ) from None
  return aside
