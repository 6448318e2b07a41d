"""Draws a scene in numpy: image, instance map, boxes and keypoints.

Each shape is computed in the window that it can touch, in its own rotated
frame: (u, v) in units of its radius, t = distance over the outline's radius in
that direction (0 at the centre, 1 on the outline). Planes are [3, H, W] while
drawing; nothing loops over pixels.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from input_pipeline.labels.space import Skeleton
from input_pipeline.synthetic_world import texture
from input_pipeline.synthetic_world.appearance import BINS, Look
from input_pipeline.synthetic_world.scene import Distractor, Scene, Thing

MIN_SIZE, MAX_SIZE = 16, 1024
_HALO = 1.12  # shapes plus their shadow, in radii
_EYE = 0.14  # radius of the eye, in radii
_SIGMA = 0.05  # of each keypoint: its share of an object's size, as in COCO
_GRAIN = np.random.Generator(np.random.Philox(1707)).standard_normal(
  1 << 20, dtype=np.float32
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rendered:
  """An image and the truth about its N objects, in the scene's order.

  Attributes:
    image: uint8 [H, W, 3].
    instance_map: int16 [H, W], 1 + position of the object seen, 0 elsewhere.
    boxes: float32 [N, 4], (ymin, xmin, ymax, xmax) in pixels around the
      visible part, the maxima exclusive; zeros if nothing is visible.
    classes: int32 [N] leaf label ids.
    keypoints: float32 [N, K, 3], (y, x, visibility) in pixels, pixel centres
      at .5; visibility as in COCO: 2 seen, 1 hidden by something, 0 outside
      the image (y and x are 0 then).
    masks: bool [N, H, W], amodal (hidden parts included), or None.
  """

  image: np.ndarray
  instance_map: np.ndarray
  boxes: np.ndarray
  classes: np.ndarray
  keypoints: np.ndarray
  masks: np.ndarray | None


def render(
  scene: Scene,
  looks: Sequence[Look],
  size: int,
  num_keypoints: int,
  amodal: bool = False,
) -> Rendered:
  """Draws a scene at size x size pixels, with all the truth about it.

  Args:
    scene: what to draw.
    looks: appearance of each of its objects.
    size: side of the image in pixels.
    num_keypoints: K, keypoints of an object.
    amodal: also return the whole mask of each object.
  """
  n = len(scene.objects)
  masks = np.zeros((n, size, size), bool) if amodal else None
  image, instances = draw_image(scene, looks, size, masks)
  keypoints = np.zeros((n, num_keypoints, 3), np.float32)
  for i, (thing, look) in enumerate(zip(scene.objects, looks)):
    keypoints[i] = _keypoints(thing, look, size, num_keypoints)
  _see(keypoints, instances)
  return Rendered(
    image=image,
    instance_map=instances,
    boxes=_boxes(instances, n),
    classes=np.array([t.label for t in scene.objects], np.int32),
    keypoints=keypoints,
    masks=masks,
  )


def draw_image(
  scene: Scene,
  looks: Sequence[Look],
  size: int,
  masks: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Draws a scene; less work than `render`.

  Args:
    scene, looks, size: see render.
    masks: bool [N, size, size] to fill with the objects' whole masks.

  Returns:
    image uint8 [size, size, 3] and instance_map int16 [size, size].
  """
  canvas = _background(scene, size)
  for shape in scene.behind:
    _paint_distractor(canvas, None, shape)
  instances = np.zeros((size, size), np.int16)
  for i, (thing, look) in enumerate(zip(scene.objects, looks)):
    painted = _paint(canvas, thing, look, scene.light)
    for window, inside in (painted, _paint_eye(canvas, thing, look)):
      instances[window][inside] = i + 1
      if masks is not None:
        masks[i][window] |= inside
  for shape in scene.before:
    _paint_distractor(canvas, instances, shape)
  return _develop(canvas, scene), instances


def largest_class(scene: Scene, instances: np.ndarray) -> int:
  """The leaf class with most pixels in an instance map of the scene.

  Of equal ones the class of the object of larger radius; so too where nothing
  can be seen.
  """
  pixels = np.bincount(instances.ravel(), minlength=len(scene.objects) + 1)
  area = dict.fromkeys(scene.labels, 0)
  for thing, seen in zip(scene.objects, pixels[1:].tolist()):
    area[thing.label] += seen
  return max(area, key=area.__getitem__)


@functools.lru_cache(maxsize=64)
def _centres(size: int) -> np.ndarray:
  """Pixel centres in units of the side: float32 [size]."""
  grid = ((np.arange(size) + 0.5) / size).astype(np.float32)
  grid.setflags(write=False)
  return grid


@functools.lru_cache(maxsize=64)
def _upsampling(size: int, points: int) -> np.ndarray:
  """Linear interpolation from a grid of points: float32 [size, points]."""
  place = _centres(size)[:, None] * (points - 1)
  weight = np.clip(1 - np.abs(place - np.arange(points)), 0, 1)
  weight = weight.astype(np.float32)
  weight.setflags(write=False)
  return weight


