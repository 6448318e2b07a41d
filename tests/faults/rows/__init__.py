"""The rows of the fault matrix, one a module; all are found by their names."""

import dataclasses
import importlib
import pkgutil
import random
from collections.abc import Callable
from typing import Any


class Impossible(Exception):
  """A trial that this machine does not allow, such as mounting a disk."""


@dataclasses.dataclass(frozen=True)
class Row:
  """A fault and what is promised under it; `ROW` of its module.

  Attributes:
    id: 'F1' and so on.
    fault: what is done, for the table.
    promise: what holds then, for the table.
    trial: (field, number, random numbers) does it once, in its own folder;
      AssertionError: the promise is broken. It returns a note or ''. Where the
      machine does not let it: `Impossible`.
    trials: how many are asked for.
    per_commit: how many are run on every commit.
  """

  id: str
  fault: str
  promise: str
  trial: Callable[[Any, int, random.Random], str | None]
  trials: int
  per_commit: int


def found() -> dict[str, Row]:
  """The rows by their ids, in order."""
  modules = [
    importlib.import_module(f'{__name__}.{module.name}')
    for module in pkgutil.iter_modules(__path__)
  ]
  rows = [module.ROW for module in modules]
  return {row.id: row for row in sorted(rows, key=_order)}


def _order(row: Row) -> tuple[str, int]:
  return row.id[0], int(row.id[1:])
