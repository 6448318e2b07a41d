"""The flag --data of commands: a data set in one argument.

records:DIR[:SPLIT]     any type of source that has a path: records, folder,
                        table, detect; SPLIT is train unless given
configs/x.py[:ARGS]     the training source of a config
WORKDIR/config.json     that of a run
"""

import os
import re
from typing import Any

from big_vision_like.config import loading, trust
from big_vision_like.protocols import Source

HELP = (
  'records:DIR[:SPLIT], folder:..., table:..., detect:...; or the training '
  'data of a config: configs/x.py[:args], WORKDIR/config.json'
)


def parse(
  text: str, flag: str = '--data', *, trusted: bool = False
) -> dict[str, Any]:
  """The source config dict(type=..., ...) that the argument stands for.

  Args:
    text: see above.
    flag: it was given with, for messages.
    trusted: whether a config.json may name modules of others.

  Raises:
    FileNotFoundError: no such config, or neither a file nor of the form above.
    ValueError: not of the form above.
  """
  from big_vision_like.config import settings

  if re.search(r'\.py(:|$)', text):
    config = loading.load(text, flag)
    if 'input' not in config:
      raise ValueError(f'{flag}={text}: no config of a run: it has no input')
    return config.input.source.to_dict()
  if text.endswith('.json'):
    try:
      source = settings.from_json(text).input.source.to_dict()
    except OSError as error:
      raise FileNotFoundError(f'{flag}={text}: {error.strerror}') from None
    trust.check(source, f'{flag}={text}', trusted)
    return source
  kind, colon, rest = text.partition(':')
  if not (kind and colon and rest) or os.sep in kind:
    if os.path.exists(text):
      raise ValueError(
        f'{flag}={text!r} is not of the form {HELP}; for what lies there: '
        f'{flag} detect:{text}:SPLIT'
      )
    raise FileNotFoundError(
      f'{flag}={text!r}: no such file or folder, nor of the form {HELP}'
    )
  path, _, split = rest.rpartition(':')
  if not path or '/' in split:  # a colon of the path itself
    path, split = rest, 'train'
  return dict(type=kind, path=path, split=split)


def open_data(
  text: str, flag: str = '--data', *, trusted: bool = False
) -> Source:
  """The source itself; a mistake names the flag."""
  return open_source(parse(text, flag, trusted=trusted), flag)


def open_source(config: dict[str, Any], flag: str = '--data') -> Source:
  """The source of a config; advice on splits is as one would type it.

  Raises:
    FileNotFoundError, ValueError: as of `pipeline.open_source`.
  """
  from input_pipeline import pipeline

  try:
    return pipeline.open_source(config, flag)
  except ValueError as error:
    if 'split=' not in str(error) or 'path' not in config:
      raise
    kind, path = config['type'], config['path']
    raise ValueError(
      f'{error}. On the command line: {flag} {kind}:{path}:SPLIT, such as '
      f'{kind}:{path}:all'
    ) from None
