"""What an evaluator is told: its place, its predictions, its options."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jax.sharding import Mesh

from big_vision_like.config import plugins
from big_vision_like.protocols import Kind, Prediction, Source
from input_pipeline.labels.space import LabelSpace

Outputs = dict[str, Any]
PredictFn = Callable[[Any, Outputs], Outputs]


@dataclasses.dataclass(frozen=True)
class EvalContext:
  """What an evaluator may know besides its options.

  Attributes:
    mesh: the device mesh; None evaluates on one device.
    workdir: folder of the run, or None.
    name: the evaluator's key in config.evals.
    space: the labels of the model; `num_classes` is their number.
    train_source: opens the training source, or returns None.
    classes: fingerprint of the names of the classes that the checkpoint was
      trained on (Vocabulary.fingerprint); None where that is not known.
    process_index: this process; the first one talks.
    check_source: (source, its key) -> None; refuses feature maps of another net
      than the run's.
    stream: the stream of training data whose labels it scores; '' is the main
      one.
    part: of a joint task, whose predictions it scores; '' of other tasks.
    parts: names of those that a joint task has.
    timeout_s: for a batch of its data; 0: no limit.
    stop_here: called where an evaluation may end because the run is asked to,
      which all processes do at the same call.
  """

  mesh: Mesh | None
  workdir: str | None
  name: str
  space: LabelSpace
  train_source: Callable[[], Source | None] = lambda: None
  classes: str | None = None
  process_index: int = 0
  check_source: Callable[[Source, str], None] = lambda source, where: None
  stream: str = ''
  part: str = ''
  parts: tuple[str, ...] = ()
  timeout_s: float = 0.0
  stop_here: Callable[[], None] = lambda: None

  @property
  def num_classes(self) -> int:
    """Number of labels of the model, without padding or a background."""
    return self.space.num_classes

  @property
  def where(self) -> str:
    """Config key of the evaluator, the start of its messages."""
    return f'evals.{self.name}'

  def say(self, text: str) -> None:
    """Prints one line, from one process."""
    if self.process_index == 0:
      print(f'[{self.where}] {text}', flush=True)


def choose(
  predict: Mapping[str, Prediction], name: str, ctx: EvalContext, *kinds: Kind
) -> Prediction:
  """The prediction of a name.

  Args:
    predict: those of the task.
    name: of one of them.
    ctx: of the evaluator.
    kinds: that it can score; none: whatever it is.

  Raises:
    ValueError: there is none, or it is of another kind; lists those that fit.
  """
  if ctx.parts and not ctx.part:
    raise ValueError(
      f'{ctx.where}.part is not set: the task has several parts, and '
      f'{name!r} is of one of them; valid: {", ".join(ctx.parts)}'
    )
  if name not in predict:
    of = f'part {ctx.part!r} of the task' if ctx.part else 'task'
    raise ValueError(
      f'{ctx.where}: the {of} has no prediction {name!r}'
      f'{plugins.suggest(name, predict)}; valid: {", ".join(predict)}'
    )
  found = predict[name]
  if kinds and isinstance(found, Prediction) and found.kind not in kinds:
    fitting = (k for k, v in predict.items() if getattr(v, 'kind', '') in kinds)
    raise ValueError(
      f'{ctx.where}.predict_fn={name!r} gives {found.kind!r}, but the '
      f"evaluator scores {' or '.join(map(repr, kinds))}; the task's that "
      f'do: {", ".join(fitting) or "none"}'
    )
  return found


def plain(entry: Any, where: str) -> dict[str, Any]:
  """A config entry as a dict of plain values."""
  if hasattr(entry, 'to_dict'):
    return entry.to_dict()
  if not isinstance(entry, Mapping):
    raise ValueError(f'{where} must be a dict, got {entry!r}')
  return dict(entry)
