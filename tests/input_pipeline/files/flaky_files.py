"""Storage that fails now and then, for tests: reads through Python and grain.

Half of the failures are at the opening of a file, half at reads of it.
"""

import errno
import io
import os
import random

from input_pipeline.prepared import records


def install(monkeypatch, percent: float, seed: int = 0) -> None:
  """From here on this share of reads and openings fails with EIO."""
  draws = random.Random(seed)

  def fail(path) -> None:
    if draws.uniform(0, 100) < percent:
      raise OSError(errno.EIO, os.strerror(errno.EIO), path)

  real_file, real_pread = io.FileIO, os.pread
  real_reader = records.array_record_module.ArrayRecordReader

  class File(real_file):
    def __init__(self, path, *args, **options):
      fail(path)
      super().__init__(path, *args, **options)

    def readinto(self, buffer):
      fail(self.name)
      return super().readinto(buffer)

    def readall(self):
      fail(self.name)
      return super().readall()

  def pread(descriptor, size, offset):
    fail(None)
    return real_pread(descriptor, size, offset)

  class Reader:
    """As that of array_record: of no use after its first failure."""

    def __init__(self, *args, **options):
      self._reader, self._failed = real_reader(*args, **options), False

    def read(self, positions):
      if self._failed or draws.uniform(0, 100) < percent:
        self._failed = True
        raise RuntimeError('Input/output error; reading at 17')
      return self._reader.read(positions)

    def __getattr__(self, name):
      return getattr(self._reader, name)

  class Module:
    ArrayRecordReader = Reader
    ArrayRecordWriter = records.array_record_module.ArrayRecordWriter

  monkeypatch.setattr(io, 'FileIO', File)
  monkeypatch.setattr(os, 'pread', pread)
  monkeypatch.setattr(records, 'array_record_module', Module)
