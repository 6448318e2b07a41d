"""Your own images with masks: a class id for each pixel (docs/targets.md).

  PATH/classes.txt
  PATH/train/images/**/NAME.jpg, PATH/train/masks/**/NAME.png, PATH/val/...
  PATH/images, PATH/masks    no splits: split='all', or train and val by
                             `holdout_percent` of a hash of the relative path
Other layouts and names: mask_pairs.py. In a mask 0 is the background and class
i of classes.txt is i + 1, or, with `background=False`, class i is i; 255 is
void and counts nowhere.
"""

import os
from typing import Any

import numpy as np

from input_pipeline.examples import annotations, mask_files
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import image_files
from input_pipeline.image_sets import fingerprint, holdout, mask_pairs
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.vocabulary import Vocabulary

CLASSES_FILE = 'classes.txt'
_NO_CLASSES = ('background', 'void', 'unlabeled', 'unlabelled', 'ignore')
_NUM_LOOKED_AT = 16


class Source:
  """Random access to image and mask; labels are the classes in the mask.

  Attributes:
    background: whether id 0 is a background, so that label i is id i + 1.

  Args (options):
    path: the data set's folder.
    split: 'train', 'val', ...; without splits 'all', or 'train' and 'val' of
      the holdout.
    holdout_percent: part of the images that is 'val', for a folder without
      splits; decided by each image's own path.
    images, masks: names of the two folders, or where they are relative to
      `path` with '{split}' for the split ('leftImg8bit/{split}').
    image_suffix, mask_suffix: what follows the common name before the file's
      extension: mask_suffix='_mask' for NAME.jpg and NAME_mask.png.
    vocabulary: file of the classes; default: PATH/classes.txt, one a line.
    background: see above.

  Raises (at construction):
    FileNotFoundError: the folder or the list of classes does not exist.
    ValueError: no pairs, an image without a mask or the reverse, unknown split,
      bad option, or masks that cannot be masks of class ids.
  """

  hierarchy = None

  def __init__(
    self,
    *,
    path: str,
    split: str = 'train',
    holdout_percent: holdout.Percent | None = None,
    images: str = 'images',
    masks: str = 'masks',
    image_suffix: str = '',
    mask_suffix: str = '',
    vocabulary: str | None = None,
    background: bool = True,
  ):
    path = image_files.check_path('path', path)
    for name, value in (('images', images), ('masks', masks)):
      image_files.check_path(name, value)
    if holdout_percent is not None:
      holdout.check_split(split)
    undivided = holdout_percent is not None or split == 'all'
    found = mask_pairs.folders(path, split, images, masks, undivided)
    self.background = background
    self.vocabulary = _classes(
      vocabulary or os.path.join(path, CLASSES_FILE), background
    )
    self._num_ids = len(self.vocabulary) + background
    pairs = mask_pairs.pair(found, image_suffix, mask_suffix)
    self._images, self._masks = pairs.images, pairs.masks
    self._rows = np.stack([pairs.image_rows, pairs.mask_rows], axis=1)
    if holdout_percent is not None and split != 'all':
      held_out = [
        holdout.held_out(pairs.images.names.raw(row), holdout_percent)
        for row in pairs.image_rows
      ]
      self._rows = self._rows[np.array(held_out) == (split == 'val')]
      if not len(self._rows):
        raise ValueError(
          f'{path}: holdout_percent={holdout_percent:g} leaves none of the '
          f'{len(held_out):,} images to split {split!r}'
        )
    parts = [os.path.relpath(folder, path) for folder in found]
    first = 'the background' if background else repr(self.vocabulary.names[0])
    self._notes = [
      f'{len(self):,} images of {parts[0]} with masks of {parts[1]}; id 0 is '
      f'{first}'
    ]
    if pairs.num_others:
      self._notes.append(
        f'{pairs.num_others:,} other files passed over, for example '
        f'{pairs.other}'
      )
    self._look_at_some()

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """'image' bytes, 'labels' int32 [n], 'segmentation': bytes of the PNG.

    Raises:
      BadExample: image or mask is missing or damaged, they differ in size, or
        the mask has other ids.
    """
    image, mask = self._read(index)
    labels = mask.present - self.background
    return {
      'image': image,
      'labels': labels[labels >= 0].astype(np.int32),
      'segmentation': mask,
    }

  def _read(self, index: int) -> tuple[bytes, mask_files.Mask]:
    """Encoded image, and its mask."""
    image_row, mask_row = self._row(index)
    image = self._images.read_at(image_row)
    try:
      mask = self._masks.read_at(mask_row)
      return image, mask_files.read(mask, image, self._num_ids)
    except BadExample as error:
      name = self._masks.names[mask_row]
      where = os.path.join(os.path.basename(self._masks.path), name)
      raise BadExample(f'{where}: {error.reason}') from None

  def _row(self, index: int) -> tuple[int, int]:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    image_row, mask_row = self._rows[index].tolist()
    return image_row, mask_row

  def key(self, index: int) -> str:
    """Path of the image, relative to the folder of images."""
    raw = self._images.names.raw(self._row(index)[0])
    return raw.decode('utf-8', 'backslashreplace')

  def fingerprint(self) -> str:
    """Changes with names and sizes of the files, the classes, `background`.

    A file replaced by one of the same size is not seen.
    """
    parts: list[bytes | np.ndarray] = [b'%d' % self.background]
    for files, rows in zip((self._images, self._masks), self._rows.T):
      parts.append(b'\0'.join(map(files.names.raw, rows.tolist())))
      parts.append(files.sizes[rows].astype(np.int64))
    return fingerprint.digest(parts, self.vocabulary, None)

  def report_lines(self) -> list[str]:
    """Where the pairs are from, and the files that are neither."""
    return self._notes

  def _look_at_some(self) -> None:
    """Reads a few pairs, so that masks of another kind are named at once.

    Raises:
      ValueError: all of them are unusable, or nothing but void and background.
    """
    num = min(len(self), _NUM_LOOKED_AT)
    present: set[int] = set()
    reasons = []
    for index in np.linspace(0, len(self) - 1, num).astype(int).tolist():
      try:
        present |= {*np.unique(self._read(index)[1].ids).tolist()}
      except BadExample as error:
        reasons.append(error.reason)
    if len(reasons) == num:
      raise ValueError(
        f'{self._masks.path}: none of {num} pairs looked at can be used; the '
        f'first: {reasons[0]}'
      )
    void = annotations.IGNORE
    if self.background and void in present and present <= {0, void}:
      raise ValueError(
        f'{self._masks.path}: {num} masks looked at hold no ids but 0 '
        f'(background) and {void} (void, counts nowhere); the first class, '
        f'{self.vocabulary.names[0]!r}, has the id 1. If {void} is to mean '
        f'this class, write 1 instead'
      )


def _classes(path: str, background: bool) -> Vocabulary:
  """The names of the classes; the background is none of them."""
  try:
    labels = vocabularies.load(path)
  except FileNotFoundError:
    first = 1 if background else 0
    raise FileNotFoundError(
      f'{path}: no such file; it names the classes of the masks, one a line, '
      f'beginning with that of id {first}'
    ) from None
  name = labels.names[0]
  if background and name.strip('_ ').lower() in _NO_CLASSES:
    raise ValueError(
      f'{path}:1: {name!r}: id 0 of a mask is the background and has no name: '
      f'remove the line, so that the first class is that of id 1; or, to '
      f'learn it as a class like the others, give background=False'
    )
  most = annotations.IGNORE - background
  if len(labels) > most:
    raise ValueError(
      f'{path}: {len(labels):,} classes; a mask of 8 bits has at most {most}, '
      f'since {annotations.IGNORE} is void'
      + (' and 0 the background' if background else '')
    )
  return labels
