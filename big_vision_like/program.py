"""The program: flags, modes, messages and exit codes of `python -m main`.

Exit codes: 0 done, 1 failed, 2 bad input (one message says what to change),
143 stopped by a signal after saving, 75 by one where nothing was saved.
"""

import contextlib
import os
import pathlib
import signal
import sys
import traceback
from typing import Any, NoReturn

from absl import app, flags, logging

from big_vision_like.checkpoints.save_failures import SaveFailed
from big_vision_like.config import loading, option_types, settings, shipped
from input_pipeline import worker_room, workers
from input_pipeline.files.retries import StorageError
from input_pipeline.waiting import DataError

MODES = ('train', 'eval', 'plan')

CONFIG = loading.define_flag(flags.FLAGS)
flags.declare_key_flag('config')
flags.declare_key_flag('trust')
WORKDIR = flags.DEFINE_string('workdir', None, 'folder of the run')
CHECKPOINT = flags.DEFINE_string(
  'checkpoint', None, 'with --mode=eval: evaluate this checkpoint instead'
)
MODE = flags.DEFINE_enum('mode', 'train', MODES, 'what to do')
# Needed only where JAX does not find the cluster by itself.
COORDINATOR = flags.DEFINE_string(
  'coordinator', None, 'host:port of process 0, for several processes'
)
NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes', None, 'processes of the run; 1 turns detection off'
)
PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'this process, 0 to num_processes - 1'
)
START_TIMEOUT_S = flags.DEFINE_float(
  'start_timeout_s', 300, 'how long to wait for the other processes'
)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise ValueError(f'unknown argument {argv[1]!r}; see --help')
  if CHECKPOINT.value is not None and MODE.value != 'eval':
    raise ValueError('--checkpoint is for --mode=eval')
  if CONFIG.value is None:
    raise ValueError('--config is missing, such as configs/quickstart.py')
  if MODE.value == 'plan':
    _fake_devices(CONFIG.value)
    from big_vision_like import plan

    plan.run(CONFIG.value)
    return
  workdir = WORKDIR.value
  if not workdir:
    raise ValueError('--workdir is missing: the folder of the run')
  worker_room.raise_file_limit()
  from big_vision_like.runtime import distributed

  distributed.initialize(
    COORDINATOR.value,
    NUM_PROCESSES.value,
    PROCESS_ID.value,
    timeout_s=START_TIMEOUT_S.value,
  )
  if MODE.value == 'eval':
    from big_vision_like import evaluate
    from big_vision_like.runtime import preemption

    with (
      preemption.Guard() as guard,
      guard.interruptible(),
      guard.nothing_to_lose('the evaluation'),
    ):
      evaluate.run(CONFIG.value, workdir, CHECKPOINT.value, guard.stop_here)
  else:
    from big_vision_like import train

    train.run(CONFIG.value, workdir)
    for number in (signal.SIGTERM, signal.SIGHUP):
      if signal.getsignal(number) == _leave_before_anything:
        signal.signal(number, signal.SIG_DFL)  # all is saved
    if distributed.is_first():
      _show_results(pathlib.Path(workdir))


def _fake_devices(config: Any) -> None:
  """A plan for a larger mesh runs on as many fake CPU devices."""
  num = config.get('plan', {}).get('num_devices')
  if num is not None:
    key = 'plan.num_devices'  # before the config is complete
    option_types.check_value(key, settings.VALID[key], num)
    os.environ['JAX_PLATFORMS'] = 'cpu'
    old = os.environ.get('XLA_FLAGS', '')
    os.environ['XLA_FLAGS'] = (
      f'{old} --xla_force_host_platform_device_count={num}'
    ).strip()


def _show_results(workdir: pathlib.Path) -> None:
  """Draws the curves and says where everything is."""
  from big_vision_like.checkpoints import folders
  from big_vision_like.pages import metrics_plot
  from big_vision_like.runtime import writers

  plot = workdir / 'metrics.png'
  metrics_plot.plot([workdir], out=plot)
  print(
    f'checkpoints  {folders.find(workdir)}\n'
    f'metrics      {workdir / writers.METRICS}\n'
    f'plot         {plot}'
  )


_USAGE = """Pretrains, evaluates or plans; docs/configs.md tells of configs.

  {name} --config configs/x.py[:arguments] --workdir DIR
  {name} --config ... --workdir DIR --config.optim.momentum=0.8
  {name} --config ... --mode=plan
"""


