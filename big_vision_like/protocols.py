"""The contracts that plug-ins keep: sources, ops, models, tasks, evaluators.

A plug-in needs to inherit nothing: what has these attributes and methods is
one, and the type checker compares it (tests/plugin_types.py). What a plug-in
may have besides is a protocol of its own here, asked for by `isinstance`, once
and not for every record. Imports nothing of ours.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

Batch = Mapping[str, Any]
Example = dict[str, Any]
Kind = Literal['classes', 'vectors', 'mask', 'boxes', 'pose']
Scores = Literal['softmax', 'sigmoid']


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What a task can tell of a batch, traceable.

  Attributes:
    fn: (state, batch) -> dict of arrays [B, ...]; called as the object itself.
    kind: what tools and exporters do with it: 'classes' [B, C] and 'mask'
      [B, h, w, C] are logits, 'vectors' are [B, D], 'boxes' and 'pose' have
      several arrays.
    reads: fields of the batch that it needs.
    scores: what makes probabilities of logits; None where they are none.
  """

  fn: Callable[[Any, Any], dict[str, Any]]
  kind: Kind
  reads: tuple[str, ...] = ('image',)
  scores: Scores | None = None

  def __call__(self, state: Any, batch: Any) -> dict[str, Any]:
    return self.fn(state, batch)


@dataclasses.dataclass(frozen=True, eq=False)
class Objects:
  """The annotated objects of a source, A in all.

  They come by ascending image and, within one, by ascending number.

  Attributes:
    image: int64 [A] index of the record.
    number: int32 [A] of the object in its image: the place of its box among
      those of the record or, where the record has 'box_numbers' int32 [N],
      that number of the box. A record may leave out what cannot be seen.
    boxes: float32 [A, 4] y0, x0, y1, x1 in pixels of the original image.
    labels: int32 [A] label ids.
    crowd: bool [A].
    num_keypoints: int32 [A] keypoints labelled, of visibility above 0.
    area: float32 [A] of the outline, pixels^2; of the box where the data do
      not say it.
  """

  image: np.ndarray
  number: np.ndarray
  boxes: np.ndarray
  labels: np.ndarray
  crowd: np.ndarray
  num_keypoints: np.ndarray
  area: np.ndarray


class LabelSpace(Protocol):
  """What outputs stand for: input_pipeline/labels/space.py has the one kind."""

  @property
  def num_classes(self) -> int: ...
  @property
  def names(self) -> tuple[str, ...]: ...
  @property
  def vocabulary(self) -> Any: ...
  @property
  def hierarchy(self) -> Any: ...
  @property
  def background(self) -> bool | None: ...
  @property
  def keypoints(self) -> Any: ...
  @property
  def external_ids(self) -> tuple[int, ...] | None: ...


class Records(Protocol):
  """Records by position, in a fixed order."""

  def __len__(self) -> int: ...
  def __getitem__(self, index: int, /) -> Example: ...
  def key(self, index: int, /) -> str: ...


class Source(Records, Protocol):
  """Records and what their labels stand for (docs/add-a-source.md).

  Attributes:
    vocabulary: of labels/vocabulary.py.
    hierarchy: of labels/hierarchy.py, or None.
  """

  @property
  def vocabulary(self) -> Any: ...
  @property
  def hierarchy(self) -> Any: ...

  def fingerprint(self) -> str: ...


@runtime_checkable
class WithSpace(Protocol):
  """Of a source: its whole label space."""

  @property
  def space(self) -> Any: ...


@runtime_checkable
class WithMasks(Protocol):
  """Of a source or task: whether id 0 of masks is the background.

  Label i is then id i + 1. None: there are no masks, or they do not say.
  """

  @property
  def background(self) -> bool | None: ...


@runtime_checkable
class WithKeypoints(Protocol):
  """Of a source: its Skeleton (labels/space.py), None without keypoints."""

  @property
  def keypoints(self) -> Any: ...


@runtime_checkable
class WithExternalIds(Protocol):
  """Of a source: id of each label where the data come from, or None."""

  @property
  def external_ids(self) -> tuple[int, ...] | None: ...


