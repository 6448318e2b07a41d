"""The planning mode: what a run would be; nothing is allocated.

Parameters, where each lives, memory per device, FLOPs per image, steps. Works
for a mesh larger than the machine: `plan.num_devices` makes fake devices.

Memory per device is arithmetic on shapes: parameters, slots and averages from
the sharding table, gradients like the parameters, activations from what the
backward pass keeps (the residuals of jax.vjp). Temporaries of single operations
come on top.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from big_vision_like import experiment, memory_advice
from big_vision_like.config import settings, stream_names
from big_vision_like.config.settings import Config
from big_vision_like.experiment import Experiment
from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.protocols import Source
from input_pipeline import pipeline, streams
from input_pipeline.labels import vocabulary
from input_pipeline.labels.space import LabelSpace, Skeleton


@dataclasses.dataclass(frozen=True)
class Plan:
  """Figures of a run; bytes are per device.

  Attributes:
    num_params: number of parameters.
    param_bytes: parameters.
    slot_bytes: optimizer slots.
    ema_bytes: average of the parameters and of the batch statistics.
    worker_bytes: copies of the parameters that asynchronous workers hold.
    grad_bytes: gradients.
    activation_bytes: what the backward pass keeps.
    batch_bytes: one batch.
    flops_per_image: of a whole train step, per image.
    total_steps: length of the run.
    total_examples: images seen, of all streams.
  """

  num_params: int
  param_bytes: int
  slot_bytes: int
  ema_bytes: int
  worker_bytes: int
  grad_bytes: int
  activation_bytes: int
  batch_bytes: int
  flops_per_image: float
  total_steps: int
  total_examples: int

  @property
  def device_bytes(self) -> int:
    """Sum of the parts above."""
    return (
      self.param_bytes
      + self.slot_bytes
      + self.ema_bytes
      + self.worker_bytes
      + self.grad_bytes
      + self.activation_bytes
      + self.batch_bytes
    )


def run(config: Config, workdir: str | None = None) -> Plan:
  """Prints the plan of a config and returns its figures."""
  del workdir  # nothing is written
  config = settings.complete(config)
  space, num_examples = _known_of_the_data(config)
  spaces = {
    name: LabelSpace.of_source(streams.open_source(config, name))
    for name, section in stream_names.also(config).items()
    if section.num_classes is None
  }

  def build(config: Config) -> Experiment:
    return experiment.build(
      config, space, spaces=spaces, num_examples=num_examples
    )

  exp = build(config)
  plan = make(exp)
  print(describe(exp, plan))
  if config.plan.device_memory_gib is not None:
    advice = memory_advice.lines(
      config,
      plan,
      exp.mesh.shape,
      lambda changed: make(build(changed), count_flops=False),
    )
    print('\n' + '\n'.join(advice))
  return plan


def _known_of_the_data(config: Config) -> tuple[LabelSpace | None, int | None]:
  """(labels, number of examples) as far as the plan needs them.

  Data are opened only for what neither `task.num_classes` nor the section
  `plan` says of them.

  Raises:
    ValueError or FileNotFoundError: of the vocabulary, or of the data.
  """
  space, num_examples = None, config.plan.num_examples
  if config.plan.vocabulary:
    space = _listed(config.plan.vocabulary)
  if config.plan.num_keypoints:
    space = space or LabelSpace.of_count(config.task.num_classes or 1)
    names = tuple(f'keypoint{i}' for i in range(config.plan.num_keypoints))
    space = dataclasses.replace(space, keypoints=Skeleton(names))
  flat = settings.flat(config.to_dict())
  in_epochs = any(k.endswith('_epochs') and v for k, v in flat.items())
  if (space or config.task.num_classes) and (num_examples or not in_epochs):
    return space, num_examples
  source = _opened(config)
  return space or LabelSpace.of_source(source), num_examples or len(source)


def _listed(path: str) -> LabelSpace:
  """The labels of a vocabulary file, without a hierarchy."""
  try:
    return LabelSpace.of_vocabulary(vocabulary.load(path))
  except (ValueError, FileNotFoundError) as error:
    raise type(error)(f'plan.vocabulary: {error}') from None


def _opened(config: Config) -> Source:
  try:
    return pipeline.open_train(config)
  except FileNotFoundError as error:
    raise FileNotFoundError(
      f'{error}; --mode=plan needs no data if told of them: '
      '--config.plan.vocabulary=FILE (a class a line) or '
      '--config.task.num_classes=N, --config.plan.num_examples=N for '
      'durations in epochs, --config.plan.num_keypoints=N for a pose net'
    ) from None


def make(exp: Experiment, count_flops: bool = True) -> Plan:
  """The figures of an experiment; FLOPs, which take longest, NaN if not."""
  state = exp.abstract_state
  params = bytes_per_device(state.params)
  return Plan(
    num_params=sum(math.prod(x.shape) for x in jax.tree.leaves(state.params)),
    param_bytes=params,
    slot_bytes=bytes_per_device(state.opt_state),
    ema_bytes=bytes_per_device((state.ema, state.ema_extra)),
    worker_bytes=bytes_per_device(state.workers),
    grad_bytes=params,
    activation_bytes=_activation_bytes(exp),
    batch_bytes=bytes_per_device(exp.batch_spec),
    flops_per_image=_flops_per_image(exp) if count_flops else math.nan,
    total_steps=exp.total_steps,
    total_examples=exp.total_steps * exp.images_per_step,
  )


def bytes_per_device(tree: Any) -> int:
  """Bytes of one device's shards of a tree of placed ShapeDtypeStructs."""
  total = 0
  for x in jax.tree.leaves(tree):
    shard = x.sharding.shard_shape(x.shape)
    size = (
      8 if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else (x.dtype.itemsize)
    )
    total += math.prod(shard) * size
  return total


