"""Average precision of poses as COCO measures it (Lin et al. 2014), and PCK.

Human pose of Sun et al. 2017 (section 4, Table 7): every person's box is looked
at by itself; poses of one image that are too alike are one person found twice,
and the better goes on (suppression by keypoint similarity). The figures are
pycocotools' (big_vision_like/metrics/coco_keypoints.py), in percent.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import numpy as np

from big_vision_like.config.option_types import (
  Above,
  AtLeast,
  Between,
  Count,
)
from big_vision_like.metrics import (
  coco_keypoints,
  image_entries,
  oks,
  pck,
  pose_mistakes,
)
from big_vision_like.pages import pose_sheet
from big_vision_like.protocols import Prediction, WithPeople
from evaluators.harness import context, exclusions, left_behind
from evaluators.harness import people as people_lib
from evaluators.harness.evaluation_set import EvalData, run_over
from evaluators.harness.image_lists import ImageLists
from input_pipeline.labels.space import LabelSpace
from input_pipeline.truth import true_boxes, true_keypoints

_OUTPUTS = ('keypoints', 'scores')
_FIELDS = ('person', 'person_box')


class Evaluator:
  """Scores predict[predict_fn] against all people of the images.

  Figures: 'ap', 'ap50', 'ap75', 'ap_medium', 'ap_large', the same of recall
  'ar', ... and 'pck@0.2', of the people that records are of; one that nothing
  counts for is left out, which the log says once. Kinds of objects are not told
  apart. Runs with a workdir leave <workdir>/<name>_results.json, as COCO's
  server takes it, and the page <name>_worst.html.

  Args:
    predict: the task's prediction functions.
    ctx: see `context.EvalContext`.
    data, ops, batch_size: the evaluation set, a source of people; ops make
      what the prediction reads and `person_box`, as crop_person does. Keypoints
      are read from the records of the images.
    predict_fn: which prediction gives poses.
    oks_nms: a pose goes if its similarity with a better one of its image
      exceeds this; areas are those of the boxes. None: all stay.
    max_detections: poses of an image that are kept, the best ones. COCO's
      figures look at 20.
    pck: a keypoint is found if it is nearer than this part of the longer side
      of the person's box.
    per_keypoint: give 'pck@0.2/<keypoint>'.
    exclude_ids: keys of images; see `exclusions.read_excluded`.
    num_worst: images on the page; 0: no page.
  """

  def __init__(
    self,
    predict: Mapping[str, Prediction],
    ctx: context.EvalContext,
    *,
    data: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    batch_size: Count,
    predict_fn: str = 'poses',
    oks_nms: Annotated[float, Between(0, 1)] | None = 0.5,
    max_detections: Count = 20,
    pck: Annotated[float, Above(0)] = 0.2,
    per_keypoint: bool = False,
    exclude_ids: str | Sequence[str | int] | None = None,
    num_worst: Annotated[int, AtLeast(0)] = 24,
  ):
    self._ctx = ctx
    self._predict = context.choose(predict, predict_fn, ctx, 'pose')
    self._data = EvalData(
      ctx, data, ops, batch_size,
      fields=(*self._predict.reads, *_FIELDS), classes=False,
    )  # fmt: skip
    self._where = f'{ctx.where}.data'
    source = self._data.source
    if not isinstance(source, WithPeople):
      raise ValueError(
        f'{self._where}: its records are of images, not of people; '
        "dict(type='people', of=...) makes them of these"
      )
    if not source.has_all_boxes:
      raise ValueError(
        f"{self._where}.unmatched='drop' leaves out the boxes that show "
        "nobody: set it to 'keep' where poses are scored"
      )
    self._image_index, self._kinds = source.image_index, source.kinds
    self._images = source.images
    self._space = LabelSpace.of_source(self._images)
    own = LabelSpace.of_source(source).keypoints
    skeleton = people_lib.skeleton(own, ctx.space.keypoints, self._where)
    self._keypoints = tuple(n.replace(' ', '_') for n in skeleton.names)
    self._sigmas = skeleton.sigmas or ()
    self._excluded = exclusions.read_excluded(
      exclude_ids, self._images, f'{ctx.where}.exclude_ids', ctx.say
    )
    self._oks_nms, self._max_detections = oks_nms, max_detections
    self._pck, self._per_keypoint = pck, per_keypoint
    self._num_worst = num_worst
    self._left = left_behind.LeftBehind(ctx)

  @functools.cached_property
  def _people(self) -> people_lib.People:
    """The people of all images; read at the first evaluation."""
    return people_lib.People.read(
      self._images, len(self._keypoints), self._kinds(), self._where
    )

  def _objects_of(self, found: Mapping[str, np.ndarray]) -> np.ndarray:
    """int64 [n] object of the truth that each record is of, -1: none."""
    rows = found['person'].astype(np.int64)
    known = rows >= 0
    rows[known] = self._people.rows(found['image'][known], rows[known])
    self._say_who_is_not_looked_at(rows[known])
    return rows

  def _say_who_is_not_looked_at(self, looked_at: np.ndarray) -> None:
    """Names the kinds that count though no record is of one."""
    labels = self._people.objects.labels[looked_at]
    missing = np.setdiff1d(self._people.kinds, labels)
    if len(missing):
      names = ', '.join(self._space.names[label] for label in missing)
      self._left.say_once(f'{names}: no record is of one, but they count')

  def run(self, state: Any) -> dict[str, float]:
    """The figures of a state; every person counts once."""
    found = self._predicted(state)
    lists = self._chosen(found)
    if self._left.without_truth(self._images):
      self._left.write_results(self._rows(lists, None))
      return {
        'num_images': len(self._images), 'num_detections': len(lists.images)
      }  # fmt: skip
    self._left.write_results(self._rows(lists, self._people.kinds))
    self._write_page(lists)
    images = np.arange(len(self._images))
    figures = self._figures(found, lists, images)
    if self._excluded is not None:
      kept = np.setdiff1d(images, self._excluded)
      figures |= exclusions.without_excluded(self._figures(found, lists, kept))
    self._left.say_left_out(coco_keypoints.FIGURES, figures, 'pose')
    return figures

  def _predicted(self, state: Any) -> dict[str, np.ndarray]:
    """Outputs, fields and `image` of all people, in the order of the set.

    Raises:
      ValueError: numbers that are not finite, or other keypoints than the
        data have.
    """
    parts, num = [], len(self._keypoints)
    for outputs, batch in run_over(self._predict, state, self._data, _FIELDS):
      if outputs['keypoints'].shape[1:] != (num, 3):
        raise ValueError(
          f'{self._ctx.where}: the model gives poses of shape '
          f'{outputs["keypoints"].shape[1:]}, the {num} keypoints of the data '
          f'need {num, 3}'
        )
      part = {name: outputs[name] for name in _OUTPUTS}
      numbers = [v.reshape(len(batch['_id']), -1) for v in part.values()]
      finite = np.isfinite(np.concatenate(numbers, axis=1))
      broken = ~np.asarray(finite.all(axis=1))
      self._data.refuse(broken, batch['_id'], 'poses are not finite in {}')
      parts.append(part | {n: batch[n] for n in (*_FIELDS, '_id')})
    found = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
    order = np.argsort(found['_id'])
    found = {name: value[order] for name, value in found.items()}
    return found | {'image': self._image_index()[found['_id']]}

  def _chosen(self, found: Mapping[str, np.ndarray]) -> ImageLists:
    """The poses that stay, by image and then by falling score."""
    image, scores = found['image'], found['scores'].astype(np.float64)
    stays = np.ones(len(image), bool)
    if self._oks_nms is not None:
      stays = oks.kept(
        image, found['keypoints'], scores, _areas(found['person_box']),
        self._sigmas, self._oks_nms,
      )  # fmt: skip
    order = np.lexsort((-scores, image))
    order = order[stays[order]]
    order = order[image_entries.ranks(image[order]) < self._max_detections]
    return ImageLists(
      image[order].astype(np.int64),
      {
        'keypoints': found['keypoints'][order],
        'scores': scores[order],
        'boxes': found['person_box'][order],
      },
    )

  def _figures(
    self,
    found: Mapping[str, np.ndarray],
    lists: ImageLists,
    images: np.ndarray,
  ) -> dict[str, float]:
    """Figures and counts of some images."""
    # Of equal scores COCO's program takes those of the lower number first.
    numbers = true_boxes.image_numbers(self._images)
    truth = left_behind.of_images(self._people.truth(), images, numbers)
    poses = left_behind.of_images(_as_coco(lists), images, numbers)
    num_people = int((~truth.ignored).sum())
    if not num_people:
      raise ValueError(f'{self._ctx.where}: no person of the set counts')
    return {
      **coco_keypoints.figures(truth, poses, ['person'], self._sigmas),
      **self._pck_figures(found, images),
      'num_images': len(images),
      'num_people': num_people,
      'num_detections': len(poses.images),
    }

  def _pck_figures(
    self, found: Mapping[str, np.ndarray], images: np.ndarray
  ) -> dict[str, float]:
    """PCK of the records that are of people of the truth."""
    objects = self._people.objects
    rows = self._objects_of(found)
    known = (rows >= 0) & np.isin(found['image'], images)
    known[known] = ~objects.crowd[rows[known]]
    rows = rows[known]
    return pck.figures(
      true_keypoints.xyv(found['keypoints'][known]),
      objects.keypoints[rows],
      objects.boxes[rows],
      self._pck,
      self._keypoints if self._per_keypoint else (),
    )

  def _write_page(self, lists: ImageLists) -> None:
    path = self._left.file('worst.html')
    if path is not None and self._num_worst:
      worst = pose_mistakes.worst(
        self._people.truth(), _as_coco(lists), self._num_worst, self._sigmas
      )
      pose_sheet.write(path, self._images, worst, lists, self._space.names)

  def _rows(
    self, lists: ImageLists, kinds: np.ndarray | None
  ) -> Iterator[dict[str, Any]]:
    """Results as COCO's servers and tools take them."""
    numbers = true_boxes.image_numbers(self._images)
    category = people_lib.category(self._space, kinds)
    points = true_keypoints.xyv(lists.fields['keypoints'])
    points[..., 2] = 1
    for image, pose, score in zip(
      numbers[lists.images].tolist(),
      points.reshape(len(points), -1).tolist(),
      lists.fields['scores'].tolist(),
    ):
      yield dict(
        image_id=image, category_id=category, keypoints=pose, score=score
      )


def _areas(boxes: np.ndarray) -> np.ndarray:
  """float64 [n] of boxes [n, 4] y0, x0, y1, x1."""
  sides = true_boxes.xywh(boxes)[:, 2:]
  return sides[:, 0] * sides[:, 1]


def _as_coco(lists: ImageLists) -> coco_keypoints.Poses:
  return coco_keypoints.Poses(
    lists.images,
    np.zeros(len(lists.images), np.int64),
    true_keypoints.xyv(lists.fields['keypoints']),
    lists.fields['scores'],
  )