@runtime_checkable
class WithTruth(Protocol):
  """Of a source: whether it has annotations, or is a list of images."""

  @property
  def has_truth(self) -> bool: ...


@runtime_checkable
class WithSizes(Protocol):
  """Of a source: int32 [n, 2] height and width of its images, or None."""

  def sizes(self) -> np.ndarray | None: ...


@runtime_checkable
class WithImageIds(Protocol):
  """Of a source: int64 [n] numbers of its images where they come from."""

  def image_ids(self) -> np.ndarray | None: ...


@runtime_checkable
class WithObjects(Protocol):
  """Of a source: its Objects without reading an image; None: not known."""

  def objects(self) -> Objects | None: ...


@runtime_checkable
class WithPeople(Protocol):
  """Of a source whose records are people in the images of another.

  Attributes:
    images: the source beneath: a record an image.
    has_all_boxes: whether boxes that show nobody are among the records, where
      there are some.
  """

  @property
  def images(self) -> Source: ...
  @property
  def has_all_boxes(self) -> bool: ...
  def image_index(self) -> np.ndarray:
    """int64 [n] record of `images` that each person is in."""
    ...

  def kinds(self) -> np.ndarray:
    """int64 [k] labels of the objects that count as people, ascending."""
    ...


@runtime_checkable
class ComputedBy(Protocol):
  """Of a source of feature maps: what they were computed by; {} of others.

  `check_ops` refuses op configs that see images otherwise; `computed_by` has
  'checkpoint', 'net' and 'weights', see input_pipeline/feature_map_checks.py.
  """

  @property
  def computed_by(self) -> Mapping[str, Any]: ...
  def check_ops(
    self, specs: Sequence[Mapping[str, Any]], where: str, /
  ) -> None: ...


@runtime_checkable
class LabelReader(Protocol):
  """Of a source: raw label ids int32 [n] of a record, without its image."""

  def labels(self, index: int, /) -> np.ndarray: ...


@runtime_checkable
class LabelIndexed(Protocol):
  """Of a source: (ends int64 [n], labels int32 [m]) of all records, or None."""

  def label_index(self) -> tuple[Any, ...] | None: ...


@runtime_checkable
class HashOrdered(Protocol):
  """Of a source: whether any first part of it is a random subset."""

  @property
  def in_hash_order(self) -> bool: ...


@runtime_checkable
class Described(Protocol):
  """Of a source: what it is of a larger one, for people."""

  @property
  def description(self) -> str: ...


@runtime_checkable
class Reporting(Protocol):
  """Of a source: lines on what was left out, known at construction."""

  def report_lines(self) -> Sequence[str]: ...


@runtime_checkable
class WithEdges(Protocol):
  """Of a source: (child, parent) names of its hierarchy, or None."""

  @property
  def hierarchy_edges(self) -> Sequence[tuple[str, str]] | None: ...


@runtime_checkable
class StoredKeys(Protocol):
  """Of a source: the key inside the record, which may name another place."""

  def stored_key(self, index: int, /) -> str: ...


@runtime_checkable
class RecordReader(Protocol):
  """Of a source: a whole record with its `key` and `labels`, not decoded."""

  def read(self, index: int, /) -> Any: ...


class Op(Protocol):
  """(example, rng) -> example; may raise BadExample (docs/add-an-op.md)."""

  def __call__(
    self, example: Example, rng: np.random.Generator, /
  ) -> Example: ...


@runtime_checkable
class Declaring(Op, Protocol):
  """An op, or its class, that says which fields it reads and makes."""

  @property
  def reads(self) -> Collection[str]: ...
  @property
  def makes(self) -> Collection[str]: ...


@runtime_checkable
class Deterministic(Protocol):
  """Of an op: whether it draws nothing from its generator."""

  def deterministic(self) -> bool: ...


@runtime_checkable
class Sizing(Protocol):
  """Of an op: (height, width) that it makes of an image, None: not known."""

  def size_after(self, height: int, width: int, /) -> Any: ...


@runtime_checkable
class Selective(Protocol):
  """Of an op: the same op, making none but these of its fields."""

  def only(self, names: Collection[str], /) -> Declaring: ...


