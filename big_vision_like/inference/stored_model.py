"""The model of a checkpoint: its task and config, without its data.

All that reads a checkpoint for predictions starts here. Model and preprocessing
come from the config inside the checkpoint, which is data, not code.
"""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from big_vision_like import experiment
from big_vision_like.checkpoints import compatibility, folders, reading
from big_vision_like.config import one_part, settings, trust
from big_vision_like.config.stream_names import MAIN
from big_vision_like.protocols import Prediction, Task, WithMasks, WithParts
from big_vision_like.training.state import TrainState
from input_pipeline import pipeline
from input_pipeline.labels import vocabulary
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class StoredModel:
  """See `load`.

  Attributes:
    path: folder of the checkpoint.
    config: of the run, complete.
    spaces: the labels of each stream that it was trained on; their number
      alone where an old checkpoint does not say more.
    task: loss and predictions.
    step: training steps taken.
    meta: what the checkpoint says of itself.
    trusted: whether it may name modules of others (config/trust.py).
    held: keeps the checkpoint where it is, as long as the model is here.
    part: the part of a joint task that this is, with its task, its labels and
      its config as of a run of its own; '' of other tasks.
    joint: the joint task.
  """

  path: pathlib.Path
  config: Any
  spaces: Mapping[str, LabelSpace]
  task: Task
  step: int
  meta: Mapping[str, Any]
  trusted: bool = False
  held: folders.Held | None = None
  part: str = ''
  joint: WithParts | None = None

  @property
  def space(self) -> LabelSpace:
    """The labels of the main stream."""
    return self.spaces[MAIN]

  def state(self, sharding: Any) -> Any:
    """A state for `task.predictions`: weights (averages where kept) alone.

    Args:
      sharding: where each array goes.
    """
    with self.held.proving() if self.held else contextlib.nullcontext():
      params, extra = reading.read_weights(self.path, sharding)
    if self.joint is not None:
      params, extra = self.joint.of_part(self.part, params, extra)
    unused: Any = None
    return TrainState(
      step=unused,
      params=params,
      extra=extra,
      opt_state=unused,
      rng=unused,
      ema=unused,
      nonfinite_step=unused,
    )

  @property
  def background(self) -> bool:
    """Whether id 0 of its masks is a background, before the labels.

    Raises:
      ValueError: the task does not say it.
    """
    task = self.task
    if isinstance(task, WithMasks) and task.background is not None:
      return task.background
    raise ValueError(
      f'task {self.config.task.type!r} predicts masks, but has no attribute '
      'background that says whether their id 0 is one'
    )

  @functools.cached_property
  def vocabulary(self) -> Vocabulary | None:
    """The model's classes, as the checkpoint holds them.

    Old checkpoints do not: None where their training data are not here, or
    have other classes by now.
    """
    if not self.space.anonymous:
      return self.space.vocabulary
    found = self._data_classes
    return None if found is None or self._differs(found) else found

  @property
  def why_unnamed(self) -> str:
    """Why `vocabulary` is None, in words."""
    try:
      self.check_source()
    except ValueError as untrusted:
      return f'names of the classes are not known here: {untrusted}'
    if self._data_classes is None:
      return 'names of the classes are not known here'
    return (
      'the training data here have other classes than the model was trained on'
    )

  @functools.cached_property
  def _data_classes(self) -> Vocabulary | None:
    """The classes of the training data as they are now; None without."""
    try:
      self.check_source()
      return pipeline.open_train(self.config).vocabulary
    except (FileNotFoundError, ValueError):
      return None

  def check_source(self) -> None:
    """Refuses a source of its training data that may not be imported."""
    source = {'input': {'source': self.config.input.source.to_dict()}}
    trust.check(source, f'checkpoint {self.path}', self.trusted)

  def _differs(self, classes: Vocabulary) -> bool:
    if len(classes) != self.space.num_classes:
      return True
    return compatibility.classes_differ(self.meta, classes)

  def classes(self, path: str | None, where: str) -> Vocabulary | None:
    """The classes from a file, if one is given, or else `vocabulary`.

    Raises:
      FileNotFoundError, ValueError: no vocabulary of this many classes there,
        or not of those that the model was trained on.
    """
    if path is None:
      return self.vocabulary
    found = vocabulary.load(path)
    if len(found) != self.space.num_classes:
      raise ValueError(
        f'{where} {path!r} has {len(found):,} names, the model '
        f'{self.space.num_classes:,} classes'
      )
    if self._differs(found):
      raise ValueError(
        f'{where} {path!r}: its names, {found.names[0]!r} and so on, are not '
        'those of the classes that the model was trained on, or in another '
        'order; words for people are the descriptions of a .jsonl'
      )
    return found

  def prediction(self, *kinds: str) -> tuple[str, Prediction]:
    """Name and prediction of the first of the task's that is of these kinds.

    Raises:
      ValueError: it has none; lists those that it has.
    """
    predictions = self.task.predictions
    for name, prediction in predictions.items():
      if prediction.kind in kinds:
        return name, prediction
    listed = ', '.join(f'{n} ({p.kind})' for n, p in predictions.items())
    raise ValueError(
      f'the task {self.config.task.type!r} predicts no {" or ".join(kinds)}; '
      f'it has {listed or "none"}'
    )

  @property
  def scores(self) -> str:
    """What makes probabilities of its logits: 'softmax' or 'sigmoid'.

    Raises:
      ValueError: a task whose predictions are no logits.
    """
    name, prediction = self.prediction('classes', 'mask')
    if prediction.scores is None:
      raise ValueError(
        f'the task {self.config.task.type!r}: its prediction {name!r} does '
        'not say what makes probabilities of it (scores: softmax or sigmoid)'
      )
    return prediction.scores


