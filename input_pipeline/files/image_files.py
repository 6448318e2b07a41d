"""Image files by their suffixes: paths given by the user, bytes read whole."""

import errno
import io
import os
from typing import Any

import simplejpeg
from PIL import Image

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import retries

SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.gif', '.tif', '.tiff')
MAX_IMAGE_BYTES = 1 << 28
_JPEG = b'\xff\xd8'  # how one starts
_FAULTS_OF_THE_RECORD = (
  errno.ENOENT,
  errno.EACCES,
  errno.EPERM,
  errno.EISDIR,
  errno.ENOTDIR,
  errno.ENAMETOOLONG,
  errno.ELOOP,
)


def read_image(path: bytes) -> bytes:
  """The whole file; BadExample if it is missing, unreadable or too large.

  Other errors of the storage are not the record's fault and pass through.
  """
  try:
    with retries.open_binary(path) as file:
      data = file.read(MAX_IMAGE_BYTES + 1)
  except OSError as error:
    if error.errno not in _FAULTS_OF_THE_RECORD:
      raise
    raise BadExample(f'cannot be opened: {error.strerror}') from None
  if len(data) > MAX_IMAGE_BYTES:
    raise BadExample(f'larger than {MAX_IMAGE_BYTES:,} bytes')
  return data


def header_size(file: bytes | str | os.PathLike[str]) -> tuple[int, int] | None:
  """(height, width) that the head of an image states; None: it has none.

  Pixels are not decoded and the EXIF orientation is not looked at.
  """
  try:
    if isinstance(file, bytes) and file.startswith(_JPEG):
      height, width, _, _ = simplejpeg.decode_jpeg_header(file)
      return int(height), int(width)
    is_content = isinstance(file, bytes)
    opened = io.BytesIO(file) if is_content else retries.open_binary(file)
    with opened, Image.open(opened) as picture:
      return picture.height, picture.width
  except retries.StorageError:  # says nothing of the image
    raise
  except Exception:  # a parser meets hostile bytes: any failure
    return None


def check_path(name: str, value: Any) -> str:
  """An option that must be a path: a non-empty string, used literally."""
  if not isinstance(value, str | os.PathLike) or not os.fspath(value):
    raise ValueError(f'{name} must be a path, got {value!r}')
  path = os.fspath(value)
  if not isinstance(path, str) or '\0' in path:
    raise ValueError(f'{name} must be a path without NUL, got {value!r}')
  return path
