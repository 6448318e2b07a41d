"""Maps of the frozen part of a detector, computed once, to train from.

  python -m tools.extract_maps \\
      --config configs/synthetic_detection.py:init=RUN,freeze=conv4 \\
      --output features/detection
  python -m main --workdir workdirs/frozen --config \\
      configs/synthetic_detection.py:init=RUN,freeze=conv4,features=features/detection

The first command writes a folder for the training data, OUTPUT/train, and one
for the data of each evaluator, OUTPUT/NAME; the second trains from them. Weights,
net and preprocessing are those that the run would have without `features`.
Interrupted work goes on where it stopped when the command is repeated.
docs/frozen-features.md.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""  # noqa: E501

import functools
import os
import sys
from collections.abc import Sequence
from typing import Any, get_args

from .cli import command, config_flags, output_folder


def main(argv: Sequence[str]) -> None:
  """Runs the command; a mistake of the user ends it with one message."""
  config_flags.run(lambda: _extract(argv))


def _define(values: Any) -> None:
  from absl import flags

  from input_pipeline.examples.stored_map import DType

  number = functools.partial(flags.DEFINE_integer, flag_values=values)
  flags.DEFINE_string('output', None, 'folder to write', flag_values=values)
  flags.DEFINE_enum(
    'dtype', 'float32', get_args(DType), 'of the numbers in the files',
    flag_values=values,
  )  # fmt: skip
  number('batch_size', 8, 'images at a time')
  number('threads', 2, 'that read images')
  number('workers', 0, 'decode processes; 0: threads of this one')


def _extract(argv: Sequence[str]) -> None:
  values = config_flags.parse(argv, command.as_called(__doc__), _define)
  if values.output is None:
    raise ValueError('--output is missing')
  for name, least in (('batch_size', 1), ('threads', 1), ('workers', 0)):
    if getattr(values, name) < least:
      raise ValueError(f'--{name}={getattr(values, name)}: at least {least}')
  extract(
    values.config,
    values.output,
    dtype=values.dtype,
    batch_size=values.batch_size,
    reading=dict(threads=values.threads, workers=values.workers),
  )


def extract(
  config: Any,
  output: str,
  *,
  dtype: str = 'float32',
  batch_size: int = 8,
  reading: Any = None,
) -> None:
  """Writes the maps of a config's data sets.

  Args:
    config: of a run from images whose frozen part reaches up to conv4.
    output: folder; a sub-folder for each data set.
    dtype: of the numbers in the files.
    batch_size: images at a time, rounded up to a multiple of the devices.
    reading: threads and workers; None: two threads.

  Raises:
    ValueError, FileNotFoundError: a config that cannot be, or other maps in the
      folder.
  """
  import jax
  from absl import logging

  from big_vision_like import experiment, opening
  from big_vision_like.checkpoints import folders
  from big_vision_like.config import settings, stream_names
  from big_vision_like.runtime import writers
  from input_pipeline import pipeline
  from input_pipeline.labels.space import LabelSpace

  from .embedding import map_extraction

  if jax.process_count() > 1:
    raise ValueError('maps are computed by one process')
  config = settings.complete(config)
  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it reads
  if config.input.source.get('type') == 'feature_maps':
    raise ValueError(
      "input.source.type='feature_maps': give the config of the run from "
      'images, without features=...'
    )
  console = writers.Console()
  start = None
  if config.init_from.path:
    held = folders.hold(config.init_from.path, say=console.say)
    start = held.path
  sections = {'train': (config.input.source, config.input.ops, 'input')}
  for name, evaluator in config.evals.items():
    if 'data' in evaluator and 'ops' in evaluator:
      sections[name] = evaluator.data, evaluator.ops, f'evals.{name}'
  sources = {}
  for name, (described, _, where) in sections.items():
    key = f'{where}.{"source" if name == "train" else "data"}'
    output_folder.refuse_inside(output, output_folder.places(described), of=key)
    sources[name] = pipeline.open_source(described, key)
  space = LabelSpace.of_source(sources['train'])
  exp = experiment.build(
    config,
    space,
    spaces={stream_names.MAIN: space},
    num_examples=len(sources['train']),
  )
  state = opening.start_state(exp, start, console)
  checkpoint = str(start) if start else f'none (seed {config.seed})'
  net = map_extraction.net_of(exp, state, checkpoint)
  devices = exp.mesh.size
  jobs = [
    map_extraction.Job(
      source=sources[name],
      config=described,
      specs=[dict(op) for op in specs],
      where=f'{where}.ops',
      path=os.path.join(output, name),
      dtype=dtype,
      batch_size=-(-batch_size // devices) * devices,
      reading=reading or dict(threads=2, workers=0),
    )
    for name, (described, specs, where) in sections.items()
  ]
  for job in jobs:
    job.variants()  # refused before anything is computed
  for job in jobs:
    map_extraction.extract(job, net, console.say)


if __name__ == '__main__':
  main(sys.argv)
