"""Every constraint of every plug-in's options: refused outside, named in full.

Walks over the signatures, so that a new plug-in is tested without a new test.
"""

import ast
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest

from big_vision_like.config import option_types, plugins, settings
from big_vision_like.config.option_types import (
  Above,
  AtLeast,
  Between,
  Constraint,
  Distinct,
  EndsWith,
  Finite,
  NonEmpty,
  OneOf,
)
from big_vision_like.metrics.average_precision import RankingOptions
from big_vision_like.training import downpour, optim, schedules
from configs import common
from input_pipeline import ops
from input_pipeline.labels import subset
from input_pipeline.synthetic_world.options import Options as WorldOptions

KINDS = ('source', 'task', 'model', 'evaluator')
TAKERS: dict[str, Callable[..., Any]] = {
  **{f'{k} {n}': plugins.get(k, n) for k in KINDS for n in plugins.names(k)},
  **{f'op {name}': ops.find('', name) for name in ops.OPS},
  **{f'optim {name}': rule for name, rule in optim._RULES.items()},
  **{f'schedule {name}': entry[0] for name, entry in schedules._TYPES.items()},
  'optim': optim._common,
  'schedule': schedules._with_warmup,
  'source.subset': subset.Options,
  'synthetic world': WorldOptions,
  'ranking': RankingOptions,
  'train.downpour': downpour.Options,
}
_UNIONS = (typing.Union, types.UnionType)
_NO_CHOICE = 'no such choice'


def constraints(hint: Any) -> list[Any]:
  """What an annotation asks for: constraints, and Literals as they are."""
  if typing.get_origin(hint) is Literal:
    return [hint]
  own = [c for c in getattr(hint, '__metadata__', ()) if _is_constraint(c)]
  parts = typing.get_args(hint)
  if typing.get_origin(hint) is Annotated:
    parts = parts[:1]
  return own + [c for part in parts for c in constraints(part)]


def _is_constraint(value: Any) -> bool:
  return isinstance(value, Constraint)


def right(hint: Any) -> Any:
  """A valid value."""
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    for c in parts[1:]:
      if isinstance(c, OneOf):
        return c.values[0]
      if isinstance(c, EndsWith):
        return f'file{c.suffixes[0]}'
      if isinstance(c, AtLeast):
        return c.low
      if isinstance(c, Above):
        return c.low + 1
      if isinstance(c, Between):
        kind = int if parts[0] is int else float
        return c.high if c.open in ('', 'low') else kind((c.low + c.high) / 2)
    if any(isinstance(c, NonEmpty) for c in parts[1:]):
      if typing.get_origin(parts[0]) is Mapping:
        return {'x': right(typing.get_args(parts[0])[1])}
      value = right(parts[0])
      return value or [right(typing.get_args(parts[0])[0])]
    return right(parts[0])
  if origin is Literal:
    return parts[0]
  if origin in _UNIONS:
    return right(parts[0])
  if origin is tuple and parts[-1] is not ...:
    return [right(part) for part in parts]
  if origin is Mapping:
    return {}
  if origin is not None:
    return [right(parts[0])] if parts else []
  return {int: 3, float: 0.5, str: 'x', bool: True}.get(hint)


def outside(constraint: Any, hint: Any) -> list[Any]:
  """Values of the right type that a constraint must refuse."""
  if typing.get_origin(constraint) is Literal:
    words = any(isinstance(c, str) for c in typing.get_args(constraint))
    return [_NO_CHOICE] if words else [-17]
  step = 1 if hint is int else 0.5
  if isinstance(constraint, AtLeast):
    return [constraint.low - step]
  if isinstance(constraint, Above):
    return [constraint.low, constraint.low - step]
  if isinstance(constraint, Between):
    low, high = constraint.low, constraint.high
    ends = {'': [], 'low': [low], 'high': [high], 'both': [low, high]}
    return [low - step, high + step, *ends[constraint.open]]
  if isinstance(constraint, EndsWith):
    return [_NO_CHOICE]
  if isinstance(constraint, OneOf):
    word = isinstance(constraint.values[0], str)
    return [_NO_CHOICE] if word else [-17]
  if isinstance(constraint, NonEmpty):
    return ['' if hint is str else []]
  if isinstance(constraint, Distinct):
    item = right(typing.get_args(hint)[0])
    return [[item, item]]
  if isinstance(constraint, Finite):
    return [math.inf, -math.inf]
  raise AssertionError(f'say here what {constraint!r} refuses')


def wrong(hint: Any) -> list[tuple[Any, Any]]:
  """(value that is not valid, the constraint that it breaks), all of them."""
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if origin is Literal:
    return [(value, hint) for value in outside(hint, hint)]
  if origin is Annotated:
    own = [c for c in parts[1:] if _is_constraint(c)]
    found = [(v, c) for c in own for v in outside(c, parts[0])]
    return found + wrong(parts[0])
  if origin in _UNIONS:
    return [found for part in parts for found in wrong(part)]
  if origin is tuple and parts[-1] is not ...:
    whole = [right(part) for part in parts]
    return [
      ([*whole[:i], v, *whole[i + 1 :]], c)
      for i, part in enumerate(parts)
      for v, c in wrong(part)
    ]
  if inspect.isclass(origin) and issubclass(origin, Sequence):
    return [([v], c) for v, c in wrong(parts[0])]
  return []


