"""Where things are in Pascal VOC's development kits.

A year is spread over several downloads (VOCtrainval_06-Nov-2007.tar and
VOCtest_06-Nov-2007.tar both hold parts of VOCdevkit/VOC2007); here it is one
place to look files up in, unpacked or not.
"""

import os
import re
from collections.abc import Iterator, Sequence

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import archives
from input_pipeline.files.archives import Files
from input_pipeline.labels import text_lines

_YEAR = re.compile(r'VOC\d{4}')
_INSIDE = re.compile(
  r'((?:.*/)?)(VOC\d{4})/(?:Annotations|ImageSets|JPEGImages|Segmentation)'
)
_MAX_TEXT_BYTES = 16 << 20


class Year:
  """The files of one year, from all downloads that have some.

  Attributes:
    name: 'VOC2012'.
  """

  def __init__(self, name: str):
    self.name = name
    self._roots: list[tuple[Files, str]] = []

  def add(self, files: Files, prefix: str) -> None:
    if not any(known is files for known, _ in self._roots):
      self._roots.append((files, prefix))

  def find(self, path: str) -> tuple[Files, str] | None:
    """(files, full name) of a path like 'JPEGImages/2007_000027.jpg'."""
    for files, prefix in self._roots:
      if prefix + path in files:
        return files, prefix + path
    return None

  def read_text(self, path: str) -> tuple[bytes, str] | None:
    """(content, name for messages) of a list or annotation, None without it.

    Raises:
      ValueError: damaged or too large.
    """
    found = self.find(path)
    if found is None:
      return None
    files, name = found
    where = os.path.join(files.path, name)
    try:
      return files.read(name, max_bytes=_MAX_TEXT_BYTES), where
    except BadExample as error:
      raise ValueError(f'{where}: {error.reason}') from None

  def list_names(self) -> dict[str, list[str]]:
    """'Main' and 'Segmentation' -> the lists of images there."""
    found: dict[str, set[str]] = {'Main': set(), 'Segmentation': set()}
    for files, prefix in self._roots:
      for kind, names in found.items():
        start = f'{prefix}ImageSets/{kind}/'
        names |= {
          name[len(start) : -len('.txt')]
          for name in files.names
          if name.startswith(start) and name.endswith('.txt')
        }
    # Main has a list for each class too: aeroplane_train.txt.
    return {k: sorted(n for n in v if '_' not in n) for k, v in found.items()}

  def has(self, folder: str) -> bool:
    """Whether there are files in a folder like 'SegmentationClass'."""
    return any(
      name.startswith(f'{prefix}{folder}/')
      for files, prefix in self._roots
      for name in files.names
    )

  def image_list(self, kind: str, split: str) -> list[str] | None:
    """Names of a list like ('Main', 'trainval'), None where there is none."""
    found = self.read_text(f'ImageSets/{kind}/{split}.txt')
    return None if found is None else list(names_in(*found).values())


def names_in(data: bytes, where: str) -> dict[int, str]:
  """Line number -> image name of a list; what follows the name is ignored.

  A name may be a path of the image: /JPEGImages/2007_000032.jpg.

  Raises:
    ValueError: not text, a name twice, or none; names the line.
  """
  try:
    lines = data.decode('utf-8').splitlines()
  except UnicodeDecodeError as error:
    raise ValueError(f'{where}: not UTF-8: {error.reason}') from None
  names: dict[int, str] = {}
  for number, line in enumerate(lines, 1):
    if line.strip():
      name = os.path.splitext(os.path.basename(line.split()[0]))[0]
      names[number] = text_lines.check_name(name, f'{where}:{number}')
  if not names:
    raise ValueError(f'{where}: no image names in it')
  if len(set(names.values())) < len(names):
    seen: set[str] = set()
    for number, name in names.items():
      if name in seen:
        raise ValueError(f'{where}:{number}: image {name!r} occurs twice')
      seen.add(name)
  return names


def open_years(
  paths: Sequence[str], scratch: str | None = None
) -> dict[str, Year]:
  """'VOC2007' -> its files, in the order of the years.

  Args:
    paths: VOCdevkit folders, folders of a year, downloaded tars, or folders
      that hold one of these.
    scratch: folder for decompressed .tar.gz files.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: no year in it.
  """
  years: dict[str, Year] = {}
  for given in paths:
    found = False
    for path in _archives(given):
      files = archives.open_files(path, scratch=scratch)
      for name, prefix in _roots(files, path):
        years.setdefault(name, Year(name)).add(files, prefix)
        found = True
    if not found:
      raise ValueError(
        f'{given}: no VOCdevkit in it: expected folders VOC2007 or VOC2012 '
        f'with Annotations, ImageSets and JPEGImages, or VOC*.tar as downloaded'
      )
  return dict(sorted(years.items()))


def is_devkit(paths: Sequence[str]) -> bool:
  """Whether any of what `open_years` takes looks like the publisher's."""
  return any(_looks_like_one(path) for path in paths)


def _looks_like_one(path: str) -> bool:
  """A folder VOC20xx or VOCdevkit, one with such, or an archive with such."""
  if not os.path.exists(path):
    return True  # opening it says so
  if not os.path.isdir(path):
    return next(_roots(archives.open_files(path), path), None) is not None
  own = os.path.basename(os.path.abspath(path))
  names = (own, *os.listdir(path))
  archive = re.compile(r'VOC.*\.(tar|tar\.gz)')
  return any(
    name == 'VOCdevkit' or _YEAR.fullmatch(name) or archive.fullmatch(name)
    for name in names
  )


def _archives(path: str) -> list[str]:
  """The path itself, or the downloads in it where nothing is unpacked."""
  if not os.path.isdir(path):
    return [path]
  names = sorted(os.listdir(path))
  unpacked = _YEAR.fullmatch(os.path.basename(os.path.abspath(path))) or any(
    name == 'VOCdevkit' or _YEAR.fullmatch(name) for name in names
  )
  tars = [name for name in names if re.fullmatch(r'VOC.*\.(tar|tar\.gz)', name)]
  return (
    [os.path.join(path, n) for n in tars] if tars and not unpacked else [path]
  )


def _roots(files: Files, path: str) -> Iterator[tuple[str, str]]:
  """(year, prefix of its files) of what was opened."""
  own = os.path.basename(os.path.abspath(path))
  if _YEAR.fullmatch(own) and any(
    n.startswith('JPEGImages/') for n in files.names
  ):
    yield own, ''
    return
  seen: set[str] = set()
  for name in files.names:
    match = _INSIDE.match(name)
    if match and match[2] not in seen:
      seen.add(match[2])
      yield match[2], f'{match[1]}{match[2]}/'
