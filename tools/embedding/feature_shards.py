"""Files of image features: one shard, in ArrayRecord or in safetensors.

ArrayRecord: a record is a msgpack map,

    v         1, the version of this layout
    id        index of the record in its source
    key       its name there
    labels    raw label ids, before any fill-in
    features  D float32 numbers, little-endian bytes

safetensors: a file holds n images as

    features  float32 [n, D]
    ids       int64 [n]
    labels    int32 [m], the labels of all images one after another
    label_ends  int64 [n], where those of each end
    keys      uint8 [k], the keys likewise, in UTF-8
    key_ends  int64 [n]

docs/weights.md reads both without this code base.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from big_vision_like.protocols import Source
from input_pipeline.examples.errors import record_named
from input_pipeline.files import atomic, retries
from input_pipeline.labels import arrays

FORMATS = ('array_record', 'safetensors')
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Rows:
  """Images of a shard.

  Attributes:
    features: float32 [n, D].
    ids: int64 [n], indices in the source.
    labels: n arrays, int32 raw label ids.
    keys: n names.
  """

  features: np.ndarray
  ids: np.ndarray
  labels: Sequence[np.ndarray]
  keys: Sequence[str]


def rows_of(source: Source, ids: np.ndarray, features: np.ndarray) -> Rows:
  """Rows with the labels and keys of a source; images are not decoded.

  Raises:
    ValueError: labels that cannot be read any more, by their record's key.
  """
  read = arrays.reader(source)
  indices, labels = ids.tolist(), []
  for index in indices:
    with record_named(source, index, 'its labels'):
      labels.append(np.asarray(read(index), np.int32))
  return Rows(features, ids, labels, [source.key(i) for i in indices])


def write(path: str, rows: Rows, kind: str) -> None:
  """Writes a shard: on disk and under its name when this returns.

  Args:
    path: of the file.
    rows: its images.
    kind: one of FORMATS.

  Raises:
    OSError: the file cannot be written.
  """
  kinds = {'array_record': _write_array_record}
  write_rows = kinds.get(kind, _write_safetensors)

  def write_anew() -> None:
    with atomic.renamed(path, unique=False) as temporary:
      write_rows(temporary, rows)

  retries.call(write_anew)


def count(path: str, kind: str) -> int:
  """Images in a shard, by the file's own index."""
  if kind == 'array_record':
    from input_pipeline.prepared.records import ShardReader

    return ShardReader([path]).num_records(0)
  from big_vision_like.checkpoints import safetensors_files

  table, _ = safetensors_files.header(path)
  return table['ids']['shape'][0] if 'ids' in table else 0


def _write_array_record(path: str, rows: Rows) -> None:
  from array_record.python import array_record_module  # type: ignore[attr-defined]

  from input_pipeline.prepared import records

  records.check_path(path)
  writer = array_record_module.ArrayRecordWriter(
    path, 'group_size:1,uncompressed'
  )
  try:
    for record in _records(rows):
      writer.write(record)
    writer.close()
  except RuntimeError as error:
    reason = str(error).split(';')[0]
    raise retries.from_message(reason, path) from None


def _records(rows: Rows) -> Iterator[bytes]:
  import msgpack

  columns = zip(rows.ids.tolist(), rows.keys, rows.labels, rows.features)
  for index, key, labels, vector in columns:
    packed = msgpack.packb(
      {
        'v': VERSION,
        'id': index,
        'key': key,
        'labels': labels.tolist(),
        'features': vector.astype('<f4').tobytes(),
      }
    )
    assert packed is not None  # only None with a stream
    yield packed


def _write_safetensors(path: str, rows: Rows) -> None:
  from big_vision_like.checkpoints import safetensors_files

  keys = [key.encode('utf-8', 'backslashreplace') for key in rows.keys]
  ends = lambda parts: np.cumsum([len(part) for part in parts], dtype=np.int64)
  tensors = {
    'features': np.ascontiguousarray(rows.features, np.float32),
    'ids': rows.ids.astype(np.int64),
    'labels': np.concatenate([np.empty(0, np.int32), *rows.labels]),
    'label_ends': ends(rows.labels),
    'keys': np.frombuffer(b''.join(keys), np.uint8),
    'key_ends': ends(keys),
  }
  safetensors_files.write(path, tensors, {'version': str(VERSION)})
