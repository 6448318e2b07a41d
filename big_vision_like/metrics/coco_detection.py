"""COCO's twelve figures of detected boxes, and AP of every class.

Equal to pycocotools' COCOeval of boxes with its usual parameters: IoU from .50
to .95 by .05, 101 points of recall, areas up to 32^2, 96^2 and above, 1, 10 and
100 detections of a class in an image. Crowds are matched last, any number of
times, and what they match counts nowhere; so do boxes of another area. In one
thing it differs: pycocotools takes what is matched to an annotation of id 0
for unmatched; here ids play no part.
"""

from collections.abc import Sequence

from big_vision_like.metrics import box_pairs, coco_matching
from big_vision_like.metrics.box_pairs import Detections, Truth

AREAS = {
  'all': (0.0, 1e10),
  'small': (0.0, 32.0**2),
  'medium': (32.0**2, 96.0**2),
  'large': (96.0**2, 1e10),
}
_MOST = (1, 10, 100)
_SIZES = tuple(AREAS)[1:]
FIGURES = (
  'ap', 'ap50', 'ap75', *(f'ap_{size}' for size in _SIZES),
  *(f'ar{most}' for most in _MOST), *(f'ar_{size}' for size in _SIZES),
)  # fmt: skip


def figures(
  truth: Truth, detections: Detections, classes: Sequence[str]
) -> dict[str, float]:
  """COCO's figures in percent.

  Args:
    truth: annotated boxes; `ignored` marks crowds.
    detections: of the same images.
    classes: names of the C classes.

  Returns:
    'ap', 'ap50', 'ap75', 'ap_small', 'ap_medium', 'ap_large', 'ar1', 'ar10',
    'ar100', 'ar_small', 'ar_medium', 'ar_large' and 'ap/<class>'. A figure of
    which no box counts (of its area, of its class) is left out.

  Raises:
    ValueError: a label that is no class.
  """
  result = evaluate(truth, detections, len(classes))
  precision, recall = result.precision, result.recall
  found = {
    'ap': precision[:, :, :, 0],
    'ap50': precision[0, :, :, 0],
    'ap75': precision[5, :, :, 0],
  }
  for number, area in enumerate(AREAS):
    if number:
      found[f'ap_{area}'] = precision[:, :, :, number]
  for number, most in enumerate(_MOST):
    found[f'ar{most}'] = recall[:, :, 0, number]
  for number, area in enumerate(AREAS):
    if number:
      found[f'ar_{area}'] = recall[:, :, number, -1]
  for number, name in enumerate(classes):
    found[f'ap/{name}'] = precision[:, :, number, 0]
  return coco_matching.means(found)


def evaluate(
  truth: Truth, detections: Detections, num_classes: int
) -> coco_matching.Curves:
  """Precision and recall at all thresholds, of all classes and areas.

  Precision is that of 100 detections; recall has 1, 10 and 100.

  Raises:
    ValueError: a label that is no class.
  """
  found = coco_matching.ranked(
    truth,
    detections,
    num_classes,
    area=detections.boxes[:, 2] * detections.boxes[:, 3],
    similarity=lambda who, what: box_pairs.overlaps(
      detections.boxes[who],
      truth.boxes[what],
      one_sided=truth.ignored[what],
      inclusive=False,
    ),
    most=_MOST[-1],
  )
  return coco_matching.curves(
    found,
    truth,
    num_classes,
    ignored=truth.ignored,
    crowd=truth.ignored,
    areas=AREAS,
    most=_MOST,
  )
