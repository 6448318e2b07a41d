"""Does faults to real runs and counts what held: the table of reliability.md.

  python -m tests.faults --rows F1,F4 --trials 50 --seed 0
  ... --write    the results of these rows into docs/reliability.md

Rows without --trials are tried as often as the matrix asks for. The random
numbers of a trial follow from the seed, its row and its number, so that
--first N --trials 1 repeats one.
Exit code: 0 all held, 1 some did not, 2 bad arguments.
"""

import argparse
import datetime
import os
import pathlib
import platform
import random
import re
import sys
import tempfile
import time

from tests.faults import rows as matrix
from tests.faults.field import Field
from tests.faults.trainers import ROOT, Trainers

TABLE = ROOT / 'docs' / 'reliability.md'
_BEGIN = '<!-- tests.faults: begin -->'
_END = '<!-- tests.faults: end -->'


def run(
  row: matrix.Row, field: Field, first: int, trials: int, seed: int
) -> tuple[int, int]:
  """Does the trials of a row; returns how many (held, were possible)."""
  held, possible = 0, trials
  for number in range(first, first + trials):
    begun = time.monotonic()
    try:
      note = row.trial(
        field, number, random.Random(f'{seed} {row.id} {number}')
      )
      held, verdict = held + 1, 'held'
    except AssertionError as error:
      note, verdict = str(error), 'BROKEN'
    except matrix.Impossible as error:
      note, verdict = str(error), 'not possible'
      possible -= 1
    seconds = time.monotonic() - begun
    print(f'{row.id} {number}: {verdict} ({seconds:.1f} s) {note}', flush=True)
  return held, possible


def line(row: matrix.Row, held: int, trials: int, seed: int) -> str:
  """The row of the table."""
  machine = f'{os.cpu_count()} CPUs, Python {platform.python_version()}'
  date = datetime.date.today().isoformat()
  cells = (
    row.id,
    row.fault,
    row.promise,
    f'{held}/{trials}',
    seed,
    machine,
    date,
  )
  return f'| {" | ".join(str(cell) for cell in cells)} |'


def write(lines: dict[str, str], path: pathlib.Path = TABLE) -> None:
  """Puts lines in the place of those of the same rows, in order."""
  text = path.read_text(encoding='utf-8')
  before, _, rest = text.partition(_BEGIN)
  table, _, after = rest.partition(_END)
  found = {
    match[1]: match[0] for match in re.finditer(r'(?m)^\| (\w\d+) \|.*$', table)
  }
  found |= lines
  order = sorted(found, key=lambda name: (name[0], int(name[1:])))
  head = (
    '| row | fault | promise | held | seed | machine | date |\n'
    '|---|---|---|---|---|---|---|'
  )
  body = '\n'.join([head, *(found[name] for name in order)])
  path.write_text(f'{before}{_BEGIN}\n{body}\n{_END}{after}', encoding='utf-8')


def main() -> int:
  known = matrix.found()
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--rows', default=','.join(known), help='F1,F2,...; all')
  add('--trials', type=int, help='of each row')
  add('--first', type=int, default=0, help='number of the first trial')
  add('--seed', type=int, default=0)
  add('--write', action='store_true', help='into docs/reliability.md')
  args = parser.parse_args()
  names = args.rows.split(',')
  for name in names:
    if name not in known:
      parser.error(f'--rows: {name!r}; valid: {", ".join(known)}')
  lines, all_held = {}, True
  with tempfile.TemporaryDirectory() as folder, Trainers() as trainers:
    field = Field(pathlib.Path(folder) / 'field', trainers)
    for name in names:
      row = known[name]
      trials = row.trials if args.trials is None else args.trials
      held, possible = run(row, field, args.first, trials, args.seed)
      all_held &= held == possible
      lines[name] = line(row, held, possible, args.seed)
      print(lines[name], flush=True)
  if args.write:
    write(lines)
  return 0 if all_held else 1


if __name__ == '__main__':
  sys.exit(main())
