"""Manifest of a record data set: which files, how many records, checksums.

The folder of a data set in the record format (docs/data.md):

    train-00000-of-00016.array_record ...   shards, <split>-<i>-of-<n>
    vocabulary.jsonl                        names of the label ids, counts
    train.labels.npy, train.label_ends.npy  label index (stored_labels.py)
    train.image_sizes.npy, ...              the images (stored_images.py)
    train.objects.npy                       their objects (stored_objects.py)
    hierarchy.tsv                           optional: child, parent
    manifest.json                           this module

Opening compares size and the checksum of the first bytes of every shard and of
the label index: a file that is missing, cut short, renamed or swapped is named
before the first step. `verify` compares full checksums and record counts.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from big_vision_like.config import json_text, redaction
from input_pipeline.files import atomic, retries
from input_pipeline.labels.hierarchy import Unlisted
from input_pipeline.prepared.records import ShardReader

FILE_NAME = 'manifest.json'
FORMAT = 'labelled images in array_record'
VERSION = 2
_READABLE = (1, 2)  # 2 added the label index and the notes
ORDER = 'hash'  # options['order'] of records stored by a hash of (seed, key)
_HEAD_BYTES = 4096
_BLOCK_BYTES = 1 << 20
_NUM_SHOWN = 20
_NUM_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Shard:
  """One file: name in the folder, size, SHA-256 of all and of the head."""

  name: str
  records: int
  bytes: int
  sha256: str
  head_sha256: str


@dataclasses.dataclass(frozen=True)
class File:
  """One file beside the shards: name, size, SHA-256 of all and of the head."""

  name: str
  bytes: int
  sha256: str
  head_sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What a data set folder holds.

  Attributes:
    splits: shards of each split, in order.
    labels: raw labels in each split.
    options: how the data set was made.
    vocabulary: file name of the vocabulary.
    hierarchy: file name of the hierarchy or None.
    hierarchy_unlisted: how nodes outside the vocabulary are treated.
    label_index: of each split that has one, 'labels' and 'label_ends'; of
      newer data sets 'image_sizes' too, and 'image_ids' and 'objects' where
      there are some.
    notes: of each split, lines on what the preparation met and left out.
  """

  splits: Mapping[str, tuple[Shard, ...]]
  labels: Mapping[str, int]
  options: Mapping[str, Any]
  vocabulary: str = 'vocabulary.jsonl'
  hierarchy: str | None = None
  hierarchy_unlisted: Unlisted = 'error'
  label_index: Mapping[str, Mapping[str, File]] = dataclasses.field(
    default_factory=dict
  )
  notes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

  def num_records(self, split: str) -> int:
    return sum(shard.records for shard in self.splits[split])

  def num_bytes(self, split: str) -> int:
    return sum(shard.bytes for shard in self.splits[split])

  def files(self, split: str) -> list[Shard | File]:
    """Shards and label index of a split."""
    return [*self.splits[split], *self.label_index.get(split, {}).values()]

  def save(self, folder: str) -> None:
    """Writes manifest.json, whole or not at all."""
    content = {'format': FORMAT, 'version': VERSION}
    content |= dataclasses.asdict(self)
    content['options'] = redaction.plain(content['options'])
    content['totals'] = {
      split: {
        'records': self.num_records(split),
        'labels': self.labels[split],
        'bytes': self.num_bytes(split),
        'shards': len(shards),
      }
      for split, shards in self.splits.items()
    }
    path = os.path.join(folder, FILE_NAME)
    atomic.write_json(path, content, unique=False)


def shard_name(split: str, index: int, num_shards: int) -> str:
  """'train-00003-of-00016.array_record'."""
  return f'{split}-{index:05d}-of-{num_shards:05d}.array_record'


def describe(folder: str, name: str, num_records: int) -> Shard:
  """The manifest's entry of a finished shard; reads the whole file."""
  file = describe_file(folder, name)
  return Shard(name, num_records, file.bytes, file.sha256, file.head_sha256)


def describe_file(folder: str, name: str) -> File:
  """The manifest's entry of another file; reads all of it."""
  path = os.path.join(folder, name)
  digest = hashlib.sha256()
  with retries.open_binary(path) as file:
    while block := file.read(_BLOCK_BYTES):
      digest.update(block)
  return File(name, os.path.getsize(path), digest.hexdigest(), _head(path))


def _head(path: str) -> str:
  with retries.open_binary(path) as file:
    return hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()


