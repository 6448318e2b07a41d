"""The boxes of a data set as the truth of a set of named images."""

from big_vision_like.metrics.box_pairs import Truth
from input_pipeline.examples import true_boxes

from ..cli import data_argument
from .coco_files import Annotated, stem

# Of these a development kit of VOC is read for its masks unless it is said.
_WITH_MASKS_TOO = ('detect', 'voc')


def truth(
  place: str, ignored: str, flag: str, *, trusted: bool = False
) -> Annotated:
  """Reads all records of a data set.

  Args:
    place: KIND:PATH:SPLIT, as tools take data sets.
    ignored: field of the boxes that count neither way.
    flag: for messages.
    trusted: whether a config.json may name modules of others.

  Raises:
    FileNotFoundError, ValueError: no such data set, one without boxes, or two
      images of one name.
  """
  options = data_argument.parse(place, flag, trusted=trusted)
  if options['type'] in _WITH_MASKS_TOO:
    options.setdefault('task', 'detection')
  source = data_argument.open_source(options, flag)
  names = source.vocabulary.names
  images: dict[str, int] = {}
  numbers = true_boxes.image_numbers(source)
  for index in range(len(source)):
    key = stem(source.key(index))
    if key in images:
      raise ValueError(f'{flag} {place}: two images are called {key!r}')
    images[key] = int(numbers[index])
  categories = {
    **{i + 1: i for i in range(len(names))},
    **{name: i for i, name in enumerate(names)},
  }
  columns = list(true_boxes.read(source, ignored, flag))
  columns[0] = numbers[columns[0]]
  return Annotated(place, names, categories, images, Truth(*columns))
