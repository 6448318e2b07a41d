"""Writes shards as an Apache Beam pipeline: on this machine or on a cluster.

The unit of work is a shard. Workers get its name and where its records stand
in a file of the output folder, open the sources themselves, by the arguments of
the command, write the shard into the output folder, and leave a note there
(progress.py). So pipeline and messages stay small for any number of images, a
cancelled pipeline is resumed as any other preparation, and the data set has
the bytes that local_runner.py gives it. All machines must see the output folder
and the input under the same paths (docs/preparing-data.md).

apache_beam is imported here alone; requirements-beam.txt brings it.
"""

import argparse
import contextlib
import importlib
import logging
import os
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from big_vision_like.config import plugins
from big_vision_like.protocols import Source
from input_pipeline.files import numpy_files
from input_pipeline.prepared import beam_worker, preparation, progress
from input_pipeline.prepared.preparation import Done, Task, WorkersFailed
from input_pipeline.prepared.recipe import Recipe


@contextlib.contextmanager
def _unheard():
  """Keeps Beam's import from speaking, and from setting up logging."""
  root = logging.getLogger()
  handlers, disabled = root.handlers[:], root.manager.disable
  logging.disable(logging.CRITICAL)
  try:
    yield
  finally:
    logging.disable(disabled)
    root.handlers[:] = handlers


with _unheard():
  import apache_beam as beam
  from apache_beam.options import pipeline_options
  from apache_beam.runners.portability.fn_api_runner import fn_runner
  from apache_beam.transforms import environments

DIRECT = 'DirectRunner'
_ORDER_FILE = 'order.npy'
_STOP_FILE = 'stop'
_POLL_S = 0.2

OpenSources = Callable[[argparse.Namespace], Mapping[str, Source]]


class WriteShard(beam.DoFn):
  """(split, name, start, stop) -> a shard and a note in the output folder.

  Mistakes in the data are written into the note instead of raised: a runner
  would try again, and bury the message.
  """

  def __init__(
    self,
    folder: str,
    recipe: Recipe,
    open_sources: OpenSources,
    args: argparse.Namespace,
    fingerprints: Mapping[str, str],
  ):
    super().__init__()
    self._folder = folder
    self._recipe = recipe
    self._open_sources = open_sources
    self._args = args
    self._fingerprints = dict(fingerprints)
    self._sources: Mapping[str, Source] = {}

  def process(self, element: tuple[str, str, int, int]) -> None:
    split, name, start, stop = element
    notes = os.path.join(self._folder, progress.NOTES_FOLDER)
    if os.path.exists(os.path.join(notes, _STOP_FILE)):
      return
    try:
      order = numpy_files.mapped(os.path.join(notes, _ORDER_FILE))
      task = Task(split, name, np.array(order[start:stop]))
      outcome = preparation.write(
        self._folder, task, self._source(split), self._recipe, lambda: None
      )
    except (ValueError, OSError) as error:
      outcome = error
    progress.leave_note(self._folder, name, outcome)

  def _source(self, split: str) -> Source:
    if not self._sources:
      sources = self._open_sources(self._args)
      for name, source in sources.items():
        if source.fingerprint() != self._fingerprints[name]:
          raise ValueError(
            f'a worker finds another input than the main process in split '
            f'{name!r}: all machines must see the same files'
          )
      self._sources = sources
    return self._sources[split]


def run(
  folder: str,
  tasks: Sequence[Task],
  sources: Mapping[str, Source],
  recipe: Recipe,
  *,
  workers: int,
  advance: Callable[[int], object],
  open_sources: OpenSources,
  args: argparse.Namespace,
  runner: str,
  options: pipeline_options.PipelineOptions,
) -> Generator[Done, None, None]:
  """Writes the shards by a Beam pipeline, and yields each as it is done.

  Args:
    folder: output folder.
    tasks: shards to write.
    sources: split -> source, as the main process sees them.
    recipe: what to store.
    workers: processes of the DirectRunner; other runners have options.
    advance: called with the number of images finished since its last call.
    open_sources: opens the same sources in a worker, from `args`.
    args: the command line.
    runner: name of a Beam runner.
    options: of the pipeline.

  Raises:
    ValueError, OSError: what a worker met in the data.
    WorkersFailed: the pipeline itself failed.
  """
  if not tasks:
    return
  notes = os.path.join(folder, progress.NOTES_FOLDER)
  os.makedirs(notes, exist_ok=True)
  np.save(
    os.path.join(notes, _ORDER_FILE), np.concatenate([t.indices for t in tasks])
  )
  ends = np.cumsum([len(task.indices) for task in tasks]).tolist()
  elements = [
    (task.split, task.name, end - len(task.indices), end)
    for task, end in zip(tasks, ends)
  ]
  write = WriteShard(
    os.path.abspath(folder),
    recipe,
    _importable(open_sources),
    args,
    {split: source.fingerprint() for split, source in sources.items()},
  )
  _quieten_threads()
  job = _Job(_pipeline(runner, options, workers, elements, write, notes))
  waiting = {task.name: len(task.indices) for task in tasks}
  try:
    while waiting:
      ended = job.wait(_POLL_S)  # before the notes are read: none is missed
      lost = beam_worker.lost(notes)
      for path, outcome in progress.read_notes(folder):
        if isinstance(outcome, Exception):
          raise outcome
        advance(waiting.pop(outcome.shard.name, 0))
        yield outcome
        os.unlink(path)  # after the main process has made its own
      if lost:  # Beam would wait for it for ever
        raise WorkersFailed(
          'a worker process died (out of memory? then give fewer --workers)'
        )
      if ended and waiting:
        raise WorkersFailed(
          f'{runner}: '
          + (job.failure or f'ended without writing {len(waiting)} shards')
        )
  finally:
    if waiting:  # the next start takes over what workers have noted
      with open(os.path.join(notes, _STOP_FILE), 'w'):
        pass  # workers of a cluster look for it before they begin a shard
      job.cancel()
      beam_worker.end(notes)
    else:
      job.wait(None)
      progress.remove_notes(folder)


