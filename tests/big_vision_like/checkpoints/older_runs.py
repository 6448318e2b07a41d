"""Workdirs that older versions wrote: tests/golden."""

import json
import pathlib
import tarfile
from typing import Any

from big_vision_like.checkpoints import folders, formats, manifest, reading
from big_vision_like.config import settings

GOLDEN = pathlib.Path(__file__).parents[2] / 'golden' / 'format1'
LOSSES = json.loads((GOLDEN / 'losses.json').read_text())
KINDS = ('rmsprop', 'adam')


def unpack(folder: pathlib.Path) -> None:
  """Writes the workdirs of format 1, by kind."""
  with tarfile.open(GOLDEN / 'workdirs.tar.xz') as file:
    file.extractall(folder, filter='data')


def stored_config(folder: pathlib.Path, **changes: Any) -> Any:
  config = settings.complete(reading.read_meta(folders.find(folder))['config'])
  for key, value in changes.items():
    config[key] = value
  return config


def make_newer(folder: pathlib.Path) -> None:
  """The checkpoint of a workdir says that it is of the next format."""
  meta = folders.find(folder) / 'meta' / 'metadata'
  content = json.loads(meta.read_text())
  assert content['format'] == formats.NUMBER
  content['format'] += 1
  meta.write_text(json.dumps(content))
  step = meta.parent.parent
  stored = json.loads((step / manifest.FILE).read_bytes())
  (step / manifest.FILE).unlink()
  manifest.write(
    step, int(step.name), pathlib.Path(stored['content']['folder'])
  )


def remove_manifest(step: pathlib.Path) -> None:
  """As an older version wrote the checkpoint."""
  (step / manifest.FILE).unlink()
  file = step / 'meta' / 'metadata'
  meta = json.loads(file.read_text())
  del meta['manifest']
  file.write_text(json.dumps(meta))
