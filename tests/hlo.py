"""Reads collectives out of compiled HLO text."""

import math
import re
from typing import NamedTuple

import numpy as np

_OPS = (
  'all-gather',
  'all-reduce',
  'reduce-scatter',
  'all-to-all',
  'collective-permute',
  'collective-broadcast',
)
_INSTRUCTION = re.compile(
  rf'= (?P<result>.*?) (?P<op>{"|".join(_OPS)})(?:-start)?\((?P<rest>.*)'
)
_SHAPE = re.compile(r'\b(pred|bf16|[fsuc]\d+\w*)\[([\d,]*)\]')

# The three ways in which HLO writes groups of devices.
_LISTED = re.compile(r'replica_groups=\{(\{[\d,{}]*\})\}')
_IOTA = re.compile(
  r'replica_groups=\[(?P<out>[\d,]+)\]<=\[(?P<dims>[\d,]+)\]'
  r'(?:T\((?P<perm>[\d,]+)\))?'
)
_MESH = re.compile(
  r'replica_groups=mesh\[(?P<axes>[^\]]*)\]'
  r'(?:, device_ids=\(\[(?P<dims>[\d,]+)\](?:T\((?P<perm>[\d,]+)\))?\))?'
  r' \{(?P<over>[^}]*)\}'
)


class Collective(NamedTuple):
  """One result of a collective: its op and per-device shape."""

  op: str
  shape: tuple[int, ...]


class Transfer(NamedTuple):
  """One result of a collective: op, dtype, per-device shape, mesh axes."""

  op: str
  dtype: str
  shape: tuple[int, ...]
  over: str


def collectives(text: str) -> list[Collective]:
  """All collectives of `compiled.as_text()`, one entry a result array.

  Shapes are those on one device. The result of an asynchronous start is a
  tuple that holds its operands too; they are listed as well.
  """
  return [
    Collective(match['op'], shape)
    for match in _INSTRUCTION.finditer(text)
    for _, shape in _arrays(match['result'])
  ]


def transfers(text: str, mesh_shape: tuple[int, int]) -> list[Transfer]:
  """As `collectives`, with the axes of a (data, model) mesh they go over.

  That is 'data', 'model', or 'all' for a group of all devices. Dims of size 1
  are left out and the others sorted: the compiler transposes at will.
  """
  found = []
  for match in _INSTRUCTION.finditer(text):
    over = _axes(groups(match['rest']), mesh_shape)
    for dtype, shape in _arrays(match['result']):
      shape = tuple(sorted(n for n in shape if n != 1))
      found.append(Transfer(match['op'], dtype, shape, over))
  return found


def groups(attributes: str) -> list[list[int]]:
  """Groups of device ids of the text of an instruction, sorted."""
  if match := _LISTED.search(attributes):
    rows = [_ints(row) for row in re.findall(r'\{([\d,]+)\}', match[1])]
  elif match := _IOTA.search(attributes):
    rows = _iota(match['dims'], match['perm']).reshape(_ints(match['out']))
    rows = rows.tolist()
  elif match := _MESH.search(attributes):
    axes = {
      name: int(size)
      for name, size in re.findall(r"'(\w+)'=(\d+)", match['axes'])
    }
    over = re.findall(r"'(\w+)'", match['over'])
    dims = match['dims'] or str(math.prod(axes.values()))
    ids = _iota(dims, match['perm']).reshape(tuple(axes.values()))
    last = [list(axes).index(name) for name in over]
    ids = np.moveaxis(ids, last, range(-len(last), 0))
    rows = ids.reshape(-1, math.prod(axes[name] for name in over)).tolist()
  else:
    raise ValueError(f'no replica_groups in {attributes[:200]!r}')
  return sorted(sorted(row) for row in rows)


def _arrays(result: str) -> list[tuple[str, tuple[int, ...]]]:
  return [
    (dtype, tuple(int(d) for d in dims.split(',') if d))
    for dtype, dims in _SHAPE.findall(result)
  ]


def _axes(found: list[list[int]], mesh_shape: tuple[int, int]) -> str:
  ids = np.arange(math.prod(mesh_shape)).reshape(mesh_shape)
  named = {
    'all': [ids.ravel().tolist()],
    'data': ids.T.tolist(),
    'model': ids.tolist(),
  }
  for name, expected in named.items():
    if found == sorted(expected):
      return name
  return str(found)


def _ints(text: str) -> list[int]:
  return [int(n) for n in text.split(',')]


def _iota(dims: str, perm: str | None) -> np.ndarray:
  shape = _ints(dims)
  ids = np.arange(math.prod(shape)).reshape(shape)
  return ids.transpose(_ints(perm)) if perm else ids
