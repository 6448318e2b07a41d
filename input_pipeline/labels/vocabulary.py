"""The vocabulary: which label has which output id, and what is known of it.

File formats (docs/label-hierarchy.md), .gz too:
  .jsonl  one object a line: name, and optionally id (must be the position),
          description, parents (names or ids), n_images, popularity_weight,
          imagenet_id
  .txt    one name a line
The id of a label is its position. Names are data: nothing interprets them. A
name may be an id of its own ('n01440764'); its description is for people.
"""

import dataclasses
import difflib
import functools
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.files import atomic
from input_pipeline.labels import text_lines

_KEYS = (
  'id',
  'name',
  'description',
  'parents',
  'n_images',
  'imagenet_id',
  'popularity_weight',
)
_MANY_NAMES = 20_000


class NotToldError(ValueError):
  """A data set does not tell its labels; its option `vocabulary` would."""


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
  """Labels in the order of their ids.

  Attributes:
    names: unique names, C of them.
    counts: int64 [C] training images per raw label, or None.
    weights: float64 [C] popularity weights, or None.
    parents: names of the direct parents of each label, or None.
    imagenet_ids: ImageNet synset of each label (None where it has none), or
      None.
    descriptions: what each name means to people ('n01440764' -> 'tench'; None
      where the name says it), or None.
    origin: file it was read from, for messages; '' if from none.
  """

  names: tuple[str, ...]
  counts: np.ndarray | None = None
  weights: np.ndarray | None = None
  parents: tuple[tuple[str, ...], ...] | None = None
  imagenet_ids: tuple[str | None, ...] | None = None
  descriptions: tuple[str | None, ...] | None = None
  origin: str = ''

  def __post_init__(self):
    object.__setattr__(self, 'names', tuple(self.names))
    if not self.names:
      raise ValueError(f'{self.origin or "vocabulary"}: no labels')
    for i, name in enumerate(self.names):
      text_lines.check_name(name, self.where(i))
    if len(self._ids) < len(self.names):
      raise ValueError(self._duplicate())
    for field, dtype in (('counts', np.int64), ('weights', np.float64)):
      value = getattr(self, field)
      if value is not None:
        object.__setattr__(self, field, self._checked(field, value, dtype))
    for field in ('parents', 'imagenet_ids', 'descriptions'):
      value = getattr(self, field)
      if value is None:
        continue
      object.__setattr__(self, field, tuple(value))
      if len(value) != len(self.names):
        raise ValueError(
          f'{self.origin or "vocabulary"}: {len(value)} {field} for '
          f'{len(self.names)} labels'
        )
    for field, key in (
      ('descriptions', 'description'),
      ('imagenet_ids', 'imagenet_id'),
    ):
      for i, value in enumerate(getattr(self, field) or ()):
        if value is not None:
          text_lines.check_name(value, f'{self.where(i)}: {key}')
    for i, names in enumerate(self.parents or ()):
      for name in names:
        text_lines.check_name(name, f'{self.where(i)}: parents')

  def _checked(self, field: str, value: Any, dtype: type) -> np.ndarray:
    array = np.array(value, dtype)
    if array.shape != (len(self.names),):
      raise ValueError(
        f'{self.origin or "vocabulary"}: {field} has shape {array.shape} for '
        f'{len(self.names)} labels'
      )
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(bad):
      raise ValueError(
        f'{self.where(bad[0])}: {field} of {self.names[bad[0]]!r} must be '
        f'finite and not negative, got {array[bad[0]]}'
      )
    array.setflags(write=False)
    return array

  def _duplicate(self) -> str:
    first: dict[str, int] = {}
    for i, name in enumerate(self.names):
      if first.setdefault(name, i) != i:
        before = self.where(first[name])
        return f'{self.where(i)}: name {name!r} is already at {before}'
    raise AssertionError('called without a duplicate')

  def __len__(self) -> int:
    return len(self.names)

  @functools.cached_property
  def _ids(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.names)}

  def where(self, label: int) -> str:
    """Place of a label for messages: 'file:line' or 'label 7'."""
    if self.origin:
      return f'{self.origin}:{label + 1}'
    return f'vocabulary label {label}'

  def __contains__(self, name: str) -> bool:
    return name in self._ids

  def index(self, name: str) -> int:
    """Id of a name.

    Raises:
      ValueError: not in the vocabulary; the message lists near names.
    """
    try:
      return self._ids[name]
    except KeyError:
      pass
    raise ValueError(
      f'label {name!r} is not among the {len(self)} names of '
      f'{self.origin or "the vocabulary"}{suggestion(name, self.names)}'
    )

  def readable_name(self, label: int) -> str:
    """What to show people for a label: its description, or else its name."""
    described = None if self.descriptions is None else self.descriptions[label]
    return self.names[label] if described is None else described

  def restricted(self, labels: Sequence[int]) -> 'Vocabulary':
    """These labels only, with all that is known of them; ids from 0 on.

    Args:
      labels: ids to keep, in their new order. Of their parents those that are
        kept stay (`hierarchy.restrict` bridges the others).
    """
    kept = frozenset(self.names[i] for i in labels)

    def pick(values: Any) -> Any:
      return None if values is None else [values[i] for i in labels]

    parents = pick(self.parents)
    if parents is not None:
      parents = tuple(tuple(p for p in row if p in kept) for row in parents)
    return Vocabulary(
      pick(self.names),
      counts=pick(self.counts),
      weights=pick(self.weights),
      parents=parents,
      imagenet_ids=pick(self.imagenet_ids),
      descriptions=pick(self.descriptions),
    )

  def fingerprint(self) -> str:
    """16 hex digits of the names in their order."""
    joined = '\n'.join(self.names).encode()
    return hashlib.blake2b(joined, digest_size=8).hexdigest()

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes JSONL, or plain names if the path ends in .txt; atomically.

    Plain text keeps the names only.
    """
    path = os.fspath(path)
    if path.endswith('.txt'):
      lines = self.names
    elif path.endswith('.jsonl'):
      lines = [
        json.dumps(self._entry(i), ensure_ascii=False) for i in range(len(self))
      ]
    else:
      raise ValueError(f'{path}: a vocabulary is saved as .jsonl or .txt')
    with atomic.writing_text(path) as file:
      file.writelines(f'{line}\n' for line in lines)

  def _entry(self, i: int) -> dict[str, Any]:
    entry: dict[str, Any] = {'id': i, 'name': self.names[i]}
    if self.descriptions is not None:
      entry['description'] = self.descriptions[i]
    if self.parents is not None:
      entry['parents'] = list(self.parents[i])
    if self.counts is not None:
      entry['n_images'] = int(self.counts[i])
    if self.imagenet_ids is not None:
      entry['imagenet_id'] = self.imagenet_ids[i]
    if self.weights is not None:
      entry['popularity_weight'] = float(self.weights[i])
    return entry


def suggestion(name: str, names: Sequence[str], n: int = 3) -> str:
  """'; near: a, b' with the names most like `name`, or ''."""
  lower = name.lower()
  same = [known for known in names if known.lower() == lower]
  if len(names) > _MANY_NAMES:  # get_close_matches is slow: same beginning
    names = [known for known in names if known[:2].lower() == lower[:2]]
  near = same or difflib.get_close_matches(name, names, n=n, cutoff=0.65)
  return f'; near: {", ".join(map(repr, near[:n]))}' if near else ''


def given(option: str | Sequence[str]) -> Vocabulary:
  """What an option `vocabulary` says: a file, or the names themselves."""
  if isinstance(option, str):
    return load(option)
  return Vocabulary(tuple(option))


def load(path: str | os.PathLike[str]) -> Vocabulary:
  """Reads a vocabulary (.jsonl or .txt, .gz too).

  `n_images` and `popularity_weight` are given on all lines or on none; null
  counts as not given; a line without parents has none.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not a vocabulary; names the file, the line and the mistake.
  """
  path = os.fspath(path)
  kind = path.removesuffix('.gz')
  if not kind.endswith(('.jsonl', '.txt')):
    raise ValueError(
      f'{path}: a vocabulary is .jsonl or .txt (.gz too), by its suffix'
    )
  lines = text_lines.read(path)
  if not lines:
    raise ValueError(f'{path}: empty, no labels')
  if kind.endswith('.txt'):
    return Vocabulary(tuple(line.strip() for line in lines), origin=path)
  entries = [
    _parse_entry(line, i, f'{path}:{i + 1}') for i, line in enumerate(lines)
  ]
  names = tuple(entry['name'] for entry in entries)
  imagenet_ids = tuple(entry.get('imagenet_id') for entry in entries)
  descriptions = tuple(entry.get('description') for entry in entries)
  return Vocabulary(
    names,
    counts=_column(entries, 'n_images', np.int64, path),
    weights=_column(entries, 'popularity_weight', np.float64, path),
    parents=_parents(entries, names, path),
    imagenet_ids=imagenet_ids if any(imagenet_ids) else None,
    descriptions=descriptions if any(descriptions) else None,
    origin=path,
  )


def _parse_entry(line: str, position: int, where: str) -> dict[str, Any]:
  """One line of JSONL, with each value's type and range checked."""
  if not line.strip():
    raise ValueError(f'{where}: empty line')
  entry = text_lines.parse_json(line, where)
  if not isinstance(entry, dict) or 'name' not in entry:
    raise ValueError(f'{where}: not an object with a "name"')
  for key in entry:
    if key not in _KEYS:
      raise ValueError(
        f'{where}: unknown key {key!r}; valid: {", ".join(_KEYS)}'
      )
  entry = {key: value for key, value in entry.items() if value is not None}
  if 'name' not in entry:
    raise ValueError(f'{where}: "name" is null')
  text_lines.check_name(entry['name'], where)
  given = entry.get('id', position)
  if type(given) is not int or given != position:
    taken = type(given) is int and 0 <= given < position
    raise ValueError(
      f'{where}: id {given!r:.40} is not the position {position}'
      + (f'; line {given + 1} has that id already' if taken else '')
    )
  count = entry.get('n_images', 0)
  if type(count) is not int or not 0 <= count < 1 << 63:
    raise ValueError(
      f'{where}: n_images must be a count >= 0, got {count!r:.40}'
    )
  weight = entry.get('popularity_weight', 0.0)
  number = type(weight) in (int, float)
  if not number or not 0 <= weight <= sys.float_info.max:
    raise ValueError(
      f'{where}: popularity_weight must be a finite number >= 0, '
      f'got {weight!r:.40}'
    )
  if not isinstance(entry.get('parents', []), list):
    raise ValueError(f'{where}: parents must be a list of names or ids')
  for key in ('imagenet_id', 'description'):
    if key in entry:
      text_lines.check_name(entry[key], f'{where}: {key}')
  return entry


def _column(
  entries: Sequence[dict[str, Any]], key: str, dtype: type, path: str
) -> np.ndarray | None:
  """Values of a key that all lines have or none has."""
  absent = [i for i, entry in enumerate(entries) if key not in entry]
  if len(absent) == len(entries):
    return None
  if absent:
    raise ValueError(
      f'{path}:{absent[0] + 1}: no {key}, which other lines have; give it on '
      f'all lines or on none'
    )
  return np.array([entry[key] for entry in entries], dtype)


def _parents(
  entries: Sequence[dict[str, Any]], names: tuple[str, ...], path: str
) -> tuple[tuple[str, ...], ...] | None:
  """Parents by name; ids in the file are resolved here."""
  if not any('parents' in entry for entry in entries):
    return None
  resolved = []
  for i, entry in enumerate(entries):
    where = f'{path}:{i + 1}'
    by_name = []
    for parent in entry.get('parents', []):
      if type(parent) is int:
        if not 0 <= parent < len(names):
          raise ValueError(
            f'{where}: parent id {parent} is not in 0..{len(names) - 1}'
          )
        parent = names[parent]
      by_name.append(text_lines.check_name(parent, f'{where}: parents'))
    resolved.append(tuple(by_name))
  return tuple(resolved)
