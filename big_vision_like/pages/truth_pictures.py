"""Images of a source as pages show them, with what is annotated in them."""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from input_pipeline import pipeline
from input_pipeline.examples.errors import record_named

_DECODED = ('image', 'original_size')


class Shown(NamedTuple):
  """An image and its annotations.

  Attributes:
    image: uint8 [H, W, 3], as it is stored.
    there: the image and the fields asked for, for annotated_picture.py.
    ratio: float64 [2], of its height and width to those of the original image,
      in whose pixels predictions are.
  """

  image: np.ndarray
  there: dict[str, Any]
  ratio: np.ndarray


class Pictures:
  """Decodes the images of a source.

  Args:
    source: of the images.
    fields: annotations that are drawn.
    page: for messages, 'the page of poses'.
  """

  def __init__(self, source: Any, fields: Collection[str], page: str):
    self._source, self._fields, self._page = source, fields, page
    self._decode = pipeline.build_ops([dict(op='decode')], source, 'pictures')[
      0
    ]

  def of(self, index: int) -> Shown:
    """One image.

    Raises:
      ValueError: it cannot be used; names it.
    """
    rng = np.random.default_rng(0)  # decoding has no chance
    with record_named(self._source, index, self._page):
      example = self._source[index]
      known = {k: v for k, v in example.items() if k in _DECODED}
      decoded = self._decode(known, rng)
    image = decoded['image']
    there = {k: v for k, v in example.items() if k in self._fields}
    return Shown(
      image,
      there | {'image': image},
      np.array(image.shape[:2]) / decoded['original_size'],
    )
