"""A densely labelled evaluation set, as FastEval14k is, from a prepared one.

  python -m tools.make_fasteval --input data/open_images:validation,test \\
      --output data/open_images_fasteval --min_confidence 1
  python -m tools.make_fasteval --input data/imagenet21k:val \\
      --output data/imagenet21k_fasteval --min_positives 10 --choose random

JFT models are judged on 14,000 images with about 37 labels each out of some
6,000 classes (Sun et al. 2017, section 4). This chooses classes with enough
images and the images of which most is known, and writes a data set of its own
with the split 'fasteval' and the same vocabulary and hierarchy; classes.txt is
the annotated vocabulary and weights.csv the class weights of the evaluator
multilabel_map. docs/label-states.md explains it.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import contextlib
import csv
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from evaluators.harness import class_files
from input_pipeline.examples.errors import record_named
from input_pipeline.files import retries
from input_pipeline.labels import stored_labels
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import records
from input_pipeline.sources.records import Source

from .cli import command, output_folder
from .embedding import fasteval_choice
from .embedding.fasteval_choice import Counts, Limits, Pool

SPLIT = 'fasteval'
_NUM_SHOWN = 10


def parser() -> argparse.ArgumentParser:
  """The command line; every default is in its help."""
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.make_fasteval'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )

  def add(name: str, text: str, **options: Any) -> None:
    if options.get('default') is not None:
      text += '; default: %(default)s'
    p.add_argument(name, help=text, **options)

  add('--input', 'FOLDER:SPLIT[,SPLIT...] of the pool', required=True)
  add('--output', 'new folder', required=True)
  add('--num_images', 'images to choose', type=int, default=14_000)
  add(
    '--choose', 'images with most labels, or any', default='most_labels',
    choices=fasteval_choice.CHOICES,
  )  # fmt: skip
  add('--seed', 'of the order and of random choice', type=int, default=0)
  add('--min_positives', 'images that a class needs', type=int, default=10)
  add(
    '--min_negatives', 'images known not to show it that a class needs',
    type=int, default=1,
  )  # fmt: skip
  add('--max_classes', 'the most frequent classes only', type=int)
  add('--classes', 'text file of class names, the only ones considered')
  add(
    '--min_confidence', 'labels that are less sure are dropped', type=float,
    default=0.0,
  )  # fmt: skip
  p.add_argument(
    '--no_fill_in', action='store_true',
    help='leave labels and negatives as they are recorded',
  )  # fmt: skip
  add('--popularity', 'CSV or JSONL of name and weight, for weights.csv')
  add('--shard_mb', 'size of the shards in MB', type=float, default=256.0)
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(
    lambda: make(args), interrupted='interrupted; nothing is left behind'
  )


def make(args: argparse.Namespace) -> None:
  """Reads the pool, chooses, writes the data set, says what it is."""
  _check_numbers(args)
  _check_output(args.output)
  folder, splits = _parse_input(args.input)
  output_folder.refuse_inside(args.output, [folder])
  sources = [Source(path=folder, split=split) for split in splits]
  vocabulary = sources[0].vocabulary
  allowed = None
  if args.classes is not None:
    names = class_files.read_list(args.classes)
    allowed = class_files.class_mask(names, vocabulary, args.classes)
  popularity = None
  if args.popularity is not None:
    columns = ('weight', 'popularity_weight')
    popularity = class_files.read_values(args.popularity, vocabulary, columns)
  limits = Limits(
    args.min_positives, args.min_negatives, args.max_classes, allowed
  )
  with _bar('reading labels', sum(map(len, sources))) as bar:
    pool = Pool(
      sources,
      min_confidence=args.min_confidence,
      fill_in=not args.no_fill_in,
      seed=args.seed,
      tick=bar.update,
    )
  pool_counts = fasteval_choice.count(pool, np.arange(len(pool)))
  wanted = limits.choose(pool_counts)
  if not wanted.any():
    raise ValueError(
      f'no class of {args.input} has --min_positives {args.min_positives} and '
      f'--min_negatives {args.min_negatives} images'
    )
  rows = fasteval_choice.choose_images(
    pool, wanted, args.num_images, args.choose
  )
  counts = fasteval_choice.count(pool, rows)
  classes = wanted & limits.fulfilled(counts)
  if not classes.any():
    raise ValueError(
      f'none of {wanted.sum():,} classes has --min_positives '
      f'{args.min_positives} images among the {len(rows):,} chosen ones; '
      'choose more images'
    )
  weights = _weights(counts, classes, len(rows), popularity, args, vocabulary)
  lines = [
    *_notes(args, pool, pool_counts.num_contradicted),
    *_statistics(pool, rows, wanted, classes, counts),
  ]
  with _finished_folder(args.output) as making:
    _write_records(making, args, pool, rows, sources, lines)
    names = [vocabulary.names[c] for c in np.flatnonzero(classes)]
    _write_lines(os.path.join(making, 'classes.txt'), names)
    with open(
      os.path.join(making, 'weights.csv'), 'w', encoding='utf-8', newline=''
    ) as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(['name', 'weight'])
      writer.writerows(
        (name, repr(float(w))) for name, w in zip(names, weights[classes])
      )
  print('\n'.join(lines))
  for key, reason in list(pool.bad.items())[:_NUM_SHOWN]:
    print(f'  left out: {key}: {reason}')
  print(f'written to {args.output}')


def _check_numbers(args: argparse.Namespace) -> None:
  for name in ('num_images', 'min_positives', 'max_classes'):
    value = getattr(args, name)
    if value is not None and value < 1:
      raise ValueError(f'--{name} must be at least 1, got {value}')
  if args.min_negatives < 0:
    raise ValueError(
      f'--min_negatives must be at least 0, got {args.min_negatives}'
    )
  if not 0 <= args.min_confidence <= 1:
    raise ValueError(
      f'--min_confidence must be in [0, 1], got {args.min_confidence}'
    )
  if not args.shard_mb > 0:
    raise ValueError(f'--shard_mb must be positive, got {args.shard_mb}')


def _check_output(output: str) -> None:
  if os.path.exists(output) and (
    not os.path.isdir(output) or os.listdir(output)
  ):
    raise ValueError(f'--output {output!r} exists; give a new or empty folder')


def _parse_input(text: str) -> tuple[str, list[str]]:
  """Folder and splits of 'FOLDER:SPLIT,SPLIT'; none is taken unless named."""
  folder, _, splits = text.rpartition(':')
  if not folder or os.path.isdir(text):
    folder, splits = text, ''
  manifest = manifests.load(folder)
  names = [name.strip() for name in splits.split(',') if name.strip()]
  if not names:
    raise ValueError(
      f'--input {text!r} names no split; give FOLDER:SPLIT, one or more of '
      f'{", ".join(manifest.splits)} - not those that models train on'
    )
  if len(set(names)) < len(names):
    raise ValueError(f'--input {text!r} names a split twice')
  for name in names:
    manifests.check_split(manifest, name, f'data set {folder!r}')
  return folder, names


def _weights(
  counts: Counts,
  classes: np.ndarray,
  num_images: int,
  popularity: np.ndarray | None,
  args: argparse.Namespace,
  vocabulary: Any,
) -> np.ndarray:
  """float64 [C]: popularity, or the share of the chosen images."""
  if popularity is None:
    return counts.positives / num_images
  missing = np.flatnonzero(classes & np.isnan(popularity))
  if len(missing):
    raise ValueError(
      f'{args.popularity}: no weight for {len(missing)} of the chosen classes, '
      f'such as {vocabulary.names[missing[0]]!r}'
    )
  return popularity


def _write_records(
  making: str,
  args: argparse.Namespace,
  pool: Pool,
  rows: np.ndarray,
  sources: Sequence[Source],
  notes: Sequence[str],
) -> None:
  """Shards, label index, vocabulary, hierarchy and manifest."""
  folder = sources[0].path
  given = manifests.load(folder)
  for name in filter(None, (given.vocabulary, given.hierarchy)):
    shutil.copyfile(os.path.join(folder, name), os.path.join(making, name))
  stored = [given.num_bytes(s.split) / max(len(s), 1) for s in sources]
  num_bytes = float(np.array(stored)[pool.split[rows]].sum())
  num_shards = max(1, min(round(num_bytes / 1e6 / args.shard_mb), len(rows)))
  shards, parts = [], []
  with _bar('writing', len(rows)) as bar:
    for i, part in enumerate(np.array_split(rows, num_shards)):
      labels: list[np.ndarray] = []

      def read(part=part, labels=labels) -> Iterator[records.Record]:
        labels.clear()
        for row in part:
          split, index = int(pool.split[row]), int(pool.index[row])
          with record_named(sources[split], index, '--input'):
            record = sources[split].read(index)
          record = fasteval_choice.trusted(record, args.min_confidence)
          labels.append(record.labels)
          yield record
          bar.update()

      name = manifests.shard_name(SPLIT, i, num_shards)
      path = os.path.join(making, name)
      num = retries.call(lambda p=path, r=read: records.write_shard(p, r()))
      shards.append(manifests.describe(making, name, num))
      counts = np.array([len(ids) for ids in labels], np.int64)
      parts.append(stored_labels.Rows(counts, np.concatenate(labels)))
  num_labels = sum(len(part.labels) for part in parts)
  index = stored_labels.join(making, SPLIT, parts, len(rows), num_labels)
  options = {k: v for k, v in vars(args).items() if k != 'output'}
  options['fingerprints'] = [source.fingerprint() for source in sources]
  manifests.Manifest(
    splits={SPLIT: tuple(shards)},
    labels={SPLIT: num_labels},
    options={'made_by': 'make_fasteval', 'order': manifests.ORDER, **options},
    vocabulary=given.vocabulary,
    hierarchy=given.hierarchy,
    hierarchy_unlisted=given.hierarchy_unlisted,
    label_index={
      SPLIT: {k: manifests.describe_file(making, n) for k, n in index.items()}
    },
    notes={SPLIT: tuple(notes)},
  ).save(making)


def _notes(
  args: argparse.Namespace, pool: Pool, num_contradicted: int
) -> Iterator[str]:
  """What was met and left out."""
  if len(pool) < args.num_images:
    yield f'asked for {args.num_images:,} images, the pool has {len(pool):,}'
  if pool.bad:
    yield f'{len(pool.bad):,} records of the pool cannot be used'
  if pool.num_unsure:
    yield (
      f'{pool.num_unsure:,} labels of the pool are less sure than '
      f'{args.min_confidence}: dropped'
    )
  if num_contradicted:
    yield (
      f'{num_contradicted:,} verified negatives of the pool are above a label '
      'of their image: dropped'
    )


def _statistics(
  pool: Pool,
  rows: np.ndarray,
  wanted: np.ndarray,
  classes: np.ndarray,
  counts: Counts,
) -> Iterator[str]:
  """What the set is, beside the paper's figures."""
  num = len(rows)
  raw = sum(len(pool.raw(row)) for row in rows) / num
  filled, known = counts.positives, counts.negatives
  yield f'images                        {num:>10,}   (paper: 14,000)'
  yield f'classes                       {classes.sum():>10,}   (paper: ~6,000)'
  if lost := int(wanted.sum() - classes.sum()):
    yield f'  too rare among these images {lost:>10,}'
  yield f'labels an image, as recorded  {raw:>10.2f}'
  yield f'  after fill-in               {filled.sum() / num:>10.2f}'
  mean = filled[classes].sum() / num
  yield f'  of the classes above        {mean:>10.2f}   (paper: ~37)'
  if pool.verified:
    mean = known[classes].sum() / num
    yield f'verified negatives of these   {mean:>10.2f}'


@contextlib.contextmanager
def _finished_folder(path: str) -> Iterator[str]:
  """A folder that appears under its name only when the block has succeeded."""
  parent, name = os.path.split(os.path.abspath(path))
  os.makedirs(parent, exist_ok=True)
  making = tempfile.mkdtemp(prefix=f'.{name}.', dir=parent)
  try:
    yield making
    os.chmod(making, 0o777 & ~_umask())  # as any new folder
    os.rename(making, path)  # in place of an empty one
  except BaseException:
    shutil.rmtree(making)
    raise


def _umask() -> int:
  mask = os.umask(0)
  os.umask(mask)
  return mask


def _write_lines(path: str, lines: Sequence[str]) -> None:
  with open(path, 'w', encoding='utf-8', newline='\n') as file:
    file.writelines(f'{line}\n' for line in lines)


def _bar(what: str, total: int) -> tqdm.tqdm:
  return tqdm.tqdm(
    total=total, desc=what, unit=' images', unit_scale=True, disable=None
  )


if __name__ == '__main__':
  sys.exit(main())
