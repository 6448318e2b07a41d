"""`path` alone: prepared records, a table, images in folders, masks, shards.

What lies at the path decides which source reads it, so that a config of a
user's own data needs one flag. A development kit of Pascal VOC is read for
segmentation; its boxes by `type='voc', task='detection'`.
"""

import os
import pathlib
import re

from big_vision_like import protocols
from big_vision_like.config import plugins
from input_pipeline.files import shard_names
from input_pipeline.image_sets import holdout
from input_pipeline.labels.hierarchy import Hierarchy, Unlisted
from input_pipeline.sources import masks

_TABLES = ('.csv', '.tsv', '.jsonl')
_YEAR = re.compile(r'VOC\d{4}')
_VOC_MASKS = ('SegmentationClass', 'SegmentationClassAug')
_PNG_HEAD = 26  # bytes up to bit depth and colour type, the last two


def kind_of(path: str) -> str:
  """The source type for what lies at `path`.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: a file of another kind.
  """
  place = pathlib.Path(path)
  if not place.exists():
    if shard_names.is_pattern(path) and path.endswith('.tar'):
      return 'webdataset'
    raise FileNotFoundError(f'path={path!r}: no such file or folder')
  if place.is_dir():
    if (place / 'manifest.json').exists():
      return 'records'
    if _is_voc(place):
      return 'voc'
    if shard_names.in_folder(path):
      return 'webdataset'
    return 'masks' if _has_masks(place) else 'folder'
  if place.name.endswith('.tar'):
    return 'webdataset'
  if place.name.lower().removesuffix('.gz').endswith(_TABLES):
    return 'table'
  raise ValueError(
    f'path={path!r}: neither a folder nor a .csv, .tsv or .jsonl '
    'file (or one of these with .gz) nor a .tar of WebDataset'
  )


def _is_voc(place: pathlib.Path) -> bool:
  """Whether a folder is, or holds, a year of VOC with masks, unpacked."""
  return any(
    _YEAR.fullmatch(year.name)
    and (year / 'JPEGImages').is_dir()
    and any((year / name).is_dir() for name in _VOC_MASKS)
    for year in (
      pathlib.Path(os.path.abspath(place)),
      *place.glob('VOC*'),
      *place.glob('VOCdevkit/VOC*'),
    )
  )


def _has_masks(place: pathlib.Path) -> bool:
  """Whether the sub-folders `images` and `masks` are no classes of images.

  A list of classes says so, or, where there are no others, the first file of
  `masks`: a PNG of one channel, as no camera makes them.
  """
  for folder in (place, place / 'train'):
    if (folder / 'images').is_dir() and (folder / 'masks').is_dir():
      if (place / masks.CLASSES_FILE).exists():
        return True
      found = {f.name for f in folder.iterdir() if f.is_dir()}
      others = {name for name in found if not name.startswith('.')}
      return others == {'images', 'masks'} and _is_mask(
        _first_file(folder / 'masks')
      )
  return False


def _first_file(folder: pathlib.Path) -> pathlib.Path | None:
  """The first in the order of names, below sub-folders too."""
  for at, folders, files in os.walk(folder):
    folders.sort()
    for name in sorted(files):
      if not name.startswith('.'):
        return pathlib.Path(at, name)
  return None


def _is_mask(path: pathlib.Path | None) -> bool:
  """Whether a file is a PNG with a palette or of 8-bit grey."""
  if path is None:
    return False
  try:
    with path.open('rb') as file:
      head = file.read(_PNG_HEAD)
  except OSError:
    return False
  depth_and_kind = head[_PNG_HEAD - 2 :]
  grey, palette = depth_and_kind == b'\x08\x00', depth_and_kind[1:] == b'\x03'
  return head.startswith(b'\x89PNG\r\n') and (grey or palette)


class Source:
  """The source for what lies at `path` (see `kind_of`).

  Data without a hierarchy get one without edges: their labels are complete as
  they are, and filling in changes nothing.
  """

  def __new__(
    cls,
    *,
    path: str,
    split: str = 'train',
    hierarchy: str | None = None,
    hierarchy_unlisted: Unlisted | None = None,
    vocabulary: str | None = None,
    holdout_percent: holdout.Percent | None = None,
    background: bool | None = None,
  ) -> protocols.Source:
    """Opens it.

    Args:
      path: prepared data set, folder of class folders or of images and masks,
        VOCdevkit, CSV, TSV or JSONL file, or WebDataset shards (folder of .tar
        files, one .tar, or a pattern).
      split: name of the split.
      hierarchy: file of child -> parent edges.
      hierarchy_unlisted: its nodes outside the vocabulary: 'error' (default),
        'traverse', or 'add' them as labels.
      vocabulary: file of the labels.
      holdout_percent: data without splits: the part that is 'val'.
      background: images and masks: whether id 0 is a background. Prepared
        records that say it must agree.
    """
    kind = kind_of(path)
    options = dict(
      hierarchy=hierarchy,
      hierarchy_unlisted=hierarchy_unlisted,
      vocabulary=vocabulary,
      holdout_percent=holdout_percent,
      background=None if kind == 'records' else background,
    )
    options = {k: v for k, v in options.items() if v is not None}
    source_class = plugins.get('source', kind)
    plugins.check_kwargs(
      f"type='detect' ({kind} at {path!r})",
      source_class,
      {'path': path, **options},
    )
    source = source_class(path=path, split=split, **options)
    if kind == 'records' and background is not None:
      if source.background is None:
        source.background = background
      elif source.background != background:
        raise ValueError(
          f'background={background}, but {path!r} was prepared '
          f'with background={source.background}'
        )
    if source.hierarchy is None:
      source.hierarchy = Hierarchy.from_edges(source.vocabulary.names, [])
    return source
