"""Overrides `--config.KEY=VALUE` of a command line: what does not fit, and why.

The overrides themselves are read by ml_collections; where it refuses, `explain`
finds the override that does not fit and says what would.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from big_vision_like.config import loading, plugins, settings

_OVERRIDE = re.compile(r'--?(?:no)?config\.([^=]*)')
# One step of an override: .name, [3], ['name'] or, by mistake, .3
_STEP = re.compile(r"""\.([^.\[\]]*)|\[(-?\d+)\]|\[(['"])(.*?)\3\]""")


def explain(values: Any, argv: Sequence[str], error: Exception) -> Exception:
  """What to tell the user about an `error` of reading the flags.

  Args:
    values: absl FlagValues with the flag `config`.
    argv: command line.
    error: what reading it raised.

  Returns:
    An error whose message names the override that does not fit and the valid
    keys, or the file that does not load; `error` itself where neither is wrong.
  """
  if isinstance(error, loading.RefusedError):
    return ValueError(str(error))
  from absl import flags

  path = _config_path(argv)
  if path is None:
    return error
  try:
    config = values['config'].parser.parse(path)
  except loading.RefusedError as own:
    return ValueError(str(own))
  for arg in argv:
    found = _OVERRIDE.match(arg)
    if found:
      try:
        check_override(config, found.group(1))
      except ValueError as wrong:
        return wrong
      if arg.endswith('=None'):
        length = found.group(1).startswith('total_')
        return ValueError(
          f'{arg}: a command line cannot say None'
          + ('; 0 means that this length is not given' if length else '')
        )
  if isinstance(error, ValueError | OSError | flags.Error):
    return error
  return ValueError(f'an override of --config cannot be read: {error}')


def _config_path(argv: Sequence[str]) -> str | None:
  for i, arg in enumerate(argv):
    name, given, path = arg.partition('=')
    if name in ('--config', '-config'):
      return path if given else (list(argv[i + 1 :]) or [None])[0]
  return None


def check_override(config: Any, key: str) -> None:
  """Refuses `--config.key=...` unless the config holds such a value.

  Args:
    config: the config without overrides.
    key: such as 'input.ops[1].size'.

  Raises:
    ValueError: no such key, or one that no text can set; says what there is.
  """
  flag = f'--config.{key}'
  node: Any = config
  where, rest = '', f'.{key}'
  while rest:
    step = _STEP.match(rest)
    if step is None or step.group(1) == '':
      raise ValueError(
        f"{flag} cannot be read: write --config.NAME.NAME=VALUE, and '"
        f"--config.NAME[0].NAME=VALUE' for an item of a list"
      )
    name, index, _, quoted = step.groups()
    rest = rest[step.end() :]
    key_or_index = int(index) if index else name or quoted
    parent, node = node, _child(flag, node, key_or_index, where, rest)
    where += step.group() if where else step.group().removeprefix('.')
    if name and not name.isidentifier():
      raise ValueError(
        f'{flag}: write the name {name!r} in brackets: '
        f"'--config.{where.removesuffix(f'.{name}')}[{name!r}]{rest}=VALUE'"
      )
  _check_kind(flag, parent, key_or_index, node)


def _child(flag: str, node: Any, name: Any, where: str, rest: str) -> Any:
  """The value `name` of a section or list; the rest is for messages."""
  if isinstance(node, list | tuple):
    if isinstance(name, str):
      item = int(name) if name.isdecimal() else 0
      raise ValueError(
        f'{flag}: {where} is a list of {len(node)}; an item of it is written '
        f"'--config.{where}[{item}]{rest}=VALUE'"
      )
    if not -len(node) <= name < len(node):
      last = f'{where}[0] to {where}[{len(node) - 1}]' if node else 'none'
      raise ValueError(f'{flag}: there is no {where}[{name}]; valid: {last}')
    return node[name]
  if not hasattr(node, 'keys'):
    raise ValueError(f'{flag}: {where} is {node!r} and has no keys of its own')
  if name not in node:
    close = difflib.get_close_matches(str(name), list(node), n=1)
    hint = f' (did you mean {close[0]!r}?)' if close else ''
    raise ValueError(
      f'{flag}: {where or "config"} has no key {name!r}{hint}; the config file '
      f'holds: {", ".join(node) or "none"}'
    )
  return node[name]


def _check_kind(flag: str, parent: Any, name: Any, value: Any) -> None:
  """Refuses a value that no text on a command line can replace."""
  if isinstance(value, list):
    one = '.NAME' if value and hasattr(value[0], 'keys') else ''
    items = (
      f"its items, such as '{flag}[0]{one}=VALUE', or set " if value else ''
    )
    raise ValueError(
      f'{flag}: a list cannot be set as a whole: set {items}it in a config '
      'file of your own'
    )
  if isinstance(parent, tuple):
    raise ValueError(
      f'{flag}: items of a tuple cannot be set: set the whole, '
      f'"{flag.rpartition("[")[0]}={parent}"'
    )
  if isinstance(value, dict):
    raise ValueError(
      f'{flag}: a section cannot be set as a whole: set its keys: '
      f'{", ".join(value)}'
    )
  get_type = getattr(parent, 'get_type', None)
  kind = get_type(name) if get_type else type(value)
  if kind is type(None):
    raise ValueError(
      f'{flag}: the config file holds None, so that the type is open: set it '
      'in a config file of your own'
    )


def apply(config: Any, values: Mapping[str, Any], where: str) -> Any:
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
