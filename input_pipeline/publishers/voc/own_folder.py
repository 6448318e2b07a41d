"""A folder of XML in Pascal VOC's form with the user's own classes.

  DATA/Annotations/a.xml, DATA/JPEGImages/a.jpg, DATA/ImageSets/Main/train.txt
  DATA/train/a.jpg, DATA/train/a.xml, DATA/valid/...
  DATA/train/images/a.jpg, DATA/train/annotations/a.xml
  DATA/a.jpg, DATA/a.xml
Any folder names will do; truth_pairs.py says what belongs together. Lists in
ImageSets/Main or ImageSets, where there are some, are the splits. Coordinates
are VOC's, as annotation_xml.py reads them.
"""

import os
from collections.abc import Sequence

import numpy as np

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import archives
from input_pipeline.files.archive_index import Files
from input_pipeline.image_sets import truth_pairs
from input_pipeline.image_sets.boxed_files import BoxedFiles, Truth
from input_pipeline.image_sets.truth_pairs import Pairs
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.voc import annotation_xml, devkit
from input_pipeline.publishers.voc.annotation_xml import Objects

CLASSES_FILE = 'classes.txt'
_MAX_XML_BYTES = 1 << 20


class Folder:
  """A folder (or archive) of XML, opened once for all its splits.

  Attributes:
    splits: names of the splits it has; () where images are not divided.
    vocabulary: the classes: those of the file given, else of classes.txt,
      else the names in all XML files, sorted.

  Args:
    path: the folder or archive.
    vocabulary: file of the classes, one a line.
    classes: their names, instead.
    scratch: folder for decompressed .tar.gz files.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: no XML, a file that is none, an unknown class.
  """

  def __init__(
    self,
    path: str,
    vocabulary: str | None = None,
    classes: Sequence[str] | None = None,
    scratch: str | None = None,
  ):
    self._path = path
    files = archives.open_files(path, scratch=scratch)
    self._pairs = truth_pairs.pair(files, '.xml')
    if not self._pairs.truths:
      raise ValueError(
        f'{path}: neither a VOCdevkit in it nor any .xml; expected images and '
        f'annotations side by side, or in folders such as JPEGImages and '
        f'Annotations'
      )
    self._objects = {
      where: annotation_xml.parse(
        read(files, row), os.path.join(path, files.names[row])
      )
      for where, row in self._pairs.truths.items()
    }
    listed = os.path.join(path, CLASSES_FILE)
    if vocabulary is None and classes is None and os.path.isfile(listed):
      vocabulary = listed
    self._collected = vocabulary is None and classes is None
    if vocabulary is not None:
      self.vocabulary = vocabularies.load(vocabulary)
    else:
      self.vocabulary = Vocabulary(tuple(classes or self._names()))
    self._divided = self._lists(self._pairs) or truth_pairs.splits(
      [*self._objects]
    )
    self.splits = tuple(sorted(self._divided))

  def _names(self) -> list[str]:
    found = {name for o in self._objects.values() for name in o.names}
    if not found:
      raise ValueError(
        f'{self._path}: no object in any of {len(self._objects):,} XML files; '
        f'name the classes in {CLASSES_FILE} or by the option vocabulary'
      )
    return sorted(found)

  def _lists(self, pairs: Pairs) -> dict[str, list[str]]:
    """Split -> common paths, of the lists in ImageSets."""
    by_stem: dict[str, list[str]] = {}
    for path in pairs.truths:
      by_stem.setdefault(path.rpartition('/')[2], []).append(path)
    found: dict[str, list[str]] = {}
    for row in pairs.others:
      name = pairs.files.names[row]
      split = _split_of_list(name)
      if split is None:
        continue
      where = os.path.join(self._path, name)
      for line, stem in devkit.names_in(read(pairs.files, row), where).items():
        paths = by_stem.get(stem, [])
        if len(paths) != 1:
          problem = 'several annotations' if paths else 'no annotation'
          raise ValueError(f'{where}:{line}: {problem} of {stem!r}')
        found.setdefault(split, []).append(paths[0])
    return found

  def split(
    self, split: str, holdout_percent: float | None = None
  ) -> BoxedFiles:
    """The source of a split; 'all', or a part by `holdout_percent`.

    Raises:
      ValueError: no such split, an unknown class, no image at all.
    """
    pairs = self._pairs
    paths = truth_pairs.chosen(
      [*self._objects], self._divided, split, holdout_percent, self._path
    )
    rows = np.array([pairs.images.get(path, -1) for path in paths], np.int64)
    if (rows < 0).all():
      raise FileNotFoundError(
        f'{self._path}: none of the {len(rows):,} images of split {split!r} '
        f'is there, for example that of {pairs.key(paths[0])}'
      )
    return BoxedFiles(
      [pairs.files],
      np.stack([np.zeros_like(rows), rows], axis=1),
      [pairs.key(path) for path in paths],
      truth(
        [self._objects[path] for path in paths],
        [
          os.path.join(self._path, pairs.files.names[pairs.truths[path]])
          for path in paths
        ],
        self.vocabulary,
      ),
      self.vocabulary,
      self._notes(paths),
    )

  def _notes(self, paths: Sequence[str]) -> list[str]:
    how = 'collected and sorted' if self._collected else 'as listed'
    names = self.vocabulary.names
    lines = [
      f'{len(names)} classes ({how}): {", ".join(names[:20])}'
      f'{", ..." if len(names) > 20 else ""}'
    ]
    if len({name.lower() for name in names}) < len(names):
      lines.append('some classes differ by upper and lower case only')
    unlabelled = [p for p in self._pairs.images if p not in self._objects]
    if unlabelled:
      lines.append(
        f'{len(unlabelled):,} images without XML are left out, for example '
        f'{self._pairs.key(unlabelled[0])}'
      )
    sizeless = [p for p in paths if not any(self._objects[p].size)]
    if sizeless:
      lines.append(
        f'{len(sizeless):,} XML files without a size, for example of '
        f'{self._pairs.key(sizeless[0])}: that of the image is taken'
      )
    return lines


def _split_of_list(name: str) -> str | None:
  """'train' of 'x/ImageSets/Main/train.txt'; lists of a class are none."""
  folder, _, last = name.rpartition('/')
  stem, extension = os.path.splitext(last)
  lists = folder.removesuffix('/Main')
  if extension != '.txt' or '_' in stem:
    return None
  return stem if lists.rpartition('/')[2] == 'ImageSets' else None


def truth(
  objects: Sequence[Objects], places: Sequence[str], classes: Vocabulary
) -> Truth:
  """The objects of images as arrays.

  Args:
    objects: of each image.
    places: their files, for messages.
    classes: that their names are of.

  Raises:
    ValueError: an unknown class, by file and object.
  """
  labels = [o.labels(classes, at) for o, at in zip(objects, places)]
  return Truth(
    lengths=np.array([len(o.names) for o in objects], np.int64),
    boxes=np.concatenate([o.boxes for o in objects]),
    labels=np.concatenate(labels),
    difficult=np.concatenate([o.difficult for o in objects]),
    sizes=np.array([o.size for o in objects], np.int32),
  )


def read(files: Files, row: int) -> bytes:
  """A whole text file of a data set.

  Raises:
    ValueError: damaged or too large; names it.
  """
  try:
    return files.read_at(row, max_bytes=_MAX_XML_BYTES)
  except BadExample as error:
    where = os.path.join(files.path, files.names[row])
    raise ValueError(f'{where}: {error.reason}') from None
