"""Environment variables that make XLA's CPU backend faster, and a restart.

Both are read when a process starts, so they cannot be set from within: a
program that wants them restarts itself once, with `reexec`, before it imports
jax. They change no result beyond float rounding and concern Linux CPUs only;
docs and numbers: benchmarks/results/train_step.md.

XLA_FLAGS --xla_cpu_experimental_ynn_fusion_type=dot,reduce keeps convolutions
  off the YNN library, which is slower for them than the default path. XLA
  aborts on a flag that it does not know, so the flag is set only for the
  jaxlib versions on which it was tried (`_KNOWN_JAXLIB`).
GLIBC_TUNABLES keep freed memory in the process: one arena, no mmap, no trim.
  XLA allocates the temporary buffer of a program anew at every call, and the
  C library maps and unmaps it: page faults took a third of the wall time of a
  training step. The price is memory: up to two more temporary buffers. Where
  that is too much, GLIBC_TUNABLES=glibc.malloc.hugetlb=1 of your own is kept
  and gives back part of the time.
"""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping

_FLAG = '--xla_cpu_experimental_ynn_fusion_type=dot,reduce'
_TUNABLES = (
  'glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:'
  'glibc.malloc.trim_threshold=1000000000000'
)
# Half-open; tried on 0.10.2, 0.11.2 and 0.12.0.
_KNOWN_JAXLIB = ((0, 10, 2), (0, 13, 0))
_ACCELERATORS = ('jax_cuda12_plugin', 'jax_cuda13_plugin', 'libtpu')
_DONE = 'BVL_CPU_TUNED'


def environment(
  current: Mapping[str, str] | None = None, jaxlib: str | None = None
) -> dict[str, str]:
  """Variables to set for a CPU run, with what they already hold kept.

  Args:
    current: the environment to add to; this process's by default.
    jaxlib: version of jaxlib; the installed one by default.

  Returns:
    New values of XLA_FLAGS and GLIBC_TUNABLES; a variable that needs no change
    is left out, and so is one that the user has given malloc settings.
  """
  current = os.environ if current is None else current
  added = {}
  flags = current.get('XLA_FLAGS', '')
  if _knows_flag(jaxlib) and _FLAG.split('=')[0] not in flags:
    added['XLA_FLAGS'] = f'{flags} {_FLAG}'.strip()
  tunables = current.get('GLIBC_TUNABLES', '')
  is_glibc = platform.libc_ver()[0] == 'glibc'
  if is_glibc and 'glibc.malloc.' not in tunables:
    added['GLIBC_TUNABLES'] = ':'.join(filter(None, (tunables, _TUNABLES)))
  return added


def reexec() -> None:
  """Restarts this command once with `environment`, if it is a CPU run.

  Call it first thing in a program. It returns where there is nothing to add,
  where an accelerator is to be used, and in the restarted process.
  BVL_CPU_TUNED=1 in the environment turns it off.
  """
  if os.environ.get(_DONE) or not _runs_on_cpu():
    return
  added = environment()
  if not added:
    return
  sys.stdout.flush()
  sys.stderr.flush()
  command = [sys.executable, *sys.orig_argv[1:]]
  os.execve(sys.executable, command, {**os.environ, **added, _DONE: '1'})


def _knows_flag(jaxlib: str | None) -> bool:
  version = jaxlib or importlib.metadata.version('jaxlib')
  numbers = [int(n) for n in version.split('.')[:3] if n.isdigit()]
  low, high = _KNOWN_JAXLIB
  return len(numbers) == 3 and low <= tuple(numbers) < high


def _runs_on_cpu() -> bool:
  platforms = os.environ.get('JAX_PLATFORMS')
  if platforms:
    return platforms == 'cpu'
  return not any(importlib.util.find_spec(name) for name in _ACCELERATORS)
