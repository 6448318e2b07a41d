"""Features of a data set, by the model of a checkpoint, in files.

  python -m tools.extract_features --checkpoint RUN --data data/photos \\
      --output features/photos --format safetensors
  python -m tools.extract_features --output features/photos --verify

A shard holds the features of consecutive records of the source, with their
indices, labels (raw, before fill-in) and keys; manifest.json lists the shards
with counts and checksums. Records that cannot be used are in bad_images.jsonl.
Interrupted work goes on where it stopped when the command is repeated.
docs/weights.md says how to read the files.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from .cli import command, data_argument, output_folder
from .embedding import feature_shards


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.extract_features'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--output', required=True, help='folder for the files')
  add('--checkpoint', help='workdir of a run, or a checkpoint')
  add(
    '--data',
    help=f'a data set: its path (split train), or {data_argument.HELP}',
  )
  add(
    '--format', choices=feature_shards.FORMATS, default='array_record',
    help='default: %(default)s',
  )  # fmt: skip
  add(
    '--records_per_shard', type=int, default=16_384,
    help='default: %(default)s; a shard is held in memory',
  )  # fmt: skip
  add('--batch_size', type=int, default=64, help='default: %(default)s')
  add('--threads', type=int, default=2, help='default: %(default)s')
  add(
    '--workers', type=int, default=0,
    help='decode processes; 0: threads of this one; default: %(default)s',
  )  # fmt: skip
  add(
    '--verify', action='store_true',
    help='only compare the files of --output with their checksums',
  )  # fmt: skip
  command.add_part(p)
  command.add_trust(p)
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(
    lambda: _verify(args.output) if args.verify else extract(args),
    interrupted='interrupted; finished shards are kept, repeat the command to '
    'go on',
  )


def _verify(output: str) -> None:
  from .embedding import feature_folder

  print(feature_folder.verify(output))


def extract(args: argparse.Namespace) -> None:
  """Runs the command.

  Raises:
    FileNotFoundError: no checkpoint, or no such data.
    ValueError: an option that cannot be, or the folder holds features made
      with other settings.
  """
  for name, least in (('records_per_shard', 1), ('threads', 1), ('workers', 0)):
    if getattr(args, name) < least:
      raise ValueError(
        f'--{name}={getattr(args, name)} must be at least {least}'
      )
  for name in ('checkpoint', 'data'):
    if getattr(args, name) is None:
      raise ValueError(f'--{name} is missing')

  from absl import logging

  from big_vision_like.inference import embedder as features

  from .embedding import feature_folder

  described = _source_config(args.data, args.trust)
  places = output_folder.places(described)
  output_folder.refuse_inside(args.output, places, of='--data')
  source = data_argument.open_source(described)
  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it reads
  embedder = features.Embedder(
    args.checkpoint,
    trusted=args.trust,
    part=args.part,
    batch_size=args.batch_size,
    threads=args.threads,
    workers=args.workers,
  )
  settings = {
    'checkpoint': str(embedder.path),
    'checkpoint_time_ns': os.stat(embedder.path).st_mtime_ns,
    'step': embedder.model.step,
    **({'part': args.part} if args.part else {}),
    'preprocessing': embedder.ops,
    'data': described,
    'data_fingerprint': source.fingerprint(),
    'records': len(source),
    'records_per_shard': args.records_per_shard,
    'format': args.format,
    'dim': embedder.dim,
  }
  output_folder.make(args.output)
  folder = feature_folder.Folder(args.output, settings)
  waiting = folder.waiting()
  num_shards = len(folder.ranges)
  if len(waiting) < num_shards:
    print(
      f'{num_shards - len(waiting)} of {num_shards} shards are here, of the '
      'sizes that they had; --verify compares their content'
    )
  start, done = time.monotonic(), 0
  for shard in feature_folder.fill(folder, waiting, source, embedder):
    done += shard.records + shard.bad
    rate = done / (time.monotonic() - start)
    print(f'{shard.name}: {shard.records:,} images ({rate:,.0f}/s)', flush=True)
  print(folder.finish(source.vocabulary))


def _source_config(text: str, trusted: bool) -> dict[str, Any]:
  """The source config of --data; an existing path is any kind of data set."""
  if os.path.exists(text) and not text.endswith(('.py', '.json')):
    return dict(type='detect', path=text, split='train')
  return data_argument.parse(text, trusted=trusted)


if __name__ == '__main__':
  sys.exit(main())
