"""Archives for tests, written by the standard library."""

import io
import tarfile
from collections.abc import Mapping

Content = Mapping[str, 'bytes | Content']


def tar_bytes(content: Content, *, format=tarfile.GNU_FORMAT) -> bytes:
  """A tar of the files; a mapping as a value becomes a tar within it."""
  out = io.BytesIO()
  with tarfile.open(fileobj=out, mode='w', format=format) as archive:
    for name, data in content.items():
      if isinstance(data, Mapping):
        data = tar_bytes(data, format=format)
      add(archive, name, data)
  return out.getvalue()


def add(archive: tarfile.TarFile, name: str, data: bytes = b'', **header):
  """One member; `header`: other attributes of its TarInfo, such as type."""
  info = tarfile.TarInfo(name)
  info.size = len(data)
  for key, value in header.items():
    setattr(info, key, value)
  archive.addfile(info, io.BytesIO(data))
