"""Near-duplicate images: between training and evaluation sets, or within sets.

  python -m tools.dedup --train data/jft:train --eval data/imagenet:val \\
      --output dedup/
  python -m tools.dedup --within photos/:train --mirrored --output dedup/
  python -m tools.dedup --train data/jft:train --eval data/voc:val \\
      --checkpoint workdirs/run --cosine 0.9 --output dedup/

A data set is PATH or PATH:SPLIT (prepared records, image folder or table), with
options of its source behind commas (labels.csv:val,image_column=file) and the
source's type before it where it is another one (tfds:NAME:SPLIT); or JSON, as
in a config: '{"type": "records", "path": "a:b", "split": "val"}'. --train,
--eval and --within may be repeated. The option embeddings=FILE.npy (or
.safetensors) of a set gives a vector for each of its records.

Written to --output: drop_ids.txt, for exclude_ids of any evaluator;
pairs.jsonl, summary.json, report.html. docs/near-duplicates.md has the rest.

Interrupted work goes on where it stopped when the command is repeated, and
records that were compared in an earlier call are not compared again.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import process

from .cli import command, output_folder
from .near_duplicates import search, steps
from .near_duplicates import sets as dedup_sets
from .near_duplicates.hashes import MAX_DISTANCE

_DEFAULT_COSINE = 0.85


def parser() -> argparse.ArgumentParser:
  """The command line; every default is in its help."""
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.dedup'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--train', action='append', default=[], metavar='SET')
  add(
    '--eval', action='append', default=[], metavar='SET',
    help='its records that --train has too are the ones to drop',
  )  # fmt: skip
  add(
    '--within',
    action='append',
    default=[],
    metavar='SET',
    help='instead of both: all but the first of near-duplicates in it',
  )
  add('--output', required=True, help='folder of the results')
  add('--state', help='folder of the signatures; default: OUTPUT/state')
  add('--workers', type=int, default=os.cpu_count(),
      help='processes; default: %(default)s')  # fmt: skip
  add('--memory_mb', type=int, default=1024,
      help='for the vectors of a step; default: %(default)s')  # fmt: skip

  group = p.add_argument_group('candidates')
  add = group.add_argument
  add(
    '--hash_distance', type=_bits, default=6, metavar='BITS',
    help='most bits of 64 that perceptual hashes may differ in, or "none"; '
    'default: %(default)s',
  )  # fmt: skip
  add(
    '--cosine', type=_number_or_none, default=_DEFAULT_COSINE,
    help='least cosine of vectors, or "none"; default: %(default)s',
  )  # fmt: skip
  add('--checkpoint', help='workdir or checkpoint whose features the vectors '
      'are; default: small colour thumbnails, without a model')  # fmt: skip
  add('--mirrored', action='store_true', help='find mirror images too')
  add('--search', choices=('auto', 'exact', 'cells'), default='auto',
      help='all pairs of vectors, or those of near k-means cells; default: by '
      f'the number of comparisons ({search.EXACT_BELOW:.0e})')  # fmt: skip
  add('--probes', type=int, default=4,
      help='cells that a vector looks into; default: %(default)s')  # fmt: skip
  add('--max_neighbours', type=int, default=100,
      help='candidates kept of a record; default: %(default)s')  # fmt: skip

  add('--crops', choices=('auto', 'on', 'off'), default='auto',
      help='look for crops by windows of each image; default: on with colour '
      f'thumbnails, verification and at most {search.CROPS_BELOW:.0e} '
      'comparisons')  # fmt: skip

  group = p.add_argument_group('verification and report')
  add = group.add_argument
  add('--threshold', type=float, default=0.7,
      help='least score, in [0, 1], of a near-duplicate; default: '
      '%(default)s')  # fmt: skip
  add('--no_verify', action='store_true',
      help='every candidate counts, no image is compared')  # fmt: skip
  add('--report_pairs', type=int, default=24,
      help='pairs shown of each kind; default: %(default)s')  # fmt: skip
  command.add_part(p)
  command.add_trust(p)
  return p


def _bits(text: str) -> int | None:
  value = _number_or_none(text)
  if value is not None and value != int(value):
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number')
  return None if value is None else int(value)


def _number_or_none(text: str) -> float | None:
  if text == 'none':
    return None
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not math.isfinite(value):
    raise argparse.ArgumentTypeError(f'{text!r} is neither a number nor "none"')
  return value


def check(args: argparse.Namespace) -> None:
  """Refuses values that make no sense, before any file is opened.

  Raises:
    ValueError: naming the flag.
  """
  if args.within and (args.train or args.eval):
    raise ValueError('--within stands alone: without --train and --eval')
  if not args.within and not (args.train and args.eval):
    raise ValueError(
      'give --train and --eval, to compare sets with each other, or --within, '
      'to look inside of sets'
    )
  ranges = {
    'hash_distance': (0, MAX_DISTANCE),
    'threshold': (0, 1),
    'workers': (1, 1024),
    'probes': (1, 1024),
    'max_neighbours': (1, 10**6),
    'memory_mb': (64, 10**7),
    'report_pairs': (0, 1000),
  }
  for name, (low, high) in ranges.items():
    value = getattr(args, name)
    if value is not None and not low <= value <= high:
      raise ValueError(f'--{name} must be in {low} to {high}, got {value}')
  if args.cosine is not None and not 0 < args.cosine <= 1:
    raise ValueError(
      f'--cosine must be above 0 and at most 1, got {args.cosine}'
    )
  if args.hash_distance is None and args.cosine is None:
    raise ValueError('--hash_distance and --cosine are both "none"')
  if args.checkpoint is not None and args.cosine is None:
    raise ValueError('--checkpoint without --cosine compares nothing')
  if args.part is not None and args.checkpoint is None:
    raise ValueError(f'--part={args.part!r}: it is of a --checkpoint')
  if args.crops == 'on' and (args.checkpoint or args.cosine is None):
    other = '--checkpoint' if args.checkpoint else '--cosine none'
    raise ValueError(
      f'--crops on needs colour thumbnails: it cannot be used with {other}'
    )
  if os.path.isdir(args.output) and not os.access(args.output, os.W_OK):
    raise ValueError(f'--output {args.output!r} cannot be written to')


def _check_places(args: argparse.Namespace) -> None:
  """Results and state lie outside of the data sets."""
  for role in ('train', 'eval', 'within'):
    for text in getattr(args, role):
      of = f'--{role}'
      given = output_folder.places(dedup_sets.parse(text, f'{of} {text}'))
      output_folder.refuse_inside(args.output, given, of=of)
      if args.state is not None:
        output_folder.refuse_inside(args.state, given, flag='--state', of=of)
  output_folder.make(args.output)
  if args.state is not None:
    output_folder.make(args.state, '--state')


def run(args: argparse.Namespace) -> dict:
  """The command; returns the content of summary.json."""
  check(args)
  _check_places(args)
  sets = dedup_sets.open_sets(args.train, args.eval, args.within)
  return steps.run(args, sets)


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(
    lambda: print(json.dumps(run(args)['counts'], indent=1)),
    mistakes=(ValueError, OSError, process.BrokenProcessPool),
    text=_message,
    interrupted='interrupted; finished work is kept, repeat the command to go '
    'on',
  )


def _message(error: Exception) -> str:
  if isinstance(error, process.BrokenProcessPool):
    return (
      'a worker process died (out of memory?); finished work is kept, repeat '
      'the command to go on, perhaps with fewer --workers'
    )
  return str(error)


if __name__ == '__main__':
  sys.exit(main())
