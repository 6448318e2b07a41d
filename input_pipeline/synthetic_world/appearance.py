"""What each class looks like: attributes inherited down the label tree.

A top-level group gets an outline family, a texture and a palette of its own;
every label below takes its parent's attributes with a perturbation that
shrinks with the level. So groups differ at a glance, cousins in detail, and
siblings are the hard cases, as the labels' confusions are.

All outlines are one formula: a polar radius r(theta), tabulated once per
class. That keeps drawing to a table look-up whatever the family.
"""

import colorsys
import dataclasses

import numpy as np

from input_pipeline.synthetic_world.taxonomy import Taxonomy

BINS = 512  # of an outline over the full turn
_KEPT = 1024  # looks, about 3 KB each
_TURN = (np.arange(BINS) * (2 * np.pi / BINS)).astype(np.float32)

FAMILIES = (
  'flower',
  'box',
  'star',
  'leaf',
  'polygon',
  'gear',
  'cross',
  'drop',
  'pinwheel',
  'heart',
)
TEXTURES = (
  'striped',
  'spotted',
  'ringed',
  'checked',
  'rayed',
  'shaded',
  'spiral',
  'zigzag',
  'marbled',
)

# Continuous attributes, each a latent in [0, 1]: name -> (low, high). `hue` and
# `hue_gap` wrap around.
_RANGES = {
  'hue': (0.0, 1.0),
  'hue_gap': (0.22, 0.78),  # of the second colour, relative to the first
  'saturation': (0.62, 1.0),
  'value': (0.62, 1.0),
  'second_saturation': (0.15, 0.9),
  'second_value': (0.15, 0.95),
  'lobes': (3.0, 9.0),
  'depth': (0.25, 0.75),  # of the lobes, or bluntness
  'aspect': (0.62, 1.0),
  'hole': (-0.35, 0.5),  # inner radius of a ring; none below 0.12
  'frequency': (1.6, 4.6),  # texture periods over the radius
  'slant': (0.0, np.pi),
  'duty': (-0.45, 0.45),  # share of the two colours
  'rim': (0.0, 0.9),  # darkness of the outline
}
_NAMES = tuple(_RANGES)
_HUE_STEP = 0.5  # a family keeps its palette


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
  """Attributes of one leaf class, ready to draw."""

  texture: int
  first: np.ndarray  # float32 [3], RGB in [0, 1]
  second: np.ndarray  # float32 [3]
  profile: np.ndarray  # float32 [BINS], the outline, see `outline`
  aspect: float
  hole: float
  frequency: float
  slant: float
  duty: float
  rim: float


@dataclasses.dataclass(frozen=True, eq=False)
class Appearance:
  """Attributes of every label.

  Attributes:
    family, texture: int8 [C], positions in FAMILIES and TEXTURES.
    latent: float32 [C, A], the continuous attributes in [0, 1].
  """

  family: np.ndarray
  texture: np.ndarray
  latent: np.ndarray
  _looks: dict[int, Look] = dataclasses.field(default_factory=dict, repr=False)

  def look(self, label: int) -> Look:
    """Attributes of one label; those of the last few hundred are kept."""
    look = self._looks.get(label)
    if look is None:
      look = self._make_look(label)
      if len(self._looks) >= _KEPT:
        self._looks.clear()
      self._looks[label] = look
    return look

  def _make_look(self, label: int) -> Look:
    value = {
      name: low + (high - low) * z
      for (name, (low, high)), z in zip(
        _RANGES.items(), self.latent[label].tolist()
      )
    }
    hue, family = value['hue'], int(self.family[label])
    first = rgb(hue, value['saturation'], value['value'])
    second = rgb(
      hue + value['hue_gap'], value['second_saturation'], value['second_value']
    )
    profile = outline(FAMILIES[family], round(value['lobes']), value['depth'])
    return Look(
      texture=int(self.texture[label]),
      first=np.array(first, np.float32),
      second=np.array(second, np.float32),
      profile=profile,
      aspect=value['aspect'],
      hole=value['hole'] if value['hole'] > 0.12 else 0.0,
      frequency=value['frequency'],
      slant=value['slant'],
      duty=value['duty'],
      rim=value['rim'],
    )


