"""The manifest of a checkpoint: every file of it with its size and SHA-256.

It is written in the background thread of a save, when all processes have
written their files and before the folder gets its name, so that whoever finds
a checkpoint finds its manifest. Files are read back a piece at a time, mostly
from the page cache.

Two files are Orbax's last words, written after it: the name of the folder, of
which the text is known beforehand, and the metadata of the step, of which all
fields are known but the time of the commit. Those fields are compared. The
time itself, which nothing reads, is only held to be near that of the manifest:
another digit at its end is not seen.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from big_vision_like.checkpoints import folder_files
from big_vision_like.config import json_text

FILE = 'manifest.json'
KEY = 'manifest'  # of the meta item: there is one
_META = 'meta/metadata'  # ours, as Orbax stores it
_STEP_METADATA = '_CHECKPOINT_METADATA'
_COMMITTED = 'commit_success.txt'
_COMMIT_TIME = 'commit_timestamp_nsecs'
_LATEST = (_STEP_METADATA, _COMMITTED)  # written after the manifest
_DAY_NS = 86_400 * 10**9  # clocks step
_METADATA_TIMEOUT_S = 300.0
_ADDED = 'was not there when the checkpoint was written'
_UNREADABLE = 'cannot be read'
_SMALL = 2**20  # bytes
_THREADS = min(os.cpu_count() or 1, 8)


def write(folder: pathlib.Path, step: int, name: pathlib.Path) -> None:
  """Writes the manifest of a complete folder that has no name yet.

  Args:
    folder: as it is called now; local, or a path of etils.
    step: of training.
    name: what it will be called.
  """
  found = folder_files.look(folder)
  for odd, what in found.odd.items():
    raise OSError(0, what, str(folder / odd))
  files = {f: p for f, p in found.files.items() if f not in (*_LATEST, FILE)}
  content = {
    'step': step,
    'folder': str(name),
    'time_ns': time.time_ns(),
    'orbax': _fields(folder / _STEP_METADATA),
    'files': {
      f: {'size': size, 'sha256': digest}
      for f, (size, digest) in _hashes(files, _hash).items()
    },
    'empty': found.empty,
  }
  with (folder / FILE).open('wb') as file:
    file.write(_text(content))
    file.flush()
    if isinstance(folder, pathlib.Path):
      os.fsync(file.fileno())


class Check:
  """Compares a checkpoint with its manifest; large files in the background.

  Names, sizes and small files are compared at once, so that metadata can be
  trusted when this is made; the arrays while they are read.

  Args:
    folder: of the checkpoint; local, or a path of etils.

  Attributes:
    found: problems so far, a line a file, which starts with its name.
    proved: whether there is a manifest to compare with.
  """

  def __init__(self, folder: pathlib.Path):
    self.found: list[str] = []
    self._large: dict[str, concurrent.futures.Future[tuple[int, str]]] = {}
    self._told: Mapping[str, Mapping[str, Any]] = {}
    self._pool: concurrent.futures.Executor | None = None
    content = self._content(folder)
    self.proved = content is not None
    if content is not None and not self.found:
      self._begin(folder, content)

  def _content(self, folder: pathlib.Path) -> dict[str, Any] | None:
    try:
      stored = folder_files.read(folder / FILE)
    except FileNotFoundError:
      self.found = _without(folder)
      return None
    except OSError as error:
      self.found = [f'{FILE} {folder_files.unreadable(error)}']
      return {}
    try:
      content = json_text.parse(stored)['content']
      intact = _is_content(content) and _text(content) == stored
    except (ValueError, KeyError, TypeError):
      content, intact = {}, False
    if not intact:
      self.found = [f'{FILE} {"has changed" if stored else "is empty"}']
    elif content['step'] != int(folder.name):
      step = content['step']
      self.found = [f'{FILE} is of step {step}: the folder was renamed']
    return content

  def _begin(self, folder: pathlib.Path, content: Mapping[str, Any]) -> None:
    self._told, found = content['files'], folder_files.look(folder)
    self.found += _odd(found)
    there = found.files
    sizes = {name: folder_files.size_of(path) for name, path in there.items()}
    told = {n: entry for n, entry in self._told.items() if n not in found.odd}
    self.found += _wrong_sizes(told, sizes)
    self.found += _empty(content, found.empty)
    self.found += _changed_since(content, found)
    right = {
      name: there[name]
      for name, entry in self._told.items()
      if sizes.get(name) == entry['size']
    }
    small = {n: p for n, p in right.items() if sizes[n] <= _SMALL}
    self._compare(_hashes(small, _hash_or_why))
    if not self.found and len(small) < len(right):
      self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
      self._large = {
        name: self._pool.submit(_hash_or_why, path)
        for name, path in right.items()
        if name not in small
      }
      self._pool.shutdown(wait=False)

  def _compare(self, hashes: Mapping[str, tuple[int, str]]) -> None:
    for name, (_, digest) in hashes.items():
      if digest.startswith(_UNREADABLE):
        self.found.append(f'{name} {digest}')
      elif digest != self._told[name]['sha256']:
        self.found.append(f'{name} has other bytes than were written')

  def finish(self) -> list[str]:
    """All problems; waits for the background."""
    large, self._large = self._large, {}
    self._compare({name: future.result() for name, future in large.items()})
    return self.found

  def cancel(self) -> None:
    """Nobody will ask any more: what has not begun is not done."""
    for future in self._large.values():
      future.cancel()


def problems(folder: pathlib.Path) -> list[str] | None:
  """What is wrong with a checkpoint, a line a file; None: it has no manifest.

  Reads all of its files. A line starts with the name of the file.
  """
  check = Check(folder)
  found = check.finish()
  return found if found or check.proved else None


def _odd(found: folder_files.Found) -> Iterator[str]:
  """Lines on what is neither a file nor a folder."""
  for name, what in found.odd.items():
    yield f'{name} {what}'


def _is_content(content: Any) -> bool:
  """Whether it is what `write` writes, as far as anything here relies on it."""
  kinds = {
    'step': int, 'folder': str, 'time_ns': int, 'orbax': dict, 'files': dict,
  }  # fmt: skip
  return (
    isinstance(content, dict)
    and all(isinstance(content.get(k), kind) for k, kind in kinds.items())
    and isinstance(content.get('empty', []), list)
    and all(
      isinstance(entry, dict)
      and isinstance(entry.get('size'), int)
      and isinstance(entry.get('sha256'), str)
      for entry in content['files'].values()
    )
  )


def extent(folder: pathlib.Path) -> tuple[int, int]:
  """(files, bytes) of a checkpoint."""
  files = folder_files.look(folder).files.values()
  sizes = [folder_files.size_of(path) for path in files]
  return len(sizes), sum(sizes)


def _without(folder: pathlib.Path) -> list[str]:
  """Problems where there is no manifest: older versions wrote none."""
  odd = list(_odd(folder_files.look(folder)))
  if odd:
    return odd
  try:
    meta = json_text.parse(folder_files.read(folder / _META))
  except (OSError, ValueError):
    return []  # its reader will say it
  if not isinstance(meta, dict):
    return []
  if KEY in meta:
    return [f'{FILE} is missing']
  if meta.get('step', int(folder.name)) != int(folder.name):
    return [f'{_META} is of step {meta["step"]}: the folder was renamed']
  return []


def _wrong_sizes(
  told: Mapping[str, Mapping[str, Any]], sizes: Mapping[str, int]
) -> Iterator[str]:
  """Lines on files that are missing, cut, empty or were added."""
  for name, entry in told.items():
    size = sizes.get(name)
    if size is None:
      yield f'{name} is missing'
    elif not size and entry['size']:
      yield f'{name} is empty'
    elif size != entry['size']:
      yield f'{name} has {size:,} bytes, {entry["size"]:,} were written'
  for name in sizes.keys() - told.keys() - {*_LATEST, FILE}:
    yield f'{name} {_ADDED}'


def _empty(content: Mapping[str, Any], found: list[str]) -> Iterator[str]:
  """Lines on empty folders that were added."""
  told = content.get('empty', found)  # older versions did not say
  for name in found:
    emptied = any(file.startswith(f'{name}/') for file in content['files'])
    if name not in told and not emptied:
      yield f'{name} {_ADDED}'


def _changed_since(
  content: Mapping[str, Any], found: folder_files.Found
) -> Iterator[str]:
  """The same for the files that Orbax wrote last."""
  for name in _LATEST:
    if name in found.odd:
      continue
    if name not in found.files:
      yield f'{name} is missing'
    elif not folder_files.size_of(found.files[name]):
      yield f'{name} is empty'
    else:
      try:
        stored = folder_files.read(found.files[name])
      except OSError as error:
        yield f'{name} {folder_files.unreadable(error)}'
        continue
      if name == _COMMITTED:
        same = stored == _committed(content['folder'])
      else:
        same = _same_fields(stored, content)
      if not same:
        yield f'{name} has other content than was written'


def _committed(folder: str) -> bytes:
  """What Orbax writes when a folder has got its name."""
  return f'Checkpoint commit was successful to {folder}'.encode()


def _same_fields(stored: bytes, content: Mapping[str, Any]) -> bool:
  try:
    fields = json_text.parse(stored)
    written = json.dumps(fields).encode() == stored  # no other spaces, keys
    committed = fields.pop(_COMMIT_TIME)
    near = abs(committed - content['time_ns']) < _DAY_NS
  except (ValueError, KeyError, TypeError, AttributeError):
    return False
  return written and near and fields == content['orbax']


def _fields(path: pathlib.Path) -> dict[str, Any]:
  """Orbax's metadata of a step as they are before the commit.

  A thread of Orbax writes them, in several goes.
  """
  deadline = time.monotonic() + _METADATA_TIMEOUT_S
  while True:
    with contextlib.suppress(OSError, ValueError):
      fields = json_text.parse(path.read_bytes())
      if fields.get('item_handlers'):  # the last of them
        return {k: v for k, v in fields.items() if k != _COMMIT_TIME}
    if time.monotonic() > deadline:
      raise TimeoutError(f'{path} was not written by Orbax')
    time.sleep(0.005)


def _text(content: Mapping[str, Any]) -> bytes:
  """The manifest as a file; its own digest is in it."""
  digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
  return json.dumps({'content': content, 'sha256': digest}, indent=1).encode()


def _hash_or_why(path: pathlib.Path) -> tuple[int, str]:
  """(size, SHA-256), or (0, why the file cannot be read)."""
  try:
    return _hash(path)
  except OSError as error:
    return 0, folder_files.unreadable(error)


def _hashes(
  files: Mapping[str, pathlib.Path],
  hash_of: Callable[[pathlib.Path], tuple[int, str]],
) -> dict[str, tuple[int, str]]:
  """Name -> (size, SHA-256), of several files at a time."""
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return dict(zip(files, pool.map(hash_of, files.values()), strict=True))


def _hash(path: pathlib.Path) -> tuple[int, str]:
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256')
    return file.tell(), digest.hexdigest()
