"""The memory that a call takes, in a process of its own."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap
from typing import Any

from tests.faults.trainers import ROOT

_RUN = """
import json, resource, sys
{imports}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
  {call}
  said = 'accepted'
except (ValueError, OSError) as error:
  said = str(error)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([said, peak - before]))
"""


def of(
  imports: str, call: str, *args: Any, cwd: pathlib.Path = ROOT
) -> tuple[str, int]:
  """(message of the refusal or 'accepted', KiB by which the peak has grown).

  Args:
    imports: lines before the measurement.
    call: an expression; `sys.argv[1:]` are the arguments.
    args: texts.
    cwd: where it works.

  Raises:
    AssertionError: it ended with anything but a ValueError or OSError.
  """
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      _RUN.format(imports=textwrap.dedent(imports), call=call),
      *map(str, args),
    ],
    cwd=cwd,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  said, kib = json.loads(done.stdout.splitlines()[-1])
  return said, kib
