"""What the images of a class look like, from typical to odd.

  python -m tools.noise_audit --checkpoint workdirs/run --class_name tortoise \\
      --output audit
  python -m tools.noise_audit --checkpoint workdirs/run --classes tail \\
      --num_classes 8 --data records:data/x:train --output audit

Images of a class are embedded by the checkpoint's backbone, clustered by
k-means, and put into buckets by their distance to the nearest centroid (Sun et
al. 2017, figure 2). Odd images are in the last buckets, frequent mistakes have
clusters of their own. Writes two montages of each class, report.html, and
audit.jsonl with a line an image. docs/label-noise.md shows one.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import dataclasses
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
from absl import logging
from PIL import Image

from big_vision_like.pages import html_page
from big_vision_like.protocols import RecordReader, Source
from input_pipeline.examples.errors import record_named

from .cli import command, data_argument, output_folder
from .noise import bucket_montage, class_images, feature_clusters

_SAMPLE_SEED = 1707  # of the images taken where a class has too many
_NUM_LISTED = 10


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
  """One class.

  Attributes:
    label, name: of the class; title: the name for people.
    num_images: that carry it.
    indices: int64 [n] records looked at.
    clusters: of these.
  """

  label: int
  name: str
  title: str
  num_images: int
  indices: np.ndarray
  clusters: feature_clusters.Clusters

  @property
  def file_stem(self) -> str:
    """Of its pictures; its id, since the names of two may look alike."""
    plain = re.sub(r'[^A-Za-z0-9_-]+', '_', self.name)
    return f'{self.label:05d}-{plain[:60]}'

  def bucket_facts(self, bucket: int) -> tuple[int, float, float]:
    """Count, smallest and largest distance."""
    inside = self.clusters.distance[self.clusters.bucket == bucket]
    return len(inside), float(inside.min()), float(inside.max())


class Thumbnails:
  """Small square pictures of records; those that were asked for are kept."""

  def __init__(self, source: Source, size: int):
    from input_pipeline import pipeline

    specs = [dict(op='decode'), dict(op='resize', size=size, antialias=True)]
    self._source = source
    self._ops = pipeline.build_ops(specs, source, '--thumbnail')
    self._kept: dict[int, np.ndarray] = {}

  def __getitem__(self, index: int) -> np.ndarray:
    if index not in self._kept:
      rng = np.random.default_rng(0)
      with record_named(self._source, index, 'the sheets of a class'):
        example = self._source[index]
        for op in self._ops:
          example = op(example, rng)
      self._kept[index] = example['image']
    return self._kept[index]


def audit_class(
  embedder: Any,
  source: Source,
  label: int,
  indices: np.ndarray,
  args: argparse.Namespace,
) -> Audit | None:
  """Embeds and clusters a class; None where none of its images can be used."""
  num_images = len(indices)
  if num_images > args.max_images:
    rng = np.random.default_rng((_SAMPLE_SEED, label))
    indices = np.sort(rng.choice(indices, args.max_images, replace=False))
  indices, features = embedder.embed_all(source, indices)
  if not len(indices):
    return None
  clusters = feature_clusters.find(
    features,
    num_clusters=args.num_clusters,
    num_buckets=args.num_buckets,
    seed=args.seed,
  )
  name = source.vocabulary.names[label]
  title = source.vocabulary.readable_name(label)
  return Audit(label, name, title, num_images, indices, clusters)


def draw(audit: Audit, pictures: Thumbnails, columns: int) -> np.ndarray:
  """The montage of a class: a row a bucket, images evenly spread over it."""
  last = audit.clusters.num_buckets - 1
  rows = []
  for bucket in range(last + 1):
    end = {0: ', nearest', last: ', farthest'}.get(bucket, '')
    members = audit.clusters.members(bucket)
    chosen = feature_clusters.spread(members, columns)
    name = f'{bucket + 1}{end}' if last else 'all'
    rows.append(_row(name, audit, members, chosen, pictures))
  title = f'{audit.title}: {_counted(audit)}'
  return bucket_montage.draw(title, _method(audit), rows, columns)


def draw_clusters(
  audit: Audit, pictures: Thumbnails, columns: int
) -> np.ndarray:
  """The same by cluster: the images nearest to each centroid.

  What is wrong in the same way many times is a cluster of its own, near its
  centroid.
  """
  rows = []
  for cluster in range(audit.clusters.num_clusters):
    inside = np.flatnonzero(audit.clusters.cluster == cluster)
    near = inside[np.argsort(audit.clusters.distance[inside], kind='stable')]
    rows.append(
      _row(f'cluster {cluster + 1}', audit, near, near[:columns], pictures)
    )
  title = f'{audit.title}: clusters of {_counted(audit)}'
  subtitle = 'the images nearest to each centroid, largest cluster first'
  return bucket_montage.draw(title, subtitle, rows, columns)


def _row(
  name: str,
  audit: Audit,
  members: np.ndarray,
  chosen: Sequence[int] | np.ndarray,
  pictures: Thumbnails,
) -> bucket_montage.Row:
  distance = audit.clusters.distance[members]
  return bucket_montage.Row(
    name=name,
    lines=(
      f'{len(members):,} images',
      f'distance {distance.min():.2f} to {distance.max():.2f}',
    ),
    images=[pictures[int(audit.indices[i])] for i in chosen],
  )


def _counted(audit: Audit) -> str:
  looked, all_ = len(audit.indices), audit.num_images
  return (
    f'{looked:,} images' if looked == all_ else f'{looked:,} of {all_:,} images'
  )


def _method(audit: Audit) -> str:
  return (
    'by distance to the nearest centroid of their features (k-means, k='
    f'{audit.clusters.num_clusters})'
  )


def lines(audit: Audit, source: Source) -> Iterator[str]:
  """audit.jsonl: one line an image, nearest first."""
  c = audit.clusters
  for i in np.argsort(c.distance, kind='stable').tolist():
    index = int(audit.indices[i])
    row = {
      'class': audit.name,
      'key': _key(source, index),
      'index': index,
      'cluster': int(c.cluster[i]),
      'distance': round(float(c.distance[i]), 6),
      'bucket': int(c.bucket[i]) + 1,
    }
    yield json.dumps(row, ensure_ascii=False)


def _key(source: Source, index: int) -> str:
  """Name of the image: that inside the record, where it has one."""
  if isinstance(source, RecordReader):
    return source.read(index).key
  return source.key(index)


def section(
  audit: Audit, montages: Sequence[str], pictures: Thumbnails, source: Source
) -> list[Any]:
  """The class on the page: its montages and its oddest images."""
  page, c = html_page, audit.clusters
  far = np.argsort(-c.distance, kind='stable')[:_NUM_LISTED]
  figures = [
    page.figure(
      pictures[int(audit.indices[i])],
      f'{c.distance[i]:.3f}\n{_key(source, int(audit.indices[i]))}',
    )
    for i in far.tolist()
  ]
  return [
    page.element('h2', audit.title, id=f'class-{audit.label}'),
    *montages,
    page.element('p', 'The farthest images, distance and key:'),
    *figures,
  ]


def overview(audits: Sequence[Audit]) -> html_page.Markup:
  """The table of all classes at the top of the page."""
  page = html_page
  rows = []
  for audit in audits:
    distance = audit.clusters.distance
    link = page.element('a', audit.title, href=f'#class-{audit.label}')
    middle, far = np.quantile(distance, (0.5, 0.95))
    rows.append(
      (
        link, audit.num_images, len(audit.indices),
        audit.clusters.num_clusters, f'{middle:.3f}', f'{far:.3f}',
      )
    )  # fmt: skip
  header = (
    'class', 'images', 'looked at', 'k', 'median distance', '95th percentile'
  )  # fmt: skip
  return page.table(header, rows)


def run(args: argparse.Namespace) -> list[Audit]:
  """Audits the classes and writes everything."""
  from big_vision_like.inference import embedder as features
  from input_pipeline import pipeline

  _check(args)
  if args.data is not None:
    given = data_argument.parse(args.data, trusted=args.trust)
    _check_output(args.output, given, '--data')
  embedder = features.Embedder(
    args.checkpoint,
    trusted=args.trust,
    part=args.part,
    batch_size=args.batch_size,
    threads=args.threads,
    workers=args.workers,
  )
  if args.data is not None:
    source = data_argument.open_data(args.data, trusted=args.trust)
  else:
    where = "the run's input.source"
    _check_output(args.output, embedder.config.input.source, where)
    embedder.model.check_source()
    source = pipeline.open_train(embedder.config, where)
  found = class_images.ClassImages(source, args.filled_in)
  if args.class_name is not None:
    labels = found.named(args.class_name.split(','))
  else:
    labels = found.by_count(args.num_classes, args.classes, args.min_images)
  output_folder.make(args.output)
  pictures = Thumbnails(source, args.thumbnail)
  audits, sections, skipped = [], [], []
  path = os.path.join(args.output, 'audit.jsonl')
  with open(path, 'w', encoding='utf-8') as file:
    for label in tqdm.tqdm(labels, unit=' classes', disable=None):
      audit = audit_class(embedder, source, label, found.of(label), args)
      if audit is None:
        skipped.append(source.vocabulary.names[label])
        continue
      file.writelines(f'{line}\n' for line in lines(audit, source))
      shown = []
      for kind, paint in (('buckets', draw), ('clusters', draw_clusters)):
        image = paint(audit, pictures, args.columns)
        name = f'{audit.file_stem}-{kind}.png'
        Image.fromarray(image).save(os.path.join(args.output, name))
        shown.append(html_page.picture(image, alt=f'{audit.name} by {kind}'))
      sections += section(audit, shown, pictures, source)
      audits.append(audit)
  facts = [
    ('checkpoint', str(embedder.path)),
    ('data', args.data or 'those of the run'),
    ('labels', 'after fill-in' if args.filled_in else 'as given'),
    ('records whose labels cannot be read', found.num_unreadable),
    ('images that cannot be used', len(embedder.bad)),
    *((f'  {key}', reason) for key, reason in _first(embedder.bad)),
    *(('no usable image', name) for name in skipped),
  ]
  html_page.save(
    os.path.join(args.output, 'report.html'),
    'Noise audit',
    html_page.table(('', ''), facts),
    html_page.element('p', ''),
    overview(audits),
    *sections,
  )
  _say(audits, facts, args.output)
  return audits


def _check_output(output: str, source: Mapping[str, Any], of: str) -> None:
  output_folder.refuse_inside(output, output_folder.places(source), of=of)


def _first(bad: dict[str, str]) -> list[tuple[str, str]]:
  return list(bad.items())[:_NUM_LISTED]


def _say(audits: Sequence[Audit], facts: Sequence[Any], output: str) -> None:
  for name, value in facts:
    print(f'{name}: {value}')
  print(f'{"class":<32}{"images":>9}{"k":>4}  distance by bucket')
  for audit in audits:
    highs = [
      f'{audit.bucket_facts(b)[2]:.2f}'
      for b in range(audit.clusters.num_buckets)
    ]
    low = audit.bucket_facts(0)[1]
    name = audit.title if len(audit.title) < 32 else f'{audit.title[:28]}...'
    print(
      f'{name:<32}{len(audit.indices):>9,}{audit.clusters.num_clusters:>4}  '
      f'{low:.2f} | {" | ".join(highs)}'
    )
  print(f'written to {output}: {len(audits)} classes, report.html, audit.jsonl')


def _check(args: argparse.Namespace) -> None:
  for name in (
    'num_classes', 'num_clusters', 'num_buckets', 'columns', 'max_images',
    'min_images', 'batch_size', 'threads',
  ):  # fmt: skip
    if getattr(args, name) < 1:
      raise ValueError(
        f'--{name} must be at least 1, got {getattr(args, name)}'
      )
  if args.workers < 0:
    raise ValueError(f'--workers must not be negative, got {args.workers}')
  if not 16 <= args.thumbnail <= 512:
    raise ValueError(f'--thumbnail must be 16 to 512, got {args.thumbnail}')
  if args.class_name is not None and args.classes is not None:
    raise ValueError('give --class_name or --classes, not both')


def parser() -> argparse.ArgumentParser:
  """The command line; every default is in its help."""
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.noise_audit'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--checkpoint', required=True, help='workdir or folder of a checkpoint')
  add('--output', required=True, help='folder of the results')
  add('--data', help=f'{data_argument.HELP}; default: training data of the run')
  group = p.add_argument_group('classes')
  group.add_argument('--class_name', help='names of labels, with commas')
  group.add_argument(
    '--classes', choices=class_images.PARTS,
    help='a third of the classes by their number of images; default: of all',
  )  # fmt: skip
  for name, default, what in (
    ('num_classes', 4, 'without --class_name: so many, evenly spread'),
    ('min_images', 10, 'without --class_name: classes with at least so many'),
    ('max_images', 5_000, 'of a class; above, a random sample'),
  ):
    group.add_argument(
      f'--{name}', type=int, default=default, help=f'{what}; default: {default}'
    )
  group.add_argument(
    '--filled_in', action='store_true',
    help='images of descendants too, as after fill-in',
  )  # fmt: skip
  group = p.add_argument_group('method and looks')
  for name, default, what in (
    ('num_clusters', 8, 'k of k-means; small classes have fewer'),
    ('num_buckets', 5, 'of equally many images'),
    ('seed', 0, 'of k-means'),
    ('columns', 12, 'images shown of each bucket'),
    ('thumbnail', 80, 'side of a shown image in pixels'),
    ('batch_size', 64, 'images at a time'),
    ('threads', 2, 'reading threads'),
    ('workers', 0, 'decode processes; 0: threads only'),
  ):
    group.add_argument(
      f'--{name}', type=int, default=default, help=f'{what}; default: {default}'
    )
  command.add_part(p)
  command.add_trust(p)
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it reads
  return command.run(lambda: run(args))


if __name__ == '__main__':
  sys.exit(main())
