"""Writes a data set in the record format from any source, shard by shard.

The output is a function of the source and the `Recipe` alone: images are dealt
to shards by a hash of their keys, so every shard is a random sample, and the
bytes are the same for any number of workers and after any interruption. A
shard is written under a temporary name and renamed when whole; finished shards
are noted in progress.jsonl and not written again.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import numpy as np
import simplejpeg

from input_pipeline import annotations, records
from input_pipeline import manifest as manifests
from input_pipeline.errors import BadExample
from input_pipeline.ops import bilinear
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.decode import Decode

PROGRESS_FILE = 'progress.jsonl'
_TEMPORARY = '.writing'
_SAMPLE = 64  # images encoded to estimate the size of the data set
_POLL_S = 0.2


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What the bytes of a split depend on, besides the source.

  Attributes:
    num_shards: of the split, or None for shards of about `shard_mb`.
    shard_mb: target size of a shard in MB (10^6 bytes).
    resize: both sides of the stored image in pixels, or None to store the
      files as they are.
    quality: JPEG quality of resized images.
    limit: number of images to take of the shuffled order, or None for all.
    keep_bad: store images that cannot be decoded too.
    seed: of the order.
  """

  num_shards: int | None = None
  shard_mb: float = 256
  resize: int | None = None
  quality: int = 95
  limit: int | None = None
  keep_bad: bool = False
  seed: int = 0

  def __post_init__(self):
    for name in ('num_shards', 'resize', 'limit'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'{name} must be at least 1, got {value}')
    if not 1 <= self.quality <= 100:
      raise ValueError(f'quality must be in 1 to 100, got {self.quality}')
    if not self.shard_mb > 0:
      raise ValueError(f'shard_mb must be positive, got {self.shard_mb}')


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
  label_counts: Mapping[int, int]  # label id -> images
  bad: tuple[tuple[str, str], ...]  # (key, reason)

  def to_json(self) -> str:
    content = dataclasses.asdict(self)
    content['label_counts'] = list(self.label_counts.items())
    return json.dumps(content)

  @classmethod
  def from_json(cls, line: str) -> 'Done':
    content = json.loads(line)
    return cls(
      split=content['split'],
      shard=manifests.Shard(**content['shard']),
      label_counts=dict(content['label_counts']),
      bad=tuple((key, reason) for key, reason in content['bad']),
    )


def shuffled(source: Any, recipe: Recipe) -> np.ndarray:
  """int64 [n] indices of the source, by a hash of (seed, key)."""
  prefix = f'{recipe.seed}\n'.encode()
  hashes = np.empty(len(source), np.uint64)
  for i in range(len(source)):
    key = source.key(i).encode('utf-8', 'surrogateescape')
    digest = hashlib.blake2b(prefix + key, digest_size=8).digest()
    hashes[i] = int.from_bytes(digest)
  return np.argsort(hashes, kind='stable')[: recipe.limit]


def plan(split: str, source: Any, recipe: Recipe) -> tuple[list[Task], int]:
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
  source: Any, recipe: Recipe, indices: np.ndarray
) -> Iterator[bytes]:
  for index in indices:
    with contextlib.suppress(BadExample):
      yield stored_image(source[int(index)]['image'], recipe)


def stored_image(encoded: bytes, recipe: Recipe) -> bytes:
  """The image file that the record will hold.

  Raises:
    BadExample: it cannot be decoded.
  """
  image = _DECODE.decode(encoded)
  if recipe.resize is None:
    return encoded
  resized = bilinear.resize(image, recipe.resize, recipe.resize)
  return simplejpeg.encode_jpeg(
    np.ascontiguousarray(resized), recipe.quality, colorsubsampling='420'
  )


_DECODE = Decode(OpContext(where='decode'))


def write(
  folder: str,
  task: Task,
  source: Any,
  recipe: Recipe,
  tick: Callable[[], object],
) -> Done:
  """Writes one shard; calls `tick` after each image."""
  counts: collections.Counter[int] = collections.Counter()
  bad: list[tuple[str, str]] = []

  def rows() -> Iterator[records.Record]:
    for index in map(int, task.indices):
      record, reason = _record(source, index, recipe)
      if reason is not None:
        bad.append((source.key(index), reason))
      if record is not None:
        counts.update(np.unique(record.labels).tolist())
        yield record
      tick()

  path = os.path.join(folder, task.name)
  temporary = f'{path}.{os.getpid()}{_TEMPORARY}'
  try:
    num_records = records.write_shard(temporary, rows())
    os.rename(temporary, path)
  except BaseException:
    with contextlib.suppress(FileNotFoundError):
      os.unlink(temporary)
    raise
  shard = manifests.describe(folder, task.name, num_records)
  return Done(task.split, shard, dict(sorted(counts.items())), tuple(bad))


