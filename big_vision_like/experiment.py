"""config -> Experiment: mesh, task, step functions, shardings. Pure, no I/O.

Nothing is allocated and no data are opened here; the trainer, the evaluation
mode, the plan and the tests all start from this record.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from big_vision_like.config import durations, plugins, settings, stream_names
from big_vision_like.config.settings import Config
from big_vision_like.config.stream_names import MAIN
from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.protocols import Prediction, Task, WithParts
from big_vision_like.training import (
  downpour,
  optim,
  parameter_servers,
  schedules,
  skipping,
  slot_sharding,
  step,
)
from big_vision_like.training.state import TrainState
from input_pipeline import ops as example_ops
from input_pipeline import streams
from input_pipeline.labels.space import LabelSpace


@dataclasses.dataclass(frozen=True)
class Experiment:
  """What a config means on a mesh.

  Attributes:
    config: complete config.
    mesh: device mesh with axes 'data' and 'model'.
    spaces: the labels of each stream of data, by its name.
    task: loss and predictions.
    num_examples: size of the training set, where known.
    total_steps: length of the run.
    batch_size: global batch size, of the main stream.
    schedule: learning rate of the 0-based update.
    abstract_state: TrainState of shapes, dtypes and shardings.
    batch_spec: the same for a batch.
    init: (seed) -> TrainState on the mesh.
    train_step: (state, batch) -> (state, metrics); the state is donated.
    jitted_train_step: the same as a jit object, to be lowered under the mesh.
    predict: the task's predictions by name, traceable.
    servers: the table of parameter servers as text; '' where there are none.
  """

  config: Config
  mesh: Mesh
  spaces: Mapping[str, LabelSpace]
  task: Task
  num_examples: int | None
  total_steps: int
  batch_size: int
  schedule: Callable[[Any], jax.Array]
  abstract_state: TrainState
  batch_spec: dict[str, jax.ShapeDtypeStruct]
  init: Callable[[int], TrainState]
  train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
  jitted_train_step: Any
  predict: dict[str, Prediction]
  servers: str = ''

  @property
  def space(self) -> LabelSpace:
    """The labels of the main stream."""
    return self.spaces[MAIN]

  @property
  def images_per_step(self) -> int:
    """Those of all streams together."""
    sections = stream_names.sections(self.config).values()
    return sum(section.batch_size for section in sections)

  @property
  def batch_sharding(self) -> NamedSharding:
    return mesh_lib.batch_sharding(self.mesh)

  def steps(self, section: Any, name: str, default: int | None = None) -> int:
    """A duration of the config in steps: name_steps|epochs|examples|percent."""
    return durations.steps(
      section,
      name,
      batch_size=self.batch_size,
      num_examples=self.num_examples,
      total_steps=self.total_steps,
      default=default,
    )


def build(
  config: Config,
  space: LabelSpace | None = None,
  *,
  spaces: Mapping[str, LabelSpace] | None = None,
  num_examples: int | None = None,
  devices: Sequence[Any] | None = None,
) -> Experiment:
  """Builds the experiment that a config describes.

  Args:
    config: any config of the table in configs/common.py.
    space: that of the training source or of a checkpoint; None: an anonymous
      one of task.num_classes labels.
    spaces: those of the streams of input.also, by name; where one is missing,
      an anonymous one of the stream's num_classes labels.
    num_examples: size of the training set; needed for durations in epochs.
    devices: those of the mesh; default all.

  Raises:
    ValueError: naming the key of the config that cannot be.
  """
  config = settings.complete(config)
  mesh = mesh_lib.create(config.mesh, devices)
  batch_size = config.input.batch_size
  _check_batches(config, mesh)
  total_steps = durations.steps(
    config, 'total', batch_size=batch_size, num_examples=num_examples
  )
  schedule = schedules.build(
    config.schedule,
    total_steps=total_steps,
    batch_size=batch_size,
    num_examples=num_examples,
  )
  known = label_spaces(config, {**(spaces or {}), MAIN: space})
  task = build_task(config, known)
  batch_spec = _batch_spec(config, known, mesh)
  _check_fields(config, task, batch_spec)

  rng = jax.eval_shape(lambda: jax.random.key(0))
  # A deep net takes a second to trace. The compiled function remembers it, for
  # shapes here and for values in `init`, of which the batch is none.
  first = {
    k: jax.ShapeDtypeStruct(v.shape, v.dtype) for k, v in batch_spec.items()
  }
  task_init = jax.jit(task.init)
  with jax.set_mesh(mesh):
    params, _ = jax.eval_shape(task_init, rng, first)
  tx = optim.build(_optim(config, task), schedule, params)
  if config.mesh.shard_slots:
    tx = slot_sharding.split_update(tx, mesh)
  init_fn, step_fn = _step_fns(config, task, task_init, tx)
  with jax.set_mesh(mesh):
    state = jax.eval_shape(init_fn, rng, first)
  placed = mesh_lib.shardings(state, mesh, shard_slots=config.mesh.shard_slots)
  abstract_state = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    state,
    placed,
  )
  batch_shardings = {k: v.sharding for k, v in batch_spec.items()}
  jitted_step = jax.jit(
    step_fn,
    in_shardings=(placed, batch_shardings),
    out_shardings=(placed, NamedSharding(mesh, jax.sharding.PartitionSpec())),
    donate_argnums=0,
  )

  @functools.partial(jax.jit, static_argnums=0, out_shardings=placed)
  def fresh(seed: int) -> TrainState:
    blank = {k: jnp.zeros(v.shape, v.dtype) for k, v in first.items()}
    return init_fn(jax.random.key(seed), blank)

  def init(seed: int) -> TrainState:
    with jax.set_mesh(mesh):
      return fresh(seed)

  def train_step(state: TrainState, batch: dict[str, jax.Array]):
    with jax.set_mesh(mesh):
      return jitted_step(state, batch)

  return Experiment(
    config=config,
    mesh=mesh,
    spaces=known,
    task=task,
    num_examples=num_examples,
    total_steps=total_steps,
    batch_size=batch_size,
    schedule=schedule,
    abstract_state=abstract_state,
    batch_spec=batch_spec,
    init=init,
    train_step=train_step,
    jitted_train_step=jitted_step,
    predict=dict(task.predictions),
    servers=_servers(config, abstract_state),
  )


def _optim(config: Config, task: Task) -> dict[str, Any]:
  """The section `optim`, freezing what the model freezes besides."""
  frozen = task.frozen_parameters
  section = dict(config.optim)
  if frozen:
    section['freeze'] = [*section.get('freeze', ()), *frozen]
  return section


def _step_fns(
  config: Config,
  task: Task,
  task_init: Callable[..., Any],
  tx: optax.GradientTransformation,
) -> tuple[Callable[..., TrainState], Callable[..., Any]]:
  """(init, train_step), pure, of train.mode."""
  ema = config.train.ema_decay
  skip = skipping.Options(
    config.train.on_nonfinite == 'skip', config.train.skip_spikes_sigma
  )
  options = dict(accum_steps=config.train.accum_steps, ema_decay=ema, skip=skip)
  init_fn = step.make_init(task_init, tx, ema=ema is not None, skip=skip)
  if config.train.mode == 'sync':
    return init_fn, step.make_train_step(task, tx, **options)
  section = config.train.downpour
  parameter_servers.check_shards(
    config.task.get('class_multiple', 1), section.head_shards
  )
  simulated = downpour.Options(
    workers=section.workers,
    policy=section.policy,
    event_sigma=section.event_sigma,
    bn_updates=section.bn_updates,
    decay_of_server=config.optim.get('decoupled', False),
  )
  return (
    downpour.make_init(init_fn, simulated),
    downpour.make_train_step(task, tx, simulated, **options),
  )


def _servers(config: Config, state: TrainState) -> str:
  section = config.train.downpour
  if config.train.mode != 'downpour':
    return ''
  return parameter_servers.describe(state, section.servers, section.head_shards)


def label_spaces(
  config: Config, known: Mapping[str, LabelSpace | None]
) -> dict[str, LabelSpace]:
  """The labels of each stream: as known, or so many as the config says.

  Raises:
    ValueError: the config's number is not that of the space, or nothing is
      known.
  """
  found = {}
  for name, section in stream_names.sections(config).items():
    key = stream_names.config_key(name) if name else 'task'
    wanted = (section if name else config.task).get('num_classes')
    of = f'{key}.source' if name else 'the training source'
    key = f'{key}.num_classes'
    found[name] = _label_space(wanted, known.get(name), key, of)
  return found


def _label_space(
  wanted: int | None, space: LabelSpace | None, key: str, of: str
) -> LabelSpace:
  if space is None:
    if wanted is None:
      raise ValueError(f'{key} is not set, and no source tells it')
    try:
      return LabelSpace.of_count(wanted)
    except ValueError as error:
      raise ValueError(f'{key}: {error}') from None
  if wanted not in (None, space.num_classes):
    raise ValueError(
      f'{key}={wanted}, but {of} has {space.num_classes} classes'
    )
  return space


class _OfStreams(dict[str, LabelSpace]):
  """Labels by stream, for tasks: what is missing is the config's mistake."""

  def __missing__(self, name: str) -> LabelSpace:
    raise ValueError(
      f'the task reads the stream {name!r}, which input.also does not have; '
      f'it has: {", ".join(self) or "none"}'
    )


