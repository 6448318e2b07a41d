"""Options of a synthetic world, each checked when it is built."""

import dataclasses

import numpy as np

from input_pipeline.synthetic_world import taxonomy
from input_pipeline.synthetic_world.appearance import TEXTURES

MAX_CLASSES, MAX_DEPTH = 50_000, 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """What defines a world. The first block decides labels and looks alone.

  Attributes:
    num_classes: labels of the vocabulary, inner ones included.
    depth: links from a top-level group to the deepest leaf, 0..12 (0: no
      hierarchy); None: what suits the number of classes (100: 2, 18,291: 5).
    groups: top-level labels (about: one more where the sizes ask for it); None:
      0.8 sqrt(num_classes), at most 24.
    fan_out: mean children of an inner label; None: what fills the tree evenly,
      at least 2.5.
    broadest: children of one label in the largest group; 0: no such label.
    traits: labels such as 'striped' that stand above leaves of any group, so
      that the hierarchy is a DAG; at most as many as textures occur.
    spread: how far children stray from their parent's looks; below 1 classes
      are harder to tell apart.
    seed: of everything.

    zipf: exponent of the class frequencies; 0 makes leaves equally frequent.
    tail: exponent of their fall at the end: of L leaves the one of rank r is as
      frequent as r^-zipf (L + 1 - r)^tail; 0: Zipf's law to the end.
    theme: probability that an object follows the scene's top-level group.
    max_objects: objects of a scene, 1..max_objects.
    clutter: strength of background, distractors, light and pixel noise.
    noise: share of wrong raw labels.
    neighbour_noise: share of the wrong labels that name a near class.
    coarse: share of the right raw labels that name an ancestor instead of the
      leaf class.
    labels_per_image: mean number of raw labels; None: 1.26 or as many as the
      scenes have to offer.
    recall: share of the leaf classes shown that get a raw label, instead of
      labels_per_image.
    num_keypoints: keypoints of an object.
  """

  num_classes: int = 100
  depth: int | None = None
  groups: int | None = None
  fan_out: float | None = None
  broadest: int = 0
  traits: int = 0
  spread: float = 1.0
  seed: int = 0
  zipf: float = 1.0
  tail: float = 0.0
  theme: float = 0.7
  max_objects: int = 4
  clutter: float = 1.0
  noise: float = 0.2
  neighbour_noise: float = 0.8
  coarse: float = 0.05
  labels_per_image: float | None = None
  recall: float | None = None
  num_keypoints: int = 17

  def __post_init__(self):
    """Checks every option.

    Raises:
      ValueError: naming the option, its value and what is valid.
    """
    for name, (low, high) in _INTEGERS.items():
      check_integer(name, getattr(self, name), low, high, _optional(name))
    for name, (low, high) in _NUMBERS.items():
      value = _checked_number(name, getattr(self, name), low, high)
      object.__setattr__(self, name, value)
    if self.labels_per_image is not None and self.recall is not None:
      raise ValueError(
        'synthetic world: labels_per_image and recall say the same thing; '
        f'give one of them (got {self.labels_per_image} and {self.recall})'
      )
    if not self.tree_depth:
      for name in ('groups', 'fan_out', 'broadest', 'traits'):
        if getattr(self, name):
          raise ValueError(
            f'synthetic world: {name}={getattr(self, name)} needs a hierarchy, '
            'but depth=0'
          )
    self._check_room()

  def _check_room(self) -> None:
    """Raises ValueError unless the tree has enough labels."""
    taken = self.traits + (self.broadest + 1 if self.broadest else 0)
    least = taken + taxonomy.smallest(self.tree_depth, self.groups or 2)
    if self.num_classes < least:
      named = {
        name: getattr(self, name) for name in ('groups', 'broadest', 'traits')
      }
      extra = ''.join(f', {k}={v}' for k, v in named.items() if v)
      raise ValueError(
        f'synthetic world: num_classes={self.num_classes} is too few for '
        f'depth={self.tree_depth}{extra}: at least {least}'
      )

  @property
  def tree_depth(self) -> int:
    """`depth`, or what suits the number of classes."""
    if self.depth is not None:
      return self.depth
    return taxonomy.default_depth(self.num_classes)

  @property
  def num_groups(self) -> int:
    """`groups`, or what suits the number of classes."""
    if self.groups is not None:
      return self.groups
    return int(np.clip(round(0.8 * self.num_classes**0.5), 2, 24))

  @property
  def children(self) -> float:
    """`fan_out`, or what fills the tree evenly."""
    if self.fan_out is not None:
      return self.fan_out
    per_group = self.num_classes / self.num_groups
    return max(2.5, per_group ** (1 / max(self.tree_depth, 1)))


# Smallest and largest value.
_INTEGERS = {
  'num_classes': (2, MAX_CLASSES),
  'depth': (0, MAX_DEPTH),
  'groups': (2, MAX_CLASSES),
  'broadest': (0, MAX_CLASSES),
  'traits': (0, len(TEXTURES)),
  'seed': (0, 2**63 - 1),
  'max_objects': (1, 16),
  'num_keypoints': (1, 64),
}
_NUMBERS = {
  'fan_out': (2, MAX_CLASSES),
  'spread': (0, 4),
  'zipf': (0, 4),
  'tail': (0, 8),
  'theme': (0, 1),
  'clutter': (0, 4),
  'noise': (0, 1),
  'neighbour_noise': (0, 1),
  'coarse': (0, 1),
  'labels_per_image': (1, 16),
  'recall': (0, 1),
}


def _optional(name: str) -> bool:
  return Options.__dataclass_fields__[name].default is None


def check_integer(
  name: str, value: int | None, low: int, high: int, optional: bool = False
) -> None:
  """Raises ValueError unless `value` is an integer in low..high."""
  if value is None and optional:
    return
  integral = isinstance(value, (int, np.integer))
  if not integral or isinstance(value, bool) or not low <= value <= high:
    raise ValueError(
      f'synthetic world: {name} must be an integer in {low}..{high}'
      f'{" or None" if optional else ""}, got {value!r}'
    )


def _checked_number(
  name: str, value: float | None, low: float, high: float
) -> float | None:
  if value is None and _optional(name):
    return None
  real = isinstance(value, (int, float, np.integer, np.floating))
  if not real or isinstance(value, bool) or not low <= value <= high:
    raise ValueError(
      f'synthetic world: {name} must be a number in {low}..{high}'
      f'{" or None" if _optional(name) else ""}, got {value!r}'
    )
  return float(value)