def said(constraint: Any) -> list[str]:
  """What a message must name of it."""
  if typing.get_origin(constraint) is Literal:
    return [option_types._choice(c) for c in typing.get_args(constraint)]
  values = [getattr(constraint, n, None) for n in ('low', 'high')]
  values += getattr(constraint, 'values', getattr(constraint, 'suffixes', ()))
  return [
    option_types._number(v) if _real(v) else v for v in values if v is not None
  ]


def _real(value: Any) -> bool:
  return isinstance(value, int | float)


def floats(hint: Any) -> list[Any]:
  """NaN in every place of an annotation where a number with a point stands."""
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if hint is float:
    return [math.nan]
  if origin is Annotated or origin in _UNIONS:
    return [v for part in parts for v in floats(part)]
  if origin is tuple and parts[-1] is not ...:
    whole = [right(part) for part in parts]
    return [
      [*whole[:i], v, *whole[i + 1 :]]
      for i, part in enumerate(parts)
      for v in floats(part)
    ]
  if inspect.isclass(origin) and issubclass(origin, Sequence):
    return [[v] for v in floats(parts[0])]
  return []


def named_options(fn: Callable[..., Any]) -> dict[str, Any]:
  hints = option_types.hints(fn)
  return {name: hints[name] for name in plugins.option_names(fn)[0]}


@pytest.mark.parametrize('name', TAKERS)
def test_what_is_outside_is_refused_by_key_value_and_range(name):
  for option, hint in named_options(TAKERS[name]).items():
    option_types.check('there', TAKERS[name], {option: right(hint)})
    broken = wrong(hint)
    met = {id(constraint) for _, constraint in broken}
    assert met == {id(constraint) for constraint in constraints(hint)}
    for value, constraint in broken:
      with pytest.raises(ValueError) as error:
        option_types.check('there', TAKERS[name], {option: value})
      message = str(error.value)
      assert message.startswith(f'there.{option}={value!r}'[:70]), message
      rest = message.removeprefix(f'there.{option}={value!r}')
      for word in said(constraint):
        assert word in rest, message


@pytest.mark.parametrize('name', TAKERS)
def test_no_option_takes_what_is_not_a_number(name):
  for option, hint in named_options(TAKERS[name]).items():
    for value in floats(hint):
      with pytest.raises(ValueError, match=f'^{option}=.*nan.* must be'):
        option_types.check('', TAKERS[name], {option: value})


@pytest.mark.parametrize('name', TAKERS)
def test_defaults_are_valid(name):
  fn = TAKERS[name]
  every, required = plugins.option_names(fn)
  given = {n: plugins.option(fn, {}, n) for n in every if n not in required}
  option_types.check('', fn, given)


def test_keys_of_configs():
  defaults = settings.flat(common.base().to_dict())
  assert defaults.keys() >= settings.VALID.keys()
  for key, hint in settings.VALID.items():
    option_types.check_value(key, hint, defaults[key])
    option_types.check_value(key, hint, right(hint))
    assert wrong(hint), key
    for value, constraint in wrong(hint):
      with pytest.raises(ValueError) as error:
        option_types.check_value(key, hint, value)
      for word in (f'{key}={value!r}', *said(constraint)):
        assert word in str(error.value)


def test_the_walk_meets_what_it_should():
  assert len(TAKERS) > 40
  found = {n: constraints(h) for n, h in named_options(optim.rmsprop).items()}
  assert found['decay'] == [Between(0, 1, open='high')]
  total = [
    c
    for t in TAKERS.values()
    for h in named_options(t).values()
    for c in constraints(h)
  ]
  assert len(total) > 140


_BUILTINS = {
  'isinstance',
  'int',
  'float',
  'bool',
  'str',
  'type',
  'math',
  'len',
  'any',
  'all',
  'min',
  'max',
  'np',
  'set',
  'list',
  'tuple',
}


@pytest.mark.parametrize('name', TAKERS)
def test_no_range_is_checked_by_hand(name):
  """An `if` that raises by one option and constants alone could be its type."""
  fn = TAKERS[name]
  code = inspect.getsource(fn)
  options = set(plugins.option_names(fn)[0])
  for node in ast.walk(ast.parse(textwrap.dedent(code))):
    if isinstance(node, ast.If) and any(
      isinstance(b, ast.Raise) for b in node.body
    ):
      used = {n.id for n in ast.walk(node.test) if isinstance(n, ast.Name)}
      assert used - _BUILTINS not in [{o} for o in options], ast.unparse(
        node.test
      )
