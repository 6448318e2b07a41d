"""Check a config against the table of keys, complete it, compare two.

The table is `configs.common.base()`. Sections that belong to plug-ins are only
checked to be there; their options are checked by what they configure.
"""

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from ml_collections import ConfigDict

from big_vision_like.config import (
  expected,
  json_text,
  option_types,
  plugins,
  redaction,
  stream_names,
)
from big_vision_like.config.option_types import (
  Above,
  AtLeast,
  Between,
  Count,
  Fraction,
  Seed,
)
from configs import common

# A ConfigDict; its keys have no static types.
Config = Any

FILE = 'config.json'  # of a workdir

OPEN_SECTIONS = (
  'input.source', 'model', 'task', 'optim', 'schedule', 'evals', 'expected',
)  # fmt: skip
_Seconds = Annotated[float, AtLeast(0)]  # 0: never
_AxisSize = Literal[-1] | Count  # -1: all that remain
# What keys may be besides the types of their defaults. What plug-ins and the
# options of `train.downpour` may be stands with these.
VALID: dict[str, Any] = {
  'seed': Seed,
  'log_every_steps': Count,
  'device': Literal['any', 'cpu', 'gpu', 'tpu', 'accelerator'],
  'mesh.data': _AxisSize,
  'mesh.model': _AxisSize,
  'input.batch_size': Count,
  'input.workers': Annotated[int, Between(0, 1024)],
  'input.threads': Annotated[int, Between(1, 256)],
  'input.prefetch': Count,
  'input.fraction': Annotated[float, Between(0, 1, open='low')],
  'input.max_bad_fraction': Fraction,
  'input.timeout_s': _Seconds,
  'input.read_retries': Annotated[int, Between(0, 100)],
  'input.retry_wait_s': _Seconds,
  'train.accum_steps': Count,
  'train.ema_decay': Annotated[float | None, Between(0, 1, open='high')],
  'train.mode': Literal['sync', 'downpour'],
  'train.downpour.servers': Count,
  'train.downpour.head_shards': Count,
  'train.on_nonfinite': Literal['stop', 'skip', 'rollback'],
  'train.skip_spikes_sigma': Annotated[float | None, Above(0)],
  'train.max_skipped': Count,
  'train.step_timeout_s': _Seconds,
  'ckpt.every_steps': Count,
  'ckpt.keep_last': Count,
  'ckpt.max_failed_saves': Count,
  'ckpt.keep_every_steps': Annotated[int | None, AtLeast(1)],
  'ckpt.best_mode': Literal['max', 'min'],
  'ckpt.patience': Annotated[int | None, AtLeast(1)],
  'on_eval_error': Literal['raise', 'log'],
  'plan.num_devices': Annotated[int | None, Between(1, 4096)],
  'plan.num_examples': Annotated[int | None, AtLeast(1)],
  'plan.num_keypoints': Annotated[int | None, AtLeast(1)],
  'plan.device_memory_gib': Annotated[float | None, Above(0)],
}
# The length of a run: 0, all that a command line can say, is 'not given'.
LENGTH = ('total_steps', 'total_epochs', 'total_examples')
# Keys whose change leaves the training of a run as it was, in any stream.
FREE_SECTIONS = (
  *LENGTH, 'log_every_steps', 'mesh', 'device', 'input.workers',
  'input.threads', 'input.prefetch', 'input.max_bad_fraction',
  'input.timeout_s', 'input.read_retries', 'input.retry_wait_s',
  'task.class_multiple', 'train.downpour.servers',
  'train.downpour.head_shards',
  'train.on_nonfinite', 'train.max_skipped', 'train.step_timeout_s',
  'profile', 'ckpt', 'evals', 'on_eval_error',
  'resume', 'plan', 'expected',
)  # fmt: skip


def complete(config: Config) -> Config:
  """A checked copy of a config with every key of the table.

  A length of 0 is None in the copy: it takes away what a config file gives.

  Raises:
    ValueError: unknown key, or a value of the wrong type; names the key.
  """
  table = common.base()
  given = config if isinstance(config, ConfigDict) else ConfigDict(dict(config))
  redaction.learn(given.to_dict())
  _merge(table, given, '')
  for key in LENGTH:
    if table[key] == 0:
      table[key] = None
  _check_values(table)
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
    if name == 'input.also':
      _merge_streams(table[key], value)
    elif stream_names.as_main(name) in OPEN_SECTIONS:
      if not isinstance(value, Mapping | ConfigDict):
        raise ValueError(f'config key {name!r} must be a dict, got {value!r}')
      with table.unlocked():
        table[key] = _of_plugin(table[key].to_dict(), _plain(value))
    elif isinstance(table[key], ConfigDict):
      if not isinstance(value, Mapping | ConfigDict):
        raise ValueError(f'config key {name!r} must be a dict, got {value!r}')
      _merge(table[key], ConfigDict(_plain(value)), f'{name}.')
    else:
      _set(table, key, value, name)


