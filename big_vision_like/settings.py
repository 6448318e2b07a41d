"""Check a config against the table of keys, complete it, compare two.

The table is `configs.common.base()`. Sections that belong to plug-ins are only
checked to be there; their options are checked by what they configure.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from big_vision_like import plugins
from configs import common

# A ConfigDict; its keys have no static types.
Config = Any

OPEN_SECTIONS = (
  'input.source', 'model', 'task', 'optim', 'schedule', 'evals', 'expected',
)  # fmt: skip
# Keys whose change leaves the training of a run as it was.
FREE_SECTIONS = (
  'total_steps', 'total_epochs', 'total_examples', 'log_every_steps', 'mesh',
  'input.workers', 'input.threads', 'input.prefetch', 'input.max_bad_fraction',
  'ckpt', 'evals', 'on_eval_error', 'resume', 'plan', 'expected',
)  # fmt: skip


def complete(config: Config) -> Config:
  """A checked copy of a config with every key of the table.

  Raises:
    ValueError: unknown key, or a value of the wrong type; names the key.
  """
  table = common.base()
  given = config if isinstance(config, ConfigDict) else ConfigDict(dict(config))
  _merge(table, given, '')
  _check_ranges(table)
  return table


def _merge(table: Config, given: Config, prefix: str) -> None:
  for key in given:
    name = f'{prefix}{key}'
    value = given[key]
    if key not in table:
      raise ValueError(
        f'unknown config key {name!r}{plugins.suggest(key, table)}; valid: '
        f'{", ".join(prefix + k for k in table)}'
      )
    if name in OPEN_SECTIONS:
      if not isinstance(value, Mapping | ConfigDict):
        raise ValueError(f'config key {name!r} must be a dict, got {value!r}')
      with table.unlocked():
        table[key] = ConfigDict({**table[key].to_dict(), **_plain(value)})
    elif isinstance(table[key], ConfigDict):
      if not isinstance(value, Mapping | ConfigDict):
        raise ValueError(f'config key {name!r} must be a dict, got {value!r}')
      _merge(table[key], ConfigDict(_plain(value)), f'{name}.')
    else:
      try:
        table[key] = tuple(value) if key == 'reinit' else value
      except TypeError:
        kind = type(table[key]).__name__
        wanted = kind if table[key] is not None else 'another type'
        raise ValueError(
          f'config key {name!r} must be {wanted}, got {value!r}'
        ) from None


def _plain(value: Any) -> dict[str, Any]:
  return value.to_dict() if isinstance(value, ConfigDict) else dict(value)


def _check_ranges(config: Config) -> None:
  positive = {
    'log_every_steps': config.log_every_steps,
    'input.batch_size': config.input.batch_size,
    'input.threads': config.input.threads,
    'input.prefetch': config.input.prefetch,
    'ckpt.every_steps': config.ckpt.every_steps,
    'ckpt.keep_last': config.ckpt.keep_last,
    'train.accum_steps': config.train.accum_steps,
  }
  for name, value in positive.items():
    if value < 1:
      raise ValueError(f'config key {name!r} must be at least 1, got {value}')
  fractions = {
    'input.max_bad_fraction': config.input.max_bad_fraction,
    'train.ema_decay': config.train.ema_decay,
  }
  for name, value in fractions.items():
    if value is not None and not 0 <= value <= 1:
      raise ValueError(f'config key {name!r} must be in [0, 1], got {value}')
  if config.input.workers < 0:
    raise ValueError(
      f"config key 'input.workers' must not be negative, got "
      f'{config.input.workers}'
    )
  if config.input.batch_size % config.train.accum_steps:
    raise ValueError(
      f'train.accum_steps={config.train.accum_steps} does not divide '
      f'input.batch_size={config.input.batch_size}'
    )
  if config.on_eval_error not in ('raise', 'log'):
    raise ValueError(
      f'on_eval_error={config.on_eval_error!r}; valid: raise, log'
    )


def to_json(config: Config) -> str:
  """Indented JSON of a config, keys sorted."""
  return json.dumps(json.loads(config.to_json()), indent=2, sort_keys=True)


def from_json(path: str | pathlib.Path) -> Config:
  """A config that was written by `to_json`; executes no code.

  Raises:
    ValueError: not a JSON object.
  """
  text = pathlib.Path(path).read_text(encoding='utf-8')
  try:
    data = json.loads(text)
  except json.JSONDecodeError as error:
    raise ValueError(f'{path}: not JSON: {error}') from None
  if not isinstance(data, dict):
    raise ValueError(f'{path}: not a JSON object')
  return complete(ConfigDict(data))


def flat(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'a.b.c': value} of nested dicts."""
  out: dict[str, Any] = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      out.update(flat(value, f'{prefix}{key}.'))
    else:
      out[f'{prefix}{key}'] = value
  return out


def differences(old: Config, new: Config) -> list[str]:
  """Lines 'key: old -> new' for the keys that change what is trained."""
  a, b = (flat(json.loads(c.to_json())) for c in (old, new))
  lines = []
  for key in sorted(a.keys() | b.keys()):
    if any(key == s or key.startswith(f'{s}.') for s in FREE_SECTIONS):
      continue
    if a.get(key) != b.get(key):
      lines.append(f'  {key}: {a.get(key)!r} -> {b.get(key)!r}')
  return lines
