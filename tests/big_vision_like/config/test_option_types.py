"""The checker of options by their types, against cases written by hand."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from ml_collections import ConfigDict

from big_vision_like.config import option_types, plugins
from big_vision_like.config.option_types import (
  Above,
  AtLeast,
  Between,
  Constraint,
  Count,
  Distinct,
  EndsWith,
  Finite,
  Fraction,
  NonEmpty,
  OneOf,
  Seed,
)

NAN, INF = math.nan, math.inf
Side = Annotated[int, AtLeast(1)]
Size = Side | tuple[Side, Side]
Clip = tuple[Literal['global_norm', 'per_tensor'], Annotated[float, Above(0)]]

# annotation, what is valid, what is not, the end of the message
CASES = [
  (int, [0, -3, np.int64(4)], [1.0, True, '1', None], 'must be int'),
  (
    float,
    [0, 0.5, -INF, np.float32(0.5), np.int32(1)],
    [NAN, np.float64(NAN), False, '1', None, 1j],
    'must be float',
  ),
  (bool, [True, False], [0, 1, None, 'True'], 'must be bool'),
  (str, ['', 'a'], [1, None, b'a', ['a']], 'must be str'),
  (
    Annotated[int, AtLeast(1)],
    [1, 2**70, np.int16(1)],
    [0, -1, True, 1.0, None],
    'must be int of at least 1',
  ),
  (
    Annotated[float, AtLeast(0.5)],
    [0.5, 1, 1e300],
    [0.49, INF, NAN, True],
    'must be float of at least 0.5',
  ),
  (
    Annotated[float, Above(0)],
    [1e-300, 1],
    [0, -0.0, -1, INF, NAN],
    'must be float above 0',
  ),
  (Fraction, [0, 1, 0.5], [-0.1, 1.1, NAN, True], 'must be float in [0, 1]'),
  (
    Annotated[float, Between(0, 1, open='low')],
    [1e-9, 1],
    [0, 1.01, NAN],
    'must be float in (0, 1]',
  ),
  (
    Annotated[float, Between(0, 1, open='high')],
    [0, 0.99],
    [1, -0.01, NAN],
    'must be float in [0, 1)',
  ),
  (
    Annotated[float, Between(0, 100, open='both')],
    [0.1, 99],
    [0, 100, NAN],
    'must be float in (0, 100)',
  ),
  (
    Annotated[float, Between(1, INF)],
    [1, INF],
    [0.9, NAN],
    'must be float in [1, inf]',
  ),
  (Seed, [0, 2**63 - 1], [-1, 2**63, 1.0], 'must be int in [0, 2**63)'),
  (
    Annotated[float, Finite()],
    [-1e300, 0],
    [INF, -INF, NAN],
    'must be float, finite',
  ),
  (Annotated[str, NonEmpty()], ['a'], ['', 1], 'must be str, not empty'),
  (
    Literal['source'] | Annotated[str, EndsWith(('.csv', '.jsonl'))],
    ['source', 'a.csv', 'b/c.jsonl'],
    ['sauce', 'a.tsv', 1, None],
    "must be 'source' or str that ends in .csv or .jsonl",
  ),
  (
    Literal['grid', 'pixels'],
    ['grid', 'pixels'],
    ['gird', None, 0, ['grid']],
    '; valid: grid, pixels',
  ),
  (
    Literal[8, 16],
    [8, np.int64(16)],
    [9, 8.0, '8', True],
    '; valid: 8, 16',
  ),
  (Literal[1, 2], [1], [True, 3], '; valid: 1, 2'),
  (
    Literal['drop', 'keep'] | None,
    ['drop', None],
    ['', 0, False],
    '; valid: drop, keep, None',
  ),
  (
    Annotated[int, OneOf((50, 101))],
    [50, np.int64(101)],
    [51, 50.0, '50', None],
    '; valid: 50, 101',
  ),
  (
    Sequence[Annotated[str, OneOf(('a', 'b'))]],
    [[], ['a', 'b']],
    ['a', ['c'], [1]],
    'must be list of str, one of a, b',
  ),
  (
    Literal['auto'] | Count,
    ['auto', 1],
    ['aut', 0, None],
    "must be 'auto' or int of at least 1",
  ),
  (
    float | None,
    [None, 0.5, 1],
    [NAN, '1', True],
    'must be float or None',
  ),
  (
    Annotated[float | None, Above(0)],
    [None, 0.5],
    [0, NAN],
    'must be float above 0 or None',
  ),
  (
    Count | None, [None, 1], [0, False], 'must be int of at least 1 or None',
  ),
  (
    Sequence[int], [[], (1, 2), [np.int64(1)]], [1, '12', [1.5], [True], None],
    'must be list of int',
  ),
  (
    Annotated[Sequence[Count], NonEmpty(), Distinct()],
    [[1], (3, 1, 2)],
    [[], (), [0], [1, 1], 1],
    'must be list of int of at least 1, not empty, each once',
  ),
  (
    Size,
    [1, (2, 3), [2, 3]],
    [0, [1], [1, 2, 3], [0, 1], (1.0, 2), '12', None],
    'must be int of at least 1 or list of 2 int of at least 1',
  ),
  (
    Clip | None,
    [None, ('per_tensor', 1), ['global_norm', 0.5]],
    [('norm', 1), ('per_tensor', 0), ('per_tensor',), 'per_tensor', 1],
    "must be ('global_norm' or 'per_tensor', float above 0) or None",
  ),
  (
    Sequence[tuple[str, Annotated[float, AtLeast(0)]]],
    [[], [('head/.*', 10)], (['a', 0.0],)],
    [[('a', -1)], ['ab'], [(1, 1)], [('a', INF)]],
    'must be list of (str, float of at least 0)',
  ),
  (
    Mapping[str, Fraction],
    [{}, dict(a=0.5), ConfigDict(dict(a=1))],
    [dict(a=2), ConfigDict(dict(a=NAN)), 0.5, [('a', 1)]],
    'must be dict of float in [0, 1]',
  ),
  (
    str | Sequence[str | int],
    ['a', ['a', 1]],
    [1, [1.5], [None]],
    'must be str or list of str or int',
  ),
  (list, [[], (1, 'a')], ['a', 1], 'must be list'),
]  # fmt: skip


def id_of(case: Any) -> str | None:
  return case if isinstance(case, str) else None


@pytest.mark.parametrize(
  ('hint', 'valid', 'wrong', 'message'), CASES, ids=id_of
)
def test_values_by_hand(hint, valid, wrong, message):
  for value in valid:
    option_types.check_value('task.x', hint, value)
  for value in wrong:
    with pytest.raises(ValueError) as error:
      option_types.check_value('task.x', hint, value)
    join = '' if message.startswith(';') else ' '
    assert str(error.value) == f'task.x={value!r}{join}{message}'


@pytest.mark.parametrize(
  'hint', [Any, object, Callable[..., Any], np.ndarray, int | np.ndarray]
)
def test_other_types_are_left_to_what_they_configure(hint):
  for value in (1, 'a', None, [NAN]):
    option_types.check_value('x', hint, value)


def test_a_constraint_on_an_open_type_refuses_what_it_cannot_compare():
  with pytest.raises(ValueError, match=r"x='a' must be Any above 0"):
    option_types.check_value('x', Annotated[Any, Above(0)], 'a')


def test_long_values_are_cut():
  with pytest.raises(
    ValueError, match=r'^x=\[0, 0, .{70,75}\.\.\. must be list'
  ):
    option_types.check_value('x', Sequence[Count], [0] * 10_000)


@dataclasses.dataclass(frozen=True)
class Even(Constraint):
  """A constraint of one's own."""

  def admits(self, value: Any) -> bool:
    return value % 2 == 0

  def __str__(self) -> str:
    return ', even'


