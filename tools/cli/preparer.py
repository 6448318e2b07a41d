"""The command line that all preparers share (docs/preparing-data.md).

A preparer is a description, the arguments that say what to read, and a
function that opens it:

  def add_arguments(parser): parser.add_argument('--input', ...)
  def open_sources(args): return {'train': MySource(...), 'val': ...}

  def main(argv=None):
    return preparer.main(
      argv, prog='python -m tools.prepare_x', description=__doc__,
      add_arguments=add_arguments, open_sources=open_sources,
    )

Everything else is here: output, sizes of images and shards, locking, resuming,
progress, bad images, label index, manifest, report, --verify, exit codes.

Exit codes: 0 done; 1 too many bad images, a worker process died, or --verify
found a difference; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import contextlib
import dataclasses
import functools
import os
import shutil
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import tqdm

from big_vision_like import protocols
from big_vision_like.protocols import Source, WithPeople
from input_pipeline.files import file_lock
from input_pipeline.labels.space import LabelSpace
from input_pipeline.prepared import (
  finishing,
  local_runner,
  preparation,
  progress,
)
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared.recipe import Recipe

from . import output_folder

EXIT_CODES = (__doc__ or '').rpartition('\n\n')[2]
_LOCK_FILE = '.lock'
_NUM_SHOWN = 10


OpenSources = Callable[[argparse.Namespace], Mapping[str, Source]]
RunShards = Callable[..., Generator[preparation.Done, None, None]]


class TooManyBadImages(Exception):
  """The budget of --max_bad_fraction is exceeded."""


def main(
  argv: Sequence[str] | None,
  *,
  prog: str,
  description: str,
  add_arguments: Callable[[argparse.ArgumentParser], None],
  open_sources: OpenSources,
) -> int:
  """Runs a preparer.

  Args:
    argv: the command line without the program; None for sys.argv.
    prog: how it is called, for messages.
    description: of --help; the exit codes are added.
    add_arguments: adds the preparer's own arguments. None of them may be
      `required`, since --verify does without them: check in `open_sources`.
      `input` (a path or a list of them) is checked not to hold the output;
      `hierarchy` (a path) is copied into the data set, unless the sources have
      `hierarchy_edges`.
    open_sources: arguments -> {split: source} (docs/add-a-source.md), all with
      the same vocabulary; called once here, and once in each worker where the
      work is spread over machines. A source may have, beside the protocol:
      `hierarchy_edges`: (child, parent) names, written as hierarchy.tsv;
      `report_lines()`: lines for the report, also kept in the manifest, so
      that nothing that was left out goes unsaid.

  Returns:
    the exit code.
  """
  args = parser(prog, description, add_arguments).parse_args(argv)
  try:
    if args.verify:
      return verify(args.output)
    prepare(args, open_sources)
    return 0
  except TooManyBadImages as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except preparation.WorkersFailed as error:
    print(
      f'error: {error}; finished shards are kept, repeat the command to go on',
      file=sys.stderr,
    )
    return 1
  except (ValueError, OSError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print(
      '\ninterrupted; finished shards are kept, repeat the command to go on',
      file=sys.stderr,
    )
    return 130


def parser(
  prog: str,
  description: str,
  add_arguments: Callable[[argparse.ArgumentParser], None],
) -> argparse.ArgumentParser:
  """The command line; every default is in its help."""
  p = argparse.ArgumentParser(
    prog=prog,
    description=description,
    epilog=None if EXIT_CODES in description else EXIT_CODES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add_arguments(p)
  p.add_argument('--output', required=True, help='folder of the data set')
  p.add_argument(
    '--verify', action='store_true', help='check a finished data set'
  )
  group = p.add_argument_group('stored images and shards')
  add = group.add_argument
  add('--num_shards', type=int, help='of each split; default by --shard_mb')
  add('--shard_mb', type=float, default=256, help='default: %(default)s')
  add(
    '--resize', type=int, metavar='PIXELS',
    help='store JPEGs of this many pixels squared (bilinear, aspect ratio not '
    'kept) instead of the files as they are',
  )  # fmt: skip
  add(
    '--long_side', type=int, metavar='PIXELS',
    help='store larger images as JPEGs whose longer side has this many pixels '
    '(bilinear with antialias, aspect ratio kept)',
  )  # fmt: skip
  add(
    '--quality', type=int, default=95,
    help='JPEG quality of resized images; default: %(default)s',
  )  # fmt: skip
  add('--limit', type=int, help='images to take of each split')
  add('--keep_bad', action='store_true', help='store undecodable images too')
  add(
    '--max_bad_fraction', type=float, default=0.01,
    help='stop above this part of bad images; default: %(default)s',
  )  # fmt: skip
  add('--seed', type=int, default=0, help='of the order; default: %(default)s')
  add(
    '--workers', type=int, default=os.cpu_count(),
    help='processes; default: %(default)s',
  )  # fmt: skip
  group = p.add_argument_group('Apache Beam')
  group.add_argument(
    '--beam', action='store_true', help='write the shards by a Beam pipeline'
  )
  group.add_argument(
    '--runner', help='of the pipeline; default: DirectRunner, --workers '
    'processes of this machine',
  )  # fmt: skip
  group.add_argument(
    '--beam_options', metavar='TEXT',
    help='options of the pipeline, quoted: --beam_options="--project=x ..."',
  )  # fmt: skip
  return p


def verify(folder: str) -> int:
  """Prints every difference between files and manifest; 1 if there is any."""
  manifest = manifests.load(folder)
  problems = []
  for split in manifest.splits:
    found = manifests.verify(folder, manifest, split)
    files = len(manifest.files(split))
    print(
      f'{split}: {files - len(found)} of {files} files are right, '
      f'{manifest.num_records(split):,} records, '
      f'{manifest.num_bytes(split) / 1e6:,.1f} MB'
    )
    problems += found
  for problem in problems:
    print(f'  {problem}')
  print('DIFFERENT from the manifest' if problems else 'all as in the manifest')
  return 1 if problems else 0


def prepare(
  args: argparse.Namespace,
  open_sources: OpenSources,
) -> None:
  """Writes the data set, or what is missing of it."""
  if args.workers < 1:
    raise ValueError(f'--workers must be at least 1, got {args.workers}')
  if not 0 <= args.max_bad_fraction <= 1:
    raise ValueError(
      f'--max_bad_fraction must be in [0, 1], got {args.max_bad_fraction}'
    )
  recipe = Recipe(
    **{f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe)}
  )
  write_shards = _runner(args, open_sources)
  _check_output(args)
  sources = open_sources(args)
  _check_sources(sources)
  settings = _settings(recipe, sources)
  with _locked(args.output):
    if os.path.exists(os.path.join(args.output, manifests.FILE_NAME)):
      manifest = manifests.load(args.output)
      added = ('order', 'keypoints')  # by the last step
      before = {k: v for k, v in manifest.options.items() if k not in added}
      progress.check_settings(args.output, before, settings)
      for split in manifest.splits:
        manifests.check(args.output, manifest, split)
      finishing.tidy(args.output)
      print('the data set is finished already; --verify checks it in full')
      return
    record = progress.Progress(args.output, settings)
    start = time.monotonic()
    written = _write_shards(args, recipe, sources, record, write_shards)
    hierarchy = getattr(args, 'hierarchy', None)
    finishing.finish(args.output, hierarchy, sources, record.done, settings)
    seconds = time.monotonic() - start
    for line in finishing.report(args.output):
      print(line)
    classes = len(next(iter(sources.values())).vocabulary)
    print(
      f'{classes:,} classes; {written:,} images in {seconds:.1f} s, '
      f'{written / max(seconds, 1e-9):,.0f} images/s; wrote {args.output}'
    )


def _check_sources(sources: Mapping[str, Source]) -> None:
  """The splits have file names, images, and the same labels."""
  first, labels = next(
    (split, source.vocabulary) for split, source in sources.items()
  )
  for split, source in sources.items():
    if not split or split != os.path.basename(split):
      raise ValueError(f'split {split!r} cannot be part of a file name')
    if isinstance(source, WithPeople):
      raise ValueError(
        f'split {split!r} is of people, each an example; prepare the images '
        "that they are in, and put type='people' over the records"
      )
    if len(source) == 0:
      raise ValueError(f'split {split!r} has no images')
    if source.vocabulary.names != labels.names:
      raise ValueError(
        f'splits {first!r} and {split!r} have different labels; give the '
        'option --vocabulary'
      )


def _settings(recipe: Recipe, sources: Mapping[str, Source]) -> dict[str, Any]:
  """All that decides the bytes of the output, as plain data."""
  settings = dataclasses.asdict(recipe)
  settings['input'] = {s: source.fingerprint() for s, source in sources.items()}
  space = LabelSpace.of_source(next(iter(sources.values())))
  if space.background is not None:  # what an id in a mask means
    settings['background'] = space.background
  if space.keypoints is not None:  # which of them a mirror image exchanges
    pairs = space.keypoints.pairs
    settings['keypoint_pairs'] = [list(pair) for pair in pairs]
  spaces = {s: LabelSpace.of_source(source) for s, source in sources.items()}
  ids = {
    split: list(map(int, space.external_ids))
    for split, space in spaces.items()
    if space.external_ids is not None
  }
  if ids:  # of the labels where the data come from
    settings['external_ids'] = ids
  untold = [
    split
    for split, source in sources.items()
    if isinstance(source, protocols.WithTruth) and not source.has_truth
  ]
  if untold:  # lists of images for a test server
    settings['without_truth'] = untold
  return settings


def _check_output(args: argparse.Namespace) -> None:
  """Makes the folder; refuses one with anything else in it."""
  given = getattr(args, 'input', None) or ()
  output_folder.refuse_inside(
    args.output, [given] if isinstance(given, str) else given
  )
  output_folder.make(args.output)
  try:
    found = set(os.listdir(args.output)) - {_LOCK_FILE}
  except OSError as error:
    raise OSError(f'--output {args.output!r}: {error.strerror}') from None
  ours = {manifests.FILE_NAME, progress.FILE_NAME}
  if found and not found & ours:
    raise ValueError(
      f'--output {args.output!r} holds other files ({sorted(found)[0]!r}, ...)'
      '; give an empty or new folder'
    )


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
  """Holds the folder against a second preparation."""
  path = os.path.join(folder, _LOCK_FILE)
  try:
    file = open(path, 'w')  # noqa: SIM115
  except OSError as error:
    raise OSError(
      f'--output {folder!r} cannot be written to: {error.strerror}'
    ) from None
  with file_lock.held(file, f'another preparation is writing to {folder!r}'):
    yield


def _write_shards(
  args: argparse.Namespace,
  recipe: Recipe,
  sources: Mapping[str, Source],
  record: progress.Progress,
  write_shards: RunShards,
) -> int:
  """Writes the shards that are missing; number of images written."""
  tasks, needed = [], 0
  for split, source in sources.items():
    shards, num_bytes = preparation.plan(split, source, recipe)
    missing = [t for t in shards if t.name not in record.done]
    needed += num_bytes * len(missing) // len(shards)
    tasks += missing
  kept = len(record.done)
  if kept:
    print(f'{kept} finished shards are kept, {len(tasks)} are to be written')
  free = shutil.disk_usage(args.output).free
  if needed > free:
    raise ValueError(
      f'--output {args.output!r}: about {needed / 1e9:.1f} GB are to be '
      f'written, {free / 1e9:.1f} GB are free'
    )
  budget = _Budget(args.max_bad_fraction, sources, recipe)
  for done in record.done.values():
    budget.add(done)
  bar = tqdm.tqdm(
    total=sum(len(t.indices) for t in tasks), unit='image', smoothing=0.05
  )
  finished = write_shards(
    args.output, tasks, sources, recipe,
    workers=args.workers, advance=bar.update,
  )  # fmt: skip
  with bar, contextlib.closing(finished):
    for done in finished:
      record.add(done)
      budget.add(done)
  return bar.n


def _runner(args: argparse.Namespace, open_sources: OpenSources) -> RunShards:
  """What writes the shards: processes of this machine, or Beam."""
  if not args.beam:
    for name in ('runner', 'beam_options'):
      if getattr(args, name) is not None:
        raise ValueError(f'--{name} is an option of --beam, which is not given')
    return local_runner.run
  try:
    from input_pipeline.prepared import beam_runner
  except ModuleNotFoundError as error:
    if (error.name or '').partition('.')[0] != 'apache_beam':
      raise
    raise ValueError(
      '--beam needs apache_beam, which is not installed: '
      'pip install -r requirements-beam.txt'
    ) from None
  runner = args.runner or beam_runner.DIRECT
  return functools.partial(
    beam_runner.run,
    runner=runner,
    options=beam_runner.parse_options(
      runner, args.beam_options or '', args.workers
    ),
    open_sources=open_sources,
    args=args,
  )


class _Budget:
  """Counts bad images of each split against --max_bad_fraction."""

  def __init__(
    self, fraction: float, sources: Mapping[str, Source], recipe: Recipe
  ):
    self._fraction = fraction
    self._totals = {
      split: min(len(source), recipe.limit or len(source))
      for split, source in sources.items()
    }
    self._counts = dict.fromkeys(sources, 0)
    self._shown: dict[str, list[str]] = {split: [] for split in sources}

  def add(self, done: preparation.Done) -> None:
    """Raises TooManyBadImages, naming some, where the budget is exceeded."""
    self._counts[done.split] += len(done.bad)
    shown, total = self._shown[done.split], self._totals[done.split]
    limit = self._fraction * total
    shown += [f'  {k}: {r}' for k, r in done.bad[: _NUM_SHOWN - len(shown)]]
    if self._counts[done.split] > limit:
      raise TooManyBadImages(
        f'{self._counts[done.split]} bad images in split {done.split!r} are '
        f'more than --max_bad_fraction {self._fraction:g} allows '
        f'({limit:g} images of {total:,}):\n'
        + '\n'.join(shown)
        + '\nrepeat the command with a larger --max_bad_fraction to go on'
      )
