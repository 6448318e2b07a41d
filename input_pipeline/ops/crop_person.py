"""The op `crop_person`: one person of an image, as the pose net sees them.

Papandreou et al. 2017 (G-RMI), as Sun et al. 2017 use it (section 4, human
pose): the box is extended in height or width to the aspect ratio of the crop,
never distorted, enlarged about its centre by 1.25, or in training by a factor
of 1 to 1.5, and resized to 353 x 257.

One affine map, A, serves image, keypoints and `crop_to_image`: (y, x) of the
original image = A @ (y', x', 1) of the crop, in pixel edges. The image may be
decoded smaller than the original, or resized before; boxes are in pixels of the
original.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from big_vision_like.config.option_types import AtLeast, Between, Count
from input_pipeline.examples import fields
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops import geometry, targets, windows
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared

Factor = Annotated[float, Between(0.1, 10)]
_DROPPED = frozenset(fields.ANNOTATIONS) - {'original_size', 'image_id'}


class CropPerson(Declared):
  """Image and keypoints of the person that a record is of.

  Makes `image` uint8 [height, width, 3]; `person_keypoints` float32 [K, 3],
  all 0 where the box is not of the truth or the data have no keypoints;
  `other_keypoints` float32 [max_others, K, 3] of the other people with a
  labelled keypoint in the crop or within `margin` pixels of it; and
  `crop_to_image`. Labelled keypoints outside the crop keep their place; others
  are (0, 0, 0). The fields of the image's boxes are dropped.

  A box without an area, one outside its image, and one of which the image is
  smaller than a pixel of the crop make bad examples.

  Args (options):
    size: height and width of the crop, or pixels of a side.
    enlarge: factor of the box's sides about its centre, or (low, high) of a
      uniformly random one.
    fill: grey level or [r, g, b], 0 to 255, of what lies outside the image.
      Default: 128, which is 0 on the device.
    flip: mirror one half of the crops; left and right keypoints change places.
    rotate: degrees at most, to either side, about the centre of the box;
      uniformly random.
    max_others: P. More people beside them make a bad example.
    margin: pixels of the crop around it in which others' keypoints count: the
      radius of the discs of the task.
    num_keypoints: K; default: what the data say.
  """

  reads = frozenset(
    {
      'image', 'original_size', 'person', 'person_box', 'person_score',
      'keypoints',
    }
  )  # fmt: skip
  makes = frozenset(
    {
      'image', 'person_keypoints', 'other_keypoints', 'crop_to_image',
      'person', 'person_box', 'person_score',
    }
  )  # fmt: skip
  does_without = frozenset({'keypoints'})
  needs_whole = True
  reframes = True

  def __init__(
    self,
    context: OpContext,
    *,
    size: geometry.Size = (353, 257),
    enlarge: Factor | tuple[Factor, Factor] = 1.25,
    fill: targets.Fill = targets.GREY,
    flip: bool = False,
    rotate: Annotated[float, Between(0, 180)] = 0.0,
    max_others: Annotated[int, AtLeast(0)] = 30,
    margin: Annotated[float, AtLeast(0)] = 25.0,
    num_keypoints: Count | None = None,
  ):
    self.where = context.where
    self.height, self.width = geometry.sides(size)
    single = isinstance(enlarge, int | float)
    pair = (enlarge, enlarge) if single else enlarge
    self.enlarge = geometry.rising(context.where, 'enlarge', pair)
    self.fill = np.array(fill, np.uint8)
    self.flip, self.rotate = bool(flip), float(rotate)
    self.max_others, self.margin = int(max_others), float(margin)
    self.num_keypoints = num_keypoints or context.num_keypoints
    self.pairs = context.keypoint_pairs

  @classmethod
  def without_chance(cls, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The middle of the factors, neither mirrored nor turned."""
    kept = {k: v for k, v in options.items() if k not in ('flip', 'rotate')}
    given = kept.get('enlarge')
    if given is not None and not isinstance(given, int | float):
      kept['enlarge'] = sum(given) / 2
    return [kept]

  def deterministic(self) -> bool:
    low, high = self.enlarge
    return low == high and not self.flip and not self.rotate

  def size_after(self, height: int, width: int) -> tuple[int, int]:
    return self.height, self.width

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    image = example['image']
    if 'original_size' not in example:
      raise ValueError(
        f'{self.where}: the original size is not known; put decode before'
      )
    if 'person_box' not in example:
      raise ValueError(
        f'{self.where}: the record is of no person; its source must be one of '
        "people: dict(type='people', of=...)"
      )
    original = np.asarray(example['original_size'], np.float64)
    ratio = np.array(image.shape[:2]) / original  # of the image to its original
    box = np.asarray(example['person_box'], np.float64)
    _check_box(box, original)
    to_original, flip = self._map(box, rng)
    out = {n: v for n, v in example.items() if n not in _DROPPED}
    return out | {
      'image': self._pixels(image, to_original, ratio, flip),
      'crop_to_image': to_original.astype(np.float32),
      **self._keypoints(example, to_original, ratio, flip),
    }

  def _map(
    self, box: np.ndarray, rng: np.random.Generator
  ) -> tuple[np.ndarray, bool]:
    """(float64 [2, 3] from the crop to the original image, mirrored?)."""
    low, high = self.enlarge
    factor = low if low == high else rng.uniform(low, high)
    flip = bool(self.flip and rng.random() < 0.5)
    angle = rng.uniform(-self.rotate, self.rotate) if self.rotate else 0.0
    size = np.array([self.height, self.width])
    # Pixels of the original to one of the crop, the same along both axes.
    pitch = factor * np.max((box[2:] - box[:2]) / size)
    c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    linear = (
      pitch * np.array([[c, s], [-s, c]]) @ np.diag([1, -1 if flip else 1])
    )
    centre = (box[:2] + box[2:]) / 2
    return np.column_stack([linear, centre - linear @ (size / 2)]), flip

  def _pixels(
    self,
    image: np.ndarray,
    to_original: np.ndarray,
    ratio: np.ndarray,
    flip: bool,
  ) -> np.ndarray:
    """uint8 [height, width, 3]."""
    to_image = to_original * ratio[:, None]
    pitch = np.linalg.norm(to_original[:, 0]) * ratio
    if (pitch >= image.shape[:2]).any():
      raise BadExample(
        f'a pixel of the crop is {pitch[0]:.4g}x{pitch[1]:.4g} pixels of an '
        f'image of {image.shape[0]}x{image.shape[1]}: the box is far larger'
      )
    if not any(image.strides):  # a blank
      return np.broadcast_to(image[:1, :1], (self.height, self.width, 3))
    if self.rotate:
      return windows.turned(
        image, to_image, (self.height, self.width), tuple(pitch), self.fill
      )
    top, left = to_image @ (0, self.width if flip else 0, 1)
    found = windows.upright(
      image,
      windows.Span(top, pitch[0], self.height),
      windows.Span(left, pitch[1], self.width),
      self.fill,
    )
    return np.ascontiguousarray(found[:, ::-1]) if flip else found

  def _keypoints(
    self, example: dict, to_original: np.ndarray, ratio: np.ndarray, flip: bool
  ) -> dict[str, np.ndarray]:
    """`person_keypoints` and `other_keypoints`."""
    num = self._num_keypoints(example)
    everyone = example.get('keypoints', np.zeros((0, num, 3), np.float32))
    if not len(everyone):
      everyone = np.zeros((0, num, 3), np.float32)
    if everyone.shape[1] != num:
      raise ValueError(
        f'{self.where}: num_keypoints={num}, but the record has '
        f'{everyone.shape[1]}'
      )
    person = int(example['person'])
    if person >= len(everyone) and 'keypoints' in example:
      raise ValueError(
        f'{self.where}: person {person} of a record of {len(everyone)} boxes'
      )
    moved = self._moved(everyone, to_original, ratio, flip)
    own = np.zeros((num, 3), np.float32)
    if 0 <= person < len(moved):
      own = moved[person]
    others = np.zeros((self.max_others, num, 3), np.float32)
    near = self._near(moved)
    near[person : person + 1] = False
    if near.sum() > self.max_others:
      raise BadExample(
        f'{near.sum()} other people do not fit into '
        f'max_others={self.max_others} of {self.where}'
      )
    others[: near.sum()] = moved[near]
    return {'person_keypoints': own, 'other_keypoints': others}

  def _num_keypoints(self, example: dict) -> int:
    if self.num_keypoints is not None:
      return self.num_keypoints
    if not len(example.get('keypoints', ())):
      raise ValueError(
        f'{self.where}: the data do not say how many keypoints a person has; '
        'set num_keypoints'
      )
    return example['keypoints'].shape[1]

  def _moved(
    self,
    keypoints: np.ndarray,
    to_original: np.ndarray,
    ratio: np.ndarray,
    flip: bool,
  ) -> np.ndarray:
    """float32 [N, K, 3] in pixels of the crop, of [N, K, 3] of the image."""
    place = keypoints[..., :2].astype(np.float64) / ratio - to_original[:, 2]
    place = place @ np.linalg.inv(to_original[:, :2]).T
    moved = np.concatenate([place, keypoints[..., 2:]], axis=-1)
    moved = np.where(keypoints[..., 2:] > 0, moved, 0).astype(np.float32)
    if not self.flip:
      return moved
    order = self._order(keypoints.shape[1])  # chance must not hide a mistake
    return moved[:, order] if flip else moved

  def _order(self, num: int) -> np.ndarray:
    """intp [num]: which keypoint comes to each place of a mirror image."""
    if self.pairs is None:
      raise ValueError(
        f'{self.where}: flip=True, but the data do not say which keypoints are '
        "left and right of each other; say it by the source's keypoint_pairs"
      )
    order = np.arange(num)
    for left, right in self.pairs:
      if max(left, right) >= num:
        raise ValueError(
          f'{self.where}: the pair ({left}, {right}) of {num} keypoints'
        )
      order[left], order[right] = right, left
    return order

  def _near(self, moved: np.ndarray) -> np.ndarray:
    """bool [N]: people with a labelled keypoint within the margin."""
    limit = np.array([self.height, self.width]) + self.margin
    place = moved[..., :2]
    inside = (place >= -self.margin).all(-1) & (place <= limit).all(-1)
    return np.any(inside & (moved[..., 2] > 0), axis=1)


def _check_box(box: np.ndarray, size: np.ndarray) -> None:
  """BadExample where a crop of a box would show nothing."""
  shown = [round(float(n), 2) for n in box]
  if not np.isfinite(box).all() or (box[2:] <= box[:2]).any():
    raise BadExample(f'the box {shown} of the person has no area')
  if (box[2:] <= 0).any() or (box[:2] >= size).any():
    raise BadExample(
      f'the box {shown} of the person lies outside its image of '
      f'{int(size[0])}x{int(size[1])}'
    )
