"""Labels of many images as one ascending array of 64-bit numbers.

  image 28 bits | label 20 bits | state 16 bits

Sorting the numbers sorts by image and label, and the largest state of a pair
is the one that counts. States: 0 to 10,000 a machine's confidence in units of
1e-4; ABSENT and PRESENT the verdict of a person, above any machine's.
"""

import dataclasses
import hashlib
import os

import numpy as np

from input_pipeline.files import atomic, numpy_files

CONFIDENCE_UNIT = 10_000
ABSENT, PRESENT = 20_000, 20_001
MAX_IMAGES, MAX_LABELS = 1 << 28, 1 << 20
IMAGE_SHIFT, LABEL_SHIFT = 36, 16
_CHUNK = 1 << 20


@dataclasses.dataclass
class Counts:
  """What became of the rows.

  Attributes:
    rows: read.
    other_labels: of labels outside the vocabulary.
    other_images: of images that are not there.
    images_missing: ids, uint64, of those images.
    low_confidence: machine-generated, below the limit.
    overruled: machine-generated, of a pair that a person verified.
    contradictory: pairs verified both present and absent; present counts.
    repeated: the same pair again.
  """

  rows: int = 0
  other_labels: int = 0
  other_images: int = 0
  images_missing: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(0, np.uint64)
  )
  low_confidence: int = 0
  overruled: int = 0
  contradictory: int = 0
  repeated: int = 0


def settle(keys: np.ndarray, counts: Counts) -> np.ndarray:
  """Keeps the last, that is the largest, state of each pair; in place."""
  if not len(keys):
    return keys
  end, step = 0, _CHUNK
  for start in range(0, len(keys), step):
    block = keys[start : start + step + 1]
    pairs, states = block >> np.uint64(LABEL_SHIFT), states_of(block)
    again = pairs[1:] == pairs[:-1]
    before, after = states[:-1][again], states[1:][again]
    overruled = (before < ABSENT) & (after >= ABSENT)
    contradictory = (before == ABSENT) & (after == PRESENT)
    counts.overruled += int(overruled.sum())
    counts.contradictory += int(contradictory.sum())
    counts.repeated += int((~overruled & ~contradictory).sum())
    kept = block[:-1][~again] if len(block) > step else block[
      np.append(~again, True)
    ]  # fmt: skip
    keys[end : end + len(kept)] = kept
    end += len(kept)
  return keys[:end]


def states_of(keys: np.ndarray) -> np.ndarray:
  """int64 [m] states of packed numbers."""
  return (keys & np.uint64((1 << LABEL_SHIFT) - 1)).astype(np.int64)


def labels_of(keys: np.ndarray) -> np.ndarray:
  """int32 [m] label ids of packed numbers."""
  labels = (keys >> np.uint64(LABEL_SHIFT)) & np.uint64(MAX_LABELS - 1)
  return labels.astype(np.int32)


def label_counts(keys: np.ndarray, num_labels: int) -> np.ndarray:
  """int64 [2, num_labels]: images with each label, and verified without it."""
  counts = np.zeros((2, num_labels), np.int64)
  for start in range(0, len(keys), _CHUNK):
    chunk = keys[start : start + _CHUNK]
    labels, absent = labels_of(chunk), states_of(chunk) == ABSENT
    for row, chosen in enumerate((~absent, absent)):
      counts[row] += np.bincount(labels[chosen], minlength=num_labels)
  return counts


def relabelled(keys: np.ndarray, new_ids: np.ndarray) -> np.ndarray:
  """The numbers with label i as new_ids[i], those of -1 left out; in place.

  Args:
    keys: uint64 [m].
    new_ids: int64 [num_labels], ascending where not -1.
  """
  end = 0
  for start in range(0, len(keys), _CHUNK):
    chunk = keys[start : start + _CHUNK]
    labels = new_ids[labels_of(chunk)]
    chunk = chunk[labels >= 0]
    cleared = chunk & ~np.uint64((MAX_LABELS - 1) << LABEL_SHIFT)
    shifted = labels[labels >= 0].astype(np.uint64) << np.uint64(LABEL_SHIFT)
    keys[end : end + len(chunk)] = cleared | shifted
    end += len(chunk)
  return keys[:end]


class PackedLabels:
  """The labels of n images, by image; picklable.

  Args:
    keys: uint64 [m] ascending.
    num_images: n.
    scratch: folder to write the keys to, or None. With it, copies made by
      pickling map that file instead of carrying 8 bytes a label each.
  """

  def __init__(self, keys: np.ndarray, num_images: int, scratch: str | None):
    self._keys: np.ndarray | None = keys
    firsts = np.arange(num_images + 1, dtype=np.uint64) << np.uint64(
      IMAGE_SHIFT
    )
    self._ends = np.searchsorted(keys, firsts)
    self._path = None if scratch is None else _saved(keys, scratch)

  def __getstate__(self) -> dict:
    return self.__dict__ | ({} if self._path is None else {'_keys': None})

  def keys(self) -> np.ndarray:
    """uint64 [m] ascending, of all images."""
    keys = self._keys
    if keys is None:
      assert self._path is not None
      keys = self._keys = numpy_files.mapped(self._path)
    assert keys is not None
    return keys

  def of(self, image: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(labels int32 [k], confidences float32 [k], negatives int32 [j])."""
    keys = self.keys()[self._ends[image] : self._ends[image + 1]]
    labels, states = labels_of(keys), states_of(keys)
    positive = states != ABSENT
    states = np.minimum(states[positive], CONFIDENCE_UNIT)  # PRESENT is 1
    conf = (states / CONFIDENCE_UNIT).astype(np.float32)
    return labels[positive], conf, labels[~positive]

  def num_unlabelled(self) -> int:
    """Images of which nothing is known."""
    return int((np.diff(self._ends) == 0).sum())


def _saved(keys: np.ndarray, folder: str) -> str:
  """Path of the numbers in a folder, under a name that says their content."""
  digest = hashlib.blake2b(keys.data, digest_size=8).hexdigest()
  path = os.path.join(folder, f'open_images_labels_{digest}.npy')
  if not os.path.exists(path):
    os.makedirs(folder, exist_ok=True)
    with atomic.writing(path) as file:
      np.save(file, keys)
  return path
