"""The best of several runs, by a figure: which, why, and how near the border.

The paper picks the rate of every start by search (Sun et al. 2017, sections 5.2
and 5.4). A candidate counts if all of its seeds have ended with a finite
figure; of equal ones the first listed is taken.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Candidate:
  """What a run of a search came to.

  Attributes:
    run: its name.
    mean: of its figure over the seeds; None: it does not count.
    why: why it does not count; '' where it does.
  """

  run: str
  mean: float | None
  why: str = ''


@dataclasses.dataclass(frozen=True)
class Choice:
  """What came out of a search.

  Attributes:
    metric, mode: by what; 'max' or 'min' is best.
    candidates: all of them, in the order of the study.
    run: the best one; '': none counts.
    tied: others with the same figure.
  """

  metric: str
  mode: str
  candidates: Sequence[Candidate]
  run: str
  tied: Sequence[str] = ()

  def to_json(self) -> dict[str, Any]:
    """As the record of a job keeps it."""
    return {
      'run': self.run,
      'metric': self.metric,
      'mode': self.mode,
      'figures': {c.run: c.why or c.mean for c in self.candidates},
    }

  @property
  def left_out(self) -> str:
    """'rate_0.1 (failed (exit code 1))', those that do not count."""
    return ', '.join(f'{c.run} ({c.why})' for c in self.candidates if c.why)


def best(candidates: Sequence[Candidate], metric: str, mode: str) -> Choice:
  """The candidate with the largest mean, or with mode 'min' the smallest."""
  counted = [(c.run, c.mean) for c in candidates if c.mean is not None]
  run, tied = '', []
  if counted:
    top = (max if mode == 'max' else min)(mean for _, mean in counted)
    run, *tied = [name for name, mean in counted if mean == top]
  return Choice(metric, mode, tuple(candidates), run, tuple(tied))


def at_border(axes: Mapping[str, Mapping[str, Any]], run: str) -> list[str]:
  """Lines on axes of which the chosen run has the smallest or largest value.

  There the best may lie outside: the search was too narrow.

  Args:
    axes: candidate -> its axes.
    run: the chosen one.
  """
  lines = []
  for axis, value in axes[run].items():
    values: list[Any] = [given.get(axis) for given in axes.values()]
    if not all(map(_is_number, values)) or len(set(values)) < 2:
      continue
    for end, name in ((min(values), 'smallest'), (max(values), 'largest')):
      if value == end:
        lines.append(f'{axis}={value:g} is the {name} that was tried')
  return lines


def _is_number(value: Any) -> bool:
  number = isinstance(value, int | float) and not isinstance(value, bool)
  return number and math.isfinite(value)