def _background(scene: Scene, size: int) -> np.ndarray:
  planes = scene.backdrop[:, None, None]
  for grid in (scene.coarse, scene.fine):
    up = _upsampling(size, grid.shape[1])
    rows = grid.reshape(-1, grid.shape[2]) @ up.T
    planes = planes + up @ rows.reshape(3, -1, size)
  return planes


def _develop(canvas: np.ndarray, scene: Scene) -> np.ndarray:
  """Illumination, pixel noise, and 8 bits."""
  canvas *= scene.gain[:, None, None] * np.float32(255)
  if scene.grain:
    noise = _noise(scene.grain_seed, canvas.size).reshape(canvas.shape)
    canvas += noise * np.float32(255 * scene.grain)
  canvas += np.float32(0.5)
  np.maximum(canvas, 0, out=canvas)
  np.minimum(canvas, 255, out=canvas)
  image = np.empty((*canvas.shape[1:], 3), np.uint8)
  for channel in range(3):
    image[..., channel] = canvas[channel]
  return image


def _noise(place: float, count: int) -> np.ndarray:
  """`count` numbers of a fixed normal noise, from a place in [0, 1)."""
  if count > len(_GRAIN) // 2:
    return np.resize(_GRAIN[int(place * 1000) :], count)
  start = int(place * (len(_GRAIN) - count))
  return _GRAIN[start : start + count]


def _window(y: float, x: float, reach: float, size: int) -> tuple[slice, slice]:
  """Rows and columns that a disc touches, clipped to the image."""
  top = min(max(int((y - reach) * size), 0), size)
  left = min(max(int((x - reach) * size), 0), size)
  bottom = max(min(int((y + reach) * size) + 2, size), top)
  right = max(min(int((x + reach) * size) + 2, size), left)
  return slice(top, bottom), slice(left, right)


def _frame(
  shape: Thing | Distractor, window: tuple[slice, slice], size: int
) -> tuple[np.ndarray, np.ndarray]:
  """(u, v) of the window's pixels in the shape's own frame, in radii."""
  grid = _centres(size)
  dy = (grid[window[0], None] - np.float32(shape.y)) / np.float32(shape.radius)
  dx = (grid[None, window[1]] - np.float32(shape.x)) / np.float32(shape.radius)
  c, s = np.float32(math.cos(shape.angle)), np.float32(math.sin(shape.angle))
  return dx * c + dy * s, dy * c - dx * s


def _paint(
  canvas: np.ndarray,
  thing: Thing,
  look: Look,
  light: tuple[float, float],
) -> tuple[tuple[slice, slice], np.ndarray]:
  """Paints an object; returns its window and mask within the window."""
  size = canvas.shape[1]
  window = _window(thing.y, thing.x, thing.radius * _HALO, size)
  u, v = _frame(thing, window, size)
  w = v * np.float32(1 / look.aspect)
  theta = np.arctan2(w, u)
  turn = theta * np.float32(BINS / (2 * np.pi)) + np.float32(BINS)
  edge = look.profile[turn.astype(np.int32) & (BINS - 1)]  # in this direction
  reach = np.sqrt(u * u + w * w)
  sharp = np.float32(max(thing.radius * size, 1))
  alpha = _unit((edge - reach) * sharp + np.float32(0.5))
  if look.hole:
    inner = reach - np.float32(look.hole) * edge
    alpha *= _unit(inner * sharp + np.float32(0.5))
  t = reach / edge
  planes = texture.colors(look, thing, u, v, t, theta)
  # A dome lit from one side, and a darker rim.
  c, s = math.cos(thing.angle), math.sin(thing.angle)
  shade = u * np.float32(light[0] * c + light[1] * s)
  shade += v * np.float32(light[1] * c - light[0] * s)
  square = np.minimum(t * t, 1)
  shade -= square * np.float32(0.12)
  square *= square
  square *= square  # t^8
  shade -= square * np.float32(look.rim)
  shade += np.float32(1)
  planes *= shade
  # The shadow: a soft dark halo under the object.
  under = canvas[:, window[0], window[1]]
  halo = np.minimum(np.maximum(np.float32(_HALO) - reach, 0), 0.25)
  under *= 1 - halo * np.float32(1.2)
  planes -= under
  planes *= alpha
  under += planes
  return window, alpha > np.float32(0.5)


def _unit(x: np.ndarray) -> np.ndarray:
  """Clips to 0..1 in place."""
  np.maximum(x, 0, out=x)
  return np.minimum(x, 1, out=x)


def _paint_eye(
  canvas: np.ndarray, thing: Thing, look: Look
) -> tuple[tuple[slice, slice], np.ndarray]:
  """A white disc with a black pupil near angle 0: it says where front is."""
  size = canvas.shape[1]
  away = _along(look) * float(look.profile[0]) * thing.radius
  y = thing.y + away * math.sin(thing.angle)
  x = thing.x + away * math.cos(thing.angle)
  radius = np.float32(_EYE * thing.radius * size)
  window = _window(y, x, _EYE * thing.radius, size)
  grid = _centres(size)
  dy = (grid[window[0], None] - np.float32(y)) * np.float32(size)
  dx = (grid[window[1]] - np.float32(x)) * np.float32(size)
  inward = radius - np.sqrt(dy * dy + dx * dx) + np.float32(0.5)  # pixels
  pupil = _unit(inward - np.float32(0.45) * radius)
  white = _unit(inward)
  under = canvas[:, window[0], window[1]]
  under += white * (np.float32(0.97) * (1 - pupil) - under)
  return window, white > np.float32(0.5)


