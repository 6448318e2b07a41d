"""What options may be is said by their types; the one checker that reads them.

An option is a keyword-only parameter of a plug-in, or a field of a dataclass:

    kind: Literal['symmetric', 'missing']
    rate: Annotated[float, Between(0, 1)]
    shots: Annotated[Sequence[Annotated[int, AtLeast(1)]], NonEmpty()]
    clip: tuple[Literal['global_norm'], Annotated[float, Above(0)]] | None

Options that a config gives are checked by `plugins.check_kwargs` before they
reach their class; dataclasses that users build in Python call `check_fields`.
Other classes, built in Python, take what they are given. What relates several
options, or needs the data, is checked where it is known.

Imports nothing of ours, so that every layer may say what its options are.
"""

import builtins
import collections.abc
import dataclasses
import functools
import inspect
import math
import numbers
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

_LONGEST = 80  # characters of a value in a message


class Constraint:
  """What a value must be besides its type; put into `Annotated`.

  A subclass of one's own needs the two methods.
  """

  def admits(self, value: Any) -> bool:
    """Whether a value of the annotated type is valid."""
    raise NotImplementedError

  def __str__(self) -> str:
    """How it goes on after the type: ' of at least 1'."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class AtLeast(Constraint):
  """low <= value, and finite."""

  low: float

  def admits(self, value: Any) -> bool:
    return self.low <= value < math.inf

  def __str__(self) -> str:
    return f' of at least {_number(self.low)}'


@dataclasses.dataclass(frozen=True)
class Above(Constraint):
  """low < value, and finite."""

  low: float

  def admits(self, value: Any) -> bool:
    return self.low < value < math.inf

  def __str__(self) -> str:
    return f' above {_number(self.low)}'


@dataclasses.dataclass(frozen=True)
class Between(Constraint):
  """From low to high; both belong to it but for an end that is `open`."""

  low: float
  high: float
  open: Literal['', 'low', 'high', 'both'] = ''

  def admits(self, value: Any) -> bool:
    opens_low, opens_high = self._open_ends()
    above = self.low < value if opens_low else self.low <= value
    below = value < self.high if opens_high else value <= self.high
    return above and below

  def __str__(self) -> str:
    opens_low, opens_high = self._open_ends()
    left, right = '(' if opens_low else '[', ')' if opens_high else ']'
    return f' in {left}{_number(self.low)}, {_number(self.high)}{right}'

  def _open_ends(self) -> tuple[bool, bool]:
    return self.open in ('low', 'both'), self.open in ('high', 'both')


@dataclasses.dataclass(frozen=True)
class OneOf(Constraint):
  """A choice of a table; where they can be written down, `Literal` is shorter.

  `Annotated[int, OneOf(tuple(UNITS))]`.
  """

  values: tuple[Any, ...]

  def admits(self, value: Any) -> bool:
    return any(_is(value, choice) for choice in self.values)

  def __str__(self) -> str:
    return f', one of {", ".join(map(str, self.values))}'


@dataclasses.dataclass(frozen=True)
class Finite(Constraint):
  """A number that is not infinite, of either sign."""

  def admits(self, value: Any) -> bool:
    return math.isfinite(value)

  def __str__(self) -> str:
    return ', finite'


@dataclasses.dataclass(frozen=True)
class NonEmpty(Constraint):
  """A text, list or dict that holds something."""

  def admits(self, value: Any) -> bool:
    return len(value) > 0

  def __str__(self) -> str:
    return ', not empty'


@dataclasses.dataclass(frozen=True)
class Distinct(Constraint):
  """A list in which nothing occurs twice."""

  def admits(self, value: Any) -> bool:
    return all(item not in value[:i] for i, item in enumerate(value))

  def __str__(self) -> str:
    return ', each once'


@dataclasses.dataclass(frozen=True)
class EndsWith(Constraint):
  """A text, such as the name of a file, that ends in one of the suffixes."""

  suffixes: tuple[str, ...]

  def admits(self, value: Any) -> bool:
    return value.endswith(self.suffixes)

  def __str__(self) -> str:
    return f' that ends in {" or ".join(self.suffixes)}'


# What is annotated most.
Count = Annotated[int, AtLeast(1)]
Fraction = Annotated[float, Between(0, 1)]
Seed = Annotated[int, Between(0, 2**63, open='high')]


def check(where: str, fn: Callable[..., Any], given: Mapping[str, Any]) -> None:
  """Checks options by their annotations.

  An int serves as a float, True is no number and NaN none either. A list
  serves as a tuple. An annotation of other types than numbers, text, flags,
  lists and dicts of these is left to what the option configures.

  Args:
    where: config key of the options, for messages; '' for none.
    fn: class or function whose parameters or fields they are.
    given: the options, those of other names are passed over.

  Raises:
    ValueError: naming the option, its value and what is valid.
  """
  known = hints(fn)
  # A key goes on with a dot; other places, 'input.ops[1] (resize)', do not.
  joint = '.' if re.fullmatch(r'[\w.\[\]]+', where) else ': ' if where else ''
  for name, value in given.items():
    if name in known:
      check_value(f'{where}{joint}{name}', known[name], value)


def check_fields(where: str, instance: Any) -> None:
  """Checks the fields of a dataclass, in its `__post_init__`; see `check`."""
  names = (f.name for f in dataclasses.fields(instance))
  check(where, type(instance), {n: getattr(instance, n) for n in names})


def check_value(key: str, hint: Any, value: Any) -> None:
  """Checks one value against an annotation.

  Raises:
    ValueError: naming the key, the value and what is valid.
  """
  if _fits(hint, value):
    return
  shown = repr(value)
  if len(shown) > _LONGEST:
    shown = f'{shown[:_LONGEST]}...'
  choices = _choices(hint)
  if choices:
    valid = ', '.join(map(_choice, choices))
    raise ValueError(f'{key}={shown}; valid: {valid}')
  raise ValueError(f'{key}={shown} must be {describe(hint)}')


@functools.cache
def hints(fn: Callable[..., Any]) -> Mapping[str, Any]:
  """Annotations of a class's options or a function's parameters, by name.

  One that cannot be evaluated, since it is imported for type checkers only, is
  left out.
  """
  owner = fn
  if inspect.isclass(fn) and not dataclasses.is_dataclass(fn):
    own_new = fn.__new__ is not object.__new__
    owner = fn.__new__ if own_new else fn.__init__
  try:
    return typing.get_type_hints(owner, include_extras=True)
  except (NameError, AttributeError, TypeError):
    return _hints_one_by_one(owner)


def _hints_one_by_one(owner: Any) -> dict[str, Any]:
  places = reversed(owner.__mro__) if inspect.isclass(owner) else [owner]
  found: dict[str, Any] = {}
  for place in places:
    module = sys.modules.get(place.__module__)
    names = getattr(place, '__globals__', None) or vars(module or builtins)
    for name, hint in inspect.get_annotations(place).items():
      one: Any = types.SimpleNamespace(__annotations__={name: hint})
      try:
        found |= typing.get_type_hints(one, names, include_extras=True)
      except (NameError, AttributeError, TypeError):
        found.pop(name, None)
  return found


def describe(hint: Any) -> str:
  """An annotation in words: 'list of int of at least 1, not empty'."""
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    told = ''.join(str(c) for c in parts[1:] if isinstance(c, Constraint))
    base, union = parts[0], typing.get_origin(parts[0]) in _UNIONS
    kinds = typing.get_args(base) if union else (base,)
    return ' or '.join(
      'None' if kind is type(None) else describe(kind) + told for kind in kinds
    )
  if origin is Literal:
    return ' or '.join(map(repr, parts))
  if origin in _UNIONS:
    return ' or '.join(map(describe, parts))
  if origin in _LISTS or hint in _LISTS:
    return _describe_list(origin, parts)
  if origin in _DICTS or hint in _DICTS:
    item = parts[1] if parts else Any
    return f'dict of {describe(item)}' if _is_checked(item) else 'dict'
  if hint is type(None):
    return 'None'
  return getattr(hint, '__name__', None) or str(hint)


def _describe_list(origin: Any, parts: tuple[Any, ...]) -> str:
  if not parts:
    return 'list'
  if origin is tuple and parts[-1] is not ...:
    told = [describe(part) for part in parts]
    if len(set(told)) == 1 and len(told) > 1:
      return f'list of {len(told)} {told[0]}'
    return f'({", ".join(told)})'
  return f'list of {describe(parts[0])}' if _is_checked(parts[0]) else 'list'


_UNIONS = (typing.Union, types.UnionType)
_LISTS = (collections.abc.Sequence, list, tuple)
_DICTS = (collections.abc.Mapping, dict)
_PLAIN = (bool, int, float, str, type(None))


def _is_checked(hint: Any) -> bool:
  origin = typing.get_origin(hint)
  kinds = (*_UNIONS, *_LISTS, *_DICTS, Annotated, Literal)
  return hint in (*_PLAIN, *_LISTS, *_DICTS) or origin in kinds


def _fits(hint: Any, value: Any) -> bool:
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    return _fits(parts[0], value) and all(
      _admits(c, value) for c in parts[1:] if isinstance(c, Constraint)
    )
  if origin is Literal:
    return any(_is(value, choice) for choice in parts)
  if origin in _UNIONS:
    return any(_fits(part, value) for part in parts)
  if origin in _LISTS or hint in _LISTS:
    return isinstance(value, list | tuple) and _items_fit(origin, parts, value)
  if origin in _DICTS or hint in _DICTS:
    # A ConfigDict is no Mapping.
    return hasattr(value, 'keys') and (
      not parts or all(_fits(parts[1], value[key]) for key in value)
    )
  return _is_of(hint, value)


def _items_fit(origin: Any, parts: tuple[Any, ...], value: Any) -> bool:
  if not parts:
    return True
  if origin is tuple and parts[-1] is not ...:
    return len(value) == len(parts) and all(map(_fits, parts, value))
  return all(_fits(parts[0], item) for item in value)


def _is_of(kind: Any, value: Any) -> bool:
  """Whether a value is of a plain type; True of a type that is not plain."""
  if kind not in _PLAIN:
    return True
  if kind not in (int, float) or isinstance(value, bool):
    return isinstance(value, kind) and (kind is bool) == isinstance(value, bool)
  if kind is int:
    return isinstance(value, numbers.Integral)
  return isinstance(value, numbers.Real) and not math.isnan(value)


def _is(value: Any, choice: Any) -> bool:
  """Whether a value is that choice; 1 is neither True nor 1.0."""
  if isinstance(choice, bool) or not isinstance(choice, int):
    return isinstance(value, type(choice)) and value == choice
  return _is_of(int, value) and value == choice


def _admits(constraint: Constraint, value: Any) -> bool:
  """None is no value: where the type allows it, constraints do."""
  try:
    return value is None or constraint.admits(value)
  except TypeError:  # a value of a type that was left open
    return False


def _choices(hint: Any) -> tuple[Any, ...]:
  """All valid values of an annotation of choices only, else ()."""
  if hint is type(None):
    return (None,)
  origin, parts = typing.get_origin(hint), typing.get_args(hint)
  if origin is Literal:
    return parts
  if origin is Annotated and len(parts) == 2 and isinstance(parts[1], OneOf):
    return parts[1].values
  if origin not in _UNIONS:
    return ()
  found = [_choices(part) for part in parts]
  return tuple(c for part in found for c in part) if all(found) else ()


def _choice(value: Any) -> str:
  """A word as it is; ';' and white space in quotes."""
  word = not isinstance(value, str) or re.fullmatch(r'[\w.-]+', value)
  return str(value) if word else repr(value)


def _number(value: float) -> str:
  """2**63 as it is written."""
  if isinstance(value, int) and value > 2**20 and value & (value - 1) == 0:
    return f'2**{value.bit_length() - 1}'
  return f'{value:g}' if isinstance(value, float) else str(value)
