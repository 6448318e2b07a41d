"""Maps of a frozen net in place of images, from a folder of extract_maps.

Records are those of the data that the maps were computed from, in their order,
with their boxes as they were; the image is a blank of its size. The op
`feature_map` reads the map. docs/frozen-features.md.
"""

import bisect
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.config import json_text, redaction
from input_pipeline import feature_map_checks
from input_pipeline.examples.errors import BadExample
from input_pipeline.examples.stored_map import DType, StoredMap
from input_pipeline.feature_maps import folder
from input_pipeline.files import numpy_files, retries
from input_pipeline.labels.space import LabelSpace
from input_pipeline.prepared import records

_GREY = np.full((1, 1, 3), 127, np.uint8)


class Source:
  """Random access to the records of one folder.

  Attributes:
    vocabulary, hierarchy, space: of the data.
    has_truth, in_hash_order: of the data.
    computed_by: 'checkpoint', 'net' and 'weights', what the maps follow from.

  Args (options):
    path: folder.
    dtype: type of the numbers that the files must hold; in a batch they are
      float32.
    data: source config that the maps must be of; None: whatever it is.

  Raises:
    FileNotFoundError: no finished folder.
    ValueError: files that differ from what was written, or hold maps of other
      data or in another type.
  """

  def __init__(
    self,
    *,
    path: str,
    dtype: DType = 'float32',
    data: Mapping[str, Any] | None = None,
  ):
    self.path = os.fspath(path)
    self._manifest = folder.load(self.path)
    self._settings = settings = self._manifest.settings
    if settings['dtype'] != dtype:
      raise ValueError(
        f'dtype={dtype!r}, but path={self.path!r} holds {settings["dtype"]!r}'
      )
    if data is not None:
      _check_data(self.path, settings['data'], data)
    self._dtype, self._variants = dtype, settings['variants']
    self.computed_by = {
      name: settings[name] for name in ('checkpoint', 'net', 'weights')
    }
    self.has_truth = settings['has_truth']
    self.in_hash_order = settings['in_hash_order']
    with retries.open_binary(self._file(folder.SPACE)) as file:
      read = json_text.parse(file.read(), self._file(folder.SPACE))
    self.space = LabelSpace.from_json(read, self._file(folder.SPACE))
    self.vocabulary, self.hierarchy = (
      self.space.vocabulary,
      self.space.hierarchy,
    )
    self._images = numpy_files.mapped(self._file(folder.IMAGES))
    if len(self._images) != settings['records']:
      raise ValueError(
        f'path={self.path!r}: {folder.IMAGES} has {len(self._images)} rows, '
        f'should be {settings["records"]}'
      )
    with retries.open_binary(self._file(folder.BAD)) as file:
      rows = [json_text.parse(line, self._file(folder.BAD)) for line in file]
    self._bad = {row['index']: row['reason'] for row in rows}
    self._firsts = [shard.first for shard in self._manifest.shards]
    examples, maps = zip(
      *(
        [self._file(file.name) for file in shard.files]
        for shard in self._manifest.shards
      )
    )
    self._examples = records.ShardReader(examples)
    self._maps = records.ShardReader(maps)

  def _file(self, name: str) -> str:
    return os.path.join(self.path, name)

  def __len__(self) -> int:
    return len(self._images)

  def _locate(self, index: int) -> tuple[int, int]:
    """(shard, position in it) of a record."""
    if not 0 <= index < len(self):
      raise IndexError(f'record {index} of {len(self)} in {self.path!r}')
    shard = bisect.bisect_right(self._firsts, index) - 1
    return shard, index - self._firsts[shard]

  def _record(self, index: int) -> records.Record:
    try:
      return records.decode(self._examples.read(*self._locate(index)))
    except ValueError as error:
      raise BadExample(f'corrupt record: {error}') from None

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The record with a blank for its image, and 'block3_map', not read yet."""
    index = int(index)
    if index in self._bad:
      raise BadExample(self._bad[index])
    record, (shard, position) = self._record(index), self._locate(index)
    height, width, *shape = self._images[index, :4].tolist()
    example: dict[str, Any] = {
      'image': np.broadcast_to(_GREY, (height, width, 3)),
      'labels': record.labels,
      'key': record.key,
      'block3_map': StoredMap(
        self._maps,
        shard,
        position * self._variants,
        self._variants,
        (shape[0], shape[1], self._settings['channels']),
        self._dtype,
      ),
    }
    if record.label_conf is not None:
      example['label_conf'] = record.label_conf
    if record.negatives is not None:
      example['negatives'] = record.negatives
    return example | dict(record.annotations or {})

  def labels(self, index: int) -> np.ndarray:
    """Raw label ids int32 [n] of a record."""
    return self._record(int(index)).labels

  def key(self, index: int) -> str:
    """Its key in the data."""
    return self._record(int(index)).key

  def sizes(self) -> np.ndarray | None:
    """int32 [n, 2] height and width of the images; None as with the data."""
    if not self._settings['sizes_known']:
      return None
    return np.asarray(self._images[:, :2], np.int32)

  def image_ids(self) -> np.ndarray | None:
    """int64 [n] numbers of the images where they come from, where known."""
    ids = np.asarray(self._images[:, 4])
    return None if (ids == folder.NO_ID).all() else ids

  def check_ops(self, specs: Sequence[Mapping[str, Any]], where: str) -> None:
    """ValueError where op configs would see the images otherwise."""
    feature_map_checks.check_ops(self._settings, specs, where)

  def fingerprint(self) -> str:
    """Changes with the data, the ops, the weights and every file."""
    return self._manifest.fingerprint()


def _check_data(
  path: str, there: Mapping[str, Any], here: Mapping[str, Any]
) -> None:
  """ValueError listing the options in which two source configs differ."""
  here = json.loads(json.dumps({k: _plain(v) for k, v in here.items()}))
  here = redaction.plain(here)
  differ = [
    f'  {name}: {there.get(name)!r} there, {here.get(name)!r} here'
    for name in sorted({*there, *here})
    if there.get(name) != here.get(name)
  ]
  if differ:
    raise ValueError(
      f'path={path!r} holds maps of other data:\n' + '\n'.join(differ)
    )


def _plain(value: Any) -> Any:
  return value.to_dict() if hasattr(value, 'to_dict') else value