def _along(look: Look) -> float:
  """Where keypoints lie between centre (or hole) and outline: t in (0, 1)."""
  return look.hole + 0.7 * (1 - look.hole)


def _paint_distractor(
  canvas: np.ndarray, instances: np.ndarray | None, shape: Distractor
) -> None:
  """Paints a shape of no class, over the instances if they are given."""
  size = canvas.shape[1]
  window = _window(shape.y, shape.x, shape.radius * 1.05, size)
  u, v = _frame(shape, window, size)
  v *= np.float32(1 / shape.aspect)
  reach = np.sqrt(u * u + v * v)
  if shape.lobes:
    wave = np.cos(np.arctan2(v, u) * shape.lobes)
    reach += (wave + 1) * np.float32(shape.depth)
  sharp = np.float32(max(shape.radius * size * shape.aspect, 1))
  alpha = _unit((1 - reach) * sharp + np.float32(0.5))
  if instances is not None:
    instances[window][alpha > 0.5] = 0
  alpha *= np.float32(shape.opacity)
  under = canvas[:, window[0], window[1]]
  under += alpha * (np.array(shape.color, np.float32)[:, None, None] - under)


def _keypoints(thing: Thing, look: Look, size: int, num: int) -> np.ndarray:
  """(y, x, 1) in pixels of the canonical points: float32 [K, 3].

  Point 0 is the eye; point i = 1..K-1 lies at angle 2 pi (i - 1/2) / (K - 1)
  from it, seven tenths of the way from centre (or hole) to outline. Point i
  and K - i are a left-right pair about the axis through the eye.
  """
  turns = np.concatenate([[0.0], (np.arange(1, num) - 0.5) / max(num - 1, 1)])
  theta = 2 * np.pi * turns
  bins = np.round(turns * BINS).astype(int) % BINS
  r = _along(look) * look.profile[bins]
  u, v = r * np.cos(theta), r * np.sin(theta) * look.aspect
  c, s = np.cos(thing.angle), np.sin(thing.angle)
  y = (thing.y + thing.radius * (u * s + v * c)) * size
  x = (thing.x + thing.radius * (u * c - v * s)) * size
  return np.stack([y, x, np.ones(num)], -1).astype(np.float32)


def unseen_box(thing: Thing, look: Look, size: int) -> np.ndarray:
  """(y0, x0, y1, x1) in pixels about an outline, whatever hides it."""
  theta = 2 * np.pi * np.arange(BINS) / BINS
  u = look.profile * np.cos(theta)
  v = look.profile * np.sin(theta) * look.aspect
  c, s = np.cos(thing.angle), np.sin(thing.angle)
  y = (thing.y + thing.radius * (u * s + v * c)) * size
  x = (thing.x + thing.radius * (u * c - v * s)) * size
  corners = np.array([y.min(), x.min(), y.max(), x.max()])
  return corners.clip(0, size).astype(np.float32)


def num_inside(thing: Thing, look: Look, size: int, num: int) -> int:
  """How many of its `num` keypoints lie in the image."""
  place = np.floor(_keypoints(thing, look, size, num)[:, :2])
  return int(((place >= 0) & (place < size)).all(axis=1).sum())


def skeleton(num: int) -> Skeleton:
  """The `num` keypoints of `_keypoints`: 'eye', 'rim1', 'rim2', ..."""
  return Skeleton(
    names=('eye', *(f'rim{i}' for i in range(1, num))),
    pairs=tuple((i, num - i) for i in range(1, (num + 1) // 2)),
    sigmas=(_SIGMA,) * num,
  )


def _see(keypoints: np.ndarray, instances: np.ndarray) -> None:
  """Fills in the visibility of keypoints [N, K, 3] in place."""
  size = instances.shape[0]
  place = np.floor(keypoints[..., :2]).astype(np.int64)
  outside = ((place < 0) | (place >= size)).any(-1)
  place = np.clip(place, 0, size - 1)
  owner = instances[place[..., 0], place[..., 1]]
  own = owner == np.arange(1, len(keypoints) + 1)[:, None]
  keypoints[..., 2] = np.where(own, 2, 1)
  keypoints[outside] = 0


def _boxes(instances: np.ndarray, num: int) -> np.ndarray:
  """Tight boxes of what is visible: float32 [num, 4]."""
  boxes = np.zeros((num, 4), np.float32)
  for i in range(num):
    seen = instances == i + 1
    rows = np.flatnonzero(seen.any(1))
    if len(rows):
      columns = np.flatnonzero(seen.any(0))
      boxes[i] = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
  return boxes
