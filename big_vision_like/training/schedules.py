"""Learning rate as a function of the number of finished updates.

The paper decays by 0.9 every 3 million steps, in stairs (Sun et al. 2017,
section 3.2), and by ten every 30 epochs on ImageNet. Steps are counted in
int32 arithmetic: float32 cannot tell step 35,999,999 from 36,000,000.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from big_vision_like.config import durations, option_types, plugins
from big_vision_like.config.option_types import AtLeast

Schedule = Callable[[Any], jax.Array]
Rate = Annotated[float, AtLeast(0)]  # or a factor of one
_ToSteps = Callable[..., Any]


def constant(*, lr: Rate) -> Schedule:
  """`lr` for ever."""
  return lambda step: jnp.float32(lr)


def staircase(*, lr: Rate, factor: Rate, decay: int) -> Schedule:
  """lr * factor ** floor(step / decay)."""
  return lambda step: lr * jnp.power(jnp.float32(factor), step // decay)


def exponential(*, lr: Rate, factor: Rate, decay: int) -> Schedule:
  """lr * factor ** (step / decay), without stairs."""

  def schedule(step: jax.Array) -> jax.Array:
    exponent = step // decay + (step % decay) / decay
    return lr * jnp.power(jnp.float32(factor), exponent)

  return schedule


def piecewise(
  *, lr: Rate, factors: Sequence[Rate], boundaries: Sequence[int]
) -> Schedule:
  """lr * factors[i] from boundaries[i] on; factors do not accumulate."""
  values = jnp.asarray([lr, *(lr * f for f in factors)], jnp.float32)
  limits = np.asarray(boundaries, np.int32)
  return lambda step: values[jnp.sum(step >= limits)]


def poly(
  *, lr: Rate, end_lr: Rate = 0.0, power: Rate = 1.0, start: int, total: int
) -> Schedule:
  """(lr - end_lr) * (1 - progress) ** power + end_lr, flat after `total`."""

  def schedule(step: jax.Array) -> jax.Array:
    remaining = _remaining(step, start, total)
    return end_lr + (lr - end_lr) * jnp.power(remaining, power)

  return schedule


def cosine(*, lr: Rate, end_lr: Rate = 0.0, start: int, total: int) -> Schedule:
  """Half a cosine from lr to end_lr (Loshchilov & Hutter 2017)."""

  def schedule(step: jax.Array) -> jax.Array:
    # (1 + cos(pi p)) / 2 = sin(pi (1 - p) / 2)^2, exact to the very end.
    remaining = _remaining(step, start, total)
    return end_lr + (lr - end_lr) * jnp.sin(math.pi / 2 * remaining) ** 2

  return schedule


def _remaining(step: jax.Array, start: int, total: int) -> jax.Array:
  """Share of [start, total] still to come, in [0, 1]."""
  span = max(total - start, 1)
  return jnp.clip(total - step, 0, span).astype(jnp.float32) / span


# type -> (function, durations it reads)
_TYPES: dict[str, tuple[Callable[..., Schedule], tuple[str, ...]]] = {
  'constant': (constant, ()),
  'staircase': (staircase, ('decay',)),
  'exponential': (exponential, ('decay',)),
  'piecewise': (piecewise, ('boundaries',)),
  'poly': (poly, ('total',)),
  'cosine': (cosine, ('total',)),
}


def build(
  cfg: Mapping[str, Any],
  total_steps: int,
  batch_size: int,
  num_examples: int | None = None,
  where: str = 'schedule',
) -> Schedule:
  """Builds the schedule that a config describes.

  Keys: `type`, `lr`, and by type: staircase and exponential `factor` and one of
  decay_steps|epochs|examples|percent; piecewise `factors` (each of the base lr)
  and boundaries_steps|epochs|examples|percent (rising lists); poly `power`,
  `end_lr`; cosine `end_lr`; these two end at total_steps|epochs|... (default:
  the run's end) and start after the warm-up. All: warmup_steps|epochs|... (a
  line from `warmup_from`, default 0.0, to `lr`).

  Args:
    cfg: plain mapping, such as dict(type='staircase', lr=1e-3, factor=0.9,
      decay_steps=3_000_000).
    total_steps: steps of the run.
    batch_size: examples a step.
    num_examples: examples an epoch; None if there are no epochs.
    where: config key of `cfg`, for messages.

  Returns:
    fn(step) -> float32 learning rate; `step` is the number of finished updates,
    a Python int or int32 scalar, traced or not.

  Raises:
    ValueError: an unknown, missing or impossible key, which is named.
  """
  kind = cfg.get('type')
  if not isinstance(kind, str) or kind not in _TYPES:
    raise ValueError(
      f'{where}.type: unknown schedule {kind!r}'
      f'{plugins.suggest(str(kind), _TYPES)}; valid: {", ".join(_TYPES)}'
    )
  function, timed = _TYPES[kind]
  kwargs: dict[str, Any] = _options(cfg, where, kind)

  def to_steps(name: str, default: Any = ...) -> Any:
    return _read_duration(
      cfg, name, where, default, batch_size, num_examples, total_steps
    )

  warmup = to_steps('warmup', 0)
  for name in timed:
    kwargs[name] = to_steps(name, total_steps if name == 'total' else ...)
  if 'total' in kwargs:
    kwargs['start'] = warmup
    _require(
      kwargs['total'] > warmup,
      where,
      f'ends at step {kwargs["total"]}, within its warm-up of {warmup} steps',
    )
  if kind == 'piecewise':
    _check_pieces(kwargs['boundaries'], kwargs['factors'], where)
  if 'decay' in kwargs:
    _require(kwargs['decay'] > 0, where, 'the decay period must be above 0')
  ramp = {k: float(cfg[k]) for k in ('warmup_from',) if k in cfg}
  return _with_warmup(function(**kwargs), kwargs['lr'], warmup, **ramp)


def _with_warmup(
  schedule: Schedule, lr: float, warmup: int, *, warmup_from: Rate = 0.0
) -> Schedule:
  """A line from `warmup_from` at step 0 to lr at step `warmup`; `schedule`."""

  def warmed(step: Any) -> jax.Array:
    step = jnp.asarray(step).astype(jnp.int32)
    value = schedule(step)
    if warmup:
      ramp = warmup_from + (lr - warmup_from) * (step / warmup)
      value = jnp.where(step < warmup, ramp, value)
    return value.astype(jnp.float32)

  return warmed


def _read_duration(
  cfg: Mapping[str, Any],
  name: str,
  where: str,
  default: Any,
  batch_size: int,
  num_examples: int | None,
  total_steps: int,
) -> Any:
  """Steps (a tuple of them for 'boundaries'); messages name `where`."""
  known: dict[str, Any] = dict(
    batch_size=batch_size, num_examples=num_examples, total_steps=total_steps
  )
  try:
    key = durations.find(cfg, name)
    if name == 'boundaries' and key is not None:
      values = cfg[key]
      if not isinstance(values, list | tuple):
        raise ValueError(f'{key} must be a list, got {values!r}')
      return tuple(durations.to_steps(v, key, **known) for v in values)
    found = durations.steps(cfg, name, default=default, **known)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from None
  _require(found < 2**31, where, f'{name} of {found} steps exceeds int32')
  return found


def _options(
  cfg: Mapping[str, Any], where: str, kind: str
) -> dict[str, float | tuple[float, ...]]:
  """Checked options of the function of a type; durations are not among them."""
  function, timed = _TYPES[kind]
  names, required = plugins.option_names(function)
  own = [name for name in names if name not in (*timed, 'start')]
  valid = ['type', 'lr', 'warmup_from', *(n for n in own if n != 'lr')]
  for name in (*timed, 'warmup'):
    valid += durations.keys(name)
  for key in cfg:
    if key not in valid:
      raise ValueError(
        f'{where}.{key}: unknown option{plugins.suggest(key, valid)}; '
        f'a {kind} schedule takes {", ".join(valid)}'
      )
  for name in own:
    if name in required and name not in cfg:
      raise ValueError(f'{where}.{name} is missing')
  for takes in (function, _with_warmup):
    option_types.check(where, takes, cfg)
  given = {name: cfg[name] for name in own if name in cfg}
  return {
    name: tuple(map(float, v)) if isinstance(v, list | tuple) else float(v)
    for name, v in given.items()
  }


def _check_pieces(
  boundaries: tuple[int, ...], factors: tuple[float, ...], where: str
) -> None:
  _require(
    len(boundaries) == len(factors),
    where,
    f'{len(boundaries)} boundaries but {len(factors)} factors',
  )
  _require(
    list(boundaries) == sorted(set(boundaries)),
    where,
    f'boundaries must rise, got steps {boundaries}',
  )
  _require(all(b < 2**31 for b in boundaries), where, 'boundaries exceed int32')


def _require(condition: bool, where: str, message: str) -> None:
  if not condition:
    raise ValueError(f'{where}: {message}')
