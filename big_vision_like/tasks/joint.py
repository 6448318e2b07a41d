"""Several tasks that train one backbone in one run.

Sun et al. 2017 transfer one pretrained net to classification, detection,
segmentation and pose, each in a run of its own. Here the backbone learns from
all of them at once: every part is a task of the project or of one's own, with
its heads, its stream of data and a weight, and a step descends the weighted sum
of their losses (docs/joint-training.md). No task is known by name here.
"""

import dataclasses
import re
import zlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax

from big_vision_like import protocols
from big_vision_like.config import option_types, plugins, stream_names
from big_vision_like.config.option_types import Above, Count, NonEmpty
from big_vision_like.config.stream_names import MAIN, SHOWN
from big_vision_like.protocols import Backbone, Batch, Part, Prediction
from big_vision_like.tasks.parts import backbone_task
from input_pipeline.labels.space import LabelSpace

Trees = tuple[Any, Any]

_BACKBONE = 'backbone'
# Arrays below these names are not a part's.
_TAKEN = (_BACKBONE, 'batch_stats')
_OWN_KEYS = ('type', 'weight', 'stream')
_Weight = Annotated[float, Above(0)]


class Task:
  """Parts by name: their losses weighted and added, their predictions.

  Parameters are `backbone` and, below the name of a part, those of its heads.
  The prediction 'detections' of the part `boxes` is 'boxes/detections'. Figures
  of a part are 'STREAM/PART/NAME', its unweighted loss among them. Parts follow
  each other in the alphabetical order of their names.

  Args:
    backbone: the model of all parts.
    space: the labels of the main stream.
    spaces: those of the streams of `input.also`, by name.
    parts: name -> dict(type, weight=1.0, stream='main', **options of the task).
      Several may read one stream; one at least reads the main one.
    pixels: of all parts, see `backbone_task.scale_pixels`.
    class_multiple: of all parts that pad their class axis.
    statistics: moving statistics of batch norm, for evaluation, are 'shared':
      every part updates those that the part before it left; or every part has
      its 'own'. Training normalises by the batch, that of one part, in either
      case.

  Raises:
    ValueError: naming the part and its key that cannot be.
  """

  # Options that change what the same arrays compute: a warm start compares.
  LAYOUT = ('pixels',)

  def __init__(
    self,
    backbone: Backbone,
    space: LabelSpace,
    spaces: Mapping[str, LabelSpace],
    *,
    parts: Annotated[Mapping[str, Any], NonEmpty()],
    pixels: backbone_task.Pixels = 'inception',
    class_multiple: Count = 1,
    statistics: Literal['shared', 'own'] = 'shared',
  ):
    known = {MAIN: space, **{name: spaces[name] for name in spaces}}
    common = {'pixels': pixels, 'class_multiple': class_multiple}
    self._parts: dict[str, Part] = {}
    self._weights: dict[str, float] = {}
    for name in sorted(parts, key=str):
      where = _where(name)
      given = _section(where, name, parts[name])
      self._weights[name] = given.pop('weight', 1.0)
      option_types.check_value(f'{where}.weight', _Weight, self._weights[name])
      self._parts[name] = _part(where, given, backbone, known, common)
    if all(part.stream for part in self._parts.values()):
      raise ValueError(
        'task.parts: none reads config.input, the main stream; give one '
        f'stream={SHOWN!r}'
      )
    if statistics == 'own' and getattr(backbone, 'bn', '') == 'frozen':
      raise ValueError(
        "task.statistics='own': with model.bn='frozen' nothing is updated, and "
        "all parts share the checkpoint's; take 'shared'"
      )
    self._shares_statistics = statistics == 'shared'

  @property
  def parts(self) -> dict[str, Part]:
    """Name -> the part as a task of its own."""
    return self._parts

  @property
  def fields(self) -> tuple[str, ...]:
    """What the parts read of a batch."""
    read = (
      stream_names.field(part.stream, field)
      for part in self._parts.values()
      for field in part.task.fields
    )
    return tuple(dict.fromkeys(read))

  @property
  def frozen_parameters(self) -> tuple[str, ...]:
    """The patterns of the parts, those of heads below their names."""
    found = (
      pattern
      if pattern.startswith(f'{_BACKBONE}/')
      else f'{name}/(?:{pattern})'
      for name, part in self._parts.items()
      for pattern in part.task.frozen_parameters
    )
    return tuple(dict.fromkeys(found))

  @property
  def needs_start(self) -> str:
    """Why a part cannot begin without a checkpoint; '' if all can."""
    for name, part in self._parts.items():
      task = part.task
      if isinstance(task, protocols.NeedingStart) and task.needs_start:
        return f'{_where(name)}: {task.needs_start}'
    return ''

  def init(self, rng: jax.Array, batch: Batch) -> Trees:
    """(params, extra) for the shapes of a batch.

    Raises:
      ValueError: a part needs another backbone than those before it, or keeps
        a state beside the backbone's.
    """
    shared: dict[str, Trees] = {}  # what each part makes of it
    params: dict[str, Any] = {}
    for name, part in self._parts.items():
      own_batch = _of_stream(batch, part.stream)
      try:
        own, extra = part.task.init(_key(rng, name), own_batch)
      except ValueError as error:
        raise ValueError(f'{_where(name)}: {error}') from error
      params[name] = {k: v for k, v in own.items() if k != _BACKBONE}
      shared[name] = own[_BACKBONE], extra
    first, *others = shared
    for name in others:
      if _shapes(shared[name]) != _shapes(shared[first]):
        raise ValueError(
          f'{_where(name)}: makes other parameters or another state of the '
          f'backbone than {_where(first)}, so that they cannot share it'
        )
    params[_BACKBONE], extra = shared[first]
    if not self._shares_statistics:
      extra = {name: own for name, (_, own) in shared.items()}
    return params, extra

  def loss(
    self,
    params: Any,
    extra: Any,
    batch: Batch,
    rng: jax.Array,
    train: bool,
  ) -> tuple[dict[str, jax.Array], Any, dict[str, jax.Array]]:
    """({stream: weighted loss [B of it]}, new extra, aux [B of its stream])."""
    losses: dict[str, jax.Array] = {}
    aux: dict[str, jax.Array] = {}
    for name, part in self._parts.items():
      of_part = self.of_part(name, params, extra)
      loss, new, found = part.task.loss(
        *of_part, _of_stream(batch, part.stream), _key(rng, name), train
      )
      extra = new if self._shares_statistics else {**extra, name: new}
      stream = part.stream or SHOWN
      weighted = self._weights[name] * loss
      losses[stream] = (
        losses[stream] + weighted if stream in losses else weighted
      )
      found = {'loss': loss, **found}
      aux |= {f'{stream}/{name}/{key}': x for key, x in found.items()}
    return losses, extra, aux

  def of_part(self, name: str, params: Any, extra: Any) -> Trees:
    """(params, extra) of a part, as in a run of its own."""
    own = {_BACKBONE: params[_BACKBONE], **params[name]}
    return own, extra if self._shares_statistics else extra[name]

  @property
  def predictions(self) -> dict[str, Prediction]:
    """'PART/NAME' -> what each part predicts."""
    return {
      f'{name}/{key}': self._prediction(name, prediction)
      for name, part in self._parts.items()
      for key, prediction in part.task.predictions.items()
    }

  def _prediction(self, name: str, prediction: Prediction) -> Prediction:
    def predict(state: Any, batch: Batch) -> dict[str, Any]:
      params, extra = self.of_part(name, state.params, state.extra)
      return prediction(state.replace(params=params, extra=extra), batch)

    return dataclasses.replace(prediction, fn=predict)