def inherit(
  taxonomy: Taxonomy, spread: float, rng: np.random.Generator
) -> Appearance:
  """Draws the attributes of all labels, level by level.

  Args:
    taxonomy: the label tree.
    spread: scale of the perturbations; smaller makes siblings harder to tell
      apart.
    rng: source of all choices.
  """
  num = taxonomy.num_labels
  latent = np.empty((num, len(_NAMES)), np.float32)
  family = np.empty(num, np.int8)
  texture = np.empty(num, np.int8)
  groups = np.flatnonzero(taxonomy.parent < 0)
  latent[groups] = _stratified(len(groups), len(_NAMES), rng)
  family[groups] = _dealt(len(groups), len(FAMILIES), rng)
  texture[groups] = _dealt(len(groups), len(TEXTURES), rng)
  for level in range(1, int(taxonomy.level.max()) + 1):
    here = np.flatnonzero(taxonomy.level == level)
    above = taxonomy.parent[here]
    scale = spread * max(0.2 * 0.7 ** (level - 1), 0.07)
    step = rng.standard_normal((len(here), len(_NAMES)), dtype=np.float32)
    step[:, 0] *= _HUE_STEP
    latent[here] = _fold(latent[above] + scale * step)
    family[here] = family[above]
    change = rng.random(len(here)) < spread * 0.4 * 0.5 ** (level - 1)
    fresh = rng.integers(len(TEXTURES), size=len(here))
    texture[here] = np.where(change, fresh, texture[above])
  return Appearance(family, texture, latent)


def _stratified(n: int, dims: int, rng: np.random.Generator) -> np.ndarray:
  """[n, dims] in [0, 1], each column evenly spread (a Latin hypercube)."""
  ranks = rng.permuted(np.tile(np.arange(n), (dims, 1)), axis=1).T
  return (ranks + rng.uniform(0.25, 0.75, (n, dims))) / n


def _dealt(n: int, kinds: int, rng: np.random.Generator) -> np.ndarray:
  """n kinds, each as often as the others."""
  return np.resize(rng.permutation(kinds), n)


def _fold(z: np.ndarray) -> np.ndarray:
  """Back into [0, 1]: hue wraps around, the others are reflected."""
  folded = 1 - np.abs(1 - z % 2)
  folded[:, 0] = z[:, 0] % 1
  return folded


def rgb(
  hue: float, saturation: float, value: float
) -> tuple[float, float, float]:
  """HSV in [0, 1] (hue wraps) to RGB."""
  return colorsys.hsv_to_rgb(hue % 1, saturation, value)


def outline(family: str, k: int, d: float) -> np.ndarray:
  """Polar radius r(theta) of a class.

  Args:
    family: one of FAMILIES.
    k: number of lobes, where the family has them.
    d: depth of the lobes or bluntness, 0..1.

  Returns:
    float32 [BINS] over the full turn, its maximum 1.
  """
  t = _TURN
  if family == 'flower':
    r = 1 - d * 0.8 * (0.5 - 0.5 * np.cos(k * t))
  elif family == 'box':
    n = 2.4 + 8 * d
    r = (np.abs(np.cos(t)) ** n + np.abs(np.sin(t)) ** n) ** (-1 / n)
  elif family == 'star':
    r = 1 - d * np.abs((k * t / np.pi + 1) % 2 - 1) ** 0.7
  elif family == 'leaf':
    r = 0.3 + 0.7 * np.abs(np.cos(t)) ** (1 + 4 * d)
  elif family == 'polygon':
    k = min(k, 6)  # more corners look like a disc
    r = np.cos(np.pi / k) / np.cos(t % (2 * np.pi / k) - np.pi / k)
  elif family == 'gear':
    r = 1 - 0.5 * d * (0.5 - 0.5 * np.tanh(4 * np.cos((k + 3) * t)))
  elif family == 'cross':
    r = 1 - (0.35 + 0.5 * d) * (1 - np.abs(np.cos(2 * t)) ** 1.5)
  elif family == 'drop':
    r = 0.4 + 0.6 * (0.5 + 0.5 * np.cos(t)) ** (1 + 3 * d)
  elif family == 'pinwheel':
    r = 1 - d * ((k * t / (2 * np.pi)) % 1)
  else:  # heart: a notch at the head, a point at the tail
    half = np.abs(t - np.pi) / np.pi  # 1 at the head, 0 at the tail
    r = 0.62 + 0.38 * np.sin(np.pi * half) - d * 0.55 * half**6
    r = r + 0.35 * (1 - half) ** 4
  return (r / r.max()).astype(np.float32)
