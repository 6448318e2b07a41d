"""The state folder: what a call of the command leaves for the next one.

    signatures/DIGEST.npz       hash, hash of the mirror image, readable or not
    vectors/DIGEST.npy          float16 [n, D], L2-normalised
    sketches/DIGEST.npy         uint8 [n, 1536], of which windows are made
    cells/DIGEST.npy            centres; cells/DIGEST/CHUNK.*: who is where
    searches/SETTINGS/TASK/     candidates, one file a unit of work
    verified-VERSION.jsonl      scores of the pairs looked at

Names are digests of the content and of all settings that matter, so what is
there is right, and what is missing is made. Every file is there whole
or not at all (atomic.py).
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from big_vision_like.config import json_text
from input_pipeline.files import atomic, file_lock, numpy_files

_LOCK = '.lock'
_TEMPORARY = '.writing'


class State:
  """A folder of arrays and notes by name; see the module docstring."""

  def __init__(self, folder: str):
    self.folder = folder

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Makes the folder and holds it against a second call.

    Raises:
      ValueError: another call holds it.
      OSError: it cannot be written to.
    """
    try:
      os.makedirs(self.folder, exist_ok=True)
      file = open(self.path(_LOCK), 'w')  # noqa: SIM115
    except OSError as error:
      raise OSError(
        f'--state {self.folder!r} cannot be written to: {error.strerror}'
      ) from None
    busy = f'another call of the command works in {self.folder!r}'
    with file_lock.held(file, busy):
      self._remove_unfinished()
      yield

  def _remove_unfinished(self) -> None:
    for folder, _, files in os.walk(self.folder):
      for name in files:
        if name.endswith(_TEMPORARY):
          os.unlink(os.path.join(folder, name))

  def path(self, *names: str) -> str:
    """Path of a file of the folder."""
    return os.path.join(self.folder, *names)

  def has(self, *names: str) -> bool:
    """Whether it is there, and so whole."""
    return os.path.exists(self.path(*names))

  def save_array(self, array: np.ndarray, *names: str) -> None:
    with self._whole(names) as file:
      np.save(file, array)

  def load_array(self, *names: str) -> np.ndarray:
    """The array, mapped from the file: read where it is touched."""
    return numpy_files.mapped(self.path(*names))

  def save_arrays(self, arrays: Mapping[str, np.ndarray], *names: str) -> None:
    with self._whole(names) as file:
      np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

  def load_arrays(self, *names: str) -> dict[str, np.ndarray]:
    return numpy_files.read_all(self.path(*names))

  def save_note(self, content: Any, *names: str) -> None:
    with self._whole(names) as file:
      file.write(json.dumps(content, ensure_ascii=False).encode())

  def load_note(self, *names: str) -> Any:
    with open(self.path(*names), encoding='utf-8') as file:
      return json_text.parse(file.read(), self.path(*names))

  def folders(self, *names: str) -> list[str]:
    """Names of the folders in one, sorted; none where it does not exist."""
    try:
      with os.scandir(self.path(*names)) as entries:
        return sorted(e.name for e in entries if e.is_dir())
    except FileNotFoundError:
      return []

  def append(self, lines: Iterable[str], *names: str) -> None:
    """Adds lines to a file of lines."""
    with open(self.path(*names), 'a', encoding='utf-8') as file:
      file.writelines(f'{line}\n' for line in lines)

  def lines(self, *names: str) -> Iterator[str]:
    """Its whole lines; one cut short by a kill is removed from the file."""
    path, whole = self.path(*names), 0
    try:
      with open(path, 'rb') as file:
        for line in file:
          if not line.endswith(b'\n'):
            break
          whole += len(line)
          yield line.decode()
      if whole < os.path.getsize(path):
        os.truncate(path, whole)
    except FileNotFoundError:
      return

  @contextlib.contextmanager
  def _whole(self, names: tuple[str, ...]) -> Iterator[Any]:
    path = self.path(*names)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with atomic.writing(path, suffix=_TEMPORARY) as file:
      yield file
