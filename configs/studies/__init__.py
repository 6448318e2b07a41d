"""Studies: several runs, what each starts from, and what is told of them.

A study is plain data that tools/study.py carries out; docs/studies.md explains
every key. `base()` is the table of keys, `grid` makes runs from axes:

  c = studies.base('More data')
  c.seeds = (0, 1, 2)
  c.runs = [
    dict(
      name=f'images{v["images"]}',
      config=f'configs/quickstart.py:images={v["images"]}',
      axes=v,
    )
    for v in studies.grid(images=(1000, 10_000, 100_000))
  ]
"""

import itertools
from collections.abc import Iterable
from typing import Any

from ml_collections import ConfigDict


def base(title: str, text: str = '') -> Any:
  """An empty study.

  Args:
    title: heading of the report.
    text: what is asked and how, for the report.
  """
  c: Any = ConfigDict()
  c.title = title
  c.text = text
  c.seeds = (0,)  # of every run that names none
  c.runs = []
  c.tables = []
  c.figures = []
  return c


def grid(**axes: Iterable[Any]) -> list[dict[str, Any]]:
  """All combinations of the axes' values, the last axis varying fastest.

  Returns:
    A list of {axis: value}; the `axes` of a run.
  """
  values = itertools.product(*axes.values())
  return [dict(zip(axes, combination)) for combination in values]