def build_task(config: Config, spaces: Mapping[str, LabelSpace]) -> Task:
  """The task of a config, around its model, for its label spaces.

  A task that reads several streams has a third parameter, `spaces`.

  Args:
    config: complete.
    spaces: the labels of each stream, by its name.

  Raises:
    ValueError: unknown type or option.
  """
  backbone = _plugin('model', config.model)()
  options = config.task.to_dict()
  options.pop('num_classes', None)
  # Older configs hold it for every task; 1 is no padding.
  if options.get('class_multiple') == 1:
    del options['class_multiple']
  task = _plugin('task', options)
  if 'spaces' not in plugins.parameters(plugins.get('task', config.task.type)):
    return task(backbone, spaces[MAIN])
  others = _OfStreams({k: v for k, v in spaces.items() if k != MAIN})
  return task(backbone, spaces[MAIN], others)


def _plugin(kind: str, options: Any) -> Callable[..., Any]:
  """The plug-in class of `dict(type=..., **options)`, options bound."""
  bound = dict(options)
  if not bound.get('type'):
    raise ValueError(
      f'{kind}.type is not set; valid: {", ".join(plugins.names(kind))}'
    )
  cls = plugins.get(kind, bound.pop('type'))
  plugins.check_kwargs(kind, cls, bound)
  return lambda *args: cls(*args, **bound)