@runtime_checkable
class WithoutChance(Protocol):
  """Of an op's class: the configs of ops without chance in its place."""

  def without_chance(self, options: Any, /) -> Sequence[dict[str, Any]]: ...


@runtime_checkable
class ShowingWhole(Protocol):
  """Of an op's class: whether the whole image is seen, scaled, top left."""

  @property
  def shows_whole(self) -> bool: ...


class Backbone(Protocol):
  """A Linen module, image float32 [B, H, W, 3] -> endpoints by name."""

  def init(self, rng: Any, image: Any, /, *, train: bool) -> Any: ...
  def apply(self, variables: Any, /, *args: Any, **options: Any) -> Any: ...


@runtime_checkable
class Freezing(Protocol):
  """Of a backbone: patterns of its parameters that are not trained."""

  def frozen_parameters(self) -> Sequence[str]: ...


@runtime_checkable
class WithComputeType(Protocol):
  """Of a backbone: 'float32' or 'bfloat16', its heads' too."""

  @property
  def compute_dtype(self) -> str: ...


@runtime_checkable
class WithConv(Protocol):
  """Of a backbone: how it convolves, a name of layers.CONV_METHODS."""

  @property
  def conv(self) -> str: ...


@runtime_checkable
class WithLayout(Protocol):
  """Of a model or task: options that change what the same arrays compute."""

  @property
  def LAYOUT(self) -> Sequence[str]: ...


class Task(Protocol):
  """A loss and predictions over a backbone (docs/add-a-task.md).

  Attributes:
    fields: what the loss reads of a batch.
    predictions: by name.
    frozen_parameters: patterns of parameters that get no update.
  """

  @property
  def fields(self) -> tuple[str, ...]: ...
  @property
  def predictions(self) -> Mapping[str, Prediction]: ...
  @property
  def frozen_parameters(self) -> Sequence[str]: ...

  def init(self, rng: Any, batch: Any, /) -> tuple[Any, Any]:
    """(params, extra) for the shapes of a batch."""
    ...

  def loss(
    self, params: Any, extra: Any, batch: Any, rng: Any, train: bool, /
  ) -> tuple[Any, Any, dict[str, Any]]:
    """(per-example loss [B], or those of each stream; new extra; aux [B])."""
    ...


@dataclasses.dataclass(frozen=True)
class Part:
  """A task inside a joint one.

  Attributes:
    task: built for the labels of its stream.
    stream: of training data that it reads; '' is the main one.
    options: what `config.task` holds in a run of the part alone, but for
      num_classes.
  """

  task: Task
  stream: str
  options: Mapping[str, Any]


@runtime_checkable
class WithParts(Protocol):
  """Of a task: tasks by name that share its backbone (docs/joint-training.md).

  The prediction 'logits' of the part `masks` is called 'masks/logits'.
  """

  @property
  def parts(self) -> Mapping[str, Part]: ...

  def of_part(self, name: str, params: Any, extra: Any, /) -> tuple[Any, Any]:
    """(params, extra) of a part, as in a run of its own."""
    ...


@runtime_checkable
class WithAnchors(Protocol):
  """Of a task: ([A, 4] anchors, [A] box of each or less than 0) of an image."""

  def positive_anchors(self, example: Any, /) -> tuple[Any, Any]: ...


@runtime_checkable
class NeedingStart(Protocol):
  """Of a task: why it cannot begin without a checkpoint; '' if it can."""

  @property
  def needs_start(self) -> str: ...


@runtime_checkable
class WithFrozenMap(Protocol):
  """Of a task: the map of its frozen part, which files can keep."""

  def frozen_map(self, params: Any, extra: Any, batch: Any, /) -> Any:
    """[B, h, w, D] of batch['image']."""
    ...

  def map_weights(self, params: Any, extra: Any, /) -> Mapping[str, Any]:
    """The arrays that it follows from; ValueError if some are trained."""
    ...


class Evaluator(Protocol):
  """Figures of a state, over data of its own (docs/add-an-evaluator.md)."""

  def run(self, state: Any, /) -> Mapping[str, float]: ...
