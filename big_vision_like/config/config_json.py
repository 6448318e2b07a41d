"""`--config <workdir>/config.json`: a stored config as a config file.

The file is read as data; no code of it runs. Overrides on the command line
work as for any other config.
"""

import pathlib

from big_vision_like.config import settings


def get_config(path: str) -> settings.Config:
  """The config stored at `path`."""
  if not pathlib.Path(path).is_file():
    raise ValueError(f'--config={path}: no such file')
  return settings.from_json(path)
