"""Optimisers as the paper's TensorFlow code defines them, on plain param trees.

TensorFlow's RMSProp keeps epsilon inside the root, starts its mean square at
one and folds the learning rate into the momentum buffer (tf.compat.v1.train.
RMSPropOptimizer); its momentum keeps the rate outside. The arithmetic is
optax's; which of its transformations stand before the rate and which after it
makes the rule. Weight decay is an L2 term in the gradient of convolution and fc
kernels (slim's weights_regularizer).

Order within an update: L2 -> clipping -> optimiser -> decoupled decay. Frozen
parameters take no part in any of it and have no slots.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from big_vision_like.config import option_types, plugins
from big_vision_like.config.option_types import Above, AtLeast, Between

_Flat = dict[str, Any]  # 'a/b/c' -> array

Decay = Annotated[float, Between(0, 1, open='high')]
Positive = Annotated[float, Above(0)]
NotNegative = Annotated[float, AtLeast(0)]
Clip = tuple[
  Literal['global_norm', 'per_tensor'], Positive
]  # how, to what norm


class OptState(NamedTuple):
  """State of the optimiser.

  Attributes:
    count: int32 [], number of finished updates.
    slots: stage of the rule -> optax's state of it, whose trees are like the
      params without the frozen ones.
  """

  count: jax.Array
  slots: dict[str, Any]


_Stages = dict[str, optax.GradientTransformation]


class Rule(NamedTuple):
  """An update rule: what happens to a gradient until it is subtracted.

  Attributes:
    before: stages, by name and in order, before the learning rate multiplies.
    after: stages after it.
  """

  before: _Stages
  after: _Stages


def rmsprop(
  *,
  decay: Decay = 0.9,
  momentum: Decay = 0.9,
  epsilon: Positive = 1.0,
  initial_ms: NotNegative = 1.0,
) -> Rule:
  """mom = momentum mom + lr g / sqrt(ms + epsilon); w -= mom.

  With ms = decay ms + (1 - decay) g^2, which starts at `initial_ms`.
  """
  rms = optax.scale_by_rms(
    decay, epsilon, initial_scale=initial_ms, eps_in_sqrt=True
  )
  return Rule({'rms': rms}, {'momentum': optax.trace(momentum)})


def momentum(*, momentum: Decay = 0.9, nesterov: bool = False) -> Rule:
  """a = momentum a + g; w -= lr a, or lr (g + momentum a) with Nesterov."""
  return Rule({'momentum': optax.trace(momentum, nesterov)}, {})


def sgd() -> Rule:
  """w -= lr g."""
  return Rule({}, {})


def adam(
  *, beta1: Decay = 0.9, beta2: Decay = 0.999, epsilon: Positive = 1e-8
) -> Rule:
  """Kingma & Ba 2015, algorithm 1; epsilon outside the root."""
  return Rule({'adam': optax.scale_by_adam(beta1, beta2, epsilon)}, {})


_RULES: dict[str, Callable[..., Rule]] = {
  'rmsprop': rmsprop,
  'momentum': momentum,
  'sgd': sgd,
  'adam': adam,
}


class _Common(NamedTuple):
  """What every optimiser does around its rule."""

  coupled: dict[str, float]  # path -> weight decay added to the gradient
  decoupled: dict[str, float]  # path -> weight decay taken off the weight
  clip: Callable[[_Flat], _Flat]
  multipliers: dict[str, float]
  trainable: tuple[str, ...]


def _common(
  paths: Sequence[str],
  *,
  weight_decay: NotNegative = 0.0,
  weight_decay_on: Literal['kernels', 'all'] = 'kernels',
  decoupled: bool = False,
  clip: Clip | None = None,
  freeze: Sequence[str] = (),
  lr_multipliers: Sequence[tuple[str, NotNegative]] = (),
) -> _Common:
  frozen = _frozen(paths, freeze)
  trainable = tuple(p for p in paths if p not in frozen)
  if not trainable:
    raise ValueError('optim.freeze leaves no parameter to train')
  decayed = {
    p: float(weight_decay)
    for p in trainable
    if weight_decay and (weight_decay_on == 'all' or _is_kernel(p))
  }
  return _Common(
    coupled={} if decoupled else decayed,
    decoupled=decayed if decoupled else {},
    clip=_clipping(clip),
    multipliers=_multipliers(paths, lr_multipliers),
    trainable=trainable,
  )


def build(
  cfg: Mapping[str, Any], schedule: Callable[[Any], Any], params: Any
) -> optax.GradientTransformation:
  """Builds the optimiser that a config describes.

  Keys of every type: `type` (rmsprop, momentum, sgd, adam), `weight_decay`,
  `weight_decay_on` (kernels or all), `decoupled`, `clip` (a pair: global_norm
  or per_tensor, largest norm), `freeze` (patterns) and `lr_multipliers` (pairs
  of pattern and factor; the first that matches counts). Patterns are regular
  expressions for a whole path such as 'backbone/block1/.*'. Further keys are
  the keyword arguments of the rule of that type in this module.

  Args:
    cfg: plain mapping with these keys.
    schedule: number of finished updates -> learning rate.
    params: nested dict of float32 arrays, or of their shapes.

  Returns:
    An optax transformation whose updates are to be added to the params; it
    needs the params in `update`. Its state is an `OptState`.

  Raises:
    ValueError: a key, value or pattern that is not valid, with the valid ones.
  """
  paths = tuple(_flatten(params))
  kind = cfg.get('type')
  if not isinstance(kind, str) or kind not in _RULES:
    raise ValueError(
      f'optim.type: unknown optimiser {kind!r}'
      f'{plugins.suggest(str(kind), _RULES)}; valid: {", ".join(_RULES)}'
    )
  own, _ = plugins.option_names(_RULES[kind])
  shared, _ = plugins.option_names(_common)
  for key in cfg:
    if key not in ('type', *own, *shared):
      valid = [*own, *shared]
      raise ValueError(
        f'optim.{key}: unknown option{plugins.suggest(key, valid)}; '
        f'{kind} takes {", ".join(valid)}'
      )
  for fn, names in ((_RULES[kind], own), (_common, shared)):
    option_types.check('optim', fn, {k: cfg[k] for k in names if k in cfg})
  rule = _RULES[kind](**{k: cfg[k] for k in own if k in cfg})
  common = _common(paths, **{k: cfg[k] for k in shared if k in cfg})
  return _transformation(rule, common, schedule)


def _transformation(
  rule: Rule, common: _Common, schedule: Callable[[Any], Any]
) -> optax.GradientTransformation:
  def trained(tree: Any) -> _Flat:
    flat = _flatten(tree)
    return {p: flat[p].astype(jnp.float32) for p in common.trainable}

  def init(params: Any) -> OptState:
    tree = _unflatten(trained(params))
    stages = rule.before | rule.after
    slots = {name: stage.init(tree) for name, stage in stages.items()}
    return OptState(jnp.zeros((), jnp.int32), slots)

  def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
    if params is None:
      raise ValueError(
        'the optimiser needs the params: update(g, state, params)'
      )
    grads, weights = trained(updates), _flatten(params)
    for path, decay in common.coupled.items():
      grads[path] = grads[path] + decay * weights[path]
    lr = schedule(state.count)
    rates = {p: lr * common.multipliers.get(p, 1.0) for p in grads}
    scaled, before = _through(rule.before, common.clip(grads), state.slots)
    steps = {path: rates[path] * x for path, x in scaled.items()}
    steps, after = _through(rule.after, steps, state.slots)
    for path, decay in common.decoupled.items():
      steps[path] = steps[path] + rates[path] * decay * weights[path]
    # w + -0.0 is w to the bit, also where w is -0.0.
    changes = {
      path: -steps[path] if path in steps else jnp.full_like(weight, -0.0)
      for path, weight in weights.items()
    }
    return _unflatten(changes), OptState(state.count + 1, before | after)

  return optax.GradientTransformation(init, update)


def _through(
  stages: _Stages, updates: _Flat, slots: Mapping[str, Any]
) -> tuple[_Flat, dict[str, Any]]:
  """(what the stages in turn make of the updates, their new states)."""
  new: dict[str, Any] = {}
  tree = _unflatten(updates)
  for name, stage in stages.items():
    tree, new[name] = stage.update(tree, slots[name])
  return _flatten(tree), new


def slot_trees(state: OptState) -> dict[str, Any]:
  """Every slot, 'rms/nu', as a tree like the params without the frozen ones."""
  return {
    f'{stage}/{field}': tree
    for stage, slots in state.slots.items()
    for field, tree in slots._asdict().items()
    if isinstance(tree, Mapping)  # not a count of steps
  }


def ema_update(ema: Any, params: Any, decay: float | jax.Array) -> Any:
  """decay * ema + (1 - decay) * params, as ema - (1 - decay)(ema - params).

  The second form is tf.train.ExponentialMovingAverage's: equal trees stay
  equal to the bit. What is no floating point number, a counter of a model's
  state, is taken as it is.
  """

  def average(e: jax.Array, p: jax.Array) -> jax.Array:
    inexact = jnp.issubdtype(e.dtype, jnp.inexact)
    return e - (1 - decay) * (e - p) if inexact else p

  return jax.tree.map(average, ema, params)


def param_paths(tree: Any) -> Any:
  """The tree with every leaf replaced by its path, such as 'head/kernel'."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: jax.tree_util.keystr(path, simple=True, separator='/'),
    tree,
  )


