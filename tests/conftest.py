"""Test session set-up: eight fake CPU devices, parsed flags, real data root.

The environment is set before jax is imported anywhere.
"""

import json
import os
import pathlib
import subprocess
import sys

_FAKE_DEVICES = '--xla_force_host_platform_device_count=8'
os.environ['JAX_PLATFORMS'] = 'cpu'
if _FAKE_DEVICES not in os.environ.get('XLA_FLAGS', ''):
  flags = os.environ.get('XLA_FLAGS', '')
  os.environ['XLA_FLAGS'] = f'{flags} {_FAKE_DEVICES}'.strip()

# The same small programs are compiled by many tests.
ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache/jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

import pytest  # noqa: E402
from absl import flags as absl_flags  # noqa: E402

absl_flags.FLAGS.mark_as_parsed()


@pytest.fixture(scope='session')
def project_root() -> pathlib.Path:
  return ROOT


@pytest.fixture(scope='session')
def real_data() -> pathlib.Path:
  """Folder of the small real data sets; skips where it is absent."""
  folder = ROOT.parent / 'shared' / 'data'
  if not folder.parent.exists():
    pytest.skip(f'no real data sets: {folder.parent} does not exist')
  return folder


class CommandLine:
  """`python -m main ARGS` in a forked child of one long-lived process."""

  def __init__(self) -> None:
    # One device: what several do is tested in process.
    environ = {**os.environ, 'XLA_FLAGS': ''}
    self._server = subprocess.Popen(
      [sys.executable, '-m', 'tests.cli_server'],
      cwd=ROOT,
      env=environ,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __call__(self, *args: str) -> dict:
    """{'code', 'out', 'err', 'seconds'} of the command."""
    assert self._server.stdin is not None
    assert self._server.stdout is not None
    self._server.stdin.write(json.dumps([str(a) for a in args]) + '\n')
    self._server.stdin.flush()
    return json.loads(self._server.stdout.readline())

  def close(self) -> None:
    self._server.communicate()


@pytest.fixture(scope='session')
def command_line():
  """Runs `python -m main` on one CPU device."""
  runner = CommandLine()
  yield runner
  runner.close()