def _record(
  source: Any, index: int, recipe: Recipe
) -> tuple[records.Record | None, str | None]:
  """(record or None, why it is bad or None)."""
  try:
    example = source[index]
  except BadExample as error:
    return None, error.reason  # nothing there to keep
  image, reason = example['image'], None
  try:
    image = stored_image(image, recipe)
  except BadExample as error:
    reason = error.reason
    if not recipe.keep_bad:
      return None, reason
  record = records.Record(
    source.key(index),
    image,
    example['labels'],
    example.get('label_conf'),
    example.get('negatives'),
    {k: example[k] for k in annotations.FIELDS if k in example} or None,
  )
  return record, reason


_worker: tuple[str, Mapping[str, Any], Recipe, Any] | None = None


def _start_worker(
  folder: str,
  sources: Mapping[str, Any],
  recipe: Recipe,
  counter: Any,
) -> None:
  global _worker
  _worker = folder, sources, recipe, counter
  threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
  """Ends this worker when the main process is killed, busy or idle."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    parent.join()
    os._exit(1)


def _work(task: Task) -> Done:
  assert _worker is not None
  folder, sources, recipe, counter = _worker

  def tick() -> None:
    with counter.get_lock():
      counter.value += 1

  return write(folder, task, sources[task.split], recipe, tick)


def run(
  folder: str,
  tasks: list[Task],
  sources: Mapping[str, Any],
  recipe: Recipe,
  *,
  workers: int,
  advance: Callable[[int], object],
) -> Generator[Done, None, None]:
  """Writes the shards, several at a time, and yields each as it is done.

  Args:
    folder: output folder.
    tasks: shards to write.
    sources: split -> source, picklable.
    recipe: what to store.
    workers: processes; 1 works in this one.
    advance: called with the number of images finished since its last call.
  """
  if workers == 1 or len(tasks) <= 1:
    for task in tasks:
      yield write(folder, task, sources[task.split], recipe, lambda: advance(1))
    return
  context = multiprocessing.get_context('spawn')
  counter = context.Value('q', 0)
  seen = 0
  with concurrent.futures.ProcessPoolExecutor(
    min(workers, len(tasks)),
    context,
    _start_worker,
    (folder, sources, recipe, counter),
  ) as pool:
    waiting = {pool.submit(_work, task) for task in tasks}
    try:
      while waiting:
        done, waiting = concurrent.futures.wait(
          waiting, _POLL_S, concurrent.futures.FIRST_COMPLETED
        )
        now = counter.value
        advance(now - seen)
        seen = now
        for future in done:
          yield future.result()
    finally:
      pool.shutdown(wait=True, cancel_futures=True)


class Progress:
  """progress.jsonl: the settings in the first line, then a line a shard.

  Raises (at construction):
    ValueError: the folder holds work begun with other settings; names them.
  """

  def __init__(self, folder: str, settings: Mapping[str, Any]):
    self._folder = folder
    self._path = os.path.join(folder, PROGRESS_FILE)
    self.done: dict[str, Done] = {}
    lines = self._complete_lines()
    if len(lines) > 1:  # else nothing is done yet
      check_settings(folder, json.loads(lines[0]), settings)
      for line in lines[1:]:
        done = Done.from_json(line)
        if manifests.quick_problem(folder, done.shard) is None:
          self.done[done.shard.name] = done
    for name in os.listdir(folder):
      if name.endswith(_TEMPORARY):
        os.unlink(os.path.join(folder, name))
    rest = [done.to_json() for done in self.done.values()]
    with open(f'{self._path}.tmp', 'w', encoding='utf-8') as file:
      file.writelines(f'{line}\n' for line in [json.dumps(settings), *rest])
    os.replace(f'{self._path}.tmp', self._path)

  def _complete_lines(self) -> list[str]:
    """Lines of the file; one cut short by a kill is left out."""
    if not os.path.exists(self._path):
      return []
    with open(self._path, encoding='utf-8') as file:
      return [line for line in file if line.endswith('\n')]

  def add(self, done: Done) -> None:
    self.done[done.shard.name] = done
    with open(self._path, 'a', encoding='utf-8') as file:
      file.write(f'{done.to_json()}\n')
      file.flush()
      os.fsync(file.fileno())

  def remove(self) -> None:
    os.unlink(self._path)


def check_settings(
  folder: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
  """ValueError naming the settings in which two preparations differ."""
  differ = [
    f'  {key}: {before.get(key)!r} before, {now.get(key)!r} now'
    for key in sorted({*before, *now})
    if before.get(key) != now.get(key)
  ]
  if differ:
    raise ValueError(
      f'{folder!r} holds a data set prepared with other settings:\n'
      + '\n'.join(differ)
      + '\nrepeat the command with the old settings, or choose another output'
    )
