"""COCO's ten figures of detected poses.

Equal to pycocotools' COCOeval of keypoints with its usual parameters: object
keypoint similarity (oks.py) from .50 to .95 by .05, 101 points of recall, areas
up to 96^2 and above, the 20 best poses of a class in an image. Annotations
without a labelled keypoint and crowds count neither way, nor does what finds
them; so do annotations of another area, and poses of another area that find
nothing. The area of an annotation is its own, that of a pose the extent of its
keypoints, labelled or not. As in coco_detection.py, ids play no part.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from big_vision_like.metrics import coco_matching, image_entries, oks

MOST = 20
AREAS = {
  'all': (0.0, 1e10),
  'medium': (32.0**2, 96.0**2),
  'large': (96.0**2, 1e10),
}
FIGURES = (
  'ap', 'ap50', 'ap75', 'ap_medium', 'ap_large',
  'ar', 'ar50', 'ar75', 'ar_medium', 'ar_large',
)  # fmt: skip
_PAIRS_A_TIME = 1 << 15


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
  """A annotated poses.

  Attributes:
    images: int [A] ids.
    labels: int [A] in [0, C).
    keypoints: float64 [A, K, 3]: x, y, visibility; above 0 is labelled.
    boxes: float64 [A, 4]: x, y, width, height.
    area: float64 [A] in pixels^2, of the outline where there is one.
    crowd: bool [A].
  """

  images: np.ndarray
  labels: np.ndarray
  keypoints: np.ndarray
  boxes: np.ndarray
  area: np.ndarray
  crowd: np.ndarray

  def __post_init__(self):
    shapes = {'keypoints': _keypoints_shape(self, 'truth'), 'boxes': (4,)}
    image_entries.check(self, 'truth', shapes, 'keypoints', 'boxes', 'area')

  @property
  def ignored(self) -> np.ndarray:
    """bool [A]: crowds, and those without a labelled keypoint."""
    return self.crowd | ~(self.keypoints[..., 2] > 0).any(axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Poses:
  """D detected poses, of any order; of equal scores the earlier is better.

  Attributes:
    images: int [D] ids.
    labels: int [D] in [0, C).
    keypoints: float64 [D, K, 3]: x, y and what plays no part.
    scores: float64 [D].
  """

  images: np.ndarray
  labels: np.ndarray
  keypoints: np.ndarray
  scores: np.ndarray

  def __post_init__(self):
    shapes = {'keypoints': _keypoints_shape(self, 'detections')}
    image_entries.check(self, 'detections', shapes, 'keypoints', 'scores')

  @property
  def area(self) -> np.ndarray:
    """float64 [D]: extent of the keypoints."""
    place = self.keypoints[..., :2]
    if not place.shape[1]:
      return np.zeros(len(place))
    return np.prod(place.max(axis=1) - place.min(axis=1), axis=1)


def _keypoints_shape(table: Truth | Poses, name: str) -> tuple[int, int]:
  """(K, 3) of an entry.

  Raises:
    ValueError: no such array.
  """
  shape = table.keypoints.shape
  if len(shape) != 3 or shape[2] != 3:
    raise ValueError(f'{name}: keypoints must be [n, K, 3], got {list(shape)}')
  return shape[1], 3


def figures(
  truth: Truth,
  detections: Poses,
  classes: Sequence[str],
  sigmas: Sequence[float],
) -> dict[str, float]:
  """COCO's figures in percent.

  Args:
    truth: annotated poses.
    detections: of the same images.
    classes: names of the C classes.
    sigmas: of the K keypoints.

  Returns:
    'ap', 'ap50', 'ap75', 'ap_medium', 'ap_large', and the same of recall 'ar',
    ...: means over the classes. A figure of which no pose counts is left out.

  Raises:
    ValueError: a label that is no class, other numbers of keypoints in the two
      or of sigmas.
  """
  curves = evaluate(truth, detections, len(classes), sigmas)
  found = {}
  for name, values in (('ap', curves.precision), ('ar', curves.recall[..., 0])):
    found[name] = values[..., 0]
    found[f'{name}50'] = values[0, ..., 0]
    found[f'{name}75'] = values[5, ..., 0]
    for number, area in enumerate(AREAS):
      if number:
        found[f'{name}_{area}'] = values[..., number]
  return coco_matching.means(found)


def evaluate(
  truth: Truth, detections: Poses, num_classes: int, sigmas: Sequence[float]
) -> coco_matching.Curves:
  """Precision and recall at all thresholds, of all classes and areas.

  Raises:
    ValueError: see `figures`.
  """
  num_keypoints = truth.keypoints.shape[1]
  if detections.keypoints.shape[1] != num_keypoints:
    raise ValueError(
      f'detections have {detections.keypoints.shape[1]} keypoints, the truth '
      f'{num_keypoints}'
    )
  checked = oks.check_sigmas(sigmas, num_keypoints)
  found = coco_matching.ranked(
    truth,
    detections,
    num_classes,
    area=detections.area,
    similarity=lambda who, what: similarities(
      truth, detections, who, what, checked
    ),
    most=MOST,
  )
  return coco_matching.curves(
    found,
    truth,
    num_classes,
    ignored=truth.ignored,
    crowd=truth.crowd,
    areas=AREAS,
    most=(MOST,),
  )


def similarities(
  truth: Truth,
  detections: Poses,
  who: np.ndarray,
  what: np.ndarray,
  sigmas: np.ndarray,
) -> np.ndarray:
  """Of pairs of a pose and an annotation, float64 [P]."""
  parts = [np.zeros(0)]
  for start in range(0, len(who), _PAIRS_A_TIME):
    part = slice(start, start + _PAIRS_A_TIME)
    found, annotated = who[part], what[part]
    parts.append(
      oks.with_truth(
        detections.keypoints[found],
        truth.keypoints[annotated],
        truth.boxes[annotated],
        truth.area[annotated],
        sigmas,
      )
    )
  return np.concatenate(parts)
