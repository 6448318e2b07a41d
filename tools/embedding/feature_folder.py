"""A folder of feature shards: what is done, what is left, the manifest.

    features-00000-of-00008.safetensors ...   shards (feature_shards.py)
    vocabulary.jsonl                          names of the label ids
    bad_images.jsonl                          records left out, with the reason
    manifest.json                             settings, counts, checksums
    progress.jsonl                            until all is done: the settings,
                                              then a line a finished shard

Shard i is of the records [i * records_per_shard, (i + 1) * records_per_shard)
of the source. The main process alone writes; each shard appears under its name
when it is on disk, and counts when its line is.
"""

import concurrent.futures
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.config import json_text, redaction
from big_vision_like.protocols import Source
from input_pipeline.files import atomic
from input_pipeline.prepared import manifest, progress

from . import feature_shards

FORMAT = 'features of images'
_VERSION = 1
_PROGRESS = progress.FILE_NAME
_BAD = 'bad_images.jsonl'
_VOCABULARY = 'vocabulary.jsonl'


@dataclasses.dataclass(frozen=True)
class Shard:
  """A finished shard: name, images, records left out, size, SHA-256."""

  name: str
  records: int
  bad: int
  bytes: int
  sha256: str


class Folder:
  """The shards of one extraction.

  Args:
    path: folder; made where it is absent.
    settings: what the features follow from: 'records', 'records_per_shard' and
      'format' are read here, all must be those of work begun before.

  Attributes:
    ranges: (first, end) of the records of each shard.

  Raises:
    ValueError: the folder holds features made with other settings, or other
      files under the same names.
  """

  def __init__(self, path: str, settings: Mapping[str, Any]):
    self.path = path
    # As JSON has it: what is compared with what was read.
    self.settings = redaction.plain(json.loads(json.dumps(settings)))
    total, size = settings['records'], settings['records_per_shard']
    self.ranges = [
      (first, min(first + size, total)) for first in range(0, total, size)
    ]
    self._done: dict[str, Shard] = {}
    self._bad: dict[str, list[dict[str, Any]]] = {}
    os.makedirs(path, exist_ok=True)
    self._progress = os.path.join(path, _PROGRESS)
    if os.path.exists(os.path.join(path, manifest.FILE_NAME)):
      self._take_over_manifest()
    else:
      self._take_over_progress()

  def name(self, number: int) -> str:
    """File name of a shard."""
    kind = self.settings['format']
    return f'features-{number:05d}-of-{len(self.ranges):05d}.{kind}'

  def waiting(self) -> list[int]:
    """Numbers of the shards that are not done."""
    everything = range(len(self.ranges))
    return [i for i in everything if self.name(i) not in self._done]

  def add(
    self, number: int, rows: feature_shards.Rows, bad: Sequence[dict[str, Any]]
  ) -> Shard:
    """Writes a shard and notes it."""
    name = self.name(number)
    path = os.path.join(self.path, name)
    feature_shards.write(path, rows, self.settings['format'])
    file = manifest.describe_file(self.path, name)
    shard = Shard(name, len(rows.ids), len(bad), file.bytes, file.sha256)
    line = json.dumps({'shard': dataclasses.asdict(shard), 'bad': list(bad)})
    progress.append_line(self._progress, line)
    self._done[name], self._bad[name] = shard, list(bad)
    return shard

  def finish(self, vocabulary: Any) -> str:
    """Writes the manifest and what goes with it; returns a summary."""
    path = os.path.join(self.path, manifest.FILE_NAME)
    names = [self.name(i) for i in range(len(self.ranges))]
    shards = [self._done[name] for name in names]
    totals = {
      'records': sum(shard.records for shard in shards),
      'bad': sum(shard.bad for shard in shards),
      'bytes': sum(shard.bytes for shard in shards),
    }
    if not os.path.exists(path):
      vocabulary.save(os.path.join(self.path, _VOCABULARY))
      bad = [entry for name in names for entry in self._bad[name]]
      atomic.write_text(
        os.path.join(self.path, _BAD),
        ''.join(f'{json.dumps(entry, ensure_ascii=False)}\n' for entry in bad),
      )
      content = {
        'format': FORMAT,
        'version': _VERSION,
        'settings': self.settings,
        'totals': totals,
        'vocabulary': _VOCABULARY,
        'shards': [dataclasses.asdict(shard) for shard in shards],
      }
      atomic.write_json(path, content)
      os.unlink(self._progress)
    left_out = f', {totals["bad"]:,} left out ({_BAD})' if totals['bad'] else ''
    return (
      f'{self.path}: features of {totals["records"]:,} images, '
      f'{self.settings["dim"]:,} numbers each, {len(shards)} shards, '
      f'{totals["bytes"] / 1e6:,.1f} MB{left_out}'
    )

  def _take_over_manifest(self) -> None:
    content = load_manifest(self.path)
    progress.check_settings(self.path, content['settings'], self.settings)
    self._done = {s['name']: Shard(**s) for s in content['shards']}
    for shard in self._done.values():
      if not self._is_here(shard):
        raise ValueError(
          f'{self.path}: {shard.name} is missing or cut short; delete '
          f'{manifest.FILE_NAME} there to compute all features again'
        )

  def _take_over_progress(self) -> None:
    lines = []
    if os.path.exists(self._progress):
      with open(self._progress, encoding='utf-8') as file:
        lines = [line for line in file if line.endswith('\n')]
    if len(lines) > 1:  # else nothing is done, whatever the settings were
      progress.check_settings(
        self.path, json_text.parse(lines[0], self._progress), self.settings
      )
    kept = [json.dumps(self.settings)]
    for line in lines[1:]:
      entry = json_text.parse(line, self._progress)
      shard = Shard(**entry['shard'])
      if self._is_here(shard):
        self._done[shard.name] = shard
        self._bad[shard.name] = entry['bad']
        kept.append(line.rstrip('\n'))
    text = ''.join(f'{line}\n' for line in kept)
    atomic.write_text(self._progress, text, unique=False)

  def _is_here(self, shard: Shard) -> bool:
    path = os.path.join(self.path, shard.name)
    return os.path.exists(path) and os.path.getsize(path) == shard.bytes


