"""ImageNet's lists: synsets, their descriptions, labels of validation images.

A synset is called by its wnid, 'n' and the eight digits of its WordNet 3.0
offset. The lists exist in many forms; those read here:

  synsets       'n01440764' a line, whatever follows it
  descriptions  LOC_synset_mapping.txt, synset_words.txt, words.txt:
                'n01440764 tench, Tinca tinca', with a space or a tab
  development   ILSVRC2012_devkit_t12(.tar.gz): data/meta.mat has wnid and
  kit           description of each number, data/ILSVRC2012_validation_
                ground_truth.txt the number of each validation image
  validation    LOC_val_solution.csv of Kaggle: image, then wnid and boxes; or
  labels        a .txt with a wnid a line, in the order of the images
"""

import dataclasses
import os
import re
from collections.abc import Mapping

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import archives, retries
from input_pipeline.files.archive_index import Files
from input_pipeline.labels import hierarchy as hierarchies
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.imagenet import mat5

WNID = re.compile(r'n\d{8}')
_LINE = re.compile(r'(n\d{8})(?:[ \t]+(.*))?')
_VAL_NAME = re.compile(r'(?:.*/)?\w*_(\d{8})(?:\.\w+)?')
_META = 'data/meta.mat'
_GROUND_TRUTH = 'data/ILSVRC2012_validation_ground_truth.txt'
_MAX_META = 4 << 20  # the published one has 0.4 MB
_MAX_TEXT = 1 << 28


