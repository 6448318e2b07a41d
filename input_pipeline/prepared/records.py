"""The project's record format: one labelled image a record, in ArrayRecord.

A record is a msgpack map, so it describes itself and holds no code:

    v           1, the version of this layout
    key         name of the image for lists and messages
    image       the encoded image file, untouched
    labels      raw label ids, ints >= 0 (positions in the vocabulary)
    label_conf  optional, one confidence in [0, 1] a label
    negatives   optional, ids of labels known to be absent; where it is there,
                even empty, labels in neither list are unknown
    annotations optional map: boxes, keypoints, masks (annotations.py)
    dedup_hash  optional bytes, for near-duplicate removal

Shards are uncompressed ArrayRecord files of group size 1: a random read costs
one record, and a flipped byte spoils one record (docs/data.md).
"""

import collections
import dataclasses
import os
import threading
from collections.abc import Iterable, Mapping
from typing import Any

import msgpack
import numpy as np
from array_record.python import array_record_module  # type: ignore[attr-defined]

from input_pipeline.examples import annotations as annotation_fields
from input_pipeline.files import atomic, retries

VERSION = 1
_WRITER_OPTIONS = 'group_size:1,uncompressed'
_READER_OPTIONS = 'readahead_buffer_size:0,max_parallelism:0'
_READER_BUFFER_BYTES = 1 << 15
_FIELDS = (
  'v', 'key', 'image', 'labels', 'label_conf', 'negatives', 'annotations',
  'dedup_hash',
)  # fmt: skip
_REQUIRED = ('v', 'key', 'image', 'labels')
_MAX_LABEL = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
  """One labelled image; see the module docstring."""

  key: str
  image: bytes
  labels: np.ndarray  # int32 [n]
  label_conf: np.ndarray | None = None  # float32 [n]
  negatives: np.ndarray | None = None  # int32 [k]
  annotations: Mapping[str, Any] | None = None
  dedup_hash: bytes | None = None


def encode(record: Record) -> bytes:
  """The bytes of a record. Equal records give equal bytes.

  Raises:
    ValueError: a field that `decode` would refuse.
  """
  fields: dict[str, Any] = {
    'v': VERSION,
    'key': record.key,
    'image': bytes(record.image),
    'labels': np.asarray(record.labels).tolist(),
  }
  if record.label_conf is not None:
    fields['label_conf'] = np.asarray(record.label_conf, np.float32).tolist()
  if record.negatives is not None:
    fields['negatives'] = np.asarray(record.negatives).tolist()
  if record.annotations is not None:
    fields['annotations'] = annotation_fields.pack(
      record.annotations, f'annotations of {record.key!r}'
    )
  if record.dedup_hash is not None:
    fields['dedup_hash'] = bytes(record.dedup_hash)
  _check(fields)
  packed = msgpack.packb(fields, use_single_float=True)
  assert packed is not None  # only None with a stream
  return packed


def decode(data: bytes) -> Record:
  """The record of `encode`d bytes.

  Raises:
    ValueError: not a record of this version; says what is wrong.
  """
  try:
    fields = msgpack.unpackb(data)
  except Exception as error:  # msgpack raises many kinds on hostile bytes
    raise ValueError(f'not a record: {error or type(error).__name__}') from None
  if not isinstance(fields, dict) or 'v' not in fields:
    raise ValueError('not a record: no map with a version')
  _check(fields)

  def array(name: str, dtype: Any) -> np.ndarray | None:
    return np.array(fields[name], dtype) if name in fields else None

  annotations = fields.get('annotations')
  if annotations is not None:
    where = f'annotations of {fields["key"]!r}'
    annotations = annotation_fields.unpack(annotations, where)
  return Record(
    key=fields['key'],
    image=fields['image'],
    labels=np.array(fields['labels'], np.int32),
    label_conf=array('label_conf', np.float32),
    negatives=array('negatives', np.int32),
    annotations=annotations,
    dedup_hash=fields.get('dedup_hash'),
  )


