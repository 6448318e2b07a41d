"""Masks, by the checkpoint of a segmentation: a part of tools.predict.

masks/NAME.png has the class of every pixel, at the size of the image file, and
overlays/NAME.jpg shows it over the image. NAME is the path of the image below
the folder that was given, without suffix. Where several images would have the
same, ignoring case, the second becomes NAME_2, and so on.
"""

import collections
import concurrent.futures
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from big_vision_like.inference import segmenter, stored_model
from big_vision_like.pages import mask_pictures, mask_sheet
from big_vision_like.protocols import Source

from . import image_list, overlays

BATCH_SIZE = 8
_MASKS = 'masks'
_THREADS = 4  # that encode files; each holds an image or two


class Masks:
  """Predicts the masks of images, and writes them.

  Args:
    model: stored_model.StoredModel of a segmentation.
    classes: names of its classes, or None.
    folder: of the output.
    on_sheet: indices of the images to show.
    overlays: whether to write overlays.
    reading: batch_size and workers of `segmenter.Segmenter`.

  Attributes:
    bad: key -> reason of the images that cannot be used.
  """

  def __init__(
    self,
    model: stored_model.StoredModel,
    classes: Any,
    folder: str,
    *,
    on_sheet: frozenset[int],
    overlays: bool = True,
    **reading: Any,
  ):
    self._segmenter = segmenter.Segmenter(model, **reading)
    self._model = model
    self._folder = folder
    self._on_sheet = on_sheet
    self._overlays = overlays
    self._shown: list[mask_sheet.Shown] = []
    self._background = model.background
    names = [
      stored_model.name_of(classes, i) for i in range(model.space.num_classes)
    ]
    if self._background:
      names = [{'name': 'background'}, *names]
    num = len(names)
    self._classes = mask_sheet.Classes(
      names, np.zeros(num), np.zeros(num, np.int64)
    )
    self._num_shrunk = 0

  @property
  def bad(self) -> dict[str, str]:
    return self._segmenter.bad

  @property
  def summary(self) -> str:
    """What was predicted, for the last lines."""
    text = f'masks of {len(self._classes.names):,} classes'
    if self._num_shrunk:
      height, width, _ = self._segmenter.image_shape
      text += (
        f"\n{self._num_shrunk:,} are larger than the net's {height}x{width} "
        'pixels and were shrunk for it'
      )
    return text

  def lines(self, found: image_list.Found) -> Iterator[dict[str, Any]]:
    """Writes the files; the line of every image that can be used, in order.

    A line is {'image': key, 'mask', 'overlay': files in the output, 'size':
    [height, width], 'seen_size': the same as the net saw it, 'classes':
    [{'id', 'name', 'share'}, ...]}, largest share of the pixels first, equal
    ones by id.
    """
    names = output_names(found)
    waiting: collections.deque[Any] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      try:
        for mask in self._segmenter.masks(found.source):
          name = names[mask.index]
          waiting.append(pool.submit(self._save, mask, name, found.source))
          if len(waiting) > _THREADS:
            yield self._count(*waiting.popleft().result())
        while waiting:
          yield self._count(*waiting.popleft().result())
      finally:
        for task in waiting:
          task.cancel()

  def write_page(self, path: str, source: Source) -> int:
    """Writes the sheet; returns how many images are on it."""
    mask_sheet.write(
      path, self._shown, self._model, self._classes, self.bad, len(source)
    )
    return len(self._shown)

  def _image(self, source: Source, mask: segmenter.Mask) -> np.ndarray:
    """uint8 [H, W, 3] by the run's own decoding, at full size.

    Raises:
      ValueError: it is not the image any more that the mask is of.
    """
    image = overlays.decoded_again(self._segmenter.ops, source, mask.index)
    if image.shape[:2] != mask.ids.shape:
      key = source.key(mask.index)
      raise overlays.changed(key, 'another size than before')
    return image

  def _save(
    self, mask: segmenter.Mask, name: str, source: Source
  ) -> tuple[dict[str, Any], mask_sheet.Shown | None]:
    """Writes an image's files, in a thread of the pool."""
    ids = mask.ids
    file = f'{_MASKS}/{name}.png'
    mask_pictures.save_mask(os.path.join(self._folder, file), ids)
    line: dict[str, Any] = {'image': source.key(mask.index), 'mask': file}
    shown = None
    if self._overlays or mask.index in self._on_sheet:
      image = self._image(source, mask)
      if self._overlays:
        over = mask_pictures.overlay(image, ids, background=self._background)
        line['overlay'] = overlays.save(self._folder, name, over)
      if mask.index in self._on_sheet:
        shown = mask_sheet.shown(line, image, ids, self._background)
    counts = mask_pictures.histogram(ids, len(self._classes.names))
    shares = counts / ids.size
    order = np.argsort(-counts, kind='stable')[: np.count_nonzero(counts)]
    line |= {
      'size': list(ids.shape),
      'seen_size': list(mask.seen_size),
      'classes': [
        {
          'id': i,
          **self._classes.names[i],
          'share': float(f'{shares[i]:.6g}'),
        }
        for i in order.tolist()
      ],
    }
    return line, shown

  def _count(
    self, line: dict[str, Any], shown: mask_sheet.Shown | None
  ) -> dict[str, Any]:
    """Adds an image to the sums of all, here where there is one thread."""
    for entry in line['classes']:
      self._classes.pixels[entry['id']] += entry['share']
      self._classes.images[entry['id']] += 1
    if self._segmenter.ops[1]['op'] == 'shrink_to_fit':
      self._num_shrunk += line['seen_size'] != line['size']
    if shown is not None:
      self._shown.append(shown)
    return line


def output_names(found: image_list.Found) -> list[str]:
  """The files of each image, without folder and suffix; see the module."""
  taken: set[str] = set()
  names = []
  for index in range(len(found.source)):
    stem = os.path.splitext(found.relative(index))[0]
    name, number = stem, 1
    while name.lower() in taken:
      number += 1
      name = f'{stem}_{number}'
    taken.add(name.lower())
    names.append(name)
  return names
