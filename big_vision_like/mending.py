"""Files of a workdir that were damaged: set aside, named, made again.

Neither a byte that changed in metrics.jsonl nor an empty config.json is a
reason to lose a run whose checkpoint is whole.
"""

import json
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from big_vision_like.checkpoints import folders, reading
from big_vision_like.config import settings
from big_vision_like.runtime import figures
from input_pipeline.files import atomic

SUFFIX = '.damaged'


def mend(workdir: pathlib.Path) -> Iterator[str]:
  """Mends what a resume reads, a line on each; the first process does it."""
  yield from _no_file(workdir / figures.METRICS)
  yield from _metrics(workdir / figures.METRICS)
  yield from _config(workdir)


def _no_file(path: pathlib.Path) -> Iterator[str]:
  """A folder, or a pipe, which is never read to its end."""
  if path.exists() and not path.is_file():
    aside = _free(path.with_name(path.name + SUFFIX))
    path.rename(aside)
    yield f'{path} is no file: it is now called {aside.name}'


def _metrics(path: pathlib.Path) -> Iterator[str]:
  """Moves lines that are none to a file beside; the others stay in place."""
  if not path.is_file():
    return
  lines = path.read_bytes().split(b'\n')
  bad = [
    i for i, x in enumerate(lines) if x.strip() and figures.parse(x) is None
  ]
  if not bad:
    return
  aside = path.with_name(path.name + SUFFIX)
  with aside.open('ab') as file:
    file.writelines(lines[i] + b'\n' for i in bad)
  gone = set(bad)
  with atomic.writing(path) as file:
    file.write(b'\n'.join(x for i, x in enumerate(lines) if i not in gone))
  numbers = ', '.join(str(i + 1) for i in bad[:10])
  more = ', ...' if len(bad) > 10 else ''
  yield f'{path}: what is no line ({numbers}{more}) is now in {aside.name}'


def _config(workdir: pathlib.Path) -> Iterator[str]:
  """Sets a config.json that cannot be read aside; the checkpoint has another.

  The one of the newest checkpoint takes its place, so that another config is
  still refused. Without one there is nothing to compare with.
  """
  path = workdir / settings.FILE
  if not path.exists():
    return
  try:
    if not path.is_file():  # a pipe would never be read to its end
      raise ValueError('it is no file')
    settings.from_json(path)
    return
  except (ValueError, OSError) as error:
    problem = str(error).removeprefix(f'{path}: ').splitlines()[0]
  aside = _free(path.with_name(path.name + SUFFIX))
  path.rename(aside)
  yield f'{path} cannot be used ({problem}): it is now called {aside.name}'
  for step in folders.by_step(folders.of_workdir(workdir)):
    proof = folders.Proof(step, lambda text: None)
    proof.cancel()  # its arrays are not looked at here
    try:
      if proof.first:
        raise ValueError(proof.first)
      stored = settings.complete(
        ConfigDict(json.loads(json.dumps(reading.read_meta(step)['config'])))
      )
    except ValueError as error:
      yield f'  {step}: no config to take its place: {error}'
      continue
    atomic.write_text(path, settings.to_json(stored))
    yield f'  that of checkpoint {step} takes its place'
    return
  yield "  the run's config is that of --config from here on"


def _free(path: pathlib.Path) -> pathlib.Path:
  number, found = 2, path
  while found.exists():
    found = path.with_name(f'{path.name}-{number}')
    number += 1
  return found