def _parse_flags(args: list[str]) -> list[str]:
  """Absl's parser, with messages that name the key and the valid ones."""
  if {'--help', '-h', '--helpshort'} & set(args):
    name = args[0] if args[0].startswith('bvl ') else 'python -m main'
    help_ = flags.FLAGS.module_help(sys.modules[__name__])
    with contextlib.suppress(BrokenPipeError):  # as after `... | head`
      print(f'{_USAGE.format(name=name)}\n{help_}', flush=True)
    os._exit(0)
  try:
    return flags.FLAGS(args)
  except Exception as error:  # what a wrong override raises has many types
    from big_vision_like.config import overrides

    _refuse(overrides.explain(flags.FLAGS, args, error))


# Words of the notes that libraries add to our errors.
_LIBRARIES = ('Grain', 'JAX_TRACEBACK_FILTERING')


def _refuse(error: BaseException) -> NoReturn:
  """Ends the process with one readable message."""
  if isinstance(error, OSError) and error.filename:
    text = f'{error.strerror}: {error.filename}'
  else:
    text = str(error.args[0] if error.args else error)
    notes = getattr(error, '__notes__', [])
    ours = (n for n in notes if not any(word in n for word in _LIBRARIES))
    text = '\n'.join([text, *ours])
  sys.stdout.flush()
  print(f'error: {text}', file=sys.stderr)
  _exit(2)


def _is_ours(error: BaseException) -> bool:
  """Whether the project or the user's plug-in raised it, not a library."""
  frames = traceback.extract_tb(error.__traceback__)
  if not frames:
    return False
  parts = pathlib.Path(frames[-1].filename).parts
  if 'site-packages' not in parts:
    return True
  package = parts[parts.index('site-packages') + 1]
  return package in shipped.PACKAGES


def _is_not_of_orbax(record: Any) -> bool:
  """What Orbax logs as an error, with its traceback, it raises too."""
  return 'orbax' not in pathlib.Path(record.pathname).parts


def _guarded(argv: list[str]) -> None:
  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it writes
  logging.get_absl_handler().addFilter(_is_not_of_orbax)
  try:
    main(argv)
  except (ValueError, FileNotFoundError) as error:
    if not _is_ours(error) or os.environ.get('BVL_TRACEBACK'):
      _fail(error)
    _refuse(error)
  except SystemExit as stop:
    message = getattr(stop, 'message', None)
    if message:
      print(message, file=sys.stderr)
      _exit_at_once(stop.code)
    raise
  except (FloatingPointError, TimeoutError) as error:
    print(f'error: {error}', file=sys.stderr)
    _exit(1)
  except (DataError, SaveFailed, StorageError) as error:
    text = '; '.join([str(error), *getattr(error, '__notes__', [])])
    print(f'error: {text}', file=sys.stderr)
    _exit_at_once(1)
  except Exception as error:
    _fail(error)


def _leave_before_anything(number: int, frame: Any) -> None:
  """SIGTERM or SIGHUP before a mode that listens to it."""
  del number, frame
  os.write(2, b'asked to stop: nothing to save\n')
  os._exit(75)


def _exit_at_once(code: Any) -> None:
  """Ends a run of one process, whatever its threads still wait for."""
  from big_vision_like.runtime import distributed

  if distributed.store() is None:
    workers.clear_up()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code) if code != 1 else _exit(code)


def _fail(error: Exception) -> NoReturn:
  """Ends a run with the traceback of what nobody expected."""
  traceback.print_exception(error)
  _exit(1)


def _exit(code: int) -> NoReturn:
  """Ends the process; one of several does not wait for the others."""
  if workers.clear_up():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  if 'big_vision_like.runtime.distributed' in sys.modules:
    sys.modules['big_vision_like.runtime.distributed'].leave(code)
  sys.exit(code)


def run() -> None:
  """Entry point: tuned environment first, then flags, then the mode."""
  from big_vision_like.runtime import compile_cache, cpu_tuning, logs

  logs.capture()
  for number in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_DFL:
      signal.signal(number, _leave_before_anything)
  try:
    compile_cache.use()
    cpu_tuning.reexec()
    app.run(_guarded, flags_parser=_parse_flags)
  except KeyboardInterrupt:  # before the trainer listens to it
    print('\ninterrupted', file=sys.stderr)
    _exit(130)
