"""`path` alone: records, a table, folders, masks, boxes of any form, shards.

What lies at the path decides which source reads it, so that a config of a
user's own data needs one flag. A development kit of Pascal VOC with masks is
read for segmentation, unless `task='detection'` asks for its boxes.
"""

import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from big_vision_like import protocols
from big_vision_like.config import plugins
from input_pipeline.files import retries, shard_names
from input_pipeline.image_sets import holdout, yolo_files
from input_pipeline.image_sets.fingerprint import Seen
from input_pipeline.labels.hierarchy import Hierarchy, Unlisted
from input_pipeline.publishers.coco import layout
from input_pipeline.publishers.voc import source as voc
from input_pipeline.sources import masks

_TABLES = ('.csv', '.tsv', '.jsonl')
_YEAR = re.compile(r'VOC\d{4}')
_VOC_TRUTH = ('Annotations', 'SegmentationClass', 'SegmentationClassAug')
_BOXES = ('coco', 'yolo')
_MAY_HAVE_KEYPOINTS = ('coco', 'records')
_YEARS = 2017  # of COCO's files; others are found without a year
_SPLITS = ('train', 'val', 'test', 'all')
_COCO_KINDS = ('instances', 'keypoints')
_NUM_LOOKED_AT = 20  # entries of a folder
_HEAD = 1 << 10  # bytes of a file
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
    if any(layout.has_one(path, _SPLITS, _YEARS, k) for k in _COCO_KINDS):
      return 'coco'
    if boxes := _kind_of_boxes(place):
      return boxes
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
  """Whether a folder is, or holds, a year of VOC with truth, unpacked."""
  return any(
    _YEAR.fullmatch(year.name)
    and (year / 'JPEGImages').is_dir()
    and any((year / name).is_dir() for name in _VOC_TRUTH)
    for year in (
      pathlib.Path(os.path.abspath(place)),
      *place.glob('VOC*'),
      *place.glob('VOCdevkit/VOC*'),
    )
  )


def _kind_of_boxes(place: pathlib.Path) -> str | None:
  """'voc' or 'yolo' where annotation files lie beside or near the images.

  They are looked for in the first files of the folder, its sub-folders and
  theirs. Text files are labels of YOLO where something names the classes, or
  their folder is called labels, and their first line is that of a box.
  """
  named = any(
    (place / name).is_file()
    for name in (*yolo_files.YAML_FILES, *yolo_files.NAME_FILES)
  )
  for folder in _folders(place):
    names = _names(folder, files=True)
    for suffix, kind, looks_so in (
      ('.xml', 'voc', _is_annotation), ('.txt', 'yolo', _is_labels),
    ):  # fmt: skip
      # Without names of classes they are refused, by what is missing.
      if kind == 'voc' or named or _in_labels(folder, place):
        found = sorted(n for n in names if n.lower().endswith(suffix))
        if any(looks_so(folder / n) for n in found[:_NUM_LOOKED_AT]):
          return kind
  return None


def _in_labels(folder: pathlib.Path, place: pathlib.Path) -> bool:
  return 'labels' in folder.relative_to(place).parts


def _folders(place: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder, and those in it down to the second level; few of each."""
  yield place
  for name in sorted(_names(place, files=False))[:_NUM_LOOKED_AT]:
    inner = place / name
    yield inner
    below = sorted(_names(inner, files=False))[:_NUM_LOOKED_AT]
    yield from (inner / each for each in below)


def _names(folder: pathlib.Path, files: bool) -> list[str]:
  """Of files, or of folders, in a folder but those that begin with a dot."""
  try:
    with os.scandir(folder) as found:
      return [
        entry.name
        for entry in found
        if not entry.name.startswith('.') and entry.is_file() == files
      ]
  except OSError:
    return []


def _is_annotation(path: pathlib.Path) -> bool:
  """Whether an XML file is one of VOC's form."""
  with retries.open_binary(path) as file:
    return b'<annotation' in file.read(_HEAD)


def _is_labels(path: pathlib.Path) -> bool:
  """Whether a text file holds boxes: a class and four numbers a line."""
  with retries.open_binary(path) as file:
    fields = file.read(_HEAD).partition(b'\n')[0].split()
  if not fields:
    return path.parent.name == 'labels'
  try:
    return len(fields) == 5 and len([float(f) for f in fields]) == 5
  except ValueError:
    return False


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
    with retries.open_binary(path) as file:
      head = file.read(_PNG_HEAD)
  except OSError:
    return False
  depth_and_kind = head[_PNG_HEAD - 2 :]
  grey, palette = depth_and_kind == b'\x08\x00', depth_and_kind[1:] == b'\x03'
  return head.startswith(b'\x89PNG\r\n') and (grey or palette)


def _has_keypoints_only(path: str, task: str | None) -> bool:
  """Whether the files of keypoints are wanted, or are all there is."""
  return task == 'pose' or (
    task is None and not layout.has_one(path, _SPLITS, _YEARS)
  )


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
    vocabulary: str | Sequence[str] | None = None,
    holdout_percent: holdout.Percent | None = None,
    background: bool | None = None,
    task: voc.Task | Literal['pose'] | None = None,
    fingerprint: Seen | None = None,
  ) -> protocols.Source:
    """Opens it.

    Args:
      path: prepared data set, folder of class folders, of images and masks or
        of images and boxes (COCO, VOC, YOLO), VOCdevkit, CSV, TSV or JSONL
        file, or WebDataset shards (folder of .tar files, one .tar, or a
        pattern).
      split: name of the split.
      hierarchy: file of child -> parent edges.
      hierarchy_unlisted: its nodes outside the vocabulary: 'error' (default),
        'traverse', or 'add' them as labels.
      vocabulary: file of the labels; of a folder, table or WebDataset their
        names too.
      holdout_percent: data without splits: the part that is 'val'.
      task: 'detection' or 'segmentation' of a VOCdevkit that has both; default:
        what it has, masks where it has both. 'pose': the files of keypoints
        of COCO data that have others too.
      background: images and masks: whether id 0 is a background. Prepared
        records that say it must agree.
      fingerprint: folders of classes and tables: see the folder source.
    """
    kind = kind_of(path)
    options = dict(
      hierarchy=hierarchy,
      hierarchy_unlisted=hierarchy_unlisted,
      vocabulary=vocabulary,
      holdout_percent=holdout_percent,
      background=None if kind == 'records' else background,
      fingerprint=fingerprint,
    )
    options = {k: v for k, v in options.items() if v is not None}
    if task == 'pose' and kind not in _MAY_HAVE_KEYPOINTS:
      raise ValueError(
        f"task='pose', but {path!r} has no keypoints ({kind}); they are read "
        f'from {" and ".join(_MAY_HAVE_KEYPOINTS)}'
      )
    if task is not None and kind == 'voc':
      options['task'] = task
    elif kind == 'coco' and _has_keypoints_only(path, task):
      options['task'] = 'keypoints'
    elif task == 'segmentation' and kind in _BOXES:
      raise ValueError(f'task={task!r}, but {path!r} has boxes ({kind})')
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
