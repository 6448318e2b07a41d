"""An annotation file of Pascal VOC: the boxes of one image.

VOC counts pixels from 1 and includes both corners of a box. Here pixel (r, c)
covers [r, r + 1) x [c, c + 1), so y0 = ymin - 1, x0 = xmin - 1, y1 = ymax,
x1 = xmax. Pose, truncated and occluded flags and the parts of persons are not
taken over.

XML is read without document type declarations, so nothing in a file can name
entities that grow or files to include.
"""

from typing import NamedTuple
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

# In the order of the development kit. Ids in segmentation masks are those of
# the labels + 1, since 0 is the background there; 255 is void.
CLASSES = (
  'aeroplane', 'bicycle', 'bird', 'boat', 'bottle', 'bus', 'car', 'cat',
  'chair', 'cow', 'diningtable', 'dog', 'horse', 'motorbike', 'person',
  'pottedplant', 'sheep', 'sofa', 'train', 'tvmonitor',
)  # fmt: skip
_LABELS = {name: label for label, name in enumerate(CLASSES)}
_MAX_BYTES = 1 << 20
_MAX_COORDINATE = 1e6


class Boxes(NamedTuple):
  """N objects of an image.

  Attributes:
    boxes: float32 [N, 4] y0, x0, y1, x1.
    labels: int32 [N].
    difficult: bool [N].
    num_outside: of them, how many reach beyond the size that the file states.
  """

  boxes: np.ndarray
  labels: np.ndarray
  difficult: np.ndarray
  num_outside: int


def parse(data: bytes, where: str) -> Boxes:
  """The objects of an annotation file.

  Raises:
    ValueError: not XML, not such a file, or values out of range; names the
      file and, where it can, the line.
  """
  root = _tree(data, where)
  if root.tag != 'annotation':
    raise ValueError(f'{where}: expected <annotation>, got <{root.tag:.40}>')
  height, width = (
    _number(root, f'size/{n}', where) for n in ('height', 'width')
  )
  boxes, labels, difficult = [], [], []
  for number, entry in enumerate(root.findall('object'), 1):
    place = f'{where}: object {number}'
    name = (entry.findtext('name') or '').strip()
    if name not in _LABELS:
      raise ValueError(
        f'{place}: unknown class {name!r:.60}; valid: {", ".join(CLASSES)}'
      )
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
    labels.append(_LABELS[name])
    difficult.append(_flag(entry, 'difficult', place))
  array = np.array(boxes, np.float32).reshape(-1, 4)
  outside = (array[:, :2] < 0).any(1) | (array[:, 2:] > [height, width]).any(1)
  return Boxes(
    array,
    np.array(labels, np.int32),
    np.array(difficult, bool),
    int(outside.sum()),
  )


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
  return builder.close()


def _number(entry: ElementTree.Element, path: str, where: str) -> float:
  text = entry.findtext(path)
  try:
    value = float('' if text is None else text)
  except ValueError:
    value = np.nan
  if not abs(value) <= _MAX_COORDINATE:
    raise ValueError(f'{where}: {path} must be a number, got {text!r:.40}')
  return value


def _flag(entry: ElementTree.Element, name: str, where: str) -> bool:
  """A flag that older files leave out where it is not set."""
  text = (entry.findtext(name) or '0').strip()
  if text not in ('0', '1'):
    raise ValueError(f'{where}: {name} must be 0 or 1, got {text!r:.40}')
  return text == '1'