class Lists:
  """The lists of a data set, read from files or from members of an archive.

  Attributes:
    descriptions: wnid -> words, as far as read.
    val_labels: number of a validation image, from 1 on -> wnid; empty if none
      were read.
    synsets: the classes, where a list says so, else None.
  """

  def __init__(self):
    self.descriptions: dict[str, str] = {}
    self.val_labels: dict[int, str] = {}
    self.synsets: list[str] | None = None

  def describe(self, data: bytes, where: str) -> list[str]:
    """Reads a list of synsets with or without descriptions; their wnids.

    Raises:
      ValueError: a line without a wnid, or a wnid twice; names the line.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(lines(data, where), 1):
      if not line.strip():
        continue
      match = _LINE.fullmatch(line.strip())
      if match is None:
        raise ValueError(
          f"{where}:{number}: expected a wnid such as 'n01440764' first, got "
          f'{line!r:.80}'
        )
      wnid, words = match.groups()
      if wnid in found:
        raise ValueError(
          f'{where}:{number}: {wnid} is already in line {found[wnid]}'
        )
      found[wnid] = number
      if words and words.strip():
        self.descriptions[wnid] = words.strip()
    if not found:
      raise ValueError(f'{where}: no synsets in it')
    return list(found)

  def read_devkit(self, path: str) -> None:
    """Reads a development kit: folder or archive.

    Raises:
      FileNotFoundError, ValueError: not a development kit; names the file.
    """
    files = archives.open_files(path)
    meta, meta_name = _member(files, _META, _MAX_META)
    truth, truth_name = _member(files, _GROUND_TRUTH, _MAX_TEXT)
    wnids = self._read_meta(meta, meta_name)
    for number, line in enumerate(lines(truth, truth_name), 1):
      text = line.strip()
      wnid = (
        wnids.get(int(text)) if text.isdecimal() and len(text) < 9 else None
      )
      if wnid is None:
        raise ValueError(
          f'{truth_name}:{number}: {text!r:.40} is no number of a class in '
          f'{meta_name} (1 to {len(wnids)})'
        )
      self.val_labels[number] = wnid

  def _read_meta(self, data: bytes, where: str) -> dict[int, str]:
    """Number -> wnid of the classes; inner nodes of the tree are left out."""
    wnids: dict[int, str] = {}
    try:
      for row in mat5.struct_array(data, 'synsets'):
        wnid, number = str(row['WNID']), row['ILSVRC2012_ID']
        if not WNID.fullmatch(wnid) or not isinstance(number, float):
          raise ValueError(f'{number} is called {wnid!r:.40}')
        if isinstance(words := row['words'], str) and words.strip():
          self.descriptions[wnid] = ' '.join(words.split())
        if row['num_children'] == 0:
          wnids[int(number)] = wnid
    except (KeyError, ValueError) as error:
      raise ValueError(
        f'{where}: not the meta.mat of ILSVRC2012 (a struct array synsets with '
        f'ILSVRC2012_ID, WNID, words, num_children): {error}'
      ) from None
    self.synsets = sorted(wnids.values())
    return wnids

  def read_val_labels(self, data: bytes, where: str) -> None:
    """Reads labels of validation images from a .csv or .txt.

    Raises:
      ValueError: malformed; names the line.
    """
    rows = lines(data, where)
    if where.lower().endswith('.csv'):
      if not rows or rows[0].split(',')[:2] != ['ImageId', 'PredictionString']:
        raise ValueError(
          f"{where}:1: expected the header 'ImageId,PredictionString' of "
          f"Kaggle's LOC_val_solution.csv"
        )
      for number, line in enumerate(rows[1:], 2):
        name, _, prediction = line.partition(',')
        self._add_val(name, prediction.partition(' ')[0], f'{where}:{number}')
      return
    for number, line in enumerate(rows, 1):
      fields = line.split()
      if len(fields) == 1 and fields[0].isdigit():
        raise ValueError(
          f'{where}:{number}: class numbers mean nothing without meta.mat: '
          f'give the development kit, ILSVRC2012_devkit_t12.tar.gz'
        )
      if len(fields) == 2:  # image, wnid
        self._add_val(fields[0], fields[1], f'{where}:{number}')
      else:
        wnid = fields[0] if len(fields) == 1 else line
        self._add_val(f'_{number:08}', wnid, f'{where}:{number}')

  def _add_val(self, name: str, wnid: str, where: str) -> None:
    number = val_number(name)
    if number is None or not WNID.fullmatch(wnid):
      raise ValueError(
        f"{where}: expected an image such as 'ILSVRC2012_val_00000001' and a "
        f"wnid such as 'n01440764', got {name!r:.60} and {wnid!r:.40}"
      )
    if number in self.val_labels:
      raise ValueError(f'{where}: a second label for image {number}')
    self.val_labels[number] = wnid


def val_number(name: str) -> int | None:
  """7 of 'ILSVRC2012_val_00000007.JPEG'; None for other names."""
  match = _VAL_NAME.fullmatch(name)
  return int(match[1]) if match else None


def read_text(path: str) -> bytes:
  """A text file from the disk.

  Raises:
    FileNotFoundError: not there.
    ValueError: too large.
  """
  try:
    with retries.open_binary(path) as file:
      data = file.read(_MAX_TEXT + 1)
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: no such file') from None
  if len(data) > _MAX_TEXT:
    raise ValueError(f'{path}: more than {_MAX_TEXT:,} bytes of text')
  return data


def read_member(
  files: Files, name: str, max_bytes: int = _MAX_TEXT
) -> tuple[bytes, str]:
  """(content, name for messages) of a member that must be whole."""
  where = f'{files.path}/{name}'
  try:
    return files.read(name, max_bytes=max_bytes), where
  except BadExample as error:
    raise ValueError(f'{where}: {error.reason}') from None


def lines(data: bytes, where: str) -> list[str]:
  """Lines of a UTF-8 text; ValueError names the line that is not."""
  try:
    text = data.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = data.count(b'\n', 0, error.start) + 1
    raise ValueError(f'{where}:{line}: not UTF-8: {error.reason}') from None
  return text.replace('\r\n', '\n').removesuffix('\n').split('\n')


def _member(files: Files, ending: str, max_bytes: int) -> tuple[bytes, str]:
  """(content, name for messages) of the one file that ends so."""
  found = [
    name
    for name in files.names
    if name == ending or name.endswith('/' + ending)
  ]
  if len(found) != 1:
    raise ValueError(
      f'{files.path}: {len(found) or "no"} {ending} in it; expected the '
      f'development kit ILSVRC2012_devkit_t12'
    )
  return read_member(files, found[0], max_bytes)


def is_devkit(path: str) -> bool:
  """Whether a path given for validation labels is a development kit."""
  return os.path.isdir(path) or path.lower().endswith(
    ('.tar', '.tar.gz', '.tgz', '.zip')
  )


def attach_hierarchy(
  vocabulary: Vocabulary,
  descriptions: Mapping[str, str],
  hierarchy: str | None,
  unlisted: str,
  max_depth: int | None,
) -> tuple[Vocabulary, Hierarchy | None]:
  """Vocabulary and hierarchy (hierarchy.attach), every label described.

  Args:
    vocabulary: labels that are wnids.
    descriptions: wnid -> words; of more synsets than needed, or of fewer.
    hierarchy: file of edges, or None.
    unlisted: 'error', 'traverse' or 'add'.
    max_depth: longest path allowed, or None.
  """
  vocabulary, closed = hierarchies.attach(
    vocabulary, hierarchy, unlisted=unlisted, max_depth=max_depth
  )
  described = tuple(descriptions.get(name) for name in vocabulary.names)
  if any(described):
    vocabulary = dataclasses.replace(vocabulary, descriptions=described)
  return vocabulary, closed
