"""Config files of runs and studies: loaded, overridden, flattened."""

import importlib.util
import pathlib
import traceback
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from big_vision_like.config import plugins, settings


def load(text: str, where: str) -> Any:
  """What get_config of a file returns.

  Args:
    text: 'file.py', 'file.py:arguments', or the config.json of a workdir.
    where: flag or key that holds the text, for messages.

  Raises:
    FileNotFoundError: no such file.
    ValueError: it is no config, or the config refuses its arguments.
  """
  if text.endswith('.json'):
    if not pathlib.Path(text).is_file():
      raise FileNotFoundError(f'{where}={text}: no such file')
    return settings.from_json(text)
  path, colon, arguments = text.partition('.py:')
  path = f'{path}.py' if colon else text
  if not path.endswith('.py'):
    raise ValueError(
      f'{where}={text!r} must be file.py, file.py:arguments or a config.json'
    )
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f'{where}={text}: no config {path!r}')
  spec = importlib.util.spec_from_file_location('config_of_study', path)
  assert spec is not None and spec.loader is not None  # it ends in .py
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    get_config = module.get_config
  except Exception as error:  # the file is code: anything may happen
    raise ValueError(
      f'{where}={text}: does not load: {_said(error, path)}'
    ) from None
  try:
    config = get_config(arguments or None)
  except ValueError as error:
    raise ValueError(f'{where}={text}: {error}') from None
  except Exception as error:
    raise ValueError(
      f'{where}={text}: get_config fails: {_said(error, path)}'
    ) from None
  if not isinstance(config, ConfigDict):
    raise ValueError(
      f'{where}={text}: get_config must return a ConfigDict, got '
      f'{type(config).__name__}'
    )
  return config


def _said(error: Exception, path: str) -> str:
  """'file:line: kind: message', of the config's own last line on the way."""
  line: int | None = None
  if isinstance(error, SyntaxError) and error.filename == path:
    line = error.lineno
  for frame in traceback.extract_tb(error.__traceback__):
    if frame.filename == path:
      line = frame.lineno
  message = error.msg if isinstance(error, SyntaxError) else error
  place = f'{path}:{line}: ' if line else ''
  return f'{place}{type(error).__name__}: {message}'


def override(config: Any, values: Mapping[str, Any], where: str) -> Any:
  """A checked, complete copy of a config with dotted keys set.

  Keys that the config's file leaves out may be set too, such as options of a
  plug-in; the table of keys (configs.common.base) refuses what is none.

  Raises:
    ValueError: no such key, or a value of the wrong type.
  """
  changed = ConfigDict(config.to_dict())
  with changed.ignore_type():
    for name, value in values.items():
      *parents, key = name.split('.')
      section: Any = changed
      for depth, parent in enumerate(parents):
        if not isinstance(section.get(parent), ConfigDict):
          path = '.'.join(parents[: depth + 1])
          raise ValueError(
            f'{where}: {name!r}: the config has no section {path!r}'
            f'{plugins.suggest(parent, section)}; it has: {", ".join(section)}'
          )
        section = section[parent]
      section[key] = _plain(value)
  try:
    return settings.complete(changed)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from None


def _plain(value: Any) -> Any:
  return ConfigDict(value) if isinstance(value, Mapping) else value
