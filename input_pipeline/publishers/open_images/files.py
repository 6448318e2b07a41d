"""Images of Open Images: by id, from folders and tars, and how they are turned.

An image is ID.jpg, ID being 16 hexadecimal digits, in train_0.tar.gz (the
publisher's form), a plain tar, or a folder. Tables of image information say in
`Rotation` by how many degrees a photograph must be turned counterclockwise to
stand upright; labels do not depend on it.
"""

import array
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import decompress
from input_pipeline.files.archives import Files
from input_pipeline.labels import text_lines

_NAME = re.compile(r'(?:.*/)?([0-9a-f]{16})\.jpg')
_ID = re.compile(r'[0-9a-fA-F]{16}')
_QUARTERS = {'0': 0, '90': 1, '180': 2, '270': 3}
_TURNS = {
  1: Image.Transpose.ROTATE_90,  # Pillow turns counterclockwise too
  2: Image.Transpose.ROTATE_180,
  3: Image.Transpose.ROTATE_270,
}
_JPEG_QUALITY = 95
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError)


class Images:
  """The images of a split, in the order of their ids.

  Attributes:
    ids: uint64 [n] ascending.
    quarter_turns: int8 [n] counterclockwise; -1: not known.
    num_other: files that are no images of Open Images.
  """

  def __init__(self, files: Sequence[Files]):
    """Takes all ID.jpg of the archives.

    Raises:
      ValueError: an id twice, or no image at all.
    """
    self._files = tuple(files)
    ids, stores, positions = [], [], []
    self.num_other = 0
    for number, one in enumerate(files):
      pairs = array.array('Q', itertools.chain.from_iterable(_numbered(one)))
      found = np.array(pairs).reshape(-1, 2)
      self.num_other += len(one) - len(found)
      ids.append(found[:, 0])
      positions.append(found[:, 1].astype(np.uint32))
      stores.append(np.full(len(found), number, np.uint16))
    every = np.concatenate([*ids, np.zeros(0, np.uint64)])
    if not len(every):
      raise ValueError(
        f'{", ".join(one.path for one in files)}: no images ID.jpg, ID being '
        f'16 hexadecimal digits, among {self.num_other:,} files'
      )
    order = np.argsort(every)
    self.ids = every[order]
    self._stores = np.concatenate(stores)[order]
    self._positions = np.concatenate(positions)[order]
    self.quarter_turns = np.full(len(order), -1, np.int8)
    again = np.flatnonzero(self.ids[1:] == self.ids[:-1])
    if len(again):
      pair = self._stores[again[0] : again[0] + 2].tolist()
      first, second = (files[number].path for number in pair)
      raise ValueError(
        f'image {int(self.ids[again[0]]):016x}.jpg is in {first} and again in '
        f'{second}'
      )

  def __len__(self) -> int:
    return len(self.ids)

  def read(self, index: int) -> bytes:
    """The file of an image; BadExample where it is damaged."""
    store = self._files[self._stores[index]]
    return store.read_at(int(self._positions[index]))

  def keep(self, chosen: np.ndarray) -> None:
    """Leaves out all but the chosen, a bool [n]."""
    for name in ('ids', '_stores', '_positions', 'quarter_turns'):
      setattr(self, name, getattr(self, name)[chosen])

  def read_turns(self, path: str) -> None:
    """Fills `quarter_turns` from a table of image information.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file or a bad row; names the file and the line.
    """
    ids, turns = array.array('Q'), array.array('b')
    for line, image, text in _rotations(path):
      number = text.removesuffix('.0')
      if number in ('', 'nan'):
        continue
      if number not in _QUARTERS or not _ID.fullmatch(image):
        raise ValueError(
          f'{path}:{line}: expected an ImageID of 16 hexadecimal digits and a '
          f'Rotation of 0, 90, 180, 270 or nothing, got {image!r:.40} and '
          f'{text!r:.40}'
        )
      ids.append(int(image, 16))
      turns.append(_QUARTERS[number])
    known = np.array(ids)
    place = np.minimum(np.searchsorted(self.ids, known), len(self.ids) - 1)
    here = self.ids[place] == known
    self.quarter_turns[place[here]] = np.array(turns)[here]

  def pieces(self) -> list[bytes | np.ndarray]:
    """What decides the content, for a fingerprint."""
    found: list[bytes | np.ndarray] = [
      one.fingerprint().encode() for one in self._files
    ]
    return [*found, self.ids, self.quarter_turns]


def _numbered(files: Files) -> Iterator[tuple[int, int]]:
  """(id, position in the archive) of the images."""
  for position, name in enumerate(files.names):
    if match := _NAME.fullmatch(name):
      yield int(match[1], 16), position


def turned(encoded: bytes, quarter_turns: int) -> bytes:
  """A JPEG turned counterclockwise and encoded again, at quality 95.

  Raises:
    BadExample: it cannot be decoded.
  """
  try:
    with Image.open(io.BytesIO(encoded)) as picture:
      upright = picture.convert('RGB').transpose(_TURNS[quarter_turns])
  except Exception as error:  # a parser meets hostile bytes: any failure
    raise BadExample(f'cannot be decoded, to turn it: {error}') from None
  file = io.BytesIO()
  upright.save(file, 'JPEG', quality=_JPEG_QUALITY)
  return file.getvalue()


def _rotations(path: str) -> Iterator[tuple[int, str, str]]:
  """(line, ImageID, Rotation) of the rows of a table; titles hold anything."""
  line = 1
  try:
    with (
      decompress.opened(path) as raw,
      io.TextIOWrapper(raw, encoding='utf-8-sig', newline='') as file,
    ):
      reader = csv.reader(text_lines.bounded(path, file), strict=True)
      header = next(reader, [])
      if not {'ImageID', 'Rotation'} <= set(header):
        raise ValueError(
          f'{path}:1: expected a header with ImageID and Rotation, got '
          f'{",".join(header)!r:.200}'
        )
      image, rotation = header.index('ImageID'), header.index('Rotation')
      line = reader.line_num + 1
      for row in reader:
        if len(row) != len(header):
          raise ValueError(
            f'{path}:{line}: {len(row)} fields, the header has {len(header)}'
          )
        yield line, row[image], row[rotation]
        line = reader.line_num + 1
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: no such file') from None
  except (csv.Error, *_DAMAGED) as error:
    raise ValueError(f'{path}:{line}: {error}') from None