def load(
  checkpoint_path: str | pathlib.Path,
  where: str,
  *,
  trusted: bool = False,
  part: str | None = None,
) -> StoredModel:
  """Reads what a checkpoint is of; its arrays wait for `state`.

  Args:
    checkpoint_path: workdir of a run, or the folder of one checkpoint.
    where: flag or key of the path, for messages.
    trusted: whether it may name modules of others (config/trust.py).
    part: which part of a joint task; None of other tasks.

  Raises:
    FileNotFoundError: no checkpoint there.
    DamagedError: it is not whole.
    ValueError: its config cannot be built here, or `part` is none of its
      task's.
  """
  held = folders.hold(checkpoint_path, where, later=True)
  path = held.path
  meta = reading.read_meta(path)
  trust.check(_at_work(meta['config']), f'checkpoint {path}', trusted)
  config = settings.complete(meta['config'])
  spaces = reading.label_spaces(meta, path)
  task = experiment.build_task(config, spaces)
  model = StoredModel(
    path, config, spaces, task, int(path.name), meta, trusted, held
  )
  return _of_part(model, part)


def _of_part(model: StoredModel, part: str | None) -> StoredModel:
  """A part of a joint model; any other model as it is."""
  joint, kind = model.task, model.config.task.type
  if not isinstance(joint, WithParts):
    if part is None:
      return model
    raise ValueError(
      f'--part={part!r}: the task {kind!r} of {model.path} has no parts; leave '
      'it out'
    )
  if part is None or part not in joint.parts:
    listed = (f'{n} ({p.options["type"]})' for n, p in joint.parts.items())
    given = '--part is not set' if part is None else f'--part={part!r}'
    raise ValueError(
      f'{given}: the task {kind!r} of {model.path} has the parts '
      f'{", ".join(listed)}; choose one'
    )
  chosen = joint.parts[part]
  return dataclasses.replace(
    model,
    config=one_part.alone(model.config, part, chosen),
    spaces={MAIN: model.spaces[chosen.stream]},
    task=chosen.task,
    meta={**model.meta, **reading.by_stream(model.meta)[chosen.stream]},
    part=part,
    joint=joint,
  )


def _at_work(config: Mapping[str, Any]) -> dict[str, Any]:
  """What of a stored config predictions are made of: net, task and ops."""
  evals = config.get('evals', {}).items()
  also = config['input'].get('also', {}).items()
  return {
    'model': config['model'],
    'task': config['task'],
    'input': {
      'ops': config['input']['ops'],
      'also': {name: {'ops': section['ops']} for name, section in also},
    },
    'evals': {name: {'ops': entry.get('ops', ())} for name, entry in evals},
  }


def name_of(classes: Vocabulary | None, label: int) -> dict[str, str]:
  """'name' of a class as people read it, 'label' too where that is another.

  Args:
    classes: names; None where they are not known.
    label: id in the vocabulary.
  """
  if classes is None:
    return {'name': f'class {label}'}
  readable, name = classes.readable_name(label), classes.names[label]
  return {'name': readable, **({'label': name} if name != readable else {})}


def probabilities(logits: np.ndarray, scores: str) -> np.ndarray:
  """float64 [..., C] of logits [..., C] without padding.

  Args:
    logits: any floating type; taken as float64.
    scores: 'softmax' or 'sigmoid'.
  """
  x = np.asarray(logits, np.float64)
  if scores == 'sigmoid':
    small = np.exp(-np.abs(x))  # neither side overflows
    return np.where(x >= 0, 1.0, small) / (1.0 + small)
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)
