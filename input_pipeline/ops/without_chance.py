"""The op configs of training as they are for an evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

from big_vision_like.protocols import WithoutChance
from input_pipeline import ops as example_ops
from input_pipeline.ops import chains
from input_pipeline.ops.context import OpContext

_OPS = 'input.ops of the checkpoint'


def deterministic_ops(
  specs: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
  """Those ops that the image comes from, without chance.

  What the others make is not wanted. One with chance becomes what its class
  says (`without_chance`), such as a random crop the central one of its size.

  Raises:
    ValueError: an op of which this is not known.
  """
  wanted, kept = {'image'}, []
  for spec in reversed(specs):
    op_class = example_ops.find(_OPS, spec['op'])
    if not chains.declared(op_class):
      raise _unknown(spec['op'])
    if not wanted.isdisjoint(op_class.makes):
      wanted.update(op_class.reads)
      kept[:0] = _without_chance(op_class, dict(spec))
  return kept


def _without_chance(
  op_class: object, spec: dict[str, Any]
) -> Sequence[dict[str, Any]]:
  """The configs that an op's becomes: none, itself or others."""
  if isinstance(op_class, WithoutChance):
    return op_class.without_chance(spec)
  for op in example_ops.build([spec], OpContext(where=_OPS)):
    if not chains.deterministic(op):
      raise _unknown(spec['op'])
  return [spec]


def _unknown(name: str) -> ValueError:
  return ValueError(
    f'{_OPS}: what {name!r} is without chance is not known; give the ops to '
    'use instead'
  )