def _importable(function: OpenSources) -> OpenSources:
  """The function by its module's real name where that runs as a program."""
  module = sys.modules.get(function.__module__)
  spec = getattr(module, '__spec__', None)
  if function.__module__ != '__main__' or spec is None:
    return function
  return getattr(importlib.import_module(spec.name), function.__name__)


def parse_options(
  runner: str, text: str, workers: int
) -> pipeline_options.PipelineOptions:
  """Beam's options from a piece of a command line.

  Raises:
    ValueError: one that is none of Beam's, or has a wrong value; Beam itself
      would drop it with a warning.
  """
  flags = shlex.split(text)
  if runner == DIRECT:
    flags.append(f'--direct_num_workers={workers}')
  else:
    flags.append(f'--runner={runner}')

  def inspect(parser: argparse.ArgumentParser) -> None:
    parser.error = _refuse  # instead of all of Beam's options and an exit
    unknown = parser.parse_known_args(flags)[1]
    valid = [name for a in parser._actions for name in a.option_strings]
    for flag in unknown:
      name = flag.partition('=')[0]
      _refuse(f'Beam has no option {name!r}{plugins.suggest(name, valid)}')

  def _refuse(message: str) -> NoReturn:
    raise ValueError(f'--beam_options {text!r}: {message}')

  options = pipeline_options.PipelineOptions(flags)
  options.get_all_options(add_extra_args_fn=inspect)
  return options


def _pipeline(
  runner: str,
  options: pipeline_options.PipelineOptions,
  workers: int,
  elements: Sequence[tuple[str, str, int, int]],
  write: WriteShard,
  notes: str,
) -> beam.Pipeline:
  chosen: Any = None  # the one that the options name
  if runner == DIRECT:
    logging.getLogger('apache_beam').setLevel(logging.CRITICAL)
    environment = None
    if workers > 1:
      command = [
        sys.executable,
        '-m',
        'input_pipeline.prepared.beam_worker',
        notes,
      ]
      environment = environments.SubprocessSDKEnvironment.from_command_string(
        f'exec {shlex.join(command)}'  # by a shell
      )
    # What DirectRunner takes for batch pipelines; by that name Beam would
    # first look for a program to download.
    chosen = fn_runner.FnApiRunner(default_environment=environment)
  pipeline = beam.Pipeline(runner=chosen, options=options)
  _ = (
    pipeline
    | 'shards' >> beam.Create(elements)
    | 'spread' >> beam.Reshuffle()
    | 'write' >> beam.ParDo(write)
  )
  return pipeline


def _quieten_threads() -> None:
  """Keeps Beam's own threads from printing how they ended.

  Once their workers are gone they fail, some after `run` has told the reason.
  The hook stays; what other threads raise goes to the one before it.
  """
  before = threading.excepthook
  if getattr(before, '__module__', None) == __name__:
    return

  def hook(args: threading.ExceptHookArgs) -> None:
    frames = traceback.walk_tb(args.exc_traceback)
    names = [f.f_globals.get('__name__', '') for f, _ in frames]
    if not any(n.startswith(('apache_beam.', 'grpc.')) for n in names):
      before(args)

  threading.excepthook = hook


class _Job:
  """A pipeline that runs while the main process looks on."""

  def __init__(self, pipeline: beam.Pipeline):
    self.failure: str | None = None
    self._result: Any = None
    self._thread = threading.Thread(
      target=self._run, args=(pipeline,), daemon=True
    )
    self._thread.start()

  def _run(self, pipeline: beam.Pipeline) -> None:
    try:
      self._result = pipeline.run()
      self._result.wait_until_finish()
    except BaseException as error:  # of any runner: told by the main thread
      lines = str(error).strip().splitlines() or ['']
      self.failure = f'{type(error).__name__}: {lines[-1]}'

  def wait(self, timeout_s: float | None) -> bool:
    """Waits so long; whether the pipeline has ended."""
    self._thread.join(timeout_s)
    return not self._thread.is_alive()

  def cancel(self) -> None:
    """Asks the pipeline to end, if it has not."""
    if self._thread.is_alive() and self._result is not None:
      with contextlib.suppress(Exception):  # not every runner can
        self._result.cancel()
