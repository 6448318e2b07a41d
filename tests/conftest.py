"""Test session set-up: eight fake CPU devices, parsed flags, real data root.

The environment is set before jax is imported anywhere.
"""

import os
import pathlib

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
