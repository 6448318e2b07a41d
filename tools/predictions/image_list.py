"""Images named on a command line, files or folders of them, as a source."""

import bisect
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from input_pipeline.files import image_files
from input_pipeline.image_sets import labelled_files
from input_pipeline.labels.vocabulary import Vocabulary


class Found(NamedTuple):
  """The images, and how many other files were passed over.

  Attributes:
    source: of the images.
    num_others: files passed over.
    places: of each file or folder given: its first image, and how much of the
      key comes before the path below the folder, in characters.
  """

  source: labelled_files.LabelledFiles
  num_others: int
  places: Sequence[tuple[int, int]]

  def relative(self, index: int) -> str:
    """Path of an image below the folder that was given; the name of a file."""
    place = bisect.bisect_right(self.places, index, key=lambda p: p[0]) - 1
    return self.source.key(index)[self.places[place][1] :]


def find(places: Sequence[str], flag: str = '--input') -> Found:
  """Files as they are, folders searched through, sorted, by image suffix.

  Names that begin with a dot are passed over. Nothing is opened. The records'
  keys are the paths as found.

  Args:
    places: files and folders.
    flag: for messages.

  Raises:
    FileNotFoundError: a place does not exist.
    ValueError: no images at all.
  """
  paths: list[bytes] = []
  starts: list[tuple[int, int]] = []
  num_others = 0
  for place in places:
    folder_of = place if os.path.isdir(place) else os.path.dirname(place)
    starts.append((len(paths), _characters(folder_of)))
    if os.path.isfile(place):
      paths.append(os.fsencode(place))
    elif os.path.isdir(place):
      for path in _files(place):
        if path.lower().endswith(image_files.SUFFIXES):
          paths.append(os.fsencode(path))
        else:
          num_others += 1
    else:
      raise FileNotFoundError(f'{flag} {place!r}: no such file or folder')
  if not paths:
    raise ValueError(
      f'{flag} {" ".join(places)}: no images; {num_others} other files there; '
      f'image suffixes: {", ".join(image_files.SUFFIXES)}'
    )
  nothing = np.empty(0, np.int64)
  source = labelled_files.LabelledFiles(
    '', paths, nothing, nothing, Vocabulary(('none',)), None
  )
  return Found(source, num_others, starts)


def _characters(place: str) -> int:
  """Length of a folder and its separator in the key of what is in it."""
  above = os.fsencode(os.path.join(place, '')) if place else b''
  return len(above.decode('utf-8', 'backslashreplace'))


def _files(root: str) -> Iterator[str]:
  """All files below a folder, sorted; links to folders are not followed."""

  def refuse(error: OSError) -> None:
    raise ValueError(f'{error.filename}: cannot be read: {error.strerror}')

  for place, folders, files in os.walk(root, onerror=refuse):
    folders[:] = sorted(name for name in folders if not name.startswith('.'))
    for name in sorted(files):
      if not name.startswith('.'):
        yield os.path.join(place, name)
