"""Which annotation file belongs to which image, and to which split.

Annotation files lie beside their images or in a folder of their own, splits
above or below it; all of these are one set:

  train/a.jpg, train/a.xml
  train/images/a.jpg, train/labels/a.txt
  images/train/a.jpg, labels/train/a.txt
  JPEGImages/a.jpg, Annotations/a.xml
Both have one path once the folders' own names (`IMAGE_FOLDERS`,
`TRUTH_FOLDERS`) and the suffixes are left out: 'train/a'. Its first folder is
the split where there is a split `train`. Names that begin with a dot are passed
over.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence

from input_pipeline.files.archive_index import Files
from input_pipeline.files.image_files import SUFFIXES
from input_pipeline.image_sets import holdout

IMAGE_FOLDERS = frozenset(('images', 'jpegimages', 'image', 'img', 'imgs'))
TRUTH_FOLDERS = frozenset(
  ('annotations', 'annotation', 'labels', 'label', 'xml', 'xmls', 'txt')
)
ALL = 'all'
# What publishers call the same split.
_ALIASES = {
  'train': ('training',),
  'val': ('valid', 'validation', 'dev'),
  'test': ('testing',),
}


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Images and annotation files by their common path, 'train/a'.

  Attributes:
    files: all files.
    images, truths: common path -> position in `files.names`; ascending paths.
    others: positions of files that are neither.
  """

  files: Files
  images: Mapping[str, int]
  truths: Mapping[str, int]
  others: Sequence[int]

  def key(self, path: str) -> str:
    """Name of an image, or of its annotation file where it has none."""
    row = self.images.get(path)
    return self.files.names[self.truths[path] if row is None else row]


def pair(files: Files, suffix: str, passed_over: Sequence[str] = ()) -> Pairs:
  """Sorts files into images and annotation files.

  Args:
    files: of the data set.
    suffix: of annotation files, '.xml'.
    passed_over: file names that are none of them, 'classes.txt'.

  Raises:
    ValueError: two images, or two annotation files, of one path.
  """
  images: dict[str, int] = {}
  truths: dict[str, int] = {}
  others = []
  for row, name in enumerate(files.names):
    if name.startswith('.') or '/.' in name:
      continue
    stem, extension = os.path.splitext(name)
    *folders, last = stem.split('/')
    extension = extension.lower()
    found = truths if extension == suffix else images
    if found is images and extension not in SUFFIXES:
      others.append(row)
      continue
    if os.path.basename(name) in passed_over:
      others.append(row)
      continue
    kept = [f for f in folders if f.lower() not in IMAGE_FOLDERS]
    kept = [f for f in kept if f.lower() not in TRUTH_FOLDERS]
    path = '/'.join([*kept, last])
    if found.setdefault(path, row) != row:
      kind = 'images' if found is images else 'annotation files'
      raise ValueError(
        f'{files.path}: two {kind} for {path!r}: {files.names[found[path]]} '
        f'and {name}'
      )
  return Pairs(
    files, dict(sorted(images.items())), dict(sorted(truths.items())), others
  )


def splits(paths: Sequence[str]) -> dict[str, list[str]]:
  """Split -> the common paths in it; {} where there is no split `train`.

  One folder around all of them, as archives have it, is none.
  """
  start = _around(paths)
  found: dict[str, list[str]] = {}
  for path in paths:
    first, slash, _ = path[len(start) :].partition('/')
    if slash:
      found.setdefault(first, []).append(path)
  return found if any(name in found for name in names('train')) else {}


def _around(paths: Sequence[str]) -> str:
  """'mine/' where all paths lie in one folder that is no split; else ''."""
  start = ''
  while True:
    first = {path[len(start) :].partition('/')[:2] for path in paths}
    if len(first) != 1:
      return start
    ((name, slash),) = first
    if not slash or any(name in names(split) for split in _ALIASES):
      return start
    start += f'{name}/'


def names(split: str) -> tuple[str, ...]:
  """What a split may be called: 'val', 'valid', 'validation'."""
  for name, aliases in _ALIASES.items():
    if split in (name, *aliases):
      return (split, *(n for n in (name, *aliases) if n != split))
  return (split,)


def chosen(
  paths: Sequence[str],
  divided: Mapping[str, Sequence[str]],
  split: str,
  holdout_percent: float | None,
  where: str,
) -> list[str]:
  """The common paths of a split.

  Args:
    paths: all of them, for 'all' and for a part by `holdout_percent`.
    divided: split -> its paths, where the data set has splits.
    split: wanted.
    holdout_percent: share of the images that is 'val', by their paths.
    where: the data set, for messages.

  Raises:
    ValueError: no such split, or it is empty.
  """
  if holdout_percent is not None:
    holdout.check_split(split)
    if divided:
      raise ValueError(
        f'{where}: has splits of its own ({", ".join(sorted(divided))}): give '
        f'one of them as split, without holdout_percent'
      )
  known = next((n for n in names(split) if n in divided), None)
  if known is not None:
    return list(divided[known])
  if split == ALL:
    return list(paths)
  if holdout_percent is None:
    text = f'{where}: unknown split {split!r}; splits there: '
    text += ', '.join(sorted(divided)) or 'none'
    if not divided:
      text += (
        '. Where images are not divided, use split="all", or holdout_percent '
        'to divide them into train and val'
      )
    raise ValueError(text)
  wanted = split == 'val'
  found = [
    path
    for path in paths
    if holdout.held_out(os.fsencode(path), holdout_percent) == wanted
  ]
  if not found:
    raise ValueError(
      f'{where}: holdout_percent={holdout_percent:g} leaves none of the '
      f'{len(paths):,} images to split {split!r}'
    )
  return found
