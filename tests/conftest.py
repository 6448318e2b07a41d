"""Test session set-up: eight fake CPU devices, quick compiling, real data root.

The environment is set before jax is imported anywhere.
"""

import collections
import contextlib
import ctypes
import gc
import importlib.metadata
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence

# Most of the time goes into compiling programs that run for milliseconds: the
# step of tests/tiny.py compiles in 1.4 instead of 4.8 seconds with these. The
# others are flags of jaxlib 0.10; XLA aborts on what it does not know. Code in
# one part takes a fifth less of the processors' time, which two workers share.
QUICK_COMPILING = '--xla_backend_optimization_level=0'
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  QUICK_COMPILING += (
    ' --xla_cpu_use_fusion_emitters=false'
    ' --xla_cpu_parallel_codegen_split_count=1'
  )


def xla_flags(devices: int = 1) -> str:
  """XLA_FLAGS of a process with so many fake devices."""
  count = f'--xla_force_host_platform_device_count={devices}'
  return f'{QUICK_COMPILING} {count}'


_USUAL = 'BVL_TESTS_USUAL_COMPILING'  # set in the processes of such tests
if os.environ.get(_USUAL):
  QUICK_COMPILING = ''
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['XLA_FLAGS'] = xla_flags(8)

# The same small programs are compiled by many tests.
ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache/jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.3')

# Tests send it to what they start, which `nohup` would make deaf to it.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
  signal.signal(signal.SIGHUP, signal.SIG_DFL)

import pytest  # noqa: E402
from absl import flags as absl_flags  # noqa: E402

absl_flags.FLAGS.mark_as_parsed()
# Of a worker: compiled programs pile up in it, those of a module are forgotten
# at its end above the first, in it above the second.
_MUCH_MEMORY, _MOST_MEMORY = 1_200_000_000, 1_700_000_000
_PROGRAMS = 200_000_000  # that is worth the half second of forgetting them
_resident_then = 0  # after the last time


def pytest_addoption(parser):
  parser.addoption(
    '--nightly', action='store_true', help='also what is marked so'
  )


def pytest_collection_modifyitems(config, items):
  kept, left = [], []
  for item in items:
    nightly = item.get_closest_marker('nightly')
    away = nightly and not config.getoption('--nightly')
    (left if away else kept).append(item)
  config.hook.pytest_deselected(items=left)
  items[:] = _long_files_first(kept)


def _long_files_first(items: list) -> list:
  """So that no worker is left with a long file at the end (loadfile)."""
  weights: dict = collections.Counter()
  for item in items:
    weights[item.path] += 100 if item.get_closest_marker('slow') else 1
  return sorted(items, key=lambda item: -weights[item.path])


def _runs_apart(item) -> bool:
  """Whether a test runs as users' programs are compiled, in a process."""
  marked = item.get_closest_marker('usual_compiling')
  return marked is not None and not os.environ.get(_USUAL)


def pytest_runtest_protocol(item):
  if _runs_apart(item):
    item.fixturenames[:] = []  # made there


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
  if _runs_apart(pyfuncitem):
    _in_a_process_of_its_own(pyfuncitem.nodeid)
    return True
  return None


def _in_a_process_of_its_own(nodeid: str) -> None:
  command = [sys.executable, '-m', 'pytest', '-n', '0', '--nightly', nodeid]
  done = subprocess.run(
    command,
    cwd=ROOT,
    env={**os.environ, _USUAL: '1'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  if ' skipped' in done.stdout:
    pytest.skip(done.stdout.splitlines()[-1])
  assert done.returncode == 0, done.stdout


@pytest.fixture(autouse=True)
def _no_stored_config_was_opened(monkeypatch):
  """As in a process of its own, which opens what it is told to."""
  from big_vision_like.config import trust

  monkeypatch.setattr(trust, '_strange', [])


@pytest.fixture(scope='module', autouse=True)
def _programs_do_not_pile_up():
  yield
  _forget_programs(above=_MUCH_MEMORY)


@pytest.fixture(autouse=True)
def _nor_in_a_module():
  yield
  _forget_programs(above=_MOST_MEMORY)


def _forget_programs(above: int) -> None:
  global _resident_then
  resident = _resident_bytes()
  if resident < above or resident < _resident_then + _PROGRAMS:
    return
  if 'jax' in sys.modules:
    sys.modules['jax'].clear_caches()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
      ctypes.CDLL('libc.so.6').malloc_trim(0)
    _resident_then = _resident_bytes()


def _resident_bytes() -> int:
  pages = pathlib.Path('/proc/self/statm')
  if not pages.exists():
    return 0
  return int(pages.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')


@pytest.fixture(scope='module')
def programs_kept():
  """Runs of a module take the programs of an equal experiment before."""
  from big_vision_like import experiment
  from tests import kept_experiments

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(experiment, 'build', kept_experiments.build)
    yield
  kept_experiments.forget()


@pytest.fixture
def programs_built_anew(programs_kept, monkeypatch):
  """But for a test that changes what they compute."""
  from big_vision_like import experiment
  from tests import kept_experiments

  monkeypatch.setattr(experiment, 'build', kept_experiments.build_anew)


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
  """`python -m MODULE ARGS` in a forked child of one long-lived process."""

  def __init__(self) -> None:
    # One device: what several do is tested in process.
    environ = {**os.environ, 'XLA_FLAGS': xla_flags()}
    self._server = subprocess.Popen(
      [sys.executable, '-m', 'tests.cli_server'],
      cwd=ROOT,
      env=environ,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def __call__(
    self,
    *args: str,
    module: str = 'main',
    cwd: pathlib.Path | None = None,
    path: Sequence[str] = (),
  ) -> dict:
    """{'code', 'out', 'err', 'seconds'} of the command.

    Args:
      *args: of the command line.
      module: what runs.
      cwd: where; None: here.
      path: PYTHONPATH there.
    """
    assert self._server.stdin is not None
    assert self._server.stdout is not None
    case = {'module': module, 'args': [str(a) for a in args], 'path': [*path]}
    case['cwd'] = cwd and str(cwd)
    self._server.stdin.write(json.dumps(case) + '\n')
    self._server.stdin.flush()
    return json.loads(self._server.stdout.readline())

  def close(self) -> None:
    self._server.communicate()


@pytest.fixture(scope='session')
def command_line():
  """Runs `python -m main`, or another module, on one CPU device."""
  runner = CommandLine()
  yield runner
  runner.close()


@pytest.fixture(scope='session')
def trainers():
  """Starts runs as processes, to be hurt; see tests/faults/trainers.py."""
  from tests.faults import trainers

  with trainers.Trainers() as started:
    yield started
