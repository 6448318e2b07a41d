"""Which mask belongs to which image: folders of splits, names, what is left.

Layouts, for the folders `images` and `masks` (their names are options):
  PATH/train/images, PATH/train/masks    splits above
  PATH/images/train, PATH/masks/train    splits below
  PATH/images, PATH/masks                no splits
  any other, as 'left/{split}' and 'ids/{split}', relative to PATH
A mask has its image's name: images/a/b.jpg and masks/a/b.png. Names that begin
with a dot are passed over; other files are counted. An image without a mask,
and a mask without an image, are mistakes of the data set.
"""

import dataclasses
import os
from collections.abc import Iterator, Mapping

import numpy as np

from input_pipeline.files import archives
from input_pipeline.files.archive_index import Files
from input_pipeline.files.image_files import SUFFIXES

_SPLIT = '{split}'
_MASK = '.png'
_NUM_SHOWN = 5

Folders = tuple[str, str]  # of images, of masks


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Images with their masks, in the order of the images' names.

  Attributes:
    images, masks: the files of the two folders.
    image_rows, mask_rows: integer [n] positions of each pair in their `names`.
    num_others: files that are neither image nor mask; one of them is `other`.
  """

  images: Files
  masks: Files
  image_rows: np.ndarray
  mask_rows: np.ndarray
  num_others: int
  other: str


def folders(
  path: str, split: str, images: str, masks: str, undivided: bool
) -> Folders:
  """The folders of a split, or, if `undivided`, those of all images.

  Raises:
    FileNotFoundError: no folder `path`.
    ValueError: no such split, or splits where there should be none.
  """
  if not os.path.isdir(path):
    raise FileNotFoundError(f'path={path!r}: no such folder')
  divided = splits(path, images, masks)
  listed = ', '.join(sorted(divided)) or 'none'
  whole = os.path.join(path, images), os.path.join(path, masks)
  is_whole = _SPLIT not in images + masks and all(map(os.path.isdir, whole))
  if undivided:
    if 'train' in divided or (not is_whole and divided):
      raise ValueError(
        f'{path}: has splits of its own ({listed}): give one of them as split, '
        f'without holdout_percent'
      )
    if not is_whole:
      raise ValueError(f'{path}: no folders {images} and {masks} in it')
    return whole
  if split in divided:
    return divided[split]
  text = f'{path}: unknown split {split!r}; splits there: {listed}'
  if is_whole and 'train' not in divided:
    text += (
      f'. Where {images} and {masks} are not divided, use split="all", or '
      f'holdout_percent to divide them into train and val'
    )
  elif not divided:
    text += f'. Looked for {_looked_for(path, split, images, masks)}'
  raise ValueError(text)


def splits(path: str, images: str, masks: str) -> dict[str, Folders]:
  """Split -> its folders, of those that have both.

  Raises:
    ValueError: only one of the two names says where the split stands, or a
      split lies in two places.
  """
  found: dict[str, Folders] = {}
  for templates in _templates(images, masks):
    for split in _values(path, templates[0]):
      image_folder, mask_folder = (
        os.path.join(path, t.replace(_SPLIT, split)) for t in templates
      )
      if os.path.isdir(image_folder) and os.path.isdir(mask_folder):
        if split in found:
          raise ValueError(
            f'{path}: split {split!r} lies both in {found[split][0]} and in '
            f'{image_folder}; say which by images and masks, for example '
            f'images="{_SPLIT}/{images}"'
          )
        found[split] = image_folder, mask_folder
  return found


def _templates(images: str, masks: str) -> list[Folders]:
  if (_SPLIT in images) != (_SPLIT in masks):
    raise ValueError(
      f'images={images!r} and masks={masks!r}: both must say where {_SPLIT} '
      f'stands, or neither'
    )
  if _SPLIT in images:
    return [(images, masks)]
  return [
    (f'{_SPLIT}/{images}', f'{_SPLIT}/{masks}'),
    (f'{images}/{_SPLIT}', f'{masks}/{_SPLIT}'),
  ]


def _values(path: str, template: str) -> Iterator[str]:
  """What may stand for '{split}', by the names in the folder it stands in."""
  head, _, tail = template.partition(_SPLIT)
  parent = os.path.join(path, os.path.dirname(head))
  start, end = os.path.basename(head), tail.partition('/')[0]
  if os.path.isdir(parent):
    for name in sorted(os.listdir(parent)):
      value = name.removeprefix(start).removesuffix(end)
      if value and not name.startswith('.') and name == f'{start}{value}{end}':
        yield value


def _looked_for(path: str, split: str, images: str, masks: str) -> str:
  """The layouts, and what is there instead."""
  pairs = [
    f'{a} and {b}'.replace(_SPLIT, str(split))
    for a, b in _templates(images, masks)
  ]
  if _SPLIT not in images:
    pairs.append(f'{images} and {masks}')
  names = sorted(e.name for e in os.scandir(path) if e.is_dir())
  there = ', '.join(names[:10]) + (', ...' if len(names) > 10 else '')
  return f'{", or ".join(pairs)}; folders there: {there or "none"}'


def pair(found: Folders, image_suffix: str, mask_suffix: str) -> Pairs:
  """Lists two folders and joins images with masks.

  Args:
    found: folder of the images, folder of the masks; may be the same.
    image_suffix: what follows the common name in images, before '.jpg'.
    mask_suffix: what follows it in masks, before '.png'.

  Raises:
    ValueError: no pairs, something without its counterpart, or two images for
      one mask.
  """
  same = os.path.realpath(found[0]) == os.path.realpath(found[1])
  images = archives.open_files(found[0])
  masks = images if same else archives.open_files(found[1])
  mask_rows, other_masks = _by_stem(masks, (_MASK,), mask_suffix)
  taken = frozenset(mask_rows.values()) if same else frozenset[int]()
  image_rows, other_images = _by_stem(images, SUFFIXES, image_suffix, taken)
  if same:
    other_masks = []  # the images, or among the other files of the images
  if image_rows.keys() != mask_rows.keys() or not image_rows:
    raise ValueError(
      _mismatch(images, masks, image_rows, mask_rows, other_masks, mask_suffix)
    )
  others = [images.names[i] for i in other_images]
  others += [masks.names[i] for i in other_masks]
  return Pairs(
    images,
    masks,
    np.array([*image_rows.values()], np.int32),
    np.array([mask_rows[stem] for stem in image_rows], np.int32),
    len(others),
    others[0] if others else '',
  )


def _by_stem(
  files: Files,
  extensions: tuple[str, ...],
  suffix: str,
  taken: frozenset[int] = frozenset(),
) -> tuple[dict[str, int], list[int]]:
  """(common name -> position, positions of other files)."""
  rows: dict[str, int] = {}
  others = []
  for row, name in enumerate(files.names):
    if name.startswith('.') or '/.' in name or row in taken:
      continue
    stem, extension = os.path.splitext(name)
    if extension.lower() not in extensions or not stem.endswith(suffix):
      others.append(row)
      continue
    stem = stem[: len(stem) - len(suffix)]
    if rows.setdefault(stem, row) != row:
      raise ValueError(
        f'{files.path}: both {files.names[rows[stem]]} and {name} are '
        f'{stem!r}; a mask belongs to one image'
      )
  return rows, others


def _mismatch(
  images: Files,
  masks: Files,
  image_rows: Mapping[str, int],
  mask_rows: Mapping[str, int],
  others: list[int],
  mask_suffix: str,
) -> str:
  """The message for images and masks that do not belong together."""
  if not image_rows and not mask_rows:
    return (
      f'{images.path}: no images in it (suffixes: {", ".join(SUFFIXES)}), and '
      f'no masks in {masks.path} ({mask_suffix}{_MASK})'
    )
  maskless = [s for s in image_rows if s not in mask_rows]
  imageless = [s for s in mask_rows if s not in image_rows]
  parts = []
  for stems, rows, files, kind, lacks in (
    (maskless, image_rows, images, 'image', 'a mask'),
    (imageless, mask_rows, masks, 'mask', 'an image'),
  ):
    if stems:
      names = [files.names[rows[stem]] for stem in stems[:_NUM_SHOWN]]
      more = ', ...' if len(stems) > _NUM_SHOWN else ''
      plural = '' if len(stems) == 1 else 's'
      parts.append(
        f'{len(stems):,} {kind}{plural} in {files.path} without {lacks}: '
        f'{", ".join(names)}{more}'
      )
  text = '; '.join(parts)
  if maskless:
    text += (
      f'. The mask of {images.names[image_rows[maskless[0]]]} is '
      f'{maskless[0]}{mask_suffix}{_MASK}'
    )
    candidates = [masks.names[row] for row in others]
    candidates += [masks.names[mask_rows[stem]] for stem in imageless]
    text += _hint(maskless[0], candidates)
  return text


def _hint(stem: str, candidates: list[str]) -> str:
  """What the user may have meant, by a file whose name begins alike."""
  rests = ((n, n[len(stem) :]) for n in candidates if n.startswith(stem))
  near, rest = next(
    ((n, rest) for n, rest in rests if not rest[:1].isalnum()), ('', '')
  )
  if not near:
    return ''
  rest, _, extension = rest.rpartition('.')
  extension = f'.{extension}'
  if extension.lower() == _MASK:
    return f'; is it {near}, with mask_suffix={rest!r}?'
  return f'; {near} is no PNG: masks are PNGs, which keep class ids as they are'
