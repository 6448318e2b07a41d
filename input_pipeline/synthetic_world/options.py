"""Options of a synthetic world, each checked when it is built."""

import dataclasses
from typing import Annotated

import numpy as np

from big_vision_like.config import option_types
from big_vision_like.config.option_types import Between, Fraction, Seed
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

  num_classes: Annotated[int, Between(2, MAX_CLASSES)] = 100
  depth: Annotated[int, Between(0, MAX_DEPTH)] | None = None
  groups: Annotated[int, Between(2, MAX_CLASSES)] | None = None
  fan_out: Annotated[float, Between(2, MAX_CLASSES)] | None = None
  broadest: Annotated[int, Between(0, MAX_CLASSES)] = 0
  traits: Annotated[int, Between(0, len(TEXTURES))] = 0
  spread: Annotated[float, Between(0, 4)] = 1.0
  seed: Seed = 0
  zipf: Annotated[float, Between(0, 4)] = 1.0
  tail: Annotated[float, Between(0, 8)] = 0.0
  theme: Fraction = 0.7
  max_objects: Annotated[int, Between(1, 16)] = 4
  clutter: Annotated[float, Between(0, 4)] = 1.0
  noise: Fraction = 0.2
  neighbour_noise: Fraction = 0.8
  coarse: Fraction = 0.05
  labels_per_image: Annotated[float, Between(1, 16)] | None = None
  recall: Fraction | None = None
  num_keypoints: Annotated[int, Between(1, 64)] = 17

  def __post_init__(self):
    """Checks every option.

    Raises:
      ValueError: naming the option, its value and what is valid.
    """
    option_types.check_fields('', self)
    for name in _FLOATS:  # 1 is the same world as 1.0
      value = getattr(self, name)
      if value is not None:
        object.__setattr__(self, name, float(value))
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


_FLOATS = (
  'fan_out', 'spread', 'zipf', 'tail', 'theme', 'clutter', 'noise',
  'neighbour_noise', 'coarse', 'labels_per_image', 'recall',
)  # fmt: skip
