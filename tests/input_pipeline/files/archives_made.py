"""Archives for tests, written by the standard library."""

import io
import pathlib
import tarfile
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

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


def zip_bytes(content, method=zipfile.ZIP_DEFLATED) -> bytes:
  out = io.BytesIO()
  with zipfile.ZipFile(out, 'w', method) as archive:
    for name, data in content.items():
      archive.writestr(name, data)
  return out.getvalue()


def write_million(path: pathlib.Path) -> None:
  """A tar of a million empty members."""
  header = tarfile.TarInfo('x')
  with path.open('wb') as file:
    for i in range(10**6):
      header.name = f'{i:07}.jpg'
      file.write(header.tobuf(tarfile.USTAR_FORMAT))
    file.write(bytes(1024))


# fault -> (header of the member, the refusal).
HOSTILE_TARS: dict[str, tuple[dict[str, Any], str]] = {
  'above': (dict(name='a/../../x', data=b'1'), 'leads out of the archive'),
  'absolute': (dict(name='/tmp/x', data=b'1'), 'leads out of the archive'),
  'backslash': (dict(name='..\\x', data=b'1'), 'leads out of the archive'),
  'symlink': (
    dict(name='x', type=tarfile.SYMTYPE, linkname='/etc/passwd'),
    "member 'x' is a symbolic link: refused",
  ),
  'hard link': (
    dict(name='x', type=tarfile.LNKTYPE, linkname='fine0.jpg'),
    "member 'x' is a hard link: refused",
  ),
  'device': (dict(name='x', type=tarfile.CHRTYPE), 'is a character device'),
  'pipe': (dict(name='x', type=tarfile.FIFOTYPE), 'is a named pipe'),
  'twice': (dict(name='fine0.jpg', data=b'2'), "'fine0.jpg' occurs twice"),
  'twice written otherwise': (dict(name='.//fine0.jpg'), 'occurs twice'),
  'without a name': (dict(name='.', data=b'2'), 'without a name'),
  'too deep': (
    dict(name='1.tar', data=tar_bytes({'2.tar': {'3.jpg': b'x'}})),
    r"1\.tar: member '2\.tar' is a tar in a tar in a tar",
  ),
  'no tar inside': (
    dict(name='1.tar', data=b'x' * 600),
    r'1\.tar: not a tar file, or damaged at its start',
  ),
}
# fault -> (name, content, mode, method, the refusal).
HOSTILE_ZIPS: dict[str, tuple[str, bytes, int, int, str]] = {
  'above': ('../x', b'1', 0, 0, "member '../x' leads out of the archive"),
  'absolute': ('/x', b'1', 0, 0, "member '/x' leads out of the archive"),
  'backslash': ('a\\..\\..\\x', b'1', 0, 0, 'leads out of the archive'),
  'symlink': ('x', b'1', 0o120777, 0, "member 'x' is a symbolic link"),
  'device': ('x', b'1', 0o020666, 0, "member 'x' is a device or a pipe"),
  'pipe': ('x', b'1', 0o010666, 0, "member 'x' is a device or a pipe"),
  'another method': ('x', b'1', 0, 14, 'compressed by method 14'),
  'bomb of 1:1000': (
    'x', bytes(2 << 20), 0, 8,
    r"member 'x' claims 2,097,152 bytes in 2,0\d\d, above 200:1: refused",
  ),
  'twice': ('fine0.jpg', b'1', 0, 0, r"member 'fine0\.jpg' occurs twice"),
}  # fmt: skip


def write_hostile(
  path: pathlib.Path,
  fault: str,
  good: Sequence[str] = ('fine0.jpg',),
  at: int = 1,
) -> str:
  """An archive with one such member before the `at`-th of its good ones.

  Args:
    path: ends in .tar or .zip.
    fault: of HOSTILE_TARS or HOSTILE_ZIPS.
    good: names of the others.
    at: its place.

  Returns:
    a pattern of the refusal.
  """
  if path.suffix == '.tar':
    header, message = HOSTILE_TARS[fault]
    with tarfile.open(path, 'w') as archive:
      for i, name in enumerate([*good, None]):
        if i == at:
          add(archive, **header)
        if name is not None:
          add(archive, name, b'1')
    return message
  name, data, mode, method, message = HOSTILE_ZIPS[fault]
  info = zipfile.ZipInfo(name)
  info.create_system, info.external_attr = 3, mode << 16
  info.compress_type = method
  with warnings.catch_warnings(), zipfile.ZipFile(path, 'w') as made:
    warnings.simplefilter('ignore')  # duplicate names
    for i, each in enumerate([*good, None]):
      if i == at:
        made.writestr(info, data)
      if each is not None:
        made.writestr(each, b'1')
  return message
