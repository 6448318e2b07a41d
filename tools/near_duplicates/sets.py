"""Data sets as tools/dedup.py names them on the command line."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from big_vision_like.config import json_text, plugins
from big_vision_like.protocols import Source
from input_pipeline import pipeline
from input_pipeline.labels import text_lines

from . import signatures


@dataclasses.dataclass(frozen=True)
class NamedSet:
  """A data set of the command.

  Attributes:
    role: 'train', 'eval' or 'within'.
    name: as given on the command line.
    source: its records.
    vectors: (what distinguishes the file, array [n, D]), or None.
  """

  role: str
  name: str
  source: Source
  vectors: tuple[str, np.ndarray] | None


def open_sets(
  train: Sequence[str], evaluation: Sequence[str], within: Sequence[str]
) -> list[NamedSet]:
  """Opens all of them, in the order train, eval, within.

  Raises:
    FileNotFoundError, ValueError: naming the flag and its value.
  """
  given = {'train': train, 'eval': evaluation, 'within': within}
  sets = []
  for role, texts in given.items():
    for number, text in enumerate(texts):
      where = f'--{role} {text}'
      if text in texts[:number]:
        raise ValueError(f'{where}: given twice')
      config = parse(text, where)
      path = config.pop('embeddings', None)
      if path is not None and not isinstance(path, str):
        raise ValueError(f'{where}: embeddings must be a file, got {path!r}')
      source = pipeline.open_source(config, where)
      vectors = None
      if path is not None:
        try:
          vectors = signatures.open_vectors(path, len(source))
        except ValueError as error:
          raise ValueError(f'{where}: {error}') from None
      sets.append(NamedSet(role, text, source, vectors))
  with_file = [s for s in sets if s.vectors is not None]
  if with_file and len(with_file) < len(sets):
    missing = next(s for s in sets if s.vectors is None)
    raise ValueError(
      f'--{missing.role} {missing.name}: has no embeddings=FILE, and '
      f'{with_file[0].name} has'
    )
  dims = {s.vectors[1].shape[1]: s for s in sets if s.vectors is not None}
  if len(dims) > 1:
    listed = ', '.join(f'{d} ({s.name})' for d, s in dims.items())
    raise ValueError(f'embeddings of different lengths: {listed}')
  return sets


def parse(text: str, where: str) -> dict[str, Any]:
  """Source config of `[TYPE:]PATH[:SPLIT][,option=value...]` or of JSON.

  Raises:
    ValueError: naming what is wrong with it.
  """
  if text.startswith('{'):
    config = text_lines.parse_json(text, where)
    if not isinstance(config, dict) or 'type' not in config:
      raise ValueError(f'{where}: the JSON of a source needs a "type"')
    return config
  place, *settings = text.split(',')
  kind, _, rest = place.partition(':')
  if kind in plugins.names('source') and rest:
    place = rest
  else:
    kind = 'detect'
  if kind == 'detect' and not settings and os.path.exists(text):
    return {'type': kind, 'path': text}  # a path with a colon or a comma
  path, colon, split = place.rpartition(':')
  if not colon or os.path.exists(place):
    path, split = place, ''
  if not path:
    raise ValueError(
      f'{where}: a data set is [TYPE:]PATH[:SPLIT][,option=value...] or JSON'
    )
  if kind == 'detect' and not os.path.exists(path):
    _check_type(place, where)
  options = plugins.option_names(plugins.get('source', kind))[0]
  place_option = next((o for o in ('path', 'name') if o in options), None)
  if place_option is None:
    raise ValueError(
      f'{where}: a source {kind!r} has no path; describe it in JSON'
    )
  config: dict[str, Any] = {'type': kind, place_option: path}
  if split:
    config['split'] = split
  for setting in settings:
    option, equals, value = setting.partition('=')
    if not equals or not option:
      raise ValueError(f'{where}: {setting!r} is not option=value')
    if option in config:
      raise ValueError(f'{where}: {option!r} is given twice')
    config[option] = _value(value)
  if kind == 'detect' and os.path.isfile(path):
    config = _as_table(config, options)
  return config


def _check_type(place: str, where: str) -> None:
  """Refuses WORD:PATH where WORD is neither a place nor a type."""
  word, _, rest = place.partition(':')
  is_place = '/' in rest or ':' in rest or os.path.exists(rest)
  if is_place and word.isidentifier() and not os.path.exists(word):
    types = plugins.names('source')
    raise ValueError(
      f'{where}: {word!r} is neither a file or folder nor a type of source'
      f'{plugins.suggest(word, types)}; valid types: {", ".join(types)}'
    )


def _as_table(config: dict[str, Any], options: Sequence[str]) -> dict[str, Any]:
  """The table source itself where options of its own are given."""
  own = set(config) - {*options, 'type', 'embeddings', 'subset'}
  return config | {'type': 'table'} if own else config


def _value(text: str) -> Any:
  """A number, true, false or null as JSON has them; all else is text."""
  try:
    value = json_text.parse(text)
  except ValueError:
    return text
  return text if isinstance(value, dict | list | str) else value
