"""Writes a data set in the record format from any source, shard by shard.

The output is a function of the source and the `Recipe` alone: images are dealt
to shards by a hash of their keys, so every shard, and every prefix of a split,
is a random sample, and the bytes are the same for any number of workers and
after any interruption. A shard is written under a temporary name and renamed
when whole. Who writes which shard is the business of local_runner.py and
beam_runner.py, what is finished that of progress.py.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from big_vision_like.config import json_text
from big_vision_like.protocols import Source
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import atomic, retries
from input_pipeline.labels import hash_order, stored_labels
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import (
  records,
  stored_form,
  stored_images,
  stored_objects,
)
from input_pipeline.prepared.recipe import Recipe

TEMPORARY = '.writing'
_SAMPLE = 64  # images encoded to estimate the size of the data set


class WorkersFailed(Exception):
  """The processes that write shards failed, not the data."""


@dataclasses.dataclass(frozen=True)
class Task:
  """One shard to write: its name and its records of the source, in order."""

  split: str
  name: str
  indices: np.ndarray  # int64 [n]


@dataclasses.dataclass(frozen=True)
class Done:
  """A finished shard, and what was found on the way."""

  split: str
  shard: manifests.Shard
  num_labels: int
  bad: tuple[tuple[str, str], ...]  # (key, reason)

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self))

  @classmethod
  def from_json(cls, line: str) -> 'Done':
    try:
      content = json_text.parse(line, manifests.FILE_NAME)
      content['shard'] = manifests.Shard(**content['shard'])
      content['bad'] = tuple((key, reason) for key, reason in content['bad'])
      return cls(**content)
    except (TypeError, KeyError):
      raise ValueError(
        f'not a finished shard as this version notes it: {line:.80}; begin '
        'anew in an empty folder'
      ) from None

  def is_whole(self, folder: str) -> bool:
    """Whether shard and side files still lie in the folder, by a quick look."""
    num, name = self.shard.records, self.shard.name
    labels = stored_labels.side_path(folder, name)
    images = stored_images.side_path(folder, name)
    objects = stored_objects.side_path(folder, name)
    return (
      manifests.quick_problem(folder, self.shard) is None
      and stored_labels.side_is_whole(labels, num, self.num_labels)
      and stored_images.side_is_whole(images, num)
      and stored_objects.side_is_whole(objects, num)
    )


def shuffled(source: Source, recipe: Recipe) -> np.ndarray:
  """int64 [n] indices of the source, by a hash of (seed, key).

  A source whose records lie in such an order already (`in_hash_order`: another
  prepared data set) keeps it, unless a seed asks for another.
  """
  if hash_order.stored(source) and recipe.seed == 0:
    return np.arange(len(source))[: recipe.limit]
  keys = (source.key(i) for i in range(len(source)))
  hashes = hash_order.key_hashes(keys, recipe.seed)
  return np.argsort(hashes, kind='stable')[: recipe.limit]


def plan(split: str, source: Source, recipe: Recipe) -> tuple[list[Task], int]:
  """Shards of a split, and the estimated bytes of all of them.

  Raises:
    ValueError: more shards than images.
  """
  order = shuffled(source, recipe)
  sample = order[:_SAMPLE]
  sizes = [len(image) for image in _readable(source, recipe, sample)]
  num_bytes = int(np.mean(sizes) * len(order)) if sizes else 0
  num_shards = recipe.num_shards
  if num_shards is None:
    wanted = max(1, round(num_bytes / (recipe.shard_mb * 1e6)))
    num_shards = min(wanted, len(order))
  if num_shards > len(order):
    raise ValueError(
      f'num_shards={num_shards} for the {len(order)} images of split '
      f'{split!r}; use at most one shard an image'
    )
  parts = np.array_split(order, num_shards)
  tasks = [
    Task(split, manifests.shard_name(split, i, num_shards), part)
    for i, part in enumerate(parts)
  ]
  return tasks, num_bytes


def _readable(
  source: Source, recipe: Recipe, indices: np.ndarray
) -> Iterator[bytes]:
  for index in indices:
    with contextlib.suppress(BadExample):
      example = source[int(index)]
      yield stored_form.image_and_annotations(example, recipe)[0]


def write(
  folder: str,
  task: Task,
  source: Source,
  recipe: Recipe,
  tick: Callable[[], object],
) -> Done:
  """Writes one shard and its side files; calls `tick` once an image.

  What the storage refuses for a moment is written anew, from the first image.
  """
  ticked = 0

  def tick_anew() -> Callable[[], object]:
    """For another attempt: images that were told of are not again."""
    seen = 0

    def once() -> None:
      nonlocal seen, ticked
      seen += 1
      if seen > ticked:
        ticked = seen
        tick()

    return once

  return retries.call(lambda: _write(folder, task, source, recipe, tick_anew()))


def _write(
  folder: str,
  task: Task,
  source: Source,
  recipe: Recipe,
  tick: Callable[[], object],
) -> Done:
  labels: list[np.ndarray] = []
  images: list[tuple[int, int, int]] = []
  objects: list[np.ndarray] = []
  bad: list[tuple[str, str]] = []

  def rows() -> Iterator[records.Record]:
    for index in map(int, task.indices):
      record, reason = _record(source, index, recipe)
      if reason is not None:
        bad.append((source.key(index), reason))
      if record is not None:
        labels.append(record.labels)
        images.append(stored_images.row(record))
        objects.append(stored_objects.rows(record, len(objects)))
        yield record
      tick()

  path = os.path.join(folder, task.name)
  side = stored_labels.side_path(folder, task.name)
  image_side = stored_images.side_path(folder, task.name)
  object_side = stored_objects.side_path(folder, task.name)
  with (
    atomic.renamed(path, suffix=TEMPORARY) as temporary,
    atomic.renamed(side, suffix=TEMPORARY) as temporary_side,  # named first
    atomic.renamed(image_side, suffix=TEMPORARY) as temporary_images,
    atomic.renamed(object_side, suffix=TEMPORARY) as temporary_objects,
  ):
    num_records = records.write_shard(temporary, rows())
    num_labels = stored_labels.write_side(temporary_side, labels)
    stored_images.write_side(temporary_images, images)
    stored_objects.write_side(temporary_objects, objects)
  shard = manifests.describe(folder, task.name, num_records)
  return Done(task.split, shard, num_labels, tuple(bad))


def _record(
  source: Source, index: int, recipe: Recipe
) -> tuple[records.Record | None, str | None]:
  """(record or None, why it is bad or None)."""
  try:
    example = source[index]
  except BadExample as error:
    return None, error.reason  # nothing there to keep
  reason = None
  try:
    image, annotations = stored_form.image_and_annotations(example, recipe)
  except BadExample as error:
    reason = error.reason
    if not recipe.keep_bad or not isinstance(example['image'], bytes):
      return None, reason
    image, annotations = example['image'], stored_form.annotations_of(example)
  for field in ('labels', 'negatives'):
    _check_ids(field, example.get(field), source, index)
  record = records.Record(
    example.get('key') or source.key(index),
    image,
    np.asarray(example['labels'], np.int32),
    example.get('label_conf'),
    example.get('negatives'),
    annotations or None,
    example.get('dedup_hash'),
  )
  return record, reason


def _check_ids(field: str, ids: Any, source: Source, index: int) -> None:
  """ValueError where an id has no name: a mistake of the whole data set."""
  num_classes = len(source.vocabulary)
  if ids is not None and len(ids) and np.max(ids) >= num_classes:
    raise ValueError(
      f'{field} of {source.key(index)!r}: id {np.max(ids)} is outside the '
      f'vocabulary of {num_classes} names'
    )
