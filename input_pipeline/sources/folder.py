"""Image folders: the name of an image's folder is its label.

Layouts (docs/data.md):
  PATH/train/CLASS/**/*.jpg, PATH/val/CLASS/**/*.jpg   splits as sub-folders
  PATH/CLASS/**/*.jpg     no splits: split='all', or train and val by
                          `holdout_percent` of a hash of the relative path
Images below a class folder are found by suffix; names that begin with a dot
and other files are passed over. The order is that of the sorted paths.
"""

import collections
import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from big_vision_like.config.option_types import Count
from input_pipeline.files import image_files, retries
from input_pipeline.image_sets import holdout, labelled_files
from input_pipeline.image_sets.fingerprint import Seen
from input_pipeline.labels import hierarchy as hierarchies
from input_pipeline.labels import text_lines
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.vocabulary import Vocabulary


class Source(labelled_files.LabelledFiles):
  """Labels from folders, one an image.

  Args (options):
    path: the data set's folder.
    split: sub-folder; without sub-folders 'all', or 'train' and 'val' of the
      holdout.
    holdout_percent: part of the images that is 'val', for a folder without
      splits; decided by each image's own path.
    vocabulary: file of the labels, or their names; default: the class folders
      of 'train', sorted.
    hierarchy: file of child -> parent edges; default: the vocabulary's own.
    hierarchy_unlisted: what nodes outside the vocabulary mean: 'error',
      'traverse', or 'add' (ancestors become labels).
    hierarchy_max_depth: longest path allowed; None for no limit.
    fingerprint: what of the files tells whether the data are the same at a
      resume: 'names', 'sizes' or 'contents' (docs/data.md).

  Raises (at construction):
    FileNotFoundError: the folder does not exist.
    ValueError: no images, unknown split or class, bad option.
  """

  def __init__(
    self,
    *,
    path: str,
    split: str = 'train',
    holdout_percent: holdout.Percent | None = None,
    vocabulary: str | Sequence[str] | None = None,
    hierarchy: str | None = None,
    hierarchy_unlisted: hierarchies.Unlisted = 'error',
    hierarchy_max_depth: Count | None = None,
    fingerprint: Seen = 'names',
  ):
    path = image_files.check_path('path', path)
    if holdout_percent is not None:
      holdout.check_split(split)
    root, train_root = _roots(path, split, holdout_percent is not None)
    classes = _class_folders(root)
    if vocabulary is not None:
      labels = vocabularies.given(vocabulary)
    elif train_root is not None:
      names = _class_folders(train_root)
      if not names:
        raise ValueError(_nothing_found(train_root, names))
      labels = Vocabulary(tuple(names))
    else:
      raise vocabularies.NotToldError(
        f'{path}: no sub-folder "train" to take the classes from; give the '
        f'option vocabulary'
      )
    paths, rows = [], []
    for name in classes:
      if name not in labels:
        known = labels.origin or f'those of {train_root or "vocabulary"}'
        raise ValueError(
          f'{os.path.join(root, name)}: folder {name!r} is not among the '
          f'{len(labels)} classes ({known})'
          f'{vocabularies.suggestion(name, labels.names)}'
        )
      found = _images(root, name)
      if holdout_percent is not None and split != 'all':
        wanted = split == 'val'
        found = [
          image
          for image in found
          if holdout.held_out(image, holdout_percent) == wanted
        ]
      paths += found
      rows.append((labels.index(name), len(found)))
    if not paths:
      raise ValueError(_nothing_found(root, classes))
    ids, counts = np.array(rows, np.int64).T
    if split == 'train' and labels.counts is None:
      per_label = np.zeros(len(labels), np.int64)
      per_label[ids] = counts
      labels = dataclasses.replace(labels, counts=per_label)
    labels, closed = hierarchies.attach(
      labels,
      hierarchy,
      unlisted=hierarchy_unlisted,
      max_depth=hierarchy_max_depth,
    )
    super().__init__(
      root,
      paths,
      np.arange(len(paths)),
      np.repeat(ids, counts),
      labels,
      closed,
      fingerprint,
    )


def _roots(path: str, split: str, holdout: bool) -> tuple[str, str | None]:
  """(folder of the classes wanted, folder that defines the classes)."""
  if not os.path.isdir(path):
    raise FileNotFoundError(f'path={path!r}: no such folder')
  found = _class_folders(path)
  listed = ', '.join(found[:10]) + (', ...' if len(found) > 10 else '')
  if holdout or split == 'all':
    if 'train' in found:
      raise ValueError(
        f'{path}: has a sub-folder "train", so its sub-folders are splits '
        f'({listed}): give one of them as split, without holdout_percent'
      )
    return path, path
  if not isinstance(split, str) or split not in found:
    raise ValueError(
      f'{path}: unknown split {split!r}; sub-folders there: '
      f'{listed or "none"}. If these are classes, use split="all", or '
      f'holdout_percent to divide them into train and val'
    )
  train = os.path.join(path, 'train')
  return os.path.join(path, split), train if 'train' in found else None


def _entries(folder: str) -> tuple[list[os.DirEntry], list[os.DirEntry]]:
  """(sub-folders, files) that do not begin with a dot, in no order."""
  folders, files = [], []
  try:
    for entry in retries.listed(folder):
      if not entry.name.startswith('.'):
        (folders if entry.is_dir() else files).append(entry)
  except retries.StorageError:
    raise
  except OSError as error:
    raise ValueError(f'{folder}: cannot be read: {error.strerror}') from None
  return folders, files


def _class_folders(root: str) -> list[str]:
  """Sorted names of the sub-folders; an image beside them is an error."""
  folders, files = _entries(root)
  for entry in files:
    if entry.name.lower().endswith(image_files.SUFFIXES):
      raise ValueError(
        f'{entry.path}: an image outside of any class folder; the folder of '
        f'an image is its label. Where labels are listed in a file, use the '
        f'table source'
      )
  names = sorted(entry.name for entry in folders)
  return [text_lines.check_name(name, root) for name in names]


def _images(root: str, name: str) -> list[bytes]:
  """Sorted paths, relative to root, of all images below one class folder."""
  found: list[bytes] = []
  cut = len(os.path.join(root, ''))
  waiting = [(os.path.join(root, name), frozenset[tuple[int, int]]())]
  while waiting:
    folder, above = waiting.pop()
    folders, files = _entries(folder)
    found += [
      os.fsencode(entry.path[cut:])
      for entry in files
      if entry.name.lower().endswith(image_files.SUFFIXES)
    ]
    if folders:
      status = os.stat(folder)
      identity = (status.st_dev, status.st_ino)
      if identity in above:
        raise ValueError(f'{folder}: a link back to a folder above it')
      waiting += [(entry.path, above | {identity}) for entry in folders]
  found.sort()
  return found


def _nothing_found(root: str, classes: Sequence[str]) -> str:
  suffixes = collections.Counter(
    os.path.splitext(name)[1] or 'no suffix'
    for folder in [root, *(os.path.join(root, c) for c in classes[:100])]
    for name in (entry.name for entry in _entries(folder)[1])
  )
  seen = ', '.join(f'{n} x {s}' for s, n in suffixes.most_common(5))
  return (
    f'{root}: no images in its {len(classes)} class folders; other files '
    f'there: {seen or "none"}; image suffixes: '
    f'{", ".join(image_files.SUFFIXES)}'
  )
