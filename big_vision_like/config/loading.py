"""The one loader of config files: of runs, of tools, of studies.

'file.py', 'file.py:arguments', or the config.json of a workdir, which is read
as data: no code of it runs.
"""

import importlib.util
import os
import pathlib
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, FrozenConfigDict, config_flags

from big_vision_like.config import option_types, settings, shipped, trust


def load(text: str, where: str, *, trusted: bool = False) -> Any:
  """What get_config of a file returns, or the config that a .json holds.

  Args:
    text: 'file.py', 'file.py:arguments', or the config.json of a workdir.
    where: flag or key that holds the text, for messages.
    trusted: whether a .json may name modules of others (trust.py).

  Raises:
    FileNotFoundError: no such file, here or among the shipped configs.
    ValueError: it is no config, or the config refuses its arguments.
  """
  path, colon, arguments = text.partition('.py:')
  path = f'{path}.py' if colon else text
  if '.json:' in text and not pathlib.Path(text).is_file():
    raise ValueError(f'{where}={text}: a .json takes no arguments')
  if path.endswith('.json'):
    if not pathlib.Path(path).is_file():
      raise FileNotFoundError(f'{where}={text}: no such file')
    config = settings.from_json(path)
    trust.check(config.to_dict(), f'{where}={text}', trusted)
    return config
  if not path.endswith('.py'):
    raise ValueError(
      f'{where}={text!r} must be file.py, file.py:arguments or a config.json'
    )
  path = shipped.config_file(path)
  if not pathlib.Path(path).is_file():
    raise FileNotFoundError(f'{where}={text}: no config file {path!r}')
  return _run(path, arguments or None, f'{where}={text}')


def _run(path: str, arguments: str | None, where: str) -> ConfigDict:
  spec = importlib.util.spec_from_file_location('loaded_config', path)
  assert spec is not None and spec.loader is not None  # it ends in .py
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except (Exception, SystemExit) as error:  # the file is code
    raise ValueError(f'{where}: {_mistake(error, path)}') from None
  if not callable(getattr(module, 'get_config', None)):
    raise ValueError(f'{where}: {path!r} has no function get_config')
  try:
    config = module.get_config(*([arguments] if arguments else []))
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from None
  except (Exception, SystemExit) as error:
    raise ValueError(f'{where}: {_mistake(error, path)}') from None
  if isinstance(config, FrozenConfigDict):
    frozen: Any = config
    return ConfigDict(frozen.to_dict())
  if not isinstance(config, ConfigDict):
    raise ValueError(
      f'{where}: get_config must return a ConfigDict, got '
      f'{type(config).__name__}'
    )
  return config


def _mistake(error: BaseException, path: str) -> str:
  return _wrong_type(error) or f'does not load: {_said(error, path)}'


def _wrong_type(error: BaseException) -> str:
  """What a key that the file sets must be; '' if `error` is another mistake.

  The error of ml_collections has the last name of the key only: the rest is
  that of the section in the config that the file was writing.
  """
  if not isinstance(error, TypeError):
    return ''
  frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
  for i, frame in enumerate(frames):
    known = frame.f_locals
    section, key = known.get('self'), known.get('key')
    if frame.f_code.co_name != '__setitem__' or 'value' not in known:
      continue
    if not isinstance(section, ConfigDict) or key not in section:
      continue
    roots = [v for f in frames[:i] for v in f.f_locals.values()]
    name = f'{_place(roots, section)}{key}'
    value, kind = known['value'], section.get_type(key)
    if name in settings.VALID:
      try:
        option_types.check_value(name, settings.VALID[name], value)
      except ValueError as wrong:
        return str(wrong)
    kind = 'dict' if kind is ConfigDict else kind.__name__
    return f'config key {name!r} must be {kind}, got {value!r}'
  return ''


def _place(roots: Sequence[Any], section: ConfigDict) -> str:
  """'mesh.' of a section within the first of the configs that has it."""
  for root in roots:
    if isinstance(root, ConfigDict):
      waiting = [('', root)]
      for prefix, one in waiting:
        if one is section:
          return prefix
        waiting += [
          (f'{prefix}{key}.', value)
          for key, value in one.items()
          if isinstance(value, ConfigDict)
        ]
  return ''


def _said(error: BaseException, path: str) -> str:
  """'file:line: kind: message', of the config's own last line on the way."""
  line: int | None = None
  file = os.path.abspath(path)  # as the import system calls it
  if isinstance(error, SyntaxError) and error.filename == file:
    line = error.lineno
  for frame in traceback.extract_tb(error.__traceback__):
    if frame.filename == file:
      line = frame.lineno
  message = error.msg if isinstance(error, SyntaxError) else error
  place = f'{path}:{line}: ' if line else ''
  return f'{place}{type(error).__name__}: {message}'


class RefusedError(Exception):
  """A config that does not load; not a ValueError, which absl would reword."""


class Parser(flags.ArgumentParser):
  """The parser of the flag --config: `load`, and a locked config.

  Args:
    argv: the command line, if it is not that of the process; the flag --trust
      may stand behind --config.
  """

  def __init__(self, argv: Sequence[str] | None = None):
    super().__init__()
    self._argv = argv

  def parse(self, argument: str) -> ConfigDict:
    try:
      argv = sys.argv if self._argv is None else self._argv
      trusted = trust.in_arguments(argv)
      return load(argument, '--config', trusted=trusted).lock()
    except (ValueError, OSError) as error:
      raise RefusedError(str(error)) from None

  def flag_type(self) -> str:
    return 'config file'


def define_flag(
  values: flags.FlagValues, argv: Sequence[str] | None = None
) -> flags.FlagHolder:
  """Defines --config, read by `load`, with its overrides, and --trust.

  Args:
    values: where to.
    argv: the command line, if it is not that of the process.
  """
  holder = config_flags.DEFINE_config_file(
    'config',
    None,
    'config file, config.json of a workdir; file:args',
    flag_values=values,
    sys_argv=None if argv is None else list(argv),
  )
  values['config'].parser = Parser(argv)
  flags.DEFINE_boolean('trust', False, trust.HELP, flag_values=values)
  return holder
