"""What evaluators of boxes and poses say and leave in the workdir."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from big_vision_like.protocols import WithTruth
from evaluators.harness.context import EvalContext
from input_pipeline.files import atomic

Table = TypeVar('Table')


class LeftBehind:
  """Lines that are said once, and files that one process writes."""

  def __init__(self, ctx: EvalContext):
    self._ctx = ctx
    self._said: set[str] = set()

  def say_once(self, text: str) -> None:
    """Prints a line, unless it was printed before."""
    if text not in self._said:
      self._said.add(text)
      self._ctx.say(text)

  def say_left_out(
    self, names: Sequence[str], found: Mapping[str, Any], what: str
  ) -> None:
    """Names the figures that nothing counts for; `what` would have to."""
    missing = [name for name in names if name not in found]
    if missing:
      self.say_once(f'no {what} for {", ".join(missing)}: left out')

  def file(self, name: str) -> str | None:
    """Path of a file of this evaluator; None where this process writes none."""
    if self._ctx.workdir is None or self._ctx.process_index:
      return None
    return os.path.join(self._ctx.workdir, f'{self._ctx.name}_{name}')

  def write_results(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes <name>_results.json, a list of entries as COCO's server takes."""
    path = self.file('results.json')
    if path is not None:
      with atomic.writing_json_list(path) as append:
        for row in rows:
          append(row)

  def without_truth(self, source: Any) -> bool:
    """Whether a source has none, which it says: there are no figures then."""
    if not isinstance(source, WithTruth) or source.has_truth:
      return False
    self.say_once('no truth here: results are written, no figures')
    return True


def of_images(table: Table, images: np.ndarray, numbers: np.ndarray) -> Table:
  """Rows of some images, which are then called by their numbers.

  Args:
    table: a dataclass of arrays, `images` among them: int [n] indices.
    images: indices of those wanted.
    numbers: int [I] of all.
  """
  kept = np.isin(vars(table)['images'], images)
  columns = {name: value[kept] for name, value in vars(table).items()}
  columns['images'] = numbers[columns['images']]
  return type(table)(**columns)
