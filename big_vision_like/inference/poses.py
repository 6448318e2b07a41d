"""Keypoints of people in any images, by the pose model of a checkpoint.

Where the people are is told by boxes: of a detector, or from a file. Each
becomes a crop as the run's evaluation makes it; keypoints are in pixels of the
image file. Of poses that are nearly one the best stays (OKS-NMS).
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from big_vision_like.inference import embedder
from big_vision_like.inference.stored_model import StoredModel
from big_vision_like.inference.stored_predictor import StoredPredictor
from big_vision_like.metrics import oks
from big_vision_like.protocols import Source
from input_pipeline.labels.space import Skeleton

_EVALUATOR, _CROP = 'coco_keypoints', 'crop_person'
SAME_POSE = 0.5  # similarity above which the lesser of two poses goes
_UNKNOWN_SIGMA = 0.05  # of a skeleton without sigmas, to tell poses apart


class Boxes(NamedTuple):
  """Where people are: n boxes.

  Attributes:
    images: int64 [n] index of the image of each, rising.
    boxes: float32 [n, 4] y0, x0, y1, x1 in its pixels.
    scores: float32 [n].
  """

  images: np.ndarray
  boxes: np.ndarray
  scores: np.ndarray


class Found(NamedTuple):
  """The poses in an image, n of them, best first.

  Attributes:
    index: of the image in its source.
    boxes: float32 [n, 4] y0, x0, y1, x1 in its pixels.
    keypoints: float32 [n, K, 3] y, x in its pixels, confidence.
    scores: float32 [n] of the poses.
  """

  index: int
  boxes: np.ndarray
  keypoints: np.ndarray
  scores: np.ndarray


class InBoxes:
  """A record a box: the image that it is in, and the box."""

  def __init__(self, source: Source, boxes: Boxes):
    self._source, self._boxes = source, boxes
    self.vocabulary, self.hierarchy = source.vocabulary, source.hierarchy
    first = np.searchsorted(boxes.images, boxes.images)
    self._number = np.arange(len(first)) - first + 1

  def __len__(self) -> int:
    return len(self._boxes.images)

  def __getitem__(self, position: int) -> dict[str, Any]:
    return {
      **self._source[int(self._boxes.images[position])],
      'person': np.int32(-1),  # nothing is annotated
      'person_box': self._boxes.boxes[position],
      'person_score': np.float32(self._boxes.scores[position]),
    }

  def key(self, position: int) -> str:
    """'a.jpg#2', the second box of an image."""
    image = self._source.key(int(self._boxes.images[position]))
    return f'{image}#{self._number[position]}'


def default_ops(model: StoredModel) -> list[dict[str, Any]]:
  """Op configs from an image and a box to a crop.

  They are those of the run's first evaluator of poses, or else of its training
  without chance. They say how many keypoints there are, since images of
  anywhere do not.
  """
  specs = model.config.input.ops
  for evaluator in model.config.evals.values():
    if evaluator.type == _EVALUATOR:
      specs = evaluator.ops
      break
  known = dict(num_keypoints=len(skeleton(model).names))
  return [
    {**op, **known} if op['op'] == _CROP else op
    for op in embedder.deterministic_ops(specs)
  ]


def skeleton(model: StoredModel) -> Skeleton:
  """Of a pose net; its task has refused to be without."""
  found = model.space.keypoints
  assert found is not None
  return found


class Poser(StoredPredictor):
  """Images and boxes -> poses; the arguments are those of `StoredPredictor`.

  Args:
    model: of a task whose prediction is of kind 'pose'.
    ops: op configs from an encoded image and a box to the crop; None:
      `default_ops` of the run.
    batch_size: people at a time.
    threads, workers: see `StoredPredictor`.
  """

  def __init__(
    self,
    model: StoredModel,
    *,
    ops: Sequence[Mapping[str, Any]] | None = None,
    batch_size: int = 16,
    threads: int = 2,
    workers: int = 0,
  ):
    name, _ = model.prediction('pose')
    self.skeleton = skeleton(model)
    self._sigmas = self.skeleton.sigmas or (
      (_UNKNOWN_SIGMA,) * len(self.skeleton.names)
    )
    super().__init__(
      model, name, default_ops(model) if ops is None else ops,
      batch_size=batch_size, threads=threads, workers=workers,
    )  # fmt: skip

  def poses(
    self, source: Source, boxes: Boxes, same_pose: float | None = SAME_POSE
  ) -> Iterator[Found]:
    """Poses of the images that have boxes, in the order of the images.

    Boxes that cannot be used are left out; `bad` has them, as 'KEY#NUMBER'.

    Args:
      source: the images.
      boxes: of people in them.
      same_pose: similarity above which the lesser of two poses of an image
        goes; None: all stay.

    Raises:
      ValueError: keypoints that are not finite.
    """
    waiting: dict[str, list[Any]] = collections.defaultdict(list)
    image = None
    boxed: Any = InBoxes(source, boxes)
    for chosen, outputs, _ in self.batches(boxed):
      for row, position in enumerate(chosen.tolist()):
        index = int(boxes.images[position])
        if image is not None and index != image:
          yield self._image(source, image, waiting, same_pose)
          waiting.clear()
        image = index
        waiting['boxes'].append(boxes.boxes[position])
        for name in ('keypoints', 'scores'):
          waiting[name].append(outputs[name][row])
    if image is not None:
      yield self._image(source, image, waiting, same_pose)

  def _image(
    self,
    source: Source,
    index: int,
    found: Mapping[str, list[Any]],
    same_pose: float | None,
  ) -> Found:
    boxes, keypoints, scores = (
      np.stack(found[name]) for name in ('boxes', 'keypoints', 'scores')
    )
    if not (np.isfinite(keypoints).all() and np.isfinite(scores).all()):
      raise ValueError(f'{source.key(index)}: its keypoints are not finite')
    order = np.argsort(-scores, kind='stable')
    boxes, keypoints, scores = boxes[order], keypoints[order], scores[order]
    if same_pose is not None:
      stays = oks.kept(
        np.zeros(len(scores), np.int64),
        keypoints[..., [1, 0]],
        scores,
        (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
        self._sigmas,
        same_pose,
      )
      boxes, keypoints, scores = boxes[stays], keypoints[stays], scores[stays]
    return Found(index, boxes, keypoints, scores)
