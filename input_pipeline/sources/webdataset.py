"""WebDataset shards: tars in which the files of one sample share a name.

  imagenet-train-000000.tar
    n03991062_24866.jpg    n03991062_24866.cls
    n03995372_9042.jpg     n03995372_9042.cls

A sample's name is its path up to the first dot of the file name, what follows
is the suffix of a part: 'jpg', 'cls', 'seg.png'. The shards are read in place
at random, so this source shuffles and resumes like any other; opening it reads
the headers and the labels of all its shards once.
"""

import array
import dataclasses
import os
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from big_vision_like.config.option_types import Count, NonEmpty
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import (
  archives,
  image_files,
  shard_names,
)
from input_pipeline.files.archive_index import Files
from input_pipeline.image_sets import holdout, labelled_members
from input_pipeline.labels import hierarchy as hierarchies
from input_pipeline.labels import text_lines
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.ragged import Ragged
from input_pipeline.labels.vocabulary import Vocabulary

_NEGATIVE = re.compile(r'-[0-9]+')  # what -1 stands for differs by publisher
_MOST_DIGITS = 18  # of a number as a label
_LABEL_SUFFIXES = ('cls', 'txt', 'json')
_Separator = Literal[',', ';', '\n', '\t', ' ', '|']
_Name = Annotated[str, NonEmpty()]
_MAX_LABEL_BYTES = 1 << 20
_IMAGE_SUFFIXES = frozenset(s[1:] for s in image_files.SUFFIXES)


class Source(labelled_members.LabelledMembers):
  """Images and labels from the parts of samples.

  Args (options):
    path: a folder of .tar files (PATH/SPLIT/*.tar; or the split is a word of
      their names, as in 'imagenet-train-000.tar'; or without splits), one
      .tar, or a pattern such as 'PATH/x-{split}-{000000..000146}.tar' or
      'PATH/x-*.tar'.
    split: name of the split; 'all' takes every shard.
    image_suffix: of the part with the image; default: the one that is an
      image.
    label_suffix: of the part with the labels: 'cls' and 'txt' hold text,
      'json' an object.
    label_key: key in the JSON object: a name, a number, or a list of these.
    label_separator: between the labels of a text (white space around them and
      empty ones are dropped); None: the text is one label.
    holdout_percent: part of shards without splits that is 'val'; decided by
      each sample's own name.
    vocabulary: file of the labels, or their names. A label is one of them, or
      else a number: a position. Default: the names of the split train, sorted;
      numbers in their own order, from 0 on.
    hierarchy, hierarchy_unlisted, hierarchy_max_depth: as in the folder source.

  A sample without image or label, or whose label cannot be read, is a bad one.

  Raises (at construction):
    FileNotFoundError: no such folder or shard.
    ValueError: a damaged shard, no usable sample, unknown label, bad option.
  """

  def __init__(
    self,
    *,
    path: str,
    split: str = 'train',
    image_suffix: _Name | None = None,
    label_suffix: str = 'cls',
    label_key: _Name = 'label',
    label_separator: _Separator | None = None,
    holdout_percent: holdout.Percent | None = None,
    vocabulary: str | Sequence[str] | None = None,
    hierarchy: str | None = None,
    hierarchy_unlisted: hierarchies.Unlisted = 'error',
    hierarchy_max_depth: Count | None = None,
  ):
    path = image_files.check_path('path', path)
    parts = _Parts(image_suffix, label_suffix, label_key, label_separator)
    if holdout_percent is not None:
      holdout.check_split(split)
    labels = None if vocabulary is None else vocabularies.given(vocabulary)
    if holdout_percent is not None:
      shards = shard_names.find_undivided(path)
    else:
      shards = shard_names.find(path, split)
    files = archives.open_tars(shards.folder, shards.names)
    samples = _Samples(files, parts)
    if labels is None:
      whole = holdout_percent is not None or split in ('train', 'all')
      labels = _vocabulary(samples if whole else _train_samples(path, parts))
    ids = samples.label_ids(labels)
    keep = np.ones(len(samples.members), bool)
    if holdout_percent is not None and split != 'all':
      keep = np.fromiter(
        (
          holdout.held_out(os.fsencode(samples.key(i)), holdout_percent)
          == (split == 'val')
          for i in range(len(keep))
        ),
        bool,
        len(keep),
      )
    members, sample_labels = samples.chosen(keep, ids)
    if not len(members):
      raise ValueError(f'{path}: no samples in split {split!r}')
    if split == 'train' and labels.counts is None:
      counts = np.bincount(sample_labels.values, minlength=len(labels))
      labels = dataclasses.replace(labels, counts=counts)
    labels, closed = hierarchies.attach(
      labels,
      hierarchy,
      unlisted=hierarchy_unlisted,
      max_depth=hierarchy_max_depth,
    )
    super().__init__(files, members, sample_labels, labels, closed)
    self._bad = {
      place: samples.bad[i]
      for place, i in enumerate(np.flatnonzero(keep).tolist())
      if i in samples.bad
    }

  def __getitem__(self, index: int) -> dict[str, Any]:
    if index in self._bad:
      raise BadExample(self._bad[index])
    return super().__getitem__(index)

  def key(self, index: int) -> str:
    """'SHARD.tar/SAMPLE'."""
    return _sample_of(super().key(index))[0]