class Plugin:
  """Options by keyword; what comes before is handed over by the trunk."""

  def __init__(
    self,
    backbone: int,
    *,
    rate: Fraction = 0.5,
    kind: Literal['a', 'b'] = 'a',
    size: 'Annotated[int, Even()]' = 2,
  ):
    del backbone, rate, kind, size


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(rate=2), 'task.rate=2 must be float in [0, 1]'),
    (dict(kind='c'), "task.kind='c'; valid: a, b"),
    (dict(size=3), 'task.size=3 must be int, even'),
    (
      dict(rat=1),
      "task: unknown option 'rat' (did you mean 'rate'?); valid: rate, kind, "
      'size',
    ),
  ],
)
def test_options_of_a_class(options, message):
  plugins.check_kwargs('task', Plugin, dict(rate=1, kind='b', size=4))
  with pytest.raises(ValueError) as error:
    plugins.check_kwargs('task', Plugin, options)
  assert str(error.value) == message


@dataclasses.dataclass(frozen=True)
class Base:
  """Fields of a base class count."""

  rate: Fraction = 0.5


@dataclasses.dataclass(frozen=True)
class Fields(Base):
  """Checks itself."""

  count: Count = 1

  def __post_init__(self):
    option_types.check_fields('section', self)


def test_a_dataclass_checks_its_fields():
  Fields(count=2, rate=1)
  with pytest.raises(ValueError, match=r'^section.count=0 must be int of at'):
    Fields(count=0)
  with pytest.raises(ValueError, match=r'^section.rate=-1 must be float in'):
    Fields(rate=-1)
  with pytest.raises(ValueError, match=r'^model.rate=2 must be float in'):
    plugins.check_kwargs('model', Fields, dict(rate=2))


@dataclasses.dataclass(frozen=True)
class Lazy(Base):
  """Of a type that is imported for type checkers only."""

  cells: 'NotImported' = None  # noqa: F821
  count: 'Count' = 1


def test_one_unknown_annotation_does_not_hide_the_others():
  def task(*, cells: 'NotImported', rate: 'Fraction' = 0.5):  # noqa: F821
    del cells, rate

  class Cells:
    def __init__(self, *, rate: 'Fraction', cells: 'NotImported'):  # noqa: F821
      del cells, rate

  for fn in (task, Cells):
    option_types.check('task', fn, dict(rate=1, cells='any'))
    with pytest.raises(ValueError, match=r'^task.rate=2 must be float in'):
      option_types.check('task', fn, dict(rate=2, cells='any'))
  for name in ('rate', 'count'):
    with pytest.raises(ValueError, match=f'^{name}=-1 must be'):
      option_types.check('', Lazy, {name: -1})
  assert 'cells' not in option_types.hints(Lazy)