def fill(
  folder: Folder, waiting: Sequence[int], source: Source, embedder: Any
) -> Iterator[Shard]:
  """Computes and writes the shards that are waiting; yields each.

  One stream of batches goes through all of them, and a thread writes one shard
  while the next is computed: neither waits for the other.
  """
  if not waiting:
    return
  spans = [folder.ranges[number] for number in waiting]
  indices = np.concatenate([np.arange(*span) for span in spans])
  stream = embedder.embed(source, indices)
  parts = by_span(stream, spans, embedder.dim)
  written: list[concurrent.futures.Future[Shard]] = []
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    for number, span, (ids, vectors) in zip(waiting, spans, parts):
      bad = _left_out(source, span, ids, embedder.bad)
      if written:
        yield written.pop().result()
      written.append(
        pool.submit(_write, folder, number, source, ids, vectors, bad)
      )
    for future in written:
      yield future.result()


def _write(
  folder: Folder,
  number: int,
  source: Source,
  ids: np.ndarray,
  vectors: np.ndarray,
  bad: Sequence[dict[str, Any]],
) -> Shard:
  return folder.add(number, feature_shards.rows_of(source, ids, vectors), bad)


def by_span(
  stream: Iterator[tuple[np.ndarray, np.ndarray]],
  spans: Sequence[tuple[int, int]],
  dim: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """(ids, features) of each span of records, from batches in their order.

  Args:
    stream: (ids int64 [b], features float32 [b, D]), ids ascending; some of
      the records may be absent.
    spans: (first, end), ascending.
    dim: D.
  """
  ids = np.empty(0, np.int64)
  vectors = np.empty((0, dim), np.float32)
  for first, end in spans:
    got_ids = np.empty(end - first, np.int64)
    got = np.empty((end - first, dim), np.float32)
    num = 0
    while True:
      taken = int(np.searchsorted(ids, end))
      got_ids[num : num + taken] = ids[:taken]
      got[num : num + taken] = vectors[:taken]
      num += taken
      ids, vectors = ids[taken:], vectors[taken:]
      if len(ids):
        break
      try:
        ids, vectors = next(stream)
      except StopIteration:
        break
    yield got_ids[:num], got[:num]


def _left_out(
  source: Source,
  span: tuple[int, int],
  ids: np.ndarray,
  reasons: dict[str, str],
) -> list[dict[str, Any]]:
  """Entries of bad_images.jsonl: the records of a span without features."""
  absent = np.setdiff1d(np.arange(*span), ids).tolist()
  keys = [source.key(i) for i in absent]
  return [
    {'id': i, 'key': key, 'reason': reasons.get(key, 'unknown')}
    for i, key in zip(absent, keys)
  ]


def load_manifest(path: str) -> dict[str, Any]:
  """The manifest of a finished folder.

  Raises:
    FileNotFoundError: none there.
    ValueError: not one of features.
  """
  file = os.path.join(path, manifest.FILE_NAME)
  try:
    with open(file, encoding='utf-8') as text:
      content = json_text.parse(text.read())
  except FileNotFoundError:
    raise FileNotFoundError(
      f'{path!r} has no {manifest.FILE_NAME}: no finished features there'
    ) from None
  except ValueError as error:
    raise ValueError(f'{file}: not a manifest: {error}') from None
  if not isinstance(content, dict) or content.get('format') != FORMAT:
    raise ValueError(f'{file}: not a manifest of {FORMAT}')
  try:
    _check_manifest(content)
  except (KeyError, TypeError) as error:
    raise ValueError(
      f'{file}: damaged: {type(error).__name__}: {error}'
    ) from None
  return content


def _check_manifest(content: dict[str, Any]) -> None:
  """KeyError or TypeError where something that is read here is not there."""
  for section, names in (
    ('settings', ('format', 'dim')),
    ('totals', ('records', 'bad', 'bytes')),
  ):
    for name in names:
      content[section][name]
  for entry in content['shards']:
    Shard(**entry)


def verify(path: str) -> str:
  """Compares all shards with the manifest; returns a summary.

  Raises:
    FileNotFoundError, ValueError: no finished features, or shards that are
      missing or differ; lists them.
  """
  content = load_manifest(path)
  wrong = []
  for shard in (Shard(**entry) for entry in content['shards']):
    if not os.path.exists(os.path.join(path, shard.name)):
      wrong.append(f'  {shard.name}: missing')
      continue
    found = manifest.describe_file(path, shard.name)
    if found.sha256 != shard.sha256:
      wrong.append(
        f'  {shard.name}: {found.bytes:,} bytes of another checksum, not '
        f'{shard.bytes:,}'
      )
      continue
    kind = content['settings']['format']
    num = feature_shards.count(os.path.join(path, shard.name), kind)
    if num != shard.records:
      wrong.append(f'  {shard.name}: {num:,} images, not {shard.records:,}')
  if wrong:
    raise ValueError(
      f'{path}: {len(wrong)} shards differ:\n' + '\n'.join(wrong)
    )
  num = content['totals']['records']
  return f'{path}: {len(content["shards"])} shards, {num:,} images, all whole'