def _check(fields: dict[Any, Any]) -> None:
  """ValueError naming the first field that breaks the format."""
  if fields['v'] != VERSION:
    raise ValueError(
      f'record version {fields["v"]!r}, this program reads {VERSION}'
    )
  for name in _REQUIRED:
    if name not in fields:
      raise ValueError(f'record has no field {name!r}')
  for name in fields:
    if name not in _FIELDS:
      raise ValueError(f'record has an unknown field {name!r}')
  if not isinstance(fields['key'], str):
    raise ValueError(f'record key must be text, got {fields["key"]!r}')
  if not isinstance(fields['image'], bytes):
    raise ValueError(f'image of {fields["key"]!r} must be bytes')
  labels, conf = fields['labels'], fields.get('label_conf', ())
  negatives = fields.get('negatives', [])
  for name, ids in (('labels', labels), ('negatives', negatives)):
    if not isinstance(ids, list) or not all(
      type(i) is int and 0 <= i <= _MAX_LABEL for i in ids
    ):
      raise ValueError(
        f'{name} of {fields["key"]!r} must be a list of ids >= 0, '
        f'got {ids!r:.80}'
      )
  if negatives and not set(labels).isdisjoint(negatives):
    both = min(set(labels) & set(negatives))
    raise ValueError(
      f'label {both} of {fields["key"]!r} is both in labels and in negatives'
    )
  if 'label_conf' in fields and (
    not isinstance(conf, list)
    or len(conf) != len(labels)
    or not all(isinstance(c, float) and 0 <= c <= 1 for c in conf)
  ):
    raise ValueError(
      f'label_conf of {fields["key"]!r} must be one number in [0, 1] a label, '
      f'got {conf!r:.80}'
    )
  if not isinstance(fields.get('annotations', {}), dict):
    raise ValueError(f'annotations of {fields["key"]!r} must be a map')
  if not isinstance(fields.get('dedup_hash', b''), bytes):
    raise ValueError(f'dedup_hash of {fields["key"]!r} must be bytes')


def check_path(path: str) -> None:
  """ValueError where array_record cannot take a path."""
  try:
    path.encode()
  except UnicodeEncodeError:
    folder = os.path.dirname(path) or path
    raise ValueError(
      f'{folder!a} is not UTF-8: array_record files cannot be in such a folder'
    ) from None


def write_shard(path: str, records: Iterable[Record]) -> int:
  """Writes a shard; equal records give equal files.

  The file is on disk when this returns. A failure leaves a partial file: write
  it aside (atomic.renamed).

  Returns:
    number of records.

  Raises:
    OSError: the file cannot be written.
    ValueError: see `check_path`.
  """
  check_path(path)
  writer = array_record_module.ArrayRecordWriter(path, _WRITER_OPTIONS)
  count = 0
  try:
    for record in records:
      writer.write(encode(record))
      count += 1
    writer.close()
  except RuntimeError as error:
    reason = str(error).split(';')[0]
    raise retries.from_message(reason, path) from None
  atomic.sync(path)
  return count


class ShardReader:
  """Random access to the records of many shards, by few open files.

  Safe for threads; a copy made by pickling opens its own files.

  Args:
    paths: the shards.
    max_open: files kept open; the least recently used one is closed.
  """

  def __init__(self, paths: Iterable[str], max_open: int = 128):
    self.paths = tuple(paths)
    for path in self.paths[:1]:  # those of one folder
      check_path(path)
    self._max_open = max_open
    self._open: collections.OrderedDict[int, Any] = collections.OrderedDict()
    self._lock = threading.Lock()

  def __getstate__(self) -> dict[str, Any]:
    return {'paths': self.paths, '_max_open': self._max_open}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__init__(state['paths'], state['_max_open'])

  def _reader(self, shard: int) -> Any:
    with self._lock:
      reader = self._open.get(shard)
      if reader is None:
        reader = array_record_module.ArrayRecordReader(
          self.paths[shard],
          options=_READER_OPTIONS,
          file_reader_buffer_size=_READER_BUFFER_BYTES,
        )
        self._open[shard] = reader
        if len(self._open) > self._max_open:
          # Dropped, not closed: another thread may be reading from it.
          self._open.popitem(last=False)
      else:
        self._open.move_to_end(shard)
      return reader

  def num_records(self, shard: int) -> int:
    """Records in a shard, from its own index."""
    reader = self._reader(shard)
    if not reader.ok():  # num_records() of a broken file would be 0
      self.read(shard, 0)
    return reader.num_records()

  def read(self, shard: int, position: int) -> bytes:
    """One record's bytes.

    Raises:
      ValueError: the record is corrupt (checksum).
      OSError: the file cannot be opened or read, in spite of retries.
    """
    return retries.call(self._read, shard, position)

  def _read(self, shard: int, position: int) -> bytes:
    try:
      return self._reader(shard).read([position])[0]
    except RuntimeError as error:
      reason = str(error).split(';')[0]
      if 'Corrupted' in reason:
        raise ValueError(reason) from None
      with self._lock:  # a reader does not recover from a failed read
        self._open.pop(shard, None)
      raise retries.from_message(reason, self.paths[shard]) from None
