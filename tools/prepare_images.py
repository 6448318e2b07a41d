"""Image folder, CSV or JSONL -> data set in the record format.

  python -m tools.prepare_images --input photos/ --output data/photos
  python -m tools.prepare_images --input labels.csv --output data/x \\
      --image_column file --labels_column wnid --hierarchy is_a.tsv
  python -m tools.prepare_images --output data/x --verify

The input is read by the same sources that train from it directly (docs/data.md,
"Preparing your own images"). Interrupted work goes on where it stopped when
the command is repeated; the result does not depend on --workers.

Exit codes: 0 done; 1 too many bad images, a worker process died, or --verify
found a difference; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import collections
import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import process
from typing import Any

import numpy as np
import tqdm

from big_vision_like import plugins
from big_vision_like.vocabulary import Vocabulary
from input_pipeline import manifest as manifests
from input_pipeline import preparation
from input_pipeline.preparation import Done, Recipe

BAD_FILE = 'bad_images.jsonl'
_LOCK_FILE = '.lock'
_VOCABULARY_FILE = 'vocabulary.jsonl'
_NUM_SHOWN = 10
# Handed to the source as they are, where given.
_SOURCE_OPTIONS = (
  'root', 'image_column', 'labels_column', 'split_column', 'label_separator',
  'holdout_percent', 'merge_rows', 'vocabulary', 'hierarchy',
  'hierarchy_unlisted', 'hierarchy_max_depth',
)  # fmt: skip


class TooManyBadImages(Exception):
  """The budget of --max_bad_fraction is exceeded."""


def parser() -> argparse.ArgumentParser:
  """The command line; every default is in its help."""
  p = argparse.ArgumentParser(
    prog='python -m tools.prepare_images',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--input', help='image folder, or .csv, .tsv or .jsonl file (.gz too)')
  add('--output', required=True, help='folder of the data set')
  add('--splits', default='train,val', help='default: %(default)s')
  add('--verify', action='store_true', help='check a finished data set')

  group = p.add_argument_group('stored images and shards')
  group.add_argument(
    '--num_shards', type=int, help='of each split; default by --shard_mb'
  )
  group.add_argument(
    '--shard_mb', type=float, default=256, help='default: %(default)s'
  )
  group.add_argument(
    '--resize', type=int, metavar='PIXELS',
    help='store JPEGs of this many pixels squared (bilinear, aspect ratio not '
    'kept) instead of the files as they are',
  )  # fmt: skip
  group.add_argument(
    '--quality', type=int, default=95,
    help='JPEG quality with --resize; default: %(default)s',
  )  # fmt: skip
  group.add_argument('--limit', type=int, help='images to take of each split')
  group.add_argument(
    '--keep_bad', action='store_true', help='store undecodable images too'
  )
  group.add_argument(
    '--max_bad_fraction', type=float, default=0.01,
    help='stop above this part of bad images; default: %(default)s',
  )  # fmt: skip
  group.add_argument(
    '--seed', type=int, default=0, help='of the order; default: %(default)s'
  )
  group.add_argument(
    '--workers', type=int, default=os.cpu_count(),
    help='processes; default: %(default)s',
  )  # fmt: skip

  group = p.add_argument_group(
    'labels', 'options of the source, if it has them'
  )
  for name in _SOURCE_OPTIONS:
    if name == 'merge_rows':
      group.add_argument('--merge_rows', action='store_true', default=None)
    else:
      kind = {'holdout_percent': float, 'hierarchy_max_depth': int}
      group.add_argument(f'--{name}', type=kind.get(name, str))
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  try:
    if args.verify:
      return verify(args.output)
    prepare(args)
    return 0
  except TooManyBadImages as error:
    print(f'error: {error}', file=sys.stderr)
    return 1
  except process.BrokenProcessPool:
    print(
      'error: a worker process died (out of memory?); finished shards are '
      'kept, repeat the command to go on, perhaps with fewer --workers',
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


def verify(folder: str) -> int:
  """Prints every difference between files and manifest; 1 if there is any."""
  manifest = manifests.load(folder)
  problems = []
  for split, shards in manifest.splits.items():
    found = manifests.verify(folder, manifest, split)
    good = len(shards) - len(found)
    print(
      f'{split}: {good} of {len(shards)} shards are right, '
      f'{manifest.num_records(split):,} records, '
      f'{manifest.num_bytes(split) / 1e6:,.1f} MB'
    )
    problems += found
  for problem in problems:
    print(f'  {problem}')
  print('DIFFERENT from the manifest' if problems else 'all as in the manifest')
  return 1 if problems else 0


def prepare(args: argparse.Namespace) -> None:
  """Writes the data set, or what is missing of it."""
  if args.input is None:
    raise ValueError('--input is missing: an image folder, CSV or JSONL file')
  if args.workers < 1:
    raise ValueError(f'--workers must be at least 1, got {args.workers}')
  if not 0 <= args.max_bad_fraction <= 1:
    raise ValueError(
      f'--max_bad_fraction must be in [0, 1], got {args.max_bad_fraction}'
    )
  recipe = Recipe(
    **{f.name: getattr(args, f.name) for f in dataclasses.fields(Recipe)}
  )
  _check_output(args.input, args.output)
  sources = open_sources(args)
  settings = _settings(recipe, sources)
  with _locked(args.output):
    if os.path.exists(os.path.join(args.output, manifests.FILE_NAME)):
      manifest = manifests.load(args.output)
      preparation.check_settings(args.output, manifest.options, settings)
      for split in manifest.splits:
        manifests.check(args.output, manifest, split)
      print('the data set is finished already; --verify checks it in full')
      return
    progress = preparation.Progress(args.output, settings)
    start = time.monotonic()
    written = _write_shards(args, recipe, sources, progress)
    finish(args.output, args.hierarchy, sources, progress, settings)
    _report(args.output, sources, written, time.monotonic() - start)


def open_sources(args: argparse.Namespace) -> dict[str, Any]:
  """split -> source; all with the same labels."""
  kind = 'folder' if os.path.isdir(args.input) else 'table'
  if not os.path.exists(args.input):
    raise FileNotFoundError(f'--input {args.input!r} does not exist')
  options = {
    name: getattr(args, name)
    for name in _SOURCE_OPTIONS
    if getattr(args, name) is not None
  }
  if options.get('label_separator') == '':
    options['label_separator'] = None
  source_class = plugins.get('source', kind)
  where = f'--input {args.input} ({kind})'
  plugins.check_kwargs(where, source_class, {'path': args.input, **options})
  splits = [name.strip() for name in args.splits.split(',')]
  if len(set(splits)) < len(splits) or not all(splits):
    raise ValueError(f'--splits {args.splits!r} is not a list of names')
  for name in splits:
    if name != os.path.basename(name):
      raise ValueError(f'--splits: {name!r} cannot be part of a file name')
  sources = {
    split: source_class(path=args.input, split=split, **options)
    for split in splits
  }
  first = sources[splits[0]]
  for split, source in sources.items():
    if len(source) == 0:
      raise ValueError(f'{where}: split {split!r} has no images')
    if source.vocabulary.names != first.vocabulary.names:
      raise ValueError(
        f'{where}: splits {splits[0]!r} and {split!r} have different labels; '
        'give the option --vocabulary'
      )
  return sources


def _settings(recipe: Recipe, sources: Mapping[str, Any]) -> dict[str, Any]:
  """All that decides the bytes of the output, as plain data."""
  settings = dataclasses.asdict(recipe)
  settings['input'] = {s: source.fingerprint() for s, source in sources.items()}
  return settings


def _check_output(source: str, output: str) -> None:
  """Makes the folder; refuses one with anything else in it."""
  inside = os.path.commonpath(
    [os.path.realpath(source), os.path.realpath(output)]
  )
  if os.path.isdir(source) and inside == os.path.realpath(source):
    raise ValueError(f'--output {output!r} lies inside --input {source!r}')
  try:
    os.makedirs(output, exist_ok=True)
    found = set(os.listdir(output)) - {_LOCK_FILE}
  except OSError as error:
    raise OSError(f'--output {output!r}: {error.strerror}') from None
  ours = {manifests.FILE_NAME, preparation.PROGRESS_FILE}
  if found and not found & ours:
    raise ValueError(
      f'--output {output!r} holds other files ({sorted(found)[0]!r}, ...); '
      'give an empty or new folder'
    )


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
  """Holds the folder against a second preparation; the kernel frees it."""
  path = os.path.join(folder, _LOCK_FILE)
  try:
    file = open(path, 'w')  # noqa: SIM115
  except OSError as error:
    raise OSError(
      f'--output {folder!r} cannot be written to: {error.strerror}'
    ) from None
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise ValueError(
        f'another preparation is writing to {folder!r}'
      ) from None
    yield


def _write_shards(
  args: argparse.Namespace,
  recipe: Recipe,
  sources: Mapping[str, Any],
  progress: preparation.Progress,
) -> int:
  """Writes the shards that are missing; number of images written."""
  tasks, needed = [], 0
  for split, source in sources.items():
    shards, num_bytes = preparation.plan(split, source, recipe)
    missing = [t for t in shards if t.name not in progress.done]
    needed += num_bytes * len(missing) // len(shards)
    tasks += missing
  kept = len(progress.done)
  if kept:
    print(f'{kept} finished shards are kept, {len(tasks)} are to be written')
  free = shutil.disk_usage(args.output).free
  if needed > free:
    raise ValueError(
      f'--output {args.output!r}: about {needed / 1e9:.1f} GB are to be '
      f'written, {free / 1e9:.1f} GB are free'
    )
  bar = tqdm.tqdm(
    total=sum(len(t.indices) for t in tasks), unit='image', smoothing=0.05
  )
  limits = {
    split: args.max_bad_fraction * min(len(source), recipe.limit or len(source))
    for split, source in sources.items()
  }
  with bar, contextlib.closing(
    preparation.run(
      args.output, tasks, sources, recipe,
      workers=args.workers, advance=bar.update,
    )
  ) as finished:  # fmt: skip
    _check_budget(progress, limits)
    for done in finished:
      progress.add(done)
      _check_budget(progress, limits)
  return bar.n


def _check_budget(
  progress: preparation.Progress, limits: Mapping[str, float]
) -> None:
  for split, limit in limits.items():
    bad = [b for d in progress.done.values() if d.split == split for b in d.bad]
    if len(bad) > limit:
      shown = '\n'.join(f'  {k}: {r}' for k, r in bad[:_NUM_SHOWN])
      raise TooManyBadImages(
        f'{len(bad)} bad images in split {split!r} are more than '
        f'--max_bad_fraction allows ({limit:g}):\n{shown}\n'
        'repeat the command with a larger --max_bad_fraction to go on'
      )


def finish(
  folder: str,
  hierarchy: str | None,
  sources: Mapping[str, Any],
  progress: preparation.Progress,
  settings: Mapping[str, Any],
) -> None:
  """Writes vocabulary, hierarchy, list of bad images, and the manifest last."""
  done: dict[str, list[Done]] = {split: [] for split in sources}
  for _, one in sorted(progress.done.items()):
    done[one.split].append(one)
  labels = next(iter(sources.values())).vocabulary
  counted = 'train' if 'train' in done else 'all' if 'all' in done else None
  if counted is not None:
    labels = _counted(labels, done[counted])
  labels.save(os.path.join(folder, _VOCABULARY_FILE))
  name, unlisted = None, 'error'
  if hierarchy is not None:
    name = f'hierarchy.{os.path.basename(hierarchy).partition(".")[2]}'
    shutil.copyfile(hierarchy, os.path.join(folder, name))
    unlisted = 'traverse'  # what was to be added is in the vocabulary now
  _save_bad(os.path.join(folder, BAD_FILE), done)
  manifests.Manifest(
    splits={s: tuple(d.shard for d in ones) for s, ones in done.items()},
    labels={
      split: sum(sum(d.label_counts.values()) for d in ones)
      for split, ones in done.items()
    },
    options=settings,
    vocabulary=_VOCABULARY_FILE,
    hierarchy=name,
    hierarchy_unlisted=unlisted,
  ).save(folder)
  progress.remove()


def _counted(labels: Vocabulary, shards: Sequence[Done]) -> Vocabulary:
  """The vocabulary with the number of images of each label as stored."""
  counts = np.zeros(len(labels), np.int64)
  for done in shards:
    for label, number in done.label_counts.items():
      counts[label] += number
  return dataclasses.replace(labels, counts=counts, origin='')


def _save_bad(path: str, done: Mapping[str, Sequence[Done]]) -> None:
  """One object a line: split, key, reason."""
  with open(path, 'w', encoding='utf-8') as file:
    for split, shards in done.items():
      for key, reason in (b for d in shards for b in d.bad):
        row = {'split': split, 'key': key, 'reason': reason}
        file.write(f'{json.dumps(row)}\n')


def _report(
  folder: str, sources: Mapping[str, Any], written: int, seconds: float
) -> None:
  manifest = manifests.load(folder)
  with open(os.path.join(folder, BAD_FILE), encoding='utf-8') as file:
    bad = collections.Counter(json.loads(line)['split'] for line in file)
  for split, shards in manifest.splits.items():
    images, labels = manifest.num_records(split), manifest.labels[split]
    print(
      f'{split}: {images:,} images, {labels:,} labels '
      f'({labels / max(images, 1):.2f} an image), {bad[split]:,} bad, '
      f'{manifest.num_bytes(split) / 1e6:,.1f} MB in {len(shards)} shards'
    )
  classes = len(next(iter(sources.values())).vocabulary)
  print(
    f'{classes:,} classes; {written:,} images in {seconds:.1f} s, '
    f'{written / max(seconds, 1e-9):,.0f} images/s; wrote {folder}'
  )


if __name__ == '__main__':
  sys.exit(main())
