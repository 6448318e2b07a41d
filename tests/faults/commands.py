"""Commands of the project as processes of their own, on one CPU device."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from tests.conftest import ROOT, xla_flags

_TIMEOUT_S = 240


def run(
  args: Sequence[str], cwd: pathlib.Path = ROOT, **environ: str
) -> tuple[int, str]:
  """(exit code, output) of `python -m ARGS`.

  Args:
    args: the module and its arguments.
    cwd: where it runs.
    **environ: variables besides those of this process.
  """
  done = subprocess.run(
    [sys.executable, '-m', *args],
    cwd=cwd,
    env={
      **os.environ,
      'PYTHONPATH': str(ROOT),
      'XLA_FLAGS': xla_flags(),
      'BVL_CPU_TUNED': '1',
      **environ,
    },
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    timeout=_TIMEOUT_S,
  )
  return done.returncode, done.stdout.decode(errors='replace')
