"""An annotation file of Pascal VOC: the boxes of one image.

VOC counts pixels from 1 and includes both corners of a box. Here pixel (r, c)
covers [r, r + 1) x [c, c + 1), so y0 = ymin - 1, x0 = xmin - 1, y1 = ymax,
x1 = xmax. Pose, truncated and occluded flags and the parts of persons are not
taken over. A file may leave out the size of its image.

XML is read without document type declarations, so nothing in a file can name
entities that grow or files to include.
"""

from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from input_pipeline.labels import text_lines
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.vocabulary import Vocabulary

# In the order of the development kit. Ids in segmentation masks are those of
# the labels + 1, since 0 is the background there; 255 is void.
CLASSES = (
  'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat',
  'chair', 'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person',
  'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
)  # fmt: skip
_MAX_BYTES = 1 << 20
_MAX_COORDINATE = 1e6
_NUM_SHOWN = 20  # classes in a message


class Objects(NamedTuple):
  """N objects of an image.

  Attributes:
    boxes: float32 [N, 4] y0, x0, y1, x1.
    names: of their classes.
    difficult: bool [N].
    size: height and width that the file states; 0, 0 where it does not.
  """

  boxes: np.ndarray
  names: tuple[str, ...]
  difficult: np.ndarray
  size: tuple[int, int]

  def labels(self, classes: Vocabulary, where: str) -> np.ndarray:
    """int32 [N] ids of the names.

    Raises:
      ValueError: a name that is none of the classes, by its object.
    """
    for number, name in enumerate(self.names, 1):
      if name not in classes:
        shown = ', '.join(classes.names[:_NUM_SHOWN])
        more = ', ...' if len(classes) > _NUM_SHOWN else ''
        raise ValueError(
          f'{where}: object {number}: unknown class {name!r:.60}'
          f'{vocabularies.suggestion(name, classes.names)}; valid: '
          f'{shown}{more} (other classes are listed by vocabulary)'
        )
    return np.array([classes.index(name) for name in self.names], np.int32)


def parse(data: bytes, where: str) -> Objects:
  """The objects of an annotation file.

  Raises:
    ValueError: not XML, not such a file, or values out of range; names the
      file and, where it can, the line.
  """
  root = _tree(data, where)
  if root.tag != 'annotation':
    raise ValueError(f'{where}: expected <annotation>, got <{root.tag:.40}>')
  size = (0, 0)
  if root.find('size') is not None:
    size = _size(root, where)
  boxes, names, difficult = [], [], []
  for number, entry in enumerate(root.findall('object'), 1):
    place = f'{where}: object {number}'
    name = (entry.findtext('name') or '').strip()
    names.append(text_lines.check_name(name, f'{place}: name'))
    if len(entry.findall('bndbox')) > 1:
      raise ValueError(f'{place}: more than one bndbox')
    x0, y0, x1, y1 = (
      _number(entry, f'bndbox/{side}', place)
      for side in ('xmin', 'ymin', 'xmax', 'ymax')
    )
    if x1 < x0 or y1 < y0:
      raise ValueError(
        f'{place}: xmin, ymin, xmax, ymax = {x0:g}, {y0:g}, {x1:g}, {y1:g} is '
        f'upside down'
      )
    boxes.append((y0 - 1, x0 - 1, y1, x1))
    difficult.append(_flag(entry, 'difficult', place))
  return Objects(
    np.array(boxes, np.float32).reshape(-1, 4),
    tuple(names),
    np.array(difficult, bool),
    size,
  )


def _size(root: ElementTree.Element, where: str) -> tuple[int, int]:
  """Height and width; 0, 0 where a program has left them at 0."""
  height, width = (
    _number(root, f'size/{n}', where) for n in ('height', 'width')
  )
  if height < 0 or width < 0 or height % 1 or width % 1:
    raise ValueError(
      f'{where}: size must be whole numbers of pixels, got {height:g}, '
      f'{width:g}'
    )
  return (int(height), int(width)) if height and width else (0, 0)


def _tree(data: bytes, where: str) -> ElementTree.Element:
  """The elements of an XML file without a document type declaration."""
  if len(data) > _MAX_BYTES:
    raise ValueError(f'{where}: {len(data):,} bytes are no annotation file')
  parser = expat.ParserCreate()
  builder = ElementTree.TreeBuilder()

  def refuse(*_):
    raise ValueError(
      f'{where}:{parser.CurrentLineNumber}: a document type declaration is '
      f'refused'
    )

  parser.StartDoctypeDeclHandler = refuse
  parser.StartElementHandler = builder.start
  parser.EndElementHandler = builder.end
  parser.CharacterDataHandler = builder.data
  try:
    parser.Parse(data, True)
  except expat.ExpatError as error:
    reason = expat.ErrorString(error.code)
    raise ValueError(f'{where}:{error.lineno}: not XML: {reason}') from None
  except LookupError as error:
    raise ValueError(f'{where}: not XML: {error}') from None
  return builder.close()


def _number(entry: ElementTree.Element, path: str, where: str) -> float:
  text = entry.findtext(path)
  value = text_lines.number(text or '')
  if not abs(value) <= _MAX_COORDINATE:
    raise ValueError(f'{where}: {path} must be a number, got {text!r:.40}')
  return value


def _flag(entry: ElementTree.Element, name: str, where: str) -> bool:
  """A flag that older files leave out where it is not set."""
  text = (entry.findtext(name) or '0').strip()
  if text not in ('0', '1'):
    raise ValueError(f'{where}: {name} must be 0 or 1, got {text!r:.40}')
  return text == '1'
