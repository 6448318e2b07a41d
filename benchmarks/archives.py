"""Images read in place from a tar of class tars, against other ways to them.

  python -m benchmarks.archives [--classes 100] [--images 500] [--kb 20]

A tar of class tars of random bytes is made, and the same files in folders, all
in the page cache. Contestants take turns; figures are medians with their range.

  open    archives.open_files on the tar: the whole index
          the standard library's tarfile, over the inner tars (names and
          offsets, as for reading)
          archives.open_files on the unpacked folder
  unpack  writing all files to folders, which reading in place saves
  read    one image at random: from the tar, from the unpacked folder with
          open() and read()
"""

import argparse
import os
import pathlib
import pickle
import platform
import random
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable

from input_pipeline.files import archives

_READS = 4000


def make(path: pathlib.Path, classes: int, images: int, size: int) -> None:
  """ILSVRC2012_img_train.tar in small."""
  with path.open('wb') as file:
    for c in range(classes):
      body = bytearray()
      for i in range(images):
        body += _header(f'n{c:08}_{i * 7}.JPEG', size)
        body += os.urandom(size) + bytes(-size % 512)
      body += bytes(1024)
      file.write(_header(f'n{c:08}.tar', len(body)) + body)
    file.write(bytes(1024))


def _header(name: str, size: int) -> bytes:
  info = tarfile.TarInfo(name)
  info.size = size
  return info.tobuf(tarfile.USTAR_FORMAT)


def index_by_tarfile(path: pathlib.Path) -> dict[str, tuple[int, int]]:
  """name -> (offset, size), as the usual code finds them."""
  found = {}
  with tarfile.open(path) as outer:
    for member in outer:
      with tarfile.open(fileobj=outer.extractfile(member)) as inner:
        for image in inner:
          name = f'{member.name}/{image.name}'
          found[name] = member.offset_data + image.offset_data, image.size
  return found


def unpack(files: archives.Files, folder: pathlib.Path) -> None:
  for name in files.names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(files.read(name))


def seconds(work: Callable[[], object]) -> float:
  start = time.perf_counter()
  work()
  return time.perf_counter() - start


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--classes', type=int, default=100)
  parser.add_argument('--images', type=int, default=500)
  parser.add_argument('--kb', type=int, default=20)
  parser.add_argument('--rounds', type=int, default=7)
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as scratch:
    tar, folder = pathlib.Path(scratch, 'x.tar'), pathlib.Path(scratch, 'files')
    make(tar, args.classes, args.images, args.kb * 1000)
    files = archives.open_files(tar)
    unpacking = seconds(lambda: unpack(files, folder))
    names = random.Random(0).choices(files.names[:], k=_READS)
    index = index_by_tarfile(tar)
    assert sorted(index) == list(files.names)
    contestants = {
      'open: tar': lambda: archives.open_files(tar),
      'open: tarfile': lambda: index_by_tarfile(tar),
      'open: folder': lambda: archives.open_files(folder),
      'read: tar': lambda: [files.read(name) for name in names],
      'read: folder': lambda: [(folder / n).read_bytes() for n in names],
    }
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(args.rounds):
      for name, work in contestants.items():
        found[name].append(seconds(work))
    num = len(files)
    print(
      f'{num:,} files of {args.kb} kB, Python '
      f'{platform.python_version()}; {args.rounds} rounds. The index has '
      f'{len(pickle.dumps(files)) / num:.0f} bytes a file; unpacking took '
      f'{unpacking / num * 1e6:.0f} us a file.\n'
    )
    print('| | us a file | range | ratio to the tar in place |')
    print('|---|--:|--:|--:|')
    for name, values in found.items():
      count = num if name.startswith('open') else _READS
      base = found[f'{name.partition(":")[0]}: tar']
      ratio = statistics.median(a / b for a, b in zip(values, base))
      us = [value / count * 1e6 for value in values]
      print(
        f'| {name} | {statistics.median(us):.1f} | {min(us):.1f} to '
        f'{max(us):.1f} | {ratio:.2f} |'
      )


if __name__ == '__main__':
  main()
