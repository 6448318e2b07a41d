"""Images of classes in archives or folders: which class, which file.

However ImageNet is packed, an image's class is the part of its path that is a
wnid: 'n01440764.tar/n01440764_18.JPEG' in a tar of class tars,
'train/n01440764/images/n01440764_18.JPEG' in a folder. Its key is
'n01440764/n01440764_18.JPEG' in all of them, so that the same images make the
same data set, byte for byte, whichever way they are packed.
"""

import array
import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from input_pipeline.files import archives, image_files
from input_pipeline.files.archive_index import Files
from input_pipeline.image_sets import holdout, labelled_members
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.imagenet import synsets


@dataclasses.dataclass(frozen=True, eq=False)
class ClassImages:
  """Images found, in the order of their names.

  Attributes:
    files: where they lie.
    members: uint32 [n] positions in `files.names`.
    classes: sorted wnids.
    class_ids: int32 [n] positions in `classes`.
    passed_over: files that are no images.
  """

  files: Files
  members: np.ndarray
  classes: tuple[str, ...]
  class_ids: np.ndarray
  passed_over: tuple[str, ...]

  def notes(self) -> list[str]:
    if not self.passed_over:
      return []
    return [
      f'{len(self.passed_over):,} files of {self.files.path} are no images: '
      f'{", ".join(self.passed_over[:3])}'
      + (', ...' if len(self.passed_over) > 3 else '')
    ]

  def chosen(self, keep: np.ndarray) -> 'ClassImages':
    """Those where the bool [n] `keep` is true; the classes stay."""
    return dataclasses.replace(
      self, members=self.members[keep], class_ids=self.class_ids[keep]
    )


class LabelledImages(labelled_members.LabelledMembers):
  """One label an image, which with the file's name is the key."""

  def key(self, index: int) -> str:
    """'WNID/FILE'."""
    wnid = self.vocabulary.names[int(self.labels(index)[0])]
    return f'{wnid}/{file_name(super().key(index))}'


def file_name(member: str) -> str:
  return member.rpartition('/')[2]


def is_image(member: str) -> bool:
  name = file_name(member)
  hidden = name.startswith('.')  # '._x.JPEG' holds what macOS adds to x.JPEG
  return not hidden and name.lower().endswith(image_files.SUFFIXES)


def open_place(path: str, scratch: str | None) -> Files:
  """As archives.open_files, and goes into the class tars of a folder."""
  if os.path.isdir(path):
    with os.scandir(path) as entries:
      tars = sorted(
        entry.name
        for entry in entries
        if synsets.WNID.fullmatch(entry.name.removesuffix('.tar'))
        and entry.name.endswith('.tar')
      )
    if tars:
      return archives.open_tars(path, tars)
  return archives.open_files(path, scratch=scratch)


def find(files: Files, below: str = '') -> ClassImages:
  """The images of class folders or class tars.

  Args:
    files: what to look through.
    below: beginning of the names that count.

  Raises:
    ValueError: an image outside of any class, or two of one name in a class.
  """
  members, numbers = array.array('Q'), array.array('q')
  classes: dict[str, int] = {}
  passed_over: list[str] = []
  hashes = array.array('q')
  for position, name in enumerate(files.names):
    if not name.startswith(below):
      continue
    if not is_image(name):
      passed_over.append(name)
      continue
    parts = name[len(below) :].split('/')
    depth = depth_of_class(parts)
    if depth is None:
      raise ValueError(
        f'{files.path}: image {name!r} is in no class: none of the folders or '
        f"tars in its path is called like 'n01440764'"
      )
    number = classes.setdefault(parts[depth].removesuffix('.tar'), len(classes))
    hashes.append(hash((number, parts[-1])))
    members.append(position)
    numbers.append(number)
  _refuse_repeated(files, np.array(members), np.array(hashes))
  order = sorted(classes)
  ids = np.empty(len(classes), np.int32)
  for new, wnid in enumerate(order):
    ids[classes[wnid]] = new
  return ClassImages(
    files,
    np.array(members, np.uint32),
    tuple(order),
    ids[np.array(numbers, np.int64)],
    tuple(passed_over),
  )


def _refuse_repeated(
  files: Files, members: np.ndarray, hashes: np.ndarray
) -> None:
  """Keys are unique: no class may have two files of one name."""
  order = np.argsort(hashes, kind='stable')
  same = np.flatnonzero(np.diff(hashes[order]) == 0)
  for i in same.tolist():  # equal hashes; mostly none
    first, second = (files.names[int(members[order[k]])] for k in (i, i + 1))
    if file_name(first) == file_name(second):
      raise ValueError(
        f'{files.path}: two images of one name in one class: {first!r} and '
        f'{second!r}'
      )


def depth_of_class(parts: Sequence[str]) -> int | None:
  """Which part of a path is its class; None for none of them."""
  for depth, part in enumerate(parts[:-1]):
    if synsets.WNID.fullmatch(part.removesuffix('.tar')):
      return depth
  return None


def relabelled(images: ClassImages, names: Sequence[str]) -> np.ndarray:
  """int32 [n] label ids of the images in the vocabulary `names`.

  Raises:
    ValueError: a class that has images is not among them.
  """
  position = {name: i for i, name in enumerate(names)}
  used = np.unique(images.class_ids)
  missing = [
    images.classes[i] for i in used if images.classes[i] not in position
  ]
  if missing:
    raise ValueError(
      f'{images.files.path}: {len(missing)} of its classes are not among the '
      f'{len(names)} synsets: {", ".join(missing[:5])}'
    )
  table = [position.get(name, -1) for name in images.classes]
  return np.array(table, np.int32)[images.class_ids]


def held_out(images: ClassImages, percent: float) -> np.ndarray:
  """bool [n]: whether an image is held out, by a hash of its file name."""
  names = images.files.names
  return np.fromiter(
    (
      holdout.held_out(names.raw(i).rpartition(b'/')[2], percent)
      for i in images.members.tolist()
    ),
    bool,
    len(images.members),
  )


def without_images(images: ClassImages, vocabulary: Vocabulary) -> list[str]:
  """A note on synsets that should have images here and have none."""
  named = set(images.classes[i] for i in np.unique(images.class_ids))
  counts = vocabulary.counts
  empty = [
    name
    for i, name in enumerate(vocabulary.names)
    if name not in named and (counts is None or counts[i] > 0)
  ]
  if not empty:
    return []
  return [f'{len(empty):,} classes have no images: {", ".join(empty[:5])}']
