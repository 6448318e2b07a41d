"""Lists of different lengths, one an image: boxes or poses that were found.

On the devices they are arrays of a fixed length with a mask; here what stands
is gathered over an evaluation set, by image.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class ImageLists:
  """n entries of all images, by image and in each as predicted.

  Attributes:
    images: int64 [n] index of the image of each entry, ascending.
    fields: name -> [n, ...].
  """

  images: np.ndarray
  fields: Mapping[str, np.ndarray]

  def of(self, image: int) -> dict[str, np.ndarray]:
    """The entries of an image by field, [k, ...] each."""
    start, end = np.searchsorted(self.images, [image, image + 1])
    return {name: x[start:end] for name, x in self.fields.items()}


class Collector:
  """Takes batch after batch, in any order of the images.

  Args:
    fields: names of the arrays [B, K, ...] to keep.
    mask: name of the array bool [B, K]: which entries stand.
  """

  def __init__(self, fields: Sequence[str], mask: str = 'mask'):
    self._fields = tuple(fields)
    self._mask = mask
    self._parts: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []

  def add(self, outputs: Mapping[str, np.ndarray], ids: np.ndarray) -> None:
    """Adds the entries of the images of a batch, whose indices are `ids`."""
    row, place = np.nonzero(outputs[self._mask])
    found = {name: outputs[name][row, place] for name in self._fields}
    self._parts.append((ids[row], found))

  def finished(self) -> ImageLists:
    """All of them.

    Raises:
      ValueError: no batch was added.
    """
    if not self._parts:
      raise ValueError('no batch to gather lists of')
    images = np.concatenate([ids for ids, _ in self._parts]).astype(np.int64)
    order = np.argsort(images, kind='stable')
    fields = {
      name: np.concatenate([found[name] for _, found in self._parts])[order]
      for name in self._fields
    }
    return ImageLists(images[order], fields)
