"""Images in files with boxes for each: what the sources of boxes share.

Boxes are flat arrays, so that a set of a million travels to data workers
quickly. Images are opened when they are asked for.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import image_files
from input_pipeline.files.archive_index import Files
from input_pipeline.image_sets import box_checks, fingerprint
from input_pipeline.labels import ragged
from input_pipeline.labels.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
  """Boxes of n images, A in all, in the order of the images.

  Attributes:
    lengths: int64 [n] boxes of each image.
    boxes: float32 [A, 4] y0, x0, y1, x1, in pixels or, if `relative`, in
      heights and widths of the image.
    labels: int32 [A].
    difficult: bool [A]; None where the form has no such mark.
    sizes: int32 [n, 2] height and width that the annotations state, 0 where
      they do not.
    relative: see `boxes`.
  """

  lengths: np.ndarray
  boxes: np.ndarray
  labels: np.ndarray
  difficult: np.ndarray | None
  sizes: np.ndarray
  relative: bool = False


class BoxedFiles:
  """Random access to images with boxes; see docs/add-a-source.md.

  Attributes:
    vocabulary: the classes.
  """

  hierarchy = None

  def __init__(
    self,
    files: Sequence[Files],
    places: np.ndarray,
    keys: Sequence[str],
    truth: Truth,
    vocabulary: Vocabulary,
    notes: Sequence[str],
  ):
    """Takes the images in the order given; boxes outside them are left out.

    Args:
      files: where the images are.
      places: int64 [n, 2] which of the files an image is in, and its position
        in their `names`; -1: missing.
      keys: names of the images.
      truth: of each image.
      vocabulary: the classes.
      notes: lines of the report; one on the boxes is added.
    """
    self.vocabulary = vocabulary
    self._files, self._places, self._keys = tuple(files), places, tuple(keys)
    num = len(places)
    owners = np.repeat(np.arange(num), truth.lengths)
    limits = np.ones((num, 2)) if truth.relative else truth.sizes
    checked = box_checks.check(truth.boxes, limits[owners])
    starts = ragged.ends_of(truth.lengths)
    self._notes = [
      *notes,
      box_checks.line(
        checked,
        lambda i: f'{keys[owners[i]]} box {i - starts[owners[i]] + 1}',
        int((truth.lengths == 0).sum()),
        difficult=truth.difficult,
      ),
    ]
    kept = ~checked.outside
    self._ends = ragged.ends_of(np.bincount(owners[kept], minlength=num))
    self._boxes, self._labels = truth.boxes[kept], truth.labels[kept]
    marks = truth.difficult
    self._difficult = None if marks is None else marks[kept]
    self._stated = truth.sizes.astype(np.int32)
    self._relative = truth.relative
    self._sizes: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self._places)

  def _slice(self, index: int) -> slice:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    start, end = self._ends[index : index + 2].tolist()
    return slice(start, end)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """'image' bytes, 'labels', 'boxes', 'box_labels', 'box_difficult'.

    The last where the form has such a mark.

    Raises:
      BadExample: the image is missing or damaged, or of another size than its
        annotations state.
    """
    place = self._slice(index)
    store, row = self._places[index].tolist()
    if row < 0:
      raise BadExample('the image is missing')
    image = self._files[store].read_at(row)
    boxes = self._boxes[place]
    stated = tuple(self._stated[index].tolist())
    if self._relative or any(stated):
      size = image_files.header_size(image)
      if size is None and self._relative:
        raise BadExample('the image has no size that can be read')
      if size is not None and any(stated) and size != stated:
        raise BadExample(different_size(size, stated))
      if self._relative:
        boxes = (boxes * np.tile(np.array(size), 2)).astype(np.float32)
    example = {
      'image': image,
      'labels': self.labels(index),
      'boxes': boxes,
      'box_labels': self._labels[place],
    }
    if self._difficult is not None:
      example['box_difficult'] = self._difficult[place]
    return example

  def key(self, index: int) -> str:
    """Path of the image in the data set."""
    return self._keys[index]

  def labels(self, index: int) -> np.ndarray:
    """int32 [n] ascending ids of the classes of an image's boxes."""
    return np.unique(self._labels[self._slice(index)])

  def sizes(self) -> np.ndarray:
    """int32 [n, 2] height and width of the images, read once where needed.

    What cannot be read counts as 1 x 1: it is a bad example anyway.
    """
    if self._sizes is None:
      found = self._stated.copy()
      for index in np.flatnonzero((found == 0).any(axis=1)).tolist():
        store, row = self._places[index].tolist()
        found[index] = _header_size(self._files[store], row) or (1, 1)
      self._sizes = found
    return self._sizes

  def fingerprint(self) -> str:
    """Changes with boxes, classes, and names and sizes of the files."""
    parts: list[bytes | np.ndarray] = [
      *(files.fingerprint().encode() for files in self._files),
      '\n'.join(self._keys).encode(),
      self._places, self._ends, self._boxes, self._labels,
    ]  # fmt: skip
    if self._difficult is not None:
      parts.append(self._difficult)
    return fingerprint.digest(parts, self.vocabulary, None)

  def report_lines(self) -> list[str]:
    """What was found and left out."""
    return self._notes

  def add_note(self, line: str) -> None:
    """One more of the `report_lines`."""
    self._notes.append(line)


def different_size(found: tuple[int, int], stated: tuple[int, ...]) -> str:
  """Why an image is bad whose annotations are of another size."""
  text = (
    f'the image is {found[0]}x{found[1]}, its annotations are for '
    f'{stated[0]}x{stated[1]} (height x width)'
  )
  if found == stated[::-1]:
    text += '; perhaps it was labelled as its EXIF orientation turns it'
  return text


def _header_size(files: Files, row: int) -> tuple[int, int] | None:
  """Size of an image from its head, without reading the rest of a file."""
  if row < 0:
    return None
  path = os.path.join(files.path, files.names[row])
  if os.path.isfile(path):
    return image_files.header_size(path)
  try:
    return image_files.header_size(files.read_at(row))
  except BadExample:
    return None
