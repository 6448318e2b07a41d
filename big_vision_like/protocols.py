"""The contracts that plug-ins keep: sources, ops, models, tasks, evaluators.

A plug-in needs to inherit nothing: what has these attributes and methods is
one, and the type checker compares it. Imports nothing of ours.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

Batch = Mapping[str, Any]
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


@runtime_checkable
class Source(Protocol):
  """Records by position, in a fixed order (docs/add-a-source.md).

  Optional, asked for by name: `space` (a LabelSpace), `background`, `labels`
  (index -> ids, without decoding), `label_index`, `stored_key`,
  `in_hash_order`, `description`.
  """

  @property
  def vocabulary(self) -> Any: ...
  @property
  def hierarchy(self) -> Any: ...

  def __len__(self) -> int: ...
  def __getitem__(self, index: int) -> dict[str, Any]: ...
  def key(self, index: int) -> str: ...
  def fingerprint(self) -> str: ...


class Op(Protocol):
  """(example, rng) -> example; may raise BadExample."""

  def __call__(self, example: dict[str, Any], rng: Any) -> dict[str, Any]: ...


class Backbone(Protocol):
  """A Linen module, image float32 [B, H, W, 3] -> endpoints by name."""

  def init(self, rng: Any, image: Any, *, train: bool) -> Any: ...
  def apply(self, variables: Any, *args: Any, **options: Any) -> Any: ...


class Task(Protocol):
  """A loss and predictions over a backbone (docs/add-a-task.md).

  Attributes:
    fields: what the loss reads of a batch.
    predictions: by name.
    frozen_parameters: patterns of parameters that get no update.
  """

  fields: tuple[str, ...]

  @property
  def predictions(self) -> Mapping[str, Prediction]: ...
  @property
  def frozen_parameters(self) -> Sequence[str]: ...

  def init(self, rng: Any, batch: Any) -> tuple[Any, Any]:
    """(params, extra) for the shapes of a batch."""
    ...

  def loss(
    self, params: Any, extra: Any, batch: Any, rng: Any, train: bool
  ) -> tuple[Any, Any, dict[str, Any]]:
    """(per-example loss [B], or those of each stream; new extra; aux [B])."""
    ...


class Evaluator(Protocol):
  """Figures of a state, over data of its own (docs/add-an-evaluator.md)."""

  def run(self, state: Any) -> Mapping[str, float]: ...