def _merge_streams(table: Config, given: Any) -> None:
  if not isinstance(given, Mapping | ConfigDict):
    raise ValueError(f"config key 'input.also' must be a dict, got {given!r}")
  stream_names.check([*given])
  for name in given:
    key = stream_names.config_key(name)
    if not isinstance(given[name], Mapping | ConfigDict):
      raise ValueError(
        f'config key {key!r} must be a dict, got {given[name]!r}'
      )
    section = common.stream()
    _merge(section, ConfigDict(_plain(given[name])), f'{key}.')
    with table.unlocked():
      table[name] = section


def _of_plugin(defaults: dict[str, Any], given: dict[str, Any]) -> ConfigDict:
  """Options of a plug-in; defaults that are another type's do not count."""
  if given.get('type', defaults.get('type')) != defaults.get('type'):
    defaults = {k: v for k, v in defaults.items() if k == 'num_classes'}
  return ConfigDict({**defaults, **given})


def _set(table: Config, key: str, value: Any, name: str) -> None:
  """Sets a plain key; its type is that of the table's default."""
  kind = table.get_type(key)
  if isinstance(value, bool) and kind is not bool:
    raise ValueError(
      f'config key {name!r} must be {kind.__name__}, got {value!r}'
    )
  try:
    table[key] = (
      tuple(value)
      if isinstance(value, list | tuple) and (kind is tuple)
      else value
    )
  except TypeError:
    raise ValueError(
      f'config key {name!r} must be {kind.__name__}, got {value!r}'
    ) from None


def _plain(value: Any) -> dict[str, Any]:
  return value.to_dict() if isinstance(value, ConfigDict) else dict(value)


def _check_values(config: Config) -> None:
  values = flat(config.to_dict())
  for name, hint in VALID.items():
    option_types.check_value(name, hint, values[name])
  for name, section in stream_names.sections(config).items():
    _check_stream(stream_names.config_key(name), section, config)
  _check_profile(config.profile.steps)
  _check_best(config)
  expected.check(config.expected)
  _check_patterns('init_from.reinit', config.init_from.reinit)


def _check_stream(key: str, section: Config, config: Config) -> None:
  for name in ('batch_size', 'workers', 'fraction', 'max_bad_fraction'):
    value = section.get(name)
    if value is not None:
      option_types.check_value(f'{key}.{name}', VALID[f'input.{name}'], value)
  size, accum = section.batch_size, config.train.accum_steps
  if size % accum:
    raise ValueError(
      f'train.accum_steps={accum} does not divide {key}.batch_size={size}'
    )
  for i, spec in enumerate(section.ops):
    if not isinstance(spec, Mapping | ConfigDict) or 'op' not in spec:
      raise ValueError(
        f"{key}.ops[{i}]: an op is a dict with the key 'op', got {spec!r}"
      )


def _check_best(config: Config) -> None:
  metric = config.ckpt.best
  if metric is None:
    if config.ckpt.patience is not None:
      raise ValueError(
        f'ckpt.patience={config.ckpt.patience} needs ckpt.best, the figure '
        'that should become better'
      )
    return
  name, slash, _ = metric.partition('/')
  if not slash or name not in config.evals:
    known = ', '.join(config.evals) or 'none'
    raise ValueError(
      f'ckpt.best={metric!r} must be EVALUATOR/METRIC'
      f'{plugins.suggest(name, config.evals)}; evaluators: {known}'
    )


def _check_profile(steps: Any) -> None:
  whole = all(isinstance(s, int) and s > 0 for s in steps)
  if steps and (len(steps) != 2 or not whole or steps[0] > steps[1]):
    raise ValueError(
      f'profile.steps={tuple(steps)} must be (first, last), such as (10, 15)'
    )


def _check_patterns(name: str, patterns: Any) -> None:
  for pattern in patterns:
    try:
      re.compile(pattern)
    except (re.error, TypeError) as error:
      raise ValueError(
        f'{name}: {pattern!r} is not a regular expression: {error}'
      ) from None


def stored(config: Config) -> dict[str, Any]:
  """A config as it is stored: plain values, without secrets."""
  return redaction.plain(json.loads(config.to_json()))


def to_json(config: Config) -> str:
  """Indented JSON of a config as it is stored, keys sorted."""
  return json.dumps(stored(config), indent=2, sort_keys=True)


def from_json(path: str | pathlib.Path) -> Config:
  """A config that was written by `to_json`; executes no code.

  Raises:
    ValueError: not a JSON object.
  """
  try:
    data = json_text.parse(pathlib.Path(path).read_bytes())
  except ValueError as error:
    raise ValueError(f'{path}: not JSON: {error}') from None
  if not isinstance(data, dict):
    raise ValueError(f'{path}: not a JSON object')
  return complete(ConfigDict(data))


def equal(left: Any, right: Any) -> bool:
  """Whether two sections are the same once written as JSON."""
  plain = lambda x: json.dumps(
    redaction.plain(x.to_dict() if isinstance(x, ConfigDict) else x),
    sort_keys=True,
  )
  return plain(left) == plain(right)


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
  a, b = (flat(stored(c)) for c in (old, new))
  lines = []
  for key in sorted(a.keys() | b.keys()):
    plain = stream_names.as_main(key)
    if any(plain == s or plain.startswith(f'{s}.') for s in FREE_SECTIONS):
      continue
    if a.get(key) != b.get(key):
      lines.append(f'  {key}: {a.get(key)!r} -> {b.get(key)!r}')
  return lines
