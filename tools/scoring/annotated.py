"""The truth of a set, and how results call its images and categories."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from input_pipeline.labels.space import Skeleton

T = TypeVar('T')


@dataclasses.dataclass(frozen=True, eq=False)
class Annotated(Generic[T]):
  """The truth of a set.

  Attributes:
    origin: file or data set, for messages.
    names: of the C classes.
    categories: number of a category in the file -> class.
    images: number or name of an image in results -> its number in the truth,
      which rises as the publisher's does.
    truth: boxes or poses by image and class.
    skeleton: what is known of the keypoints; None of boxes, or if nothing is.
  """

  origin: str
  names: tuple[str, ...]
  categories: Mapping[Any, int]
  images: Mapping[Any, int]
  truth: T
  skeleton: Skeleton | None = None
