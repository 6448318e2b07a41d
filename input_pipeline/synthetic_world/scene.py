"""What is in an image: classes, poses, clutter and light, all drawn at once.

Positions and sizes are in units of the image's side, so a scene can be drawn
at any resolution. Objects stand largest first, which is also the order in which
they are painted: a small object may hide part of a large one, never the other
way round, and none hides another one's centre.
"""

import dataclasses
import math

import numpy as np

from input_pipeline.synthetic_world.appearance import rgb
from input_pipeline.synthetic_world.frequency import Frequency

_DARTS = 10  # positions tried for an object
_APART = 0.75  # wanted distance of two objects, in sums of their radii
_NEAREST = 0.55  # the objects shrink rather than come nearer
_HUDDLE = 0.4  # share of objects that stand partly before the one before
_INSIDE = 0.55  # distance of a centre from the image's edge, in radii
_COARSE, _FINE = 4, 11  # grid points of the background's two layers


@dataclasses.dataclass(frozen=True, slots=True)
class Thing:
  """One object of a class.

  Attributes:
    label: id of its leaf class in the vocabulary.
    y, x, radius: centre and size, in units of the image's side.
    angle: rotation in radians.
    phase: shift of the texture, in radians.
    tint: float32 [3], colour factor of this individual.
    zoom: factor on the texture's frequency.
  """

  label: int
  y: float
  x: float
  radius: float
  angle: float
  phase: float
  tint: np.ndarray
  zoom: float


@dataclasses.dataclass(frozen=True, slots=True)
class Distractor:
  """A plain, muted shape of no class; see Thing for the pose."""

  y: float
  x: float
  radius: float
  angle: float
  aspect: float
  lobes: int
  depth: float
  color: tuple[float, float, float]
  opacity: float


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Scene:
  """Everything that decides an image but its resolution.

  Attributes:
    objects: things, largest first, in the order of painting.
    behind, before: distractors painted before and after the objects.
    backdrop: float32 [3], mean colour of the background.
    coarse, fine: float32 [3, n, n], noise of the background.
    light: (cos, sin) of where the light comes from, times its strength.
    gain: float32 [3], illumination of the whole image.
    grain: strength of the pixel noise.
    grain_seed: where the pixel noise starts, in [0, 1).
  """

  objects: tuple[Thing, ...]
  behind: tuple[Distractor, ...]
  before: tuple[Distractor, ...]
  backdrop: np.ndarray
  coarse: np.ndarray
  fine: np.ndarray
  light: tuple[float, float]
  gain: np.ndarray
  grain: float
  grain_seed: float

  @property
  def labels(self) -> list[int]:
    """Distinct leaf classes shown, the largest object's first."""
    return list(dict.fromkeys(thing.label for thing in self.objects))


def draw(
  frequency: Frequency, clutter: float, rng: np.random.Generator
) -> Scene:
  """Draws a scene.

  Args:
    frequency: class frequencies and number of objects.
    clutter: strength of all that makes an image hard and says nothing about
      its classes: distractors, background, light, pixel noise; 0 for none.
    rng: the image's own generator.
  """
  objects = _objects(frequency, rng)
  number, before = rng.poisson((1.5 * clutter, 0.3 * clutter))
  u = rng.random(9).tolist()
  tone = rng.standard_normal((4, _COARSE**2 + _FINE**2), dtype=np.float32)
  # Light and dark vary most, colour less.
  tone = tone[:1] + np.float32(0.45) * tone[1:]
  coarse = tone[:, : _COARSE**2].reshape(3, _COARSE, _COARSE)
  fine = tone[:, _COARSE**2 :].reshape(3, _FINE, _FINE)
  strength = 0.10 + 0.22 * u[3]
  backdrop = rgb(u[0], 0.05 + 0.35 * u[1], 0.25 + 0.6 * u[2])
  glow = min(clutter, 1.5)
  gain = [1 + glow * (0.45 * (u[4] - 0.6) + 0.12 * (x - 0.5)) for x in u[5:8]]
  return Scene(
    objects=objects,
    behind=_distractors(number, 1.0, rng),
    before=_distractors(before, 0.45, rng),
    backdrop=np.array(backdrop, np.float32),
    coarse=coarse * np.float32(0.12 * glow),
    fine=fine * np.float32(0.06 * glow),
    light=_polar(strength, 2 * np.pi * rng.random()),
    gain=np.array(gain, np.float32),
    grain=0.025 * clutter,
    grain_seed=u[8],
  )


def _polar(radius: float, angle: float) -> tuple[float, float]:
  return radius * math.cos(angle), radius * math.sin(angle)


