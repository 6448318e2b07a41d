"""A file system of its own, to be filled."""

import contextlib
import pathlib
import subprocess
from collections.abc import Iterator

from tests.faults.rows import Impossible


@contextlib.contextmanager
def mounted(folder: pathlib.Path, size: str) -> Iterator[pathlib.Path]:
  """A tmpfs of a size, such as '20m', at the folder, which is made.

  Raises:
    Impossible: this machine does not let us.
  """
  folder.mkdir()
  command = ['mount', '-t', 'tmpfs', '-o', f'size={size}', 'tmpfs']
  try:
    subprocess.run([*command, str(folder)], check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as error:
    raise Impossible(f'no tmpfs can be mounted: {error}') from error
  try:
    yield folder
  finally:
    subprocess.run(['umount', '-l', str(folder)], check=True)