def _check_batches(config: Config, mesh: Mesh) -> None:
  """The devices divide the batch of every stream, and each part of it."""
  accum = config.train.accum_steps
  for name, section in stream_names.sections(config).items():
    size = section.batch_size
    key = f'{stream_names.config_key(name)}.batch_size'
    mesh_lib.check_batch(mesh, size, key)
    if (size // accum) % mesh.size:
      raise ValueError(
        f'{key}={size} / train.accum_steps={accum} is not a multiple of '
        f'{mesh.size} devices'
      )


def _batch_spec(
  config: Config, spaces: Mapping[str, LabelSpace], mesh: Mesh
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes, dtypes and shardings of a batch, without opening any data."""
  sharding = mesh_lib.batch_sharding(mesh)
  return {
    k: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    for k, (shape, dtype) in streams.batch_spec(config, spaces).items()
  }


def _check_fields(
  config: Config, task: Task, batch_spec: Mapping[str, Any]
) -> None:
  """The ops make what the task reads, and it reads of every stream."""
  sections = stream_names.sections(config)
  for field in task.fields:
    name = stream_names.stream_of(field)
    asker = _asker(config, task, field)
    if name not in sections:
      others = ', '.join([*sections][1:]) or 'none'
      raise ValueError(
        f'{asker} needs the field {field!r}, but input.also '
        f'has no stream {name!r}; it has: {others}'
      )
    if field not in batch_spec:
      made = (k for k in batch_spec if stream_names.stream_of(k) == name)
      raise ValueError(
        f'{asker} needs the field {field!r}, which '
        f'{stream_names.config_key(name)}.ops do not make'
        f'{example_ops.hint(field.rpartition("/")[2])}; they make '
        f'{", ".join(made)}'
      )
  read = {MAIN, *map(stream_names.stream_of, task.fields)}
  for name in sections:
    if name not in read:
      raise ValueError(
        f'{stream_names.config_key(name)}: task {config.task.type!r} reads '
        f'nothing of it; it reads {", ".join(task.fields)}'
      )


def _asker(config: Config, task: Task, field: str) -> str:
  """What reads a field of a batch, for messages: a task, or a part of it."""
  shown = f'task {config.task.type!r}'
  if not isinstance(task, WithParts):
    return shown
  for name, part in task.parts.items():
    read = (stream_names.field(part.stream, f) for f in part.task.fields)
    if field in read:
      return f'task.parts.{name} ({part.options["type"]!r})'
  return shown