def _objects(
  frequency: Frequency, rng: np.random.Generator
) -> tuple[Thing, ...]:
  u = rng.random(2)
  ends = np.cumsum(frequency.num_objects)
  n = min(int(np.searchsorted(ends, u[0], 'right')) + 1, len(ends))
  tree = frequency.taxonomy
  leaf = int(frequency.draw(u[1]))
  theme = tree.group_label[tree.group[tree.leaves[leaf]]]
  v = rng.random((n, 10))
  below = np.where(v[:, 0] < frequency.theme, theme, -1)
  labels = tree.leaves[frequency.draw(v[:, 1], below)].tolist()
  largest = 0.40 / np.sqrt(1 + 0.45 * (n - 1))
  radius = np.sort(largest * (0.5 + 0.5 * v[:, 2]))[::-1]
  darts = rng.random((n, _DARTS, 2))
  place, radius = _place(radius, v[:, 9] < _HUDDLE, darts)
  tint = (0.9 + 0.2 * v[:, 3:6]).astype(np.float32)
  return tuple(
    Thing(
      label=labels[i],
      y=place[i][0],
      x=place[i][1],
      radius=radius[i],
      angle=float(2 * np.pi * v[i, 6]),
      phase=float(2 * np.pi * v[i, 7]),
      tint=tint[i],
      zoom=float(0.88 + 0.24 * v[i, 8]),
    )
    for i in range(n)
  )


def _place(
  radius: np.ndarray, huddles: np.ndarray, darts: np.ndarray
) -> tuple[list[tuple[float, float]], list[float]]:
  """Places circles by throwing darts; shrinks what would still collide.

  Args:
    radius: [n], falling.
    huddles: bool [n], aim at the one before instead of anywhere.
    darts: [n, k, 2], random numbers in [0, 1).

  Returns:
    Centres and radii. Centres lie far enough inside for most of the object.
  """
  centres: list[tuple[float, float]] = []
  radii: list[float] = []
  for i, r in enumerate(radius.tolist()):
    low, high = _INSIDE * r, 1 - _INSIDE * r
    huddle = bool(huddles[i]) and i > 0
    wanted = _NEAREST if huddle else _APART
    best, place = -1.0, (0.5, 0.5)
    for a, b in darts[i].tolist():
      if huddle:
        reach = (_NEAREST + 0.02 + 0.3 * a) * (r + radii[-1])
        dy, dx = _polar(reach, 2 * math.pi * b)
        y = min(max(centres[-1][0] + dy, low), high)
        x = min(max(centres[-1][1] + dx, low), high)
      else:
        y, x = low + a * (high - low), low + b * (high - low)
      gaps = (
        ((y - cy) ** 2 + (x - cx) ** 2) ** 0.5 / (r + cr)
        for (cy, cx), cr in zip(centres, radii)
      )
      gap = min(gaps, default=_APART)
      if gap > best:
        best, place = gap, (y, x)
      if gap >= wanted:
        break
    centres.append(place)
    radii.append(r * min(1.0, max(best, 0.2) / _NEAREST))
  return centres, radii


def _distractors(
  n: int, size: float, rng: np.random.Generator
) -> tuple[Distractor, ...]:
  if not n:
    return ()
  return tuple(
    Distractor(
      y=u[0],
      x=u[1],
      radius=size * (0.08 + 0.3 * u[2]),
      angle=6.2832 * u[3],
      aspect=0.12 + 0.7 * u[4] ** 2,
      lobes=max(int(8 * u[5]) - 2, 0),
      depth=0.3 * u[6],
      color=rgb(u[7], 0.25 * u[8], 0.15 + 0.75 * u[9]),
      opacity=0.35 + 0.6 * u[10],
    )
    for u in rng.random((n, 11)).tolist()
  )


def single(label: int, rng: np.random.Generator) -> Scene:
  """One object of a class in the middle of a plain grey image."""
  u = rng.random(6)
  thing = Thing(
    label=label,
    y=0.5,
    x=0.5,
    radius=0.42,
    angle=float(2 * np.pi * u[0]),
    phase=float(2 * np.pi * u[1]),
    tint=(0.9 + 0.2 * u[2:5]).astype(np.float32),
    zoom=float(0.88 + 0.24 * u[5]),
  )
  return Scene(
    objects=(thing,),
    behind=(),
    before=(),
    backdrop=np.full(3, 0.5, np.float32),
    coarse=np.zeros((3, _COARSE, _COARSE), np.float32),
    fine=np.zeros((3, _FINE, _FINE), np.float32),
    light=(0.0, 0.0),
    gain=np.ones(3, np.float32),
    grain=0.0,
    grain_seed=0.0,
  )
