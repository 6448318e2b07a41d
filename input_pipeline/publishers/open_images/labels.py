"""Image-level labels of Open Images: 10^8 rows of CSV in bounded memory.

  ImageID,Source,LabelName,Confidence
  000026e7ee790996,verification,/m/04hgtk,0

Human-verified files say 1 (present) or 0 (absent), machine-generated ones a
confidence in [0, 1]. Rows are read in blocks, as columns of bytes, and a row
of an image that is there becomes one number (packed.py).
"""

import gzip
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from input_pipeline.files import decompress
from input_pipeline.publishers.open_images import packed

HEADER = b'ImageID,Source,LabelName,Confidence'
_BLOCK_BYTES = 8 << 20
_ID_DIGITS = 16
_NAME_BYTES = 24  # of a label's name, as three words
_CONFIDENCE_BYTES = 16  # as two words
_NUMBER = re.compile(rb'\d{1,4}(\.\d*)?(e-?\d{1,3})?', re.IGNORECASE)
_MIXERS = np.array(
  [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64
)


class LabelNames:
  """Label names -> ids for columns of bytes.

  Args:
    names: the vocabulary, at most 24 bytes a name.

  Raises:
    ValueError: too many names, or one that is longer.
  """

  def __init__(self, names: Sequence[str]):
    if len(names) > packed.MAX_LABELS:
      raise ValueError(
        f'{len(names):,} labels are more than {packed.MAX_LABELS:,}'
      )
    encoded = [name.encode() for name in names]
    if max(map(len, encoded)) > _NAME_BYTES:
      longest = max(names, key=lambda name: len(name.encode()))
      raise ValueError(
        f'label name {longest!r} is longer than {_NAME_BYTES} bytes'
      )
    padded = b''.join(name.ljust(_NAME_BYTES, b'\0') for name in encoded)
    words = np.frombuffer(padded, np.uint64).reshape(-1, 3)
    hashes = _hashed(words)
    self._order = np.argsort(hashes, kind='stable')
    self._hashes, self._words = hashes[self._order], words[self._order]
    if (np.diff(self._hashes) == 0).any():
      raise ValueError('two label names have one hash')  # 1 in 10^10

  def ids(self, words: np.ndarray) -> np.ndarray:
    """int64 [n] label ids of uint64 [n, 3]; -1: not in the vocabulary."""
    place = np.searchsorted(self._hashes, _hashed(words))
    place = np.minimum(place, len(self._hashes) - 1)
    same = (self._words[place] == words).all(axis=1)
    return np.where(same, self._order[place], -1)


def _hashed(words: np.ndarray) -> np.ndarray:
  mixed = words * _MIXERS  # wraps
  mixed ^= mixed >> np.uint64(29)
  return mixed[:, 0] ^ mixed[:, 1] * _MIXERS[2] ^ mixed[:, 2] * _MIXERS[1]


class Reader:
  """Turns rows of label files into packed numbers.

  Args:
    names: the vocabulary.
    image_ids: uint64 [n] ascending ids of the images that are there.
    min_confidence: machine-generated labels below it are unknown.
  """

  def __init__(
    self, names: LabelNames, image_ids: np.ndarray, min_confidence: float
  ):
    if len(image_ids) > packed.MAX_IMAGES:
      raise ValueError(
        f'{len(image_ids):,} images are more than {packed.MAX_IMAGES:,}'
      )
    self.counts = packed.Counts()
    self._names, self._image_ids = names, image_ids
    self._min_confidence = min_confidence
    self._blocks: list[np.ndarray] = []
    self._missing: list[np.ndarray] = []
    self._texts = np.zeros(0, np.uint64)  # confidences seen, as words, sorted
    self._states = np.zeros(0, np.int64)

  def read(self, path: str, *, human: bool) -> None:
    """Adds the rows of a file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a damaged file or a bad row; names the file and the line.
    """
    self._texts, self._states = self._texts[:0], self._states[:0]
    for line, block in _blocks(path):
      self._read_block(_Block(block, path, line), human)

  def finished(self) -> np.ndarray:
    """uint64 [m] ascending; each pair (image, label) once."""
    self.counts.images_missing = np.unique(
      np.concatenate([*self._missing, np.zeros(0, np.uint64)])
    )
    keys = np.empty(sum(map(len, self._blocks)), np.uint64)
    start = 0
    self._blocks.reverse()
    while self._blocks:  # each is freed as soon as it is copied
      block = self._blocks.pop()
      keys[start : start + len(block)] = block
      start += len(block)
    keys.sort()
    return packed.settle(keys, self.counts)

  def _read_block(self, block: '_Block', human: bool) -> None:
    labels = self._names.ids(block.label_words())
    states = self._states_of(block, human)
    ids = block.image_ids()
    self.counts.rows += len(ids)
    keep = labels >= 0
    self.counts.other_labels += int((~keep).sum())
    low = keep & (states < 0)
    self.counts.low_confidence += int(low.sum())
    keep &= ~low
    ids, labels, states = ids[keep], labels[keep], states[keep]
    rows = np.searchsorted(self._image_ids, ids)
    if len(self._image_ids):
      here = self._image_ids[np.minimum(rows, len(self._image_ids) - 1)] == ids
    else:
      here = np.zeros(len(ids), bool)
    self.counts.other_images += int((~here).sum())
    if not here.all():
      self._missing.append(np.unique(ids[~here]))
    self._blocks.append(
      rows[here].astype(np.uint64) << np.uint64(packed.IMAGE_SHIFT)
      | labels[here].astype(np.uint64) << np.uint64(packed.LABEL_SHIFT)
      | states[here].astype(np.uint64)
    )

  def _states_of(self, block: '_Block', human: bool) -> np.ndarray:
    """int64 [n] states; -1: below the limit. Equal texts are parsed once."""
    words = block.confidence_words()
    texts = words[:, 0] * _MIXERS[0] ^ words[:, 1] * _MIXERS[1]
    place = np.searchsorted(self._texts, texts)
    known = np.zeros(len(texts), bool)
    if len(self._texts):
      place = np.minimum(place, len(self._texts) - 1)
      known = self._texts[place] == texts
    if not known.all():
      rows = np.flatnonzero(~known)
      rows = rows[np.unique(texts[rows], return_index=True)[1]]
      states = [self._state(block, row, words[row], human) for row in rows]
      self._states = np.concatenate([self._states, states]).astype(np.int64)
      self._texts = np.concatenate([self._texts, texts[rows]])
      order = np.argsort(self._texts)
      self._texts, self._states = self._texts[order], self._states[order]
      place = np.searchsorted(self._texts, texts)
    return self._states[place]

  def _state(
    self, block: '_Block', row: int, words: np.ndarray, human: bool
  ) -> int:
    """State of the confidence of a row, whose text the words are."""
    text = words.tobytes().rstrip(b'\0')
    valid = _NUMBER.fullmatch(text) and 0 <= float(text) <= 1
    if not valid or (human and float(text) not in (0, 1)):
      wanted = '0 or 1' if human else 'a number in [0, 1]'
      raise ValueError(
        f'{block.where(row)}: Confidence must be {wanted}, got '
        f'{text.decode("latin-1")!r}'
      )
    if human:
      return packed.PRESENT if float(text) else packed.ABSENT
    if float(text) < self._min_confidence:
      return -1
    return round(float(text) * packed.CONFIDENCE_UNIT)


class _Block:
  """Whole rows of a file, as an array of bytes with the places of its commas.

  Raises (at construction):
    ValueError: a row that has not four fields; names the line.
  """

  def __init__(self, data: bytes, path: str, line: int):
    self._path, self._line = path, line
    if b'\r' in data:
      data = data.replace(b'\r\n', b'\n')
    self._data = data
    # Fields are read as windows of fixed size, the last ones beyond the end.
    self._bytes = np.frombuffer(data + bytes(_NAME_BYTES), np.uint8)
    content = self._bytes[: len(data)]
    ends = np.flatnonzero(content == ord('\n'))
    self._starts = np.concatenate([[0], ends[:-1] + 1])
    commas = np.flatnonzero(content == ord(','))
    good = len(commas) == 3 * len(ends)
    if good:
      commas = commas.reshape(-1, 3)
      good = (commas[:, 0] > self._starts).all() and (commas[:, 2] < ends).all()
    if not good:
      counts = np.diff(np.searchsorted(commas.ravel(), ends), prepend=0)
      row = int(np.flatnonzero(counts != 3)[0])
      self._refuse(row, f'expected {HEADER.decode()}')
    self._commas, self._ends = commas, ends

  def where(self, row: int) -> str:
    return f'{self._path}:{self._line + row}'

  def _refuse(self, row: int, problem: str) -> None:
    start = int(self._starts[row])
    text = self._data[start : self._data.find(b'\n', start)]
    raise ValueError(
      f'{self.where(row)}: {problem}, got {text.decode("latin-1")!r:.100}'
    )

  def _refuse_any(self, bad: Any, problem: str) -> None:
    if bad.any():
      self._refuse(int(np.flatnonzero(bad)[0]), problem)

  def image_ids(self) -> np.ndarray:
    """uint64 [n] of 16 hexadecimal digits."""
    problem = 'an ImageID must be 16 hexadecimal digits'
    self._refuse_any(self._commas[:, 0] - self._starts != _ID_DIGITS, problem)
    values = _HEX[self._windows(self._starts, _ID_DIGITS).view(np.uint16)]
    self._refuse_any((values < 0).any(axis=1), problem)
    return values.astype(np.uint8).view('>u8')[:, 0].astype(np.uint64)

  def label_words(self) -> np.ndarray:
    """uint64 [n, 3]: the names, padded with zeros."""
    start = self._commas[:, 1] + 1
    length = self._commas[:, 2] - start
    problem = f'a LabelName must be 1 to {_NAME_BYTES} bytes'
    self._refuse_any((length < 1) | (length > _NAME_BYTES), problem)
    return self._masked(start, length, _NAME_BYTES)

  def confidence_words(self) -> np.ndarray:
    """uint64 [n, 2]: the texts, padded with zeros."""
    start = self._commas[:, 2] + 1
    length = self._ends - start
    problem = f'a Confidence must be 1 to {_CONFIDENCE_BYTES} characters'
    self._refuse_any((length < 1) | (length > _CONFIDENCE_BYTES), problem)
    return self._masked(start, length, _CONFIDENCE_BYTES)

  def _windows(self, starts: np.ndarray, size: int) -> np.ndarray:
    """uint8 [n, size] bytes from each start on."""
    every = np.ndarray(
      (len(self._bytes) - size + 1,), f'V{size}', self._bytes, strides=(1,)
    )
    return every[starts].view(np.uint8).reshape(-1, size)

  def _masked(
    self, starts: np.ndarray, lengths: np.ndarray, size: int
  ) -> np.ndarray:
    """uint64 [n, size / 8] windows, zero behind each length."""
    words = self._windows(starts, size).view(np.uint64)
    columns = np.arange(size)
    masks = np.where(columns < np.arange(size + 1)[:, None], 255, 0)
    return words & masks.astype(np.uint8).view(np.uint64)[lengths]


def _hex_table() -> np.ndarray:
  """int16 [65536]: value of two hexadecimal digits; -1: not such digits."""
  table = np.full(1 << 16, -1, np.int16)
  for pair in itertools.product(b'0123456789abcdefABCDEF', repeat=2):
    table[np.frombuffer(bytes(pair), np.uint16)[0]] = int(bytes(pair), 16)
  return table


_HEX = _hex_table()


def _blocks(path: str) -> Iterator[tuple[int, bytes]]:
  """(number of its first line, whole lines) of a file behind its header."""
  try:
    with decompress.opened(path) as file:
      header = file.readline(1000)
      if header.removeprefix(b'\xef\xbb\xbf').rstrip() != HEADER:
        raise ValueError(
          f'{path}:1: expected the header {HEADER.decode()}, got '
          f'{header.decode("latin-1").rstrip()!r:.100}'
        )
      line, rest = 2, b''
      while data := file.read(_BLOCK_BYTES):
        data = rest + data
        end = data.rfind(b'\n') + 1
        block, rest = data[:end], data[end:]
        if len(rest) > _BLOCK_BYTES:
          raise ValueError(f'{path}:{line}: a line without end')
        if block:
          yield line, block
          line += block.count(b'\n')
      if rest:
        yield line, rest + b'\n'
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: no such file') from None
  except (EOFError, zlib.error, gzip.BadGzipFile) as error:
    raise ValueError(f'{path}: damaged: {error}') from None
