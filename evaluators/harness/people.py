"""The people of an evaluation set of poses: their truth and their keypoints.

Sets of poses have a record for each person that is looked at, in the images of
another source; the truth is all people of those images, looked at or not.
"""

import dataclasses
from typing import Any

import numpy as np

from big_vision_like.metrics.coco_keypoints import Truth
from input_pipeline.labels.space import LabelSpace, Skeleton
from input_pipeline.truth import true_keypoints

_NAME = 'person'


@dataclasses.dataclass(frozen=True, eq=False)
class People:
  """The truth of a set.

  Attributes:
    objects: all annotated boxes, by image and in the order of its record.
    kinds: int64 labels of the objects that count as people.
    where: of messages.
  """

  objects: Truth
  kinds: np.ndarray
  where: str

  @classmethod
  def read(
    cls, images: Any, num_keypoints: int, counting: np.ndarray, where: str
  ) -> 'People':
    """Those of all records of a source.

    Args:
      images: the source.
      num_keypoints: K.
      counting: labels of the objects that may be people.
      where: of messages.

    Raises:
      ValueError: a record without boxes or keypoints, one that cannot be used,
        no keypoint in all of them, or another number of them.
    """
    objects = Truth(*true_keypoints.read(images, where))
    labelled = (objects.keypoints[..., 2] > 0).any(axis=1)
    if not labelled.any():
      raise ValueError(f'{where}: no keypoint is labelled in any image')
    if objects.keypoints.shape[1] != num_keypoints:
      raise ValueError(
        f'{where}: boxes have {objects.keypoints.shape[1]} keypoints, but '
        f'there are {num_keypoints} names'
      )
    kinds = np.intersect1d(objects.labels[labelled], counting)
    return cls(objects, kinds, where)

  def truth(self) -> Truth:
    """The objects that count as people, all of one class."""
    kept = np.isin(self.objects.labels, self.kinds)
    columns = {k: v[kept] for k, v in vars(self.objects).items()}
    return Truth(**columns | {'labels': np.zeros(kept.sum(), np.int64)})

  def rows(self, images: np.ndarray, people: np.ndarray) -> np.ndarray:
    """int64 [n]: places among the objects.

    Args:
      images: int [n] indices of images.
      people: int [n] of the boxes of each image.

    Raises:
      ValueError: a box that its image has not.
    """
    start = np.searchsorted(self.objects.images, images, 'left')
    num = np.searchsorted(self.objects.images, images, 'right') - start
    wrong = np.flatnonzero((people < 0) | (people >= num))
    if len(wrong):
      i = wrong[0]
      raise ValueError(
        f'{self.where}: a record is of box {people[i]} of image {images[i]}, '
        f'which has {num[i]} boxes'
      )
    return start + people


def category(space: LabelSpace, kinds: np.ndarray | None) -> int:
  """Number of the category of all poses in results, where they come from.

  That of the first kind with keypoints; where there is no truth to tell it,
  of the class called 'person' or the first.
  """
  if kinds is not None:
    label = int(kinds[0])
  else:
    label = space.names.index(_NAME) if _NAME in space.names else 0
  return label + 1 if space.external_ids is None else space.external_ids[label]


def skeleton(
  own: Skeleton | None, trained: Skeleton | None, where: str
) -> Skeleton:
  """The keypoints, with names and sigmas.

  Args:
    own: of the data, whose sigmas go before the model's.
    trained: of the model.
    where: the data, for messages.

  Raises:
    ValueError: the two have different keypoints, or in another order; or
      neither has names, or sigmas.
  """
  named = [k for k in (own, trained) if k is not None and not k.anonymous]
  if not named:
    raise ValueError(
      f'{where} and the model do not say what the keypoints are: set '
      f'{where}.keypoint_names'
    )
  if len(named) > 1 and named[0].names != named[1].names:
    raise ValueError(
      f'{where} and the model have different keypoints, or another order; '
      f'{where}: {_listed(named[0])}; the model: {_listed(named[1])}'
    )
  for known in named:
    if known.sigmas is not None:
      return known
  num = len(named[0].names)
  raise ValueError(
    f'{where}: nothing says how far off keypoints may be, relative to the size '
    f'of the object: set {where}.sigmas to a list of {num} numbers such as '
    f'.05, in the order of {", ".join(named[0].names)}'
  )


def _listed(known: Skeleton) -> str:
  return f'{len(known.names)}, {", ".join(known.names)}'