def _shapes(tree: Any) -> Any:
  return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def _where(name: str) -> str:
  return f'task.parts.{name}'


def _section(where: str, name: Any, given: Any) -> dict[str, Any]:
  """The section of a part as a dict of its own."""
  if not isinstance(name, str) or not re.fullmatch(r'[A-Za-z]\w*', name, re.A):
    raise ValueError(
      f'task.parts: {name!r} cannot name a part; use letters, digits and _, a '
      'letter first'
    )
  if name in _TAKEN:
    raise ValueError(
      f'task.parts: {name!r} is what all parts share; use another name'
    )
  option_types.check_value(where, Mapping[str, Any], given)
  return {key: given[key] for key in given}


def _part(
  where: str,
  given: dict[str, Any],
  backbone: Backbone,
  spaces: Mapping[str, LabelSpace],
  common: Mapping[str, Any],
) -> Part:
  """Builds a part; see `Task`.

  Args:
    where: config key of the part.
    given: its section, without the weight.
    backbone: the model.
    spaces: the labels of each stream.
    common: options that all parts have alike.
  """
  stream = given.pop('stream', SHOWN)
  valid = [name or SHOWN for name in spaces]
  if stream not in valid:
    raise ValueError(
      f'{where}.stream={stream!r}; valid: {", ".join(valid)}, which are '
      'config.input and those of input.also'
    )
  stream = MAIN if stream == SHOWN else stream
  if not given.get('type'):
    raise ValueError(
      f'{where}.type is not set; valid: {", ".join(plugins.names("task"))}'
    )
  task_class = plugins.get('task', given['type'])
  if 'spaces' in plugins.parameters(task_class):
    raise ValueError(
      f'{where}.type={given["type"]!r}: a part reads one stream, and this task '
      'reads several'
    )
  taken = plugins.option_names(task_class)[0]
  for key in given.keys() & {'num_classes', *common}:
    of_all = f'task.{key}, which holds for all parts'
    if key == 'num_classes':
      of_all = (
        'task.num_classes'
        if stream == MAIN
        else (f'{stream_names.config_key(stream)}.num_classes')
      )
    raise ValueError(f'{where}.{key}={given[key]!r}: set {of_all}')
  options = {key: value for key, value in given.items() if key != 'type'}
  plugins.check_kwargs(where, task_class, options)
  options |= {key: x for key, x in common.items() if key in taken}
  space = spaces[stream]
  try:
    task = task_class(backbone, space, **options)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error
  _check_background(where, task, space)
  return Part(task, stream, {'type': given['type'], **options})


def _check_background(where: str, task: Any, space: LabelSpace) -> None:
  """Masks have a background where the data of the stream have one."""
  expected = task.background if isinstance(task, protocols.WithMasks) else None
  if None not in (expected, space.background) and expected != space.background:
    raise ValueError(
      f'{where}.background={expected}, but the masks of its stream have '
      f'background={space.background}'
    )


def _key(rng: jax.Array, name: str) -> jax.Array:
  """The randomness of a part, whatever others there are."""
  return jax.random.fold_in(rng, zlib.crc32(name.encode()))


def _of_stream(batch: Batch, stream: str) -> dict[str, Any]:
  """The fields of a stream under their plain names."""
  prefix = f'{stream}/' if stream else ''
  return {
    field.removeprefix(prefix): value
    for field, value in batch.items()
    if stream_names.stream_of(field) == stream
  }