def _activation_bytes(exp: Experiment) -> int:
  """Bytes per device of what the backward pass keeps of its part of a batch.

  The difference between two sizes of batch: what does not grow with it, such
  as kernels among the residuals, is counted elsewhere.
  """
  growth = _residual_bytes(exp, 2) - _residual_bytes(exp, 1)
  return growth // exp.mesh.size


def _residual_bytes(exp: Experiment, times: int) -> int:
  """Bytes, over all devices, of the residuals of jax.vjp of the loss.

  Of so many parts of a batch at once.
  """
  accum = exp.config.train.accum_steps
  batch = {
    k: jax.ShapeDtypeStruct(
      (times * (v.shape[0] // accum), *v.shape[1:]), v.dtype
    )
    for k, v in exp.batch_spec.items()
  }
  state = exp.abstract_state
  rng = jax.eval_shape(lambda: jax.random.key(0))

  def residuals(params, extra, batch, rng):
    def loss(p):
      per_example, new_extra, aux = exp.task.loss(p, extra, batch, rng, True)
      return per_example, (new_extra, aux)

    return jax.vjp(loss, params, has_aux=True)[1]

  bare = lambda tree: jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree
  )
  with jax.set_mesh(exp.mesh):
    kept = jax.eval_shape(
      residuals, bare(state.params), bare(state.extra), batch, rng
    )
  return sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(kept)
  )


def _flops_per_image(exp: Experiment) -> float:
  """FLOPs of the whole train step per image, before any optimisation."""
  with jax.set_mesh(exp.mesh):
    lowered = exp.jitted_train_step.lower(exp.abstract_state, exp.batch_spec)
  costs = lowered.cost_analysis() or {}
  if isinstance(costs, list):
    costs = costs[0]
  return float(costs.get('flops', math.nan)) / exp.images_per_step


def describe(exp: Experiment, plan: Plan) -> str:
  """The plan as text."""
  gib = lambda n: f'{n / 2**30:9.3f} GiB'
  mesh = ' x '.join(f'{k}={v}' for k, v in exp.mesh.shape.items())
  lines = [
    f'mesh                  {mesh} ({exp.mesh.size} devices)',
    f'global batch          {exp.batch_size} '
    f'({exp.batch_size // exp.mesh.size} a device)',
    *_streams(exp),
    f'steps                 {plan.total_steps:,}',
    f'examples              {plan.total_examples:,}',
    f'parameters            {plan.num_params:,}',
    f'classes               {exp.space.num_classes:,}',
    f'train FLOPs per image {plan.flops_per_image:.4g}',
    '',
    'bytes per device',
    f'  parameters          {gib(plan.param_bytes)}',
    f'  optimizer slots     {gib(plan.slot_bytes)}',
    f'  average (EMA)       {gib(plan.ema_bytes)}',
    f"  workers' copies     {gib(plan.worker_bytes)}",
    f'  gradients           {gib(plan.grad_bytes)}',
    f'  kept activations    {gib(plan.activation_bytes)}',
    f'  batch               {gib(plan.batch_bytes)}',
    f'  sum                 {gib(plan.device_bytes)}',
    '',
    'where the parameters live (first matching row)',
  ]
  lines += _sharding_table(exp)
  return '\n'.join([*lines, '', exp.servers] if exp.servers else lines)


def _streams(exp: Experiment) -> list[str]:
  """What each further stream adds, and what the processors decode a step."""
  also = stream_names.also(exp.config)
  lines = [
    f'  {name:19s} {section.batch_size} ({section.batch_size // exp.mesh.size} '
    f'a device), {exp.spaces[name].num_classes:,} classes, '
    f'{exp.total_steps * section.batch_size:,} examples'
    for name, section in also.items()
  ]
  if lines:
    lines.append(f'images decoded a step {exp.images_per_step}')
  return lines


def _sharding_table(exp: Experiment) -> list[str]:
  groups: dict[str, list[Any]] = {}
  leaves = jax.tree_util.tree_leaves_with_path(exp.abstract_state.params)
  for path, leaf in leaves:
    name = mesh_lib.path_name(path)
    key = name if leaf.sharding.spec else 'all others'
    groups.setdefault(key, []).append(leaf)
  rows = []
  for key, members in groups.items():
    shape = (
      'x'.join(map(str, members[0].shape))
      if len(members) == 1
      else (f'{len(members)} arrays')
    )
    spec = tuple(members[0].sharding.spec) or 'replicated'
    rows.append(f'  {key:20s} {shape:>14s}  {spec}')
  return rows