@dataclasses.dataclass(frozen=True)
class _Parts:
  """Which parts of a sample hold the image and the labels."""

  image: str | None
  labels: str
  key: str
  separator: str | None

  def __post_init__(self):
    last = str(self.labels).rpartition('.')[2]
    if last not in _LABEL_SUFFIXES:
      raise ValueError(
        f'label_suffix={self.labels!r}: must be, or end in, one of '
        f'{", ".join(_LABEL_SUFFIXES)}'
      )

  def is_image(self, suffix: str) -> bool:
    if self.image is not None:
      return suffix == self.image
    return suffix.lower() in _IMAGE_SUFFIXES

  def label_names(self, data: bytes) -> list[str]:
    """Labels of a part as written.

    Raises:
      ValueError: not such a part.
    """
    text = data.decode('utf-8-sig')
    if not self.labels.endswith('json'):
      if self.separator is None:
        return [text.strip()] if text.strip() else []
      parts = text.split(self.separator)
      return [name.strip() for name in parts if name.strip()]
    content = text_lines.parse_json(text, self.labels)
    if not isinstance(content, dict) or self.key not in content:
      keys = ', '.join(content) if isinstance(content, dict) else 'no object'
      raise ValueError(f'no key {self.key!r} (label_key); there: {keys:.80}')
    value = content[self.key]
    names = []
    for label in value if isinstance(value, list) else [value]:
      if type(label) is not int and not isinstance(label, str):
        raise ValueError(f'a label must be a name or a number: {label!r:.60}')
      names.append(str(label))
    return names


