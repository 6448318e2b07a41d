"""What stands in a folder, for comparison with what stood there."""

import pathlib


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
  """All files but log.txt, which tells of refusals too."""
  return {
    str(p.relative_to(folder)): p.read_bytes()
    for p in sorted(folder.rglob('*'))
    if p.is_file() and p.name != 'log.txt'
  }
