"""What a chain of ops needs of a record and makes of it, from their own words.

An op says what it `reads` and `makes` (declared.py, docs/add-an-op.md). Walked
backwards, that tells what a chain needs of its records. An op that does not say
so may read anything, and then nothing is left out.
"""

import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from big_vision_like.protocols import Declaring, Deterministic, Op, Selective
from input_pipeline.examples.fields import FIELDS


def declared(op: object) -> TypeGuard[Declaring]:
  """Whether an op, or a class of them, says what it reads and makes.

  What a class inherits is not believed where its own package computes anew:
  an op of a user's own that extends one of ours may read more than that.
  """
  if not isinstance(op, Declaring):
    return False
  op_class = op if inspect.isclass(op) else type(op)
  order = [
    c
    for c in inspect.getmro(op_class)
    if {'reads', '__call__'} & vars(c).keys()
  ]
  says = next((c for c in order if 'reads' in vars(c)), op_class)
  does = next((c for c in order if '__call__' in vars(c)), op_class)
  return issubclass(says, does) or _package(says) == _package(does)


def check(op: object, where: str) -> None:
  """ValueError where an op says what it reads and makes in a wrong way."""
  if hasattr(op, 'reads') != hasattr(op, 'makes'):
    raise ValueError(
      f'{where}: an op declares both reads and makes, or neither'
    )
  for name in ('reads', 'makes'):
    names = getattr(op, name, ())
    if isinstance(names, str) or not all(isinstance(n, str) for n in names):
      raise ValueError(
        f'{where}: {name} must be a set of names of fields, got {names!r}'
      )


def _package(op_class: type) -> str:
  return op_class.__module__.partition('.')[0]


def needed(ops: Sequence[Op]) -> frozenset[str] | None:
  """Fields of a record that a chain reads; None: not known, so all of them.

  A field that is moved along (boxes by a crop) is needed where a later op
  reads it, and so is what moving it takes.
  """
  saying = list(filter(declared, ops))
  if len(saying) < len(ops):
    return None
  names = {'image'}
  for op in reversed(saying):
    names = names - set(op.makes) | set(op.reads)
    names |= {
      other
      for name in names & FIELDS.keys()
      for other in FIELDS[name].moves_with
    }
  return frozenset(names)


def only(
  record: Mapping[str, Any], names: Collection[str] | None
) -> dict[str, Any]:
  """The fields of a record that `needed` names; moving others is waste.

  Its key stays, for messages.
  """
  return {
    k: v for k, v in record.items() if names is None or k in names or k == 'key'
  }


def finished(ops: Iterable[Op]) -> frozenset[str]:
  """Fields that ops of a chain bring into the form that a batch has.

  A field that has another form in records is so where the op that makes it
  makes `Field.beside` too.
  """
  names: set[str] = set()
  for op in filter(declared, ops):
    for name in op.makes:
      beside = FIELDS[name].beside if name in FIELDS else None
      if beside is None or beside in op.makes:
        names.add(name)
  return frozenset(names)


def making(ops: Sequence[Op], wanted: Collection[str]) -> list[Op]:
  """Those ops of a chain that some fields come from, all they make being equal.

  It is the whole chain where an op does not say what it makes, or where one
  that is needed draws: its numbers depend on what others have drawn before.
  """
  saying = list(filter(declared, ops))
  if len(saying) < len(ops):
    return list(ops)
  names, kept = set(wanted), []
  for op in reversed(saying):
    if names.isdisjoint(op.makes):
      continue
    op = op.only(names) if isinstance(op, Selective) else op
    names = names - set(op.makes) | set(op.reads)
    kept.insert(0, op)
  return kept if all(map(deterministic, kept)) else list(ops)


def deterministic(op: Op) -> bool:
  """Whether an op says that it draws nothing from its generator."""
  return isinstance(op, Deterministic) and bool(op.deterministic())