class _Samples:
  """The samples of shards, with their labels as written.

  Attributes:
    members: int64 [n] positions of the images; of another part where there is
      no image.
    bad: sample -> why it cannot be used.
    names: label -> number.
  """

  def __init__(self, files: Files, parts: _Parts):
    self._files, self._parts = files, parts
    self.bad: dict[int, str] = {}
    self.names: dict[str, int] = {}
    self._first: list[int] = []  # sample of each label
    self._members = array.array('q')
    self._rows, self._numbers = array.array('q'), array.array('q')
    self._last_parts: Iterable[str] = ()
    shard: dict[str, dict[str, int]] = {}
    before = None
    for position, name in enumerate(files.names):
      sample, suffix = _sample_of(name)
      where = sample[: sample.index('.tar/')]
      if where != before:  # a sample does not go over shards
        self._add(shard)
        shard, before = {}, where
      if not sample.rpartition('/')[2]:
        continue  # hidden: '._x.jpg' holds what macOS adds to x.jpg
      shard.setdefault(sample, {})[suffix] = position
    self._add(shard)
    self.members = np.array(self._members, np.int64)
    if len(self.bad) == len(self.members):
      reason = self.bad.get(0, 'there are none')
      raise ValueError(
        f'{files.path}: no usable sample in these shards: {reason}; parts of '
        f'the last sample: {", ".join(self._last_parts) or "none"} (options '
        f'image_suffix, label_suffix)'
      )

  def _add(self, shard: dict[str, dict[str, int]]) -> None:
    for parts in shard.values():
      row = len(self._members)
      images = [
        p for suffix, p in parts.items() if self._parts.is_image(suffix)
      ]
      self._last_parts = parts
      self._members.append(images[0] if images else next(iter(parts.values())))
      if len(images) != 1:
        wanted = self._parts.image or 'image'
        self.bad[row] = f'no {wanted}' if not images else 'several images'
        continue
      try:
        names = self._read_labels(parts)
      except (ValueError, BadExample) as error:
        self.bad[row] = ' '.join(f'labels: {error}'.split())[:200]
        continue
      for name in names:
        number = self.names.setdefault(name, len(self.names))
        if number == len(self._first):
          self._first.append(row)
        self._rows.append(row)
        self._numbers.append(number)

  def _read_labels(self, parts: dict[str, int]) -> list[str]:
    if self._parts.labels not in parts:
      raise ValueError(f'no {self._parts.labels}')
    data = self._files.read_at(
      parts[self._parts.labels], max_bytes=_MAX_LABEL_BYTES
    )
    names = self._parts.label_names(data)
    for name in names:
      text_lines.check_name(name, self._parts.labels)
      if name.isdecimal() and len(name) > _MOST_DIGITS:
        raise ValueError(f'{name:.20}... is no label: {len(name):,} digits')
      if _NEGATIVE.fullmatch(name):
        raise ValueError(f'{name} is no label: numbers are 0 or above')
    return names

  def key(self, sample: int) -> str:
    return _sample_of(self._files.names[int(self.members[sample])])[0]

  def label_ids(self, labels: Vocabulary) -> np.ndarray:
    """int64 [m] ids of the labels in the order in which they were read.

    Raises:
      ValueError: neither a name nor a position of the vocabulary.
    """
    ids = np.zeros(len(self.names), np.int64)
    for name, number in self.names.items():
      if name in labels:
        ids[number] = labels.index(name)
      elif _is_number(name) and int(name) < len(labels):
        ids[number] = int(name)
      else:
        raise ValueError(
          f'{self._files.path}: label {name!r} of '
          f'{self.key(self._first[number])} is neither a name nor a position '
          f'among the {len(labels)} of {labels.origin or "the split train"}'
          f'{vocabularies.suggestion(name, labels.names)}'
        )
    return ids[np.array(self._numbers, np.int64)]

  def chosen(
    self, keep: np.ndarray, ids: np.ndarray
  ) -> tuple[np.ndarray, Ragged]:
    """(members [n], their label ids) where `keep` [all] is true."""
    size = int(ids.max()) + 1 if len(ids) else 1
    rows = np.array(self._rows, np.int64)
    labels = Ragged.of_unique_pairs(rows, ids, len(keep), size)
    return self.members[keep], labels.take(np.flatnonzero(keep))


def _train_samples(path: str, parts: _Parts) -> _Samples:
  try:
    train = shard_names.find(path, 'train')
  except (ValueError, FileNotFoundError) as error:
    raise vocabularies.NotToldError(
      f'{error}\nThe labels are those of the split train, unless the option '
      f'vocabulary gives them'
    ) from None
  return _Samples(archives.open_tars(train.folder, train.names), parts)


def _sample_of(member: str) -> tuple[str, str]:
  """('SHARD.tar/SAMPLE', 'jpg') of 'SHARD.tar/SAMPLE.jpg'."""
  folder, _, name = member.rpartition('/')
  sample, _, suffix = name.partition('.')
  return f'{folder}/{sample}', suffix


def _vocabulary(samples: _Samples) -> Vocabulary:
  """Names sorted; numbers in their own order, those between them too."""
  names = samples.names
  if not names:
    raise vocabularies.NotToldError(
      'no sample has a label; give the option vocabulary'
    )
  if not all(map(_is_number, names)):
    return Vocabulary(tuple(sorted(names)))
  largest = max(map(int, names))
  if largest >= max(10 * len(names), 100_000):
    raise ValueError(
      f'labels are numbers up to {largest:,}, of which {len(names):,} occur; '
      f'give the option vocabulary'
    )
  return Vocabulary(tuple(map(str, range(largest + 1))))


def _is_number(name: str) -> bool:
  """Whether a label is a number as Python writes it."""
  return name.isascii() and name.isdigit() and (name == '0' or name[0] != '0')
