"""A few trials of the rows of the fault matrix, of a net of one layer.

At night all of them, of a ResNet.
"""

import random

import pytest

from tests.faults import __main__ as command
from tests.faults import field, rows

ROWS = rows.found()


@pytest.fixture(scope='module')
def place(tmp_path_factory, trainers, request):
  folder = tmp_path_factory.mktemp('faults') / 'field'
  simple = not request.config.getoption('--nightly')
  return field.Field(folder, trainers, simple=simple)


def cases():
  for row in ROWS.values():
    for number in range(row.trials):
      nightly = [pytest.mark.nightly] if number >= row.per_commit else []
      name = f'{row.id}-{number}'
      yield pytest.param(row, number, marks=nightly, id=name)


@pytest.mark.slow
@pytest.mark.parametrize('row, number', list(cases()))
def test_the_promise_holds(row, number, place):
  try:
    row.trial(place, number, random.Random(f'0 {row.id} {number}'))
  except rows.Impossible as error:
    pytest.skip(str(error))


def test_results_are_put_into_the_table_in_order(tmp_path):
  page = tmp_path / 'page.md'
  page.write_text(f'before\n{command._BEGIN}\n{command._END}\nafter\n')
  command.write({'F4': '| F4 | a |', 'F10': '| F10 | b |'}, page)
  command.write({'F4': '| F4 | c |', 'S1': '| S1 | d |'}, page)
  text = page.read_text()
  assert text.startswith('before\n')
  assert text.endswith('after\n')
  assert text.count('| row |') == 1
  assert [t for t in text.splitlines() if t[:3] in ('| F', '| S')] == [
    '| F4 | c |',
    '| F10 | b |',
    '| S1 | d |',
  ]
