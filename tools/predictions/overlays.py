"""Images as files show them: decoded at full size, and drawn over."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.pages import mask_pictures
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample

FOLDER = 'overlays'


def decoded(
  ops: Sequence[Mapping[str, Any]], source: Any, index: int
) -> np.ndarray:
  """uint8 [H, W, 3] by the first of the run's ops, at full size.

  Raises:
    BadExample: the image cannot be used.
  """
  options = dict(ops[0])
  options.pop('min_size', None)
  (decode,) = pipeline.build_ops([options], source, 'overlays')
  rng = np.random.default_rng(0)  # decoding has no chance
  return decode({'image': source[index]['image']}, rng)['image']


def decoded_again(
  ops: Sequence[Mapping[str, Any]], source: Any, index: int
) -> np.ndarray:
  """The same of an image that has been used.

  Raises:
    ValueError: it is not that image any more.
  """
  try:
    return decoded(ops, source, index)
  except BadExample as bad:
    raise changed(source.key(index), bad.reason) from None


def changed(key: str, reason: str) -> ValueError:
  """What is said of an image that is not the one it was."""
  return ValueError(f'{key} has changed while it was read: {reason}')


def save(folder: str, name: str, picture: np.ndarray) -> str:
  """Writes overlays/NAME in a folder; returns the file's path below it."""
  path = os.path.join(folder, FOLDER, name)
  return os.path.relpath(mask_pictures.save_picture(path, picture), folder)
