"""Runs that are compared on other devices, processes or workers.

Sums in another order differ by rounding, which a large rate amplifies.
"""

from typing import Any

from tests.faults import ledger

MOST_RELATIVE = 1e-5


def world(num_classes: int, steps: int) -> dict[str, Any]:
  """Changes to the field's config: a small rate, enough images, no evals."""
  return {
    'evals': {},
    'total_steps': steps,
    'schedule.lr': 1e-4,
    'input.source.num_classes': num_classes,
    'input.source.num_images': 2000,
  }


def compared(
  expected: list[dict[str, Any]], lines: list[dict[str, Any]], name: str
) -> float:
  """The largest relative difference of the losses, which must be small.

  Args:
    expected, lines: of ledgers, whose records must be the same.
    name: of the trial.
  """
  assert [x['step'] for x in lines] == [x['step'] for x in expected], name
  assert [x['ids'] for x in lines] == [x['ids'] for x in expected], name
  worst = max(
    abs(ledger.loss(a) - ledger.loss(b)) / abs(ledger.loss(a))
    for a, b in zip(expected, lines, strict=True)
  )
  assert worst <= MOST_RELATIVE, f'{name}: losses differ by {worst:.1e}'
  return worst