def load(folder: str) -> Manifest:
  """Reads the manifest of a data set folder.

  Raises:
    FileNotFoundError: no such folder, or no manifest in it.
    ValueError: not a manifest of this format and version.
  """
  folder = os.fspath(folder)
  path = os.path.join(folder, FILE_NAME)
  if not os.path.isdir(folder):
    raise FileNotFoundError(f'no data set folder {folder!r}')
  if not os.path.exists(path):
    raise FileNotFoundError(
      f'{folder!r} has no {FILE_NAME}: not a data set in the record format, or '
      'its preparation has not finished (docs/preparing-data.md)'
    )
  with retries.open_binary(path) as file:
    try:
      content = json_text.parse(file.read())
      found = content.pop('format'), content.pop('version')
    except (ValueError, KeyError, AttributeError, TypeError) as error:
      raise ValueError(f'{path}: not a manifest: {error!r}') from None
  if found[0] != FORMAT or found[1] not in _READABLE:
    raise ValueError(
      f'{path}: format {found[0]!r} version {found[1]!r}; this program reads '
      f'{FORMAT!r} versions {", ".join(map(str, _READABLE))}'
    )
  content.pop('totals', None)
  try:
    content['splits'] = {
      split: tuple(Shard(**shard) for shard in shards)
      for split, shards in content['splits'].items()
    }
    content['label_index'] = {
      split: {kind: File(**file) for kind, file in files.items()}
      for split, files in content.get('label_index', {}).items()
    }
    content['notes'] = {
      split: tuple(lines) for split, lines in content.get('notes', {}).items()
    }
    manifest = Manifest(**content)
  except (KeyError, TypeError, AttributeError) as error:
    raise ValueError(f'{path}: not a manifest: {error}') from None
  names = [f.name for split in manifest.splits for f in manifest.files(split)]
  for name in (*names, manifest.vocabulary, manifest.hierarchy or 'none'):
    plain = isinstance(name, str) and name == os.path.basename(name)
    if not plain or name in ('', '.', '..'):
      raise ValueError(f'{path}: {name!r} is not a file name in the folder')
  return manifest


def check_split(manifest: Manifest, split: str, where: str) -> None:
  """ValueError listing the splits where `split` is not one of them."""
  if split not in manifest.splits:
    raise ValueError(
      f'{where} has no split {split!r}; valid: {", ".join(manifest.splits)}'
    )


def check(folder: str, manifest: Manifest, split: str) -> None:
  """Compares presence, size and head of every file with the manifest.

  Raises:
    ValueError: lists the shards and other files that differ.
  """

  def problem(file: Shard | File) -> str | None:
    return quick_problem(folder, file)

  files = manifest.files(split)
  with concurrent.futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
    problems = [p for p in pool.map(problem, files) if p]
  if problems:
    shown = '\n'.join(f'  {p}' for p in problems[:_NUM_SHOWN])
    more = len(problems) - _NUM_SHOWN
    raise ValueError(
      f'{len(problems)} of {len(files)} files of split {split!r} in '
      f'{folder!r} are not those of the manifest:\n{shown}'
      + (f'\n  and {more} more' if more > 0 else '')
      + '\nput back the files that were written, or delete the folder and '
      'prepare it again'
    )


def quick_problem(folder: str, file: Shard | File) -> str | None:
  """How presence, size or first bytes of a file differ, None if not."""
  path = os.path.join(folder, file.name)
  try:
    size = os.path.getsize(path)
    if size != file.bytes:
      return f'{file.name}: {size} bytes, should be {file.bytes}'
    if _head(path) != file.head_sha256:
      return f'{file.name}: another content (swapped or overwritten)'
  except FileNotFoundError:
    return f'{file.name}: missing'
  except OSError as error:
    return f'{file.name}: {error.strerror or error}'
  return None


def _content_problem(folder: str, file: Shard | File) -> str | None:
  found = describe_file(folder, file.name)
  if found.sha256 != file.sha256:
    return f'{file.name}: SHA-256 differs, the content has changed'
  if isinstance(file, Shard):
    path = os.path.join(folder, file.name)
    records = ShardReader([path]).num_records(0)
    if records != file.records:
      return f'{file.name}: {records} records, should be {file.records}'
  return None


def verify(folder: str, manifest: Manifest, split: str) -> list[str]:
  """Full check of a split: sizes, SHA-256 and record counts.

  Returns:
    one line a problem, empty if the split is as it was written.
  """
  problems = []
  for file in manifest.files(split):
    problem = quick_problem(folder, file)
    if problem is None:
      try:
        problem = _content_problem(folder, file)
      except (OSError, ValueError) as error:
        problem = f'{file.name}: {error}'
    if problem:
      problems.append(problem)
  return problems
