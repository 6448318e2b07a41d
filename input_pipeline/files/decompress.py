"""Tars that are gzipped as a whole: decompressed once, then read at random.

A gzip stream can only be read from its start, so a member of a .tar.gz costs
all that lies before it. A small one is held in memory; another is written to a
scratch folder as a plain .tar, which takes the disk space of its content once
and is found there again by the next command.
"""

import contextlib
import gzip
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import tqdm

from input_pipeline.files import atomic, file_lock, retries

SMALL_COMPRESSED = 8 << 20
SMALL = 64 << 20  # bytes in memory, and in the pickle of a worker
MAX_RATIO = 200  # of images: about 1; deflate can reach 1,000
_CHUNK = 16 << 20
_KEEP_FREE = 1 << 30  # bytes of the disk that are left alone
_DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


@contextlib.contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
  """A file to read, decompressed where its name ends in .gz."""
  with retries.open_binary(path) as raw:
    if path.endswith('.gz'):
      with gzip.GzipFile(fileobj=raw) as file:
        yield file  # pyright: ignore[reportReturnType]
    else:
      yield raw


def small(path: str) -> bytes | None:
  """The content, or None where it is not small.

  Raises:
    ValueError: not gzip, or damaged.
  """
  if os.path.getsize(path) > SMALL_COMPRESSED:
    return None
  with (
    _damage_named(path),
    retries.open_binary(path) as raw,
    gzip.GzipFile(fileobj=raw) as file,
  ):
    data = file.read(SMALL + 1)
  return data if len(data) <= SMALL else None


def to_scratch(path: str, scratch: str | None) -> str:
  """Path of the decompressed tar in `scratch`, written there if need be.

  Raises:
    ValueError: no scratch folder given, disk too small, damaged, or a bomb.
  """
  size = os.path.getsize(path)
  if scratch is None:
    raise ValueError(
      f'{path}: compressed as a whole, so its files cannot be reached one by '
      f'one; give --scratch DIR with more than {size / 1e9:,.1f} GB free, and '
      f'it is decompressed there once'
    )
  os.makedirs(scratch, exist_ok=True)
  target = os.path.join(scratch, _target_name(path))
  busy = f'{target}: another command is writing it; wait for it'
  with file_lock.held(open(f'{target}.lock', 'w'), busy):
    if not os.path.exists(target):
      _decompress(path, size, target)
  return target


def _target_name(path: str) -> str:
  """Name in the scratch folder; another for a file that has been replaced."""
  status = os.stat(path)
  identity = (os.path.realpath(path), status.st_size, status.st_mtime_ns)
  digest = hashlib.blake2b(repr(identity).encode(), digest_size=4).hexdigest()
  stem = os.path.basename(path).removesuffix('.gz').removesuffix('.tgz')
  return f'{stem.removesuffix(".tar")}-{digest}.tar'


def _decompress(path: str, size: int, target: str) -> None:
  folder = os.path.dirname(target)
  bar = tqdm.tqdm(
    total=size, unit='B', unit_scale=True, desc=f'decompressing {path}'
  )
  written = 0
  with (
    bar,
    _damage_named(path),
    retries.open_binary(path) as raw,
    gzip.GzipFile(fileobj=raw) as file,
    atomic.writing(target, suffix='.writing', unique=False) as out,
  ):
    while chunk := file.read(_CHUNK):
      at = raw.tell()
      # What is left will not become smaller by decompression.
      needed = len(chunk) + max(size - at, 0) + _KEEP_FREE
      free = shutil.disk_usage(folder).free
      if free < needed:
        raise ValueError(
          f'--scratch {folder}: at least {needed / 1e9:,.1f} GB more are '
          f'needed for {path}, {free / 1e9:,.1f} GB are free'
        )
      written += len(chunk)
      if written > max(MAX_RATIO * at, 4 * _CHUNK):
        raise ValueError(
          f'{path}: {written:,} bytes from {at:,}, above {MAX_RATIO}:1: refused'
        )
      out.write(chunk)
      bar.update(at - bar.n)


@contextlib.contextmanager
def _damage_named(path: str) -> Iterator[None]:
  try:
    yield
  except _DAMAGED as error:
    raise ValueError(
      f'{path}: damaged or cut short, or no gzip file: {error}'
    ) from None
