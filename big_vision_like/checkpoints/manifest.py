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
from collections.abc import Iterator, Mapping
from typing import Any

FILE = 'manifest.json'
KEY = 'manifest'  # of the meta item: there is one
_META = 'meta/metadata'  # ours, as Orbax stores it
_STEP_METADATA = '_CHECKPOINT_METADATA'
_COMMITTED = 'commit_success.txt'
_COMMIT_TIME = 'commit_timestamp_nsecs'
_LATEST = (_STEP_METADATA, _COMMITTED)  # written after the manifest
_DAY_NS = 86_400 * 10**9  # clocks step
_METADATA_TIMEOUT_S = 300.0
_SMALL = 2**20  # bytes
_THREADS = min(os.cpu_count() or 1, 8)


def write(folder: pathlib.Path, step: int, name: pathlib.Path) -> None:
  """Writes the manifest of a complete folder that has no name yet.

  Args:
    folder: as it is called now; local, or a path of etils.
    step: of training.
    name: what it will be called.
  """
  files = {f: p for f, p in _files(folder) if f not in (*_LATEST, FILE)}
  content = {
    'step': step,
    'folder': str(name),
    'time_ns': time.time_ns(),
    'orbax': _fields(folder / _STEP_METADATA),
    'files': {
      f: {'size': size, 'sha256': digest}
      for f, (size, digest) in _hashes(files).items()
    },
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
      stored = (folder / FILE).read_bytes()
    except FileNotFoundError:
      self.found = _without(folder)
      return None
    try:
      content = json.loads(stored)['content']
      intact = _text(content) == stored
    except (ValueError, KeyError, TypeError):
      content, intact = {}, False
    if not intact:
      self.found = [f'{FILE} {"has changed" if stored else "is empty"}']
    elif content['step'] != int(folder.name):
      step = content['step']
      self.found = [f'{FILE} is of step {step}: the folder was renamed']
    return content

  def _begin(self, folder: pathlib.Path, content: Mapping[str, Any]) -> None:
    self._told, there = content['files'], dict(_files(folder))
    sizes = {name: size_of(path) for name, path in there.items()}
    self.found += _wrong_sizes(self._told, sizes)
    self.found += _changed_since(folder, content, there)
    right = {
      name: there[name]
      for name, entry in self._told.items()
      if sizes.get(name) == entry['size']
    }
    small = {n: p for n, p in right.items() if sizes[n] <= _SMALL}
    self._compare(_hashes(small))
    if not self.found and len(small) < len(right):
      self._pool = concurrent.futures.ThreadPoolExecutor(_THREADS)
      self._large = {
        name: self._pool.submit(_hash, path)
        for name, path in right.items()
        if name not in small
      }
      self._pool.shutdown(wait=False)

  def _compare(self, hashes: Mapping[str, tuple[int, str]]) -> None:
    for name, (_, digest) in hashes.items():
      if digest != self._told[name]['sha256']:
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


def extent(folder: pathlib.Path) -> tuple[int, int]:
  """(files, bytes) of a checkpoint."""
  sizes = [size_of(path) for _, path in _files(folder)]
  return len(sizes), sum(sizes)


def _without(folder: pathlib.Path) -> list[str]:
  """Problems where there is no manifest: older versions wrote none."""
  try:
    meta = json.loads((folder / _META).read_bytes())
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
    yield f'{name} was not there when the checkpoint was written'


def _changed_since(
  folder: pathlib.Path,
  content: Mapping[str, Any],
  found: Mapping[str, pathlib.Path],
) -> Iterator[str]:
  """The same for the files that Orbax wrote last."""
  for name in _LATEST:
    if name not in found:
      yield f'{name} is missing'
    elif not size_of(found[name]):
      yield f'{name} is empty'
    else:
      stored = (folder / name).read_bytes()
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
    fields = json.loads(stored)
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
      fields = json.loads(path.read_bytes())
      if fields.get('item_handlers'):  # the last of them
        return {k: v for k, v in fields.items() if k != _COMMIT_TIME}
    if time.monotonic() > deadline:
      raise TimeoutError(f'{path} was not written by Orbax')
    time.sleep(0.005)


def _text(content: Mapping[str, Any]) -> bytes:
  """The manifest as a file; its own digest is in it."""
  digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
  return json.dumps({'content': content, 'sha256': digest}, indent=1).encode()


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """('params/d/abc', path) of all files below a folder."""
  for path in folder.iterdir():
    if path.is_dir():
      yield from ((f'{path.name}/{name}', p) for name, p in _files(path))
    else:
      yield path.name, path


def size_of(path: pathlib.Path) -> int:
  """Bytes of a file; paths of etils have a `stat` of their own."""
  found: Any = path.stat()
  return found.st_size if hasattr(found, 'st_size') else found.length


def _hashes(
  files: Mapping[str, pathlib.Path],
) -> dict[str, tuple[int, str]]:
  """Name -> (size, SHA-256), of several files at a time."""
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    return dict(zip(files, pool.map(_hash, files.values()), strict=True))


def _hash(path: pathlib.Path) -> tuple[int, str]:
  with path.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256')
    return file.tell(), digest.hexdigest()
