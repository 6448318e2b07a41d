"""Examples that figures leave out: `exclude_ids`, such as near-duplicates."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.protocols import Source, StoredKeys
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import text_lines


def read_excluded(
  exclude: str | Sequence[str | int] | None,
  source: Source,
  where: str,
  say: Callable[[str], None] = print,
) -> np.ndarray | None:
  """Indices of the records that `exclude_ids` names: int64 [n], ascending.

  A list without any key is what tools/dedup.py writes where it finds nothing;
  one line says so, since a file cut short looks the same.

  Args:
    exclude: text file of record keys, one a line, such as the drop_ids.txt of
      tools/dedup.py; or a list of keys or indices; None excludes nothing. A
      key that several records share excludes all of them.
    source: the evaluation set.
    where: config key, for messages.
    say: prints a line.

  Raises:
    FileNotFoundError: no such file.
    ValueError: naming the config key or `file:line`: a key or index that the
      set does not have, or nothing is left.
  """
  if exclude is None:
    return None
  if isinstance(exclude, str):
    named: list[tuple[str, Any]] = [
      (f'{exclude}:{number}', line)
      for number, line in enumerate(text_lines.read(exclude), 1)
      if line.strip()
    ]
  else:
    named = [(where, key) for key in exclude]
  if not named:
    say(f'exclude_ids={exclude!r} names no record: nothing is excluded')
  index_of = _indices_of_keys(source, [k for _, k in named])
  found: set[int] = set()
  for place, key in named:
    if isinstance(key, str):
      indices = index_of.get(key) or index_of.get(key.strip(), [])
    elif isinstance(key, int | np.integer) and not isinstance(key, bool):
      indices = [int(key)] if 0 <= key < len(source) else []
    else:
      raise ValueError(f'{place}: {key!r} is neither a key nor an index')
    if not indices:
      raise ValueError(
        f'{place}: no record {key!r} among the {len(source)} of the '
        f'evaluation set; its first is {source.key(0)!r}. Lists of tools.dedup '
        'hold the keys of the data that it was given'
      )
    found.update(indices)
  if len(found) == len(source):
    raise ValueError(f'{where} excludes every record')
  return np.array(sorted(found), np.int64)


def without_excluded(figures: Mapping[str, float]) -> dict[str, float]:
  """Figures under the names that those without `exclude_ids` have."""
  return {f'{name}/dedup': value for name, value in figures.items()}


def _indices_of_keys(
  source: Source, keys: Sequence[Any]
) -> dict[str, list[int]]:
  """Key -> indices, for those keys wanted that the source has.

  A key that is no place in the set may be the name that an image had before it
  was prepared; to find those, the records are read.
  """
  texts = [key for key in keys if isinstance(key, str)]
  wanted = {*texts, *(key.strip() for key in texts)}
  found: dict[str, list[int]] = {}
  names_of = [source.key]
  if isinstance(source, StoredKeys):
    names_of.append(source.stored_key)
  for name_of in names_of:
    if all({k, k.strip()} & found.keys() for k in texts):
      break
    for index in range(len(source)):
      try:
        key = name_of(index)
      except BadExample:  # evaluating it will say so
        continue
      if key in wanted and index not in found.get(key, ()):
        found.setdefault(key, []).append(index)
  return found
