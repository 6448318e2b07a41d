"""Compiled programs kept between processes, in a folder with a limit.

XLA's persistent compilation cache: a second start of the same run reads its
programs instead of compiling them. It is jax's own; here is where it lies, how
much it may hold, and a folder a kind of processor, since XLA's CPU programs
are for one, and home folders are shared between many.

JAX_COMPILATION_CACHE_DIR names another place, JAX_ENABLE_COMPILATION_CACHE=0
turns it off, JAX_COMPILATION_CACHE_MAX_SIZE is the limit in bytes.
"""

import hashlib
import os
import pathlib
import platform
import sys
from collections.abc import Mapping

LIMIT_BYTES = 4 << 30  # the least recently used programs go first
_MIN_COMPILE_S = 0.2  # what compiles faster is not kept
_CPU_LINES = ('model name', 'flags', 'Features')


def environment(current: Mapping[str, str]) -> dict[str, str]:
  """Variables to set; those that the user has set are left out.

  Args:
    current: the environment.
  """
  if 'JAX_COMPILATION_CACHE_DIR' in current:
    return {}
  home = current.get('XDG_CACHE_HOME', '')
  if not os.path.isabs(home):  # to be ignored then, by its specification
    home = os.path.join(
      current.get('HOME') or os.path.expanduser('~'), '.cache'
    )
  folder = pathlib.Path(home, 'big_vision_like', 'compiled', _processor())
  wanted = {
    'JAX_COMPILATION_CACHE_DIR': str(folder),
    'JAX_COMPILATION_CACHE_MAX_SIZE': str(LIMIT_BYTES),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': str(_MIN_COMPILE_S),
  }
  return {k: v for k, v in wanted.items() if k not in current}


def use() -> None:
  """Turns the cache on for this process and those that it starts.

  Call it before jax is imported. Where the folder cannot be made or written,
  programs are compiled anew and nothing is said: it is only a matter of time.
  """
  added = environment(os.environ)
  folder = added.get('JAX_COMPILATION_CACHE_DIR')
  off = os.environ.get('JAX_ENABLE_COMPILATION_CACHE', '').lower()
  if folder is None or off in ('0', 'false') or 'jax' in sys.modules:
    return
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError:
    return
  if os.access(folder, os.W_OK):
    _remove_halves(pathlib.Path(folder))
    os.environ.update(added)


def _remove_halves(folder: pathlib.Path) -> None:
  """Removes entries of which a kill or a full disk left one file of two.

  jax would fail at them whenever it looks for the oldest entry, and save
  nothing any more.
  """
  if not _halves(folder):
    return
  import filelock

  try:
    with filelock.FileLock(folder / '.lockfile', timeout=1):  # jax's own
      for name in _halves(folder):
        for kind in ('cache', 'atime'):
          (folder / f'{name}-{kind}').unlink(missing_ok=True)
  except (filelock.Timeout, OSError):
    return  # somebody writes; the next start looks again


def _halves(folder: pathlib.Path) -> set[str]:
  names = lambda kind: {
    path.name.removesuffix(f'-{kind}') for path in folder.glob(f'*-{kind}')
  }
  return names('cache') ^ names('atime')


def _processor() -> str:
  """16 hex digits of what the first processor calls itself and can do."""
  text = platform.machine()
  try:
    first = pathlib.Path('/proc/cpuinfo').read_text().partition('\n\n')[0]
    for line in first.splitlines():
      if line.startswith(_CPU_LINES):
        text += line
  except OSError:
    text += platform.processor()
  return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