def _flatten(tree: Any) -> _Flat:
  return dict(traverse_util.flatten_dict(tree, sep='/'))


def _unflatten(flat: _Flat) -> Any:
  return traverse_util.unflatten_dict(flat, sep='/')


def _is_kernel(path: str) -> bool:
  return path.rpartition('/')[2] == 'kernel'


def _frozen(paths: Sequence[str], patterns: Sequence[str]) -> set[str]:
  return {p for x in patterns for p in _matching('freeze', x, paths)}


def _multipliers(
  paths: Sequence[str], pairs: Sequence[tuple[str, float]]
) -> dict[str, float]:
  found: dict[str, float] = {}
  for pattern, factor in pairs:
    for path in _matching('lr_multipliers', pattern, paths):
      found.setdefault(path, float(factor))
  return found


def _matching(key: str, pattern: str, paths: Sequence[str]) -> list[str]:
  try:
    found = [p for p in paths if re.fullmatch(pattern, p)]
  except re.error as error:
    raise ValueError(
      f'optim.{key}: {pattern!r} is not a regular expression: {error}'
    ) from None
  if not found:
    names = sorted({p.partition('/')[0] for p in paths})
    raise ValueError(
      f'optim.{key}: no parameter has a path that {pattern!r} matches as a '
      f'whole; top-level names: {", ".join(names)}'
    )
  return found


def _clipping(clip: Clip | None) -> Callable[[_Flat], _Flat]:
  if clip is None:
    return lambda grads: grads
  kind, limit = clip
  function = {'global_norm': _clip_global, 'per_tensor': _clip_each}[kind]
  return lambda grads: function(grads, limit)


def _clip_global(grads: _Flat, limit: float) -> _Flat:
  """All gradients times limit / max(norm of them all, limit)."""
  clip = optax.clip_by_global_norm(limit)
  clipped: Any = clip.update(grads, optax.EmptyState())[0]
  return clipped


def _clip_each(grads: _Flat, limit: float) -> _Flat:
  """Each gradient times limit / max(its own norm, limit), as slim clips."""
  return {
    path: g * (limit / jnp.maximum(jnp.linalg.norm(g.ravel()), limit))
    for path, g in grads.items()
  }
