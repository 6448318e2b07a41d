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
  home = current.get('XDG_CACHE_HOME') or os.path.join(
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
  if folder is None or 'jax' in sys.modules:
    return
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError:
    return
  if os.access(folder, os.W_OK):
    os.environ.update(added)


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
