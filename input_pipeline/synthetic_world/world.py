"""A synthetic world: its labels, and image number i of any of its streams.

Everything is a function of (options, seed, stream, index): a counter-based
generator starts at the index, so image 299,999,999 costs as much as image 0,
nothing is stored, and streams cannot overlap because their keys differ.
"""

import numpy as np

from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.synthetic_world import (
  appearance,
  expected_counts,
  frequency,
  raw_labels,
  taxonomy,
  verification,
)
from input_pipeline.synthetic_world.appearance import Look
from input_pipeline.synthetic_world.options import MAX_DEPTH, Options
from input_pipeline.synthetic_world.render import (
  Rendered,
  draw_image,
  num_inside,
  render,
  unseen_box,
)
from input_pipeline.synthetic_world.scene import Scene, draw

STREAMS = ('train', 'val', 'fasteval')
LABELS_PER_IMAGE = 1.26
_WORLD = 255  # stream number of the choices that make the world itself


class World:
  """Labels, looks, scenes, raw labels and images of one synthetic world.

  Attributes:
    options: what defines it.
    taxonomy: the label tree (trait labels, if any, come after it).
    frequency: of the leaf classes.
    appearance: of all labels of the tree.
    hierarchy: the label DAG, traits included.
    labels_per_image: mean number of raw labels.
    names: of the labels.
  """

  def __init__(self, options: Options):
    self.options = o = options
    self.taxonomy = taxonomy.grow(
      o.num_classes - o.traits,
      o.tree_depth,
      self._rng(_WORLD, 0),
      num_groups=o.num_groups,
      fan_out=o.children,
      broadest=o.broadest,
    )
    self.frequency = frequency.zipf(
      self.taxonomy,
      o.zipf,
      o.tail,
      o.theme,
      o.max_objects,
      self._rng(_WORLD, 1),
    )
    self.appearance = appearance.inherit(
      self.taxonomy, o.spread, self._rng(_WORLD, 2)
    )
    self._traits = self._choose_traits(o.traits)
    self.names = self.taxonomy.names + tuple(
      appearance.TEXTURES[kind] for kind in self._traits
    )
    self.hierarchy = Hierarchy.from_edges(
      self.names, self._edges(), max_depth=MAX_DEPTH
    )
    self.labels_per_image, extra = self._labelling()
    self._annotator = raw_labels.Annotator(
      self.frequency,
      self.hierarchy,
      extra,
      o.noise,
      o.neighbour_noise,
      o.coarse,
    )

  def scene(self, index: int, stream: str = 'train') -> Scene:
    """What image `index` of a stream shows, at any resolution."""
    rng = self._rng(STREAMS.index(stream), index)
    return draw(self.frequency, self.options.clutter, rng)

  def render(self, what: Scene, size: int, amodal: bool = False) -> Rendered:
    """Draws a scene at size x size pixels; `amodal` adds whole masks."""
    num_keypoints = self.options.num_keypoints
    return render(what, self._looks(what), size, num_keypoints, amodal)

  def objects(self, what: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
    """What is known of the objects of a scene without drawing it.

    Returns:
      float32 [n, 4] boxes y0, x0, y1, x1 about the whole outlines, cut at the
      image, and int32 [n] keypoints within it.
    """
    boxes = np.zeros((len(what.objects), 4), np.float32)
    inside = np.zeros(len(what.objects), np.int32)
    for i, (thing, look) in enumerate(zip(what.objects, self._looks(what))):
      boxes[i] = unseen_box(thing, look, size)
      inside[i] = num_inside(thing, look, size, self.options.num_keypoints)
    return boxes, inside

  def image(self, what: Scene, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and instance map of `render`, faster."""
    return draw_image(what, self._looks(what), size)

  def true_labels(self, what: Scene) -> np.ndarray:
    """All that is true of a scene, closed: int32 [n], ascending."""
    return self.hierarchy.close(np.array(what.labels, np.int32))

  def raw_labels(
    self, what: Scene, index: int, stream: str = 'train'
  ) -> np.ndarray:
    """Noisy, incomplete labels of a scene: int32 [n], ascending."""
    rng = self._rng(STREAMS.index(stream), index, purpose=1)
    return self._annotator.annotate(what.labels, rng)

  def confidences(
    self, what: Scene, labels: np.ndarray, index: int, stream: str = 'train'
  ) -> np.ndarray:
    """How sure a machine is of the labels of a scene: float32 [n]."""
    rng = self._rng(STREAMS.index(stream), index, purpose=2)
    return verification.confidences(labels, self.true_labels(what), rng)

  def absent_labels(
    self,
    what: Scene,
    labels: np.ndarray,
    number: int,
    index: int,
    stream: str = 'train',
  ) -> np.ndarray:
    """At most `number` leaves verified as absent: int32 [k], ascending.

    Neither true of the scene nor among its labels or their ancestors.
    """
    rng = self._rng(STREAMS.index(stream), index, purpose=3)
    taken = np.union1d(self.true_labels(what), self.hierarchy.close(labels))
    return verification.absent(self.frequency, what.labels, taken, number, rng)

  def vocabulary(self, num_images: int, labels: str = 'raw') -> Vocabulary:
    """Names, expected counts in `num_images` images, popularity weights.

    Weights are the share of images that show a label, descendants included.
    Every second leaf class has a made-up `imagenet_id`, as some labels of JFT
    have real ones.

    Args:
      num_images: of the data.
      labels: what counts count: images with each 'raw' label, with each 'true'
        one, or with each class as their 'single' label; the last as if all
        classes were equally well seen.
    """
    seen = self.frequency.seen()
    for kind in self._traits:
      members = self.appearance.texture[self.taxonomy.leaves] == kind
      seen = np.append(seen, self.frequency.seen(members))
    leaves = self.taxonomy.leaves
    rates = np.zeros(len(seen))
    if labels == 'raw':
      found = expected_counts.label_rates(self._annotator)
      rates[: len(found)] = found
    elif labels == 'single':
      rates[leaves] = self.frequency.leaf
    else:
      rates = seen
    shared = frozenset(leaves[::2].tolist())
    return Vocabulary(
      names=self.names,
      counts=np.rint(rates * num_images).astype(np.int64),
      weights=seen,
      parents=tuple(
        tuple(self.names[p] for p in row) for row in self.hierarchy.parents
      ),
      imagenet_ids=tuple(
        f's{label:08d}' if label in shared else None
        for label in range(len(seen))
      ),
    )

  def _looks(self, what: Scene) -> list[Look]:
    return [self.appearance.look(thing.label) for thing in what.objects]

  def _rng(
    self, stream: int, index: int, purpose: int = 0
  ) -> np.random.Generator:
    key = (self.options.seed << 8) | stream | (purpose << 80)
    # Words of the counter: draws count up in the first, the index is the
    # second, so that two images share no number.
    bits = np.random.Philox(key=key, counter=index << 64)
    return np.random.Generator(bits)

  def _choose_traits(self, number: int) -> list[int]:
    """The textures that most leaves have, by falling number of leaves."""
    leaves = self.taxonomy.leaves
    count = np.bincount(self.appearance.texture[leaves])
    kinds = np.argsort(-count, kind='stable')[: np.count_nonzero(count)]
    if number > len(kinds):
      raise ValueError(
        f'synthetic world: traits={number}, but only {len(kinds)} textures '
        f'occur among {len(leaves)} leaf classes'
      )
    return kinds[:number].tolist()

  def _edges(self) -> list[tuple[str, str]]:
    tree = self.taxonomy
    below = np.flatnonzero(tree.parent >= 0)
    edges = [
      (self.names[child], self.names[parent])
      for child, parent in zip(below.tolist(), tree.parent[below].tolist())
    ]
    for kind in self._traits:
      trait = appearance.TEXTURES[kind]
      members = tree.leaves[self.appearance.texture[tree.leaves] == kind]
      edges += [(self.names[leaf], trait) for leaf in members.tolist()]
    return edges

  def _labelling(self) -> tuple[float, float]:
    """(mean raw labels, probability of labelling a further class)."""
    o, distinct = self.options, self.frequency.distinct_leaves
    if o.recall is not None:
      mean = o.recall * distinct
      if mean < 1:
        raise ValueError(
          f'synthetic world: recall={o.recall} leaves images without a label; '
          f'with max_objects={o.max_objects}: {1 / distinct:.3f} or more'
        )
    else:
      mean = o.labels_per_image
      if mean is None:
        mean = min(LABELS_PER_IMAGE, distinct)
      if mean > distinct + 1e-9:
        raise ValueError(
          f'synthetic world: labels_per_image={mean}, but with '
          f'max_objects={o.max_objects} images show {distinct:.3f} different '
          'leaf classes on average: at most that many'
        )
    if distinct - 1 < 1e-9:
      return mean, 0.0
    return mean, min((mean - 1) / (distinct - 1), 1.0)
