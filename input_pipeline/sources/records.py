"""Data set in the project's record format: ArrayRecord shards + manifest.

The tools/prepare_*.py make one (docs/preparing-data.md); docs/data.md ("Record
format") describes the files.
"""

import bisect
import hashlib
import itertools
import os

import numpy as np

from big_vision_like.protocols import Objects
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import hierarchy as hierarchies
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.space import Skeleton
from input_pipeline.labels.stored_labels import StoredLabels
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import records, stored_images, stored_objects


class Source:
  """Random access to the records of one split.

  Attributes:
    background: whether id 0 of the masks is a background; None: not known.
    keypoints: which there are; None: not known.
    external_ids: id of each label where the data come from (COCO's category
      ids); None: not known, or another vocabulary is given.
    has_truth: False: a list of images without any annotations.
    in_hash_order: whether the records are stored by a hash of (seed, key), so
      that the first m of them are a random subset.

  Args (options):
    path: folder of the data set.
    split: one of the manifest's splits.
    vocabulary: file to use instead of the data set's own.
    hierarchy: file to use instead of the data set's own, if it has one.
    hierarchy_unlisted: nodes of that file outside the vocabulary: 'error',
      'traverse' or 'add' (see input_pipeline/labels/hierarchy.py).

  Raises:
    FileNotFoundError: no data set there.
    ValueError: unknown split; or shards missing or not those of the manifest,
      with their list.
  """

  def __init__(
    self,
    *,
    path: str,
    split: str = 'train',
    vocabulary: str | None = None,
    hierarchy: str | None = None,
    hierarchy_unlisted: hierarchies.Unlisted = 'error',
  ):
    self.path = os.fspath(path)
    self.split = split
    manifest = manifests.load(self.path)
    manifests.check_split(manifest, split, f'data set {self.path!r}')
    manifests.check(self.path, manifest, split)
    if hierarchy is None and manifest.hierarchy is not None:
      hierarchy = os.path.join(self.path, manifest.hierarchy)
      hierarchy_unlisted = manifest.hierarchy_unlisted
    self.vocabulary, self.hierarchy = hierarchies.attach(
      vocabularies.load(
        vocabulary or os.path.join(self.path, manifest.vocabulary)
      ),
      hierarchy,
      unlisted=hierarchy_unlisted,
    )
    self.background = manifest.options.get('background')
    self.keypoints = _keypoints(manifest)
    by_split = manifest.options.get('external_ids', {})
    ids = None if vocabulary else by_split.get(split)
    self.external_ids = None if ids is None else tuple(ids)
    self.has_truth = split not in manifest.options.get('without_truth', ())
    self._notes = list(manifest.notes.get(split, ()))
    self._image_arrays = frozenset(manifest.label_index.get(split, ()))
    self.in_hash_order = manifest.options.get('order') == manifests.ORDER
    self._shards = manifest.splits[split]
    self._ends = list(itertools.accumulate(s.records for s in self._shards))
    self._reader = records.ShardReader(
      os.path.join(self.path, s.name) for s in self._shards
    )

    self._stored_labels: StoredLabels | None = None
    if split in manifest.label_index:
      self._stored_labels = StoredLabels(self.path, split, len(self))
      self._stored_labels.arrays()  # a wrong one is refused here

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def _locate(self, index: int) -> tuple[int, int]:
    """(shard, position in it) of a record."""
    if not 0 <= index < len(self):
      raise IndexError(f'record {index} of {len(self)} in {self.path!r}')
    shard = bisect.bisect_right(self._ends, index)
    return shard, index - (self._ends[shard] - self._shards[shard].records)

  def read(self, index: int) -> records.Record:
    """The whole record; BadExample where it is corrupt."""
    try:
      return records.decode(self._reader.read(*self._locate(index)))
    except ValueError as error:
      raise BadExample(f'corrupt record: {error}') from None

  def __getitem__(self, index: int) -> dict:
    """'image' bytes, 'labels' int32 [n], 'key', and what else is stored.

    That is 'label_conf', 'negatives', 'dedup_hash' and the fields of
    annotations.py.
    """
    record = self.read(int(index))
    example = {
      'image': record.image,
      'labels': record.labels,
      'key': record.key,
    }
    if record.label_conf is not None:
      example['label_conf'] = record.label_conf
    if record.negatives is not None:
      example['negatives'] = record.negatives
    if record.dedup_hash is not None:
      example['dedup_hash'] = record.dedup_hash
    if record.annotations is not None:
      example |= record.annotations
    return example

  def labels(self, index: int) -> np.ndarray:
    """Raw label ids int32 [n] of a record.

    Without its shard where the data set has a label index, as those have that
    are prepared by this program.
    """
    if self._stored_labels is None:
      return self.read(int(index)).labels
    if not 0 <= index < len(self):
      raise IndexError(f'record {index} of {len(self)} in {self.path!r}')
    return self._stored_labels.labels(int(index))

  def label_index(self) -> tuple[np.ndarray, np.ndarray] | None:
    """(ends int64 [n], labels int32 [m]) of all records, memory-mapped.

    The labels of record i are labels[ends[i - 1] : ends[i]] (from 0 for the
    first). None where the data set has no index.
    """
    return None if self._stored_labels is None else self._stored_labels.arrays()

  def sizes(self) -> np.ndarray | None:
    """int32 [n, 2] height and width of the stored images, memory-mapped.

    None for data sets prepared before their sizes were kept.
    """
    return self._of_images(stored_images.SIZES)

  def image_ids(self) -> np.ndarray | None:
    """int64 [n] numbers of the images where they come from (COCO's ids)."""
    return self._of_images(stored_images.IDS)

  def _of_images(self, kind: str) -> np.ndarray | None:
    if kind not in self._image_arrays:
      return None
    return stored_images.load(self.path, self.split, kind, len(self))

  def objects(self) -> Objects | None:
    """The boxes of all records, in pixels of the original images.

    None for data sets without boxes, or prepared before they were kept so.
    """
    if stored_objects.OBJECTS not in self._image_arrays:
      return None
    return stored_objects.load(self.path, self.split, len(self))

  def report_lines(self) -> list[str]:
    """What the preparation met and left out."""
    return self._notes

  def key(self, index: int) -> str:
    """'train-00003-of-00016.array_record:41', readable without the record."""
    shard, position = self._locate(int(index))
    return f'{self._shards[shard].name}:{position}'

  def stored_key(self, index: int) -> str:
    """The key inside the record: the image's name before it was prepared."""
    return self.read(int(index)).key

  def fingerprint(self) -> str:
    """Changes with the shards' checksums, the vocabulary or the hierarchy."""
    parts = [s.sha256 for s in self._shards]
    parts += [self.split, self.vocabulary.fingerprint()]
    if self.hierarchy is not None:
      parts.append(
        hashlib.sha256(self.hierarchy.ancestors.values.tobytes()).hexdigest()
      )
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def _keypoints(manifest: manifests.Manifest) -> Skeleton | None:
  """Those of a data set; older ones say the pairs only, or nothing."""
  if 'keypoints' in manifest.options:
    return Skeleton.from_json(manifest.options['keypoints'])
  pairs = manifest.options.get('keypoint_pairs')
  return None if pairs is None else Skeleton.of_pairs(pairs)
