"""Reads collectives out of compiled HLO text."""

import re
from typing import NamedTuple

_OPS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
  'collective-broadcast',
)
_INSTRUCTION = re.compile(
  rf'= (?P<result>.*?) (?P<op>{"|".join(_OPS)})(?:-start)?\('
)
_SHAPE = re.compile(r'\b(?:pred|bf16|[fsuc]\d+\w*)\[([\d,]*)\]')


class Collective(NamedTuple):
  """One result of a collective: its op and per-device shape."""

  op: str
  shape: tuple[int, ...]


def collectives(text: str) -> list[Collective]:
  """All collectives of `compiled.as_text()`, one entry a result array.

  Shapes are those on one device. The result of an asynchronous start is a
  tuple that holds its operands too; they are listed as well.
  """
  found = []
  for match in _INSTRUCTION.finditer(text):
    for dims in _SHAPE.findall(match['result']):
      shape = tuple(int(d) for d in dims.split(',') if d)
      found.append(Collective(match['op'], shape))
  return found
