"""Are the checkpoints of a run what was written? Every file, against its hash.

  python -m tools.verify_checkpoint --checkpoint workdirs/run
  python -m tools.verify_checkpoint --checkpoint workdirs/run/checkpoints/700

Of a workdir, all checkpoints; beside a run that trains, too. Exit code 0: all
are whole; 1: one is not, or was written without a manifest, by an older
version; 2: there is none.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

from big_vision_like.checkpoints import folders, leases, manifest

from .cli import command


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.verify_checkpoint'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  p.add_argument(
    '--checkpoint', required=True, help='workdir of a run, or a checkpoint'
  )
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(lambda: verify(args.checkpoint))


def verify(checkpoint: str) -> int:
  """Prints what is found, a checkpoint a line and a damaged file a line.

  Args:
    checkpoint: workdir of a run, the folder of its checkpoints, or of one.

  Returns:
    The exit code.

  Raises:
    FileNotFoundError: no checkpoint there.
  """
  steps = folders.candidates(checkpoint, '--checkpoint')
  alone = folders.as_path(checkpoint) == steps[0]
  whole = alone or not folders.misnamed(steps[0].parent)  # they were named
  for step in reversed(steps):
    lease = leases.take(step)
    if lease is not None:  # else deleted by its run meanwhile
      with lease:
        whole &= _verify(step)
  return 0 if whole else 1


def _verify(step: pathlib.Path) -> bool:
  problems = manifest.problems(step)
  if problems is None:
    print(f'{step}: no manifest, nothing to compare its files with')
    return False
  if not problems:
    number, size = manifest.extent(step)
    print(f'{step}: whole, {number:,} files, {size:,} bytes')
    return True
  print(f'{step}: damaged')
  for line in problems:
    print(f'  {line}')
  return False


if __name__ == '__main__':
  sys.exit(main())
