"""Where annotations and images of a COCO data set lie, its own or a user's.

COCO's own: annotations/instances_train2017.json (or that in the zip as
downloaded) and train2017/. Programs that export its form write
train/_annotations.coco.json beside the images, or
annotations/instances_train.json, annotations/train.json, train.json, or one
file for all images.
"""

import os
from collections.abc import Iterator, Sequence

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import archives, retries
from input_pipeline.files.archives import Files
from input_pipeline.image_sets import truth_pairs
from input_pipeline.publishers.coco import annotations as coco_annotations
from input_pipeline.publishers.coco.annotations import Annotations

SPLIT = '{split}'
PREFIXES = {'instances': 'instances', 'keypoints': 'person_keypoints'}
_OWN_NAMES = (
  'instances_', 'person_keypoints_', 'image_info_', '_annotations.coco'
)  # fmt: skip
_MAX_JSON_BYTES = 4 << 30
_HEAD_BYTES = 1 << 16
_NUM_LOOKED_FOR = 100  # images of a list
# Lists of images without truth, and the folder that holds the images.
_LISTS = {'test': 'test', 'test-dev': 'test', 'unlabeled': 'unlabeled'}
_UNDIVIDED = (
  'annotations/instances_default.json', 'annotations/instances.json',
  'annotations/annotations.json', '_annotations.coco.json', 'annotations.json',
  'instances.json', 'result.json', 'labels.json', 'coco.json',
)  # fmt: skip
_UNDIVIDED_KEYPOINTS = (
  'annotations/person_keypoints_default.json',
  'annotations/person_keypoints.json', 'person_keypoints.json',
)  # fmt: skip


def annotation_names(split: str, kind: str, year: int) -> list[str]:
  """Files that may hold the annotations of a split, below the root.

  Args:
    split: 'train', ...; 'all' for one file of all images.
    kind: 'instances' or 'keypoints'.
    year: of COCO's releases.
  """
  if split == truth_pairs.ALL:
    first = _UNDIVIDED_KEYPOINTS if kind == 'keypoints' else ()
    return [*first, *_UNDIVIDED]
  start = 'image_info' if split in _LISTS else PREFIXES[kind]
  found = [f'annotations/{start}_{split}{year}.json']
  for name in truth_pairs.names(split):
    found += [
      f'annotations/{PREFIXES[kind]}_{name}.json',
      f'{name}/_annotations.coco.json',
      f'annotations/{name}.json',
      f'{PREFIXES[kind]}_{name}.json',
      f'{name}.json',
      f'{name}/annotations.json',
      f'annotations/image_info_{name}.json',
    ]
  return found


def read_annotations(
  root: str, split: str, kind: str, year: int, given: str | None = None
) -> Annotations:
  """The annotations of a split.

  Args:
    root: the data set's folder.
    split, kind, year: see `annotation_names`.
    given: their file, below the root, '{split}' for the split.

  Raises:
    FileNotFoundError: none is there.
    ValueError: damaged.
  """
  if given is not None:
    path = os.path.join(root, given.replace(SPLIT, split))
    if not os.path.isfile(path):
      raise FileNotFoundError(f'{path}: no such file')
    return _parsed(path)
  names = annotation_names(split, kind, year)
  for name in names:
    path = os.path.join(root, name)
    if os.path.isfile(path):
      return _parsed(path)
    zipped = _zip_of(split, year)
    archive = os.path.join(root, zipped)
    if name == names[0] and os.path.exists(archive):
      files = archives.open_files(archive)
      if name in files:
        try:
          data = files.read(name, max_bytes=_MAX_JSON_BYTES)
        except BadExample as error:
          raise ValueError(f'{archive}: {name}: {error.reason}') from None
        return coco_annotations.parse(data, f'{archive}/{name}')
  more = ', '.join(names[1:4])
  raise FileNotFoundError(
    f'{os.path.join(root, names[0])}: no such file, nor {names[0]} in '
    f'{_zip_of(split, year)}, nor another of that split ({more}, ...)'
  )


def _zip_of(split: str, year: int) -> str:
  if split in _LISTS:
    return f'image_info_{_LISTS[split]}{year}.zip'
  return f'annotations_trainval{year}.zip'


def _parsed(path: str) -> Annotations:
  with retries.open_binary(path) as file:
    return coco_annotations.parse(file.read(), path)


def find_images(
  root: str,
  split: str,
  year: int,
  annotations: Annotations,
  given: str | None = None,
  scratch: str | None = None,
) -> tuple[str, Files, str]:
  """(name of the folder in keys, files, what stands before file names there).

  Args:
    root: the data set's folder.
    split, year: whose images.
    annotations: that name them.
    given: their folder or archive, below the root, '{split}' for the split.
    scratch: folder for decompressed .tar.gz files.

  Raises:
    FileNotFoundError: no folder, or none of the images in it.
  """
  wanted = annotations.file_names[:_NUM_LOOKED_FOR]
  own = f'{_LISTS.get(split, split)}{year}'
  for name in _image_places(split, own, annotations, root, given):
    path = os.path.join(root, name)
    if not os.path.exists(path):
      continue
    if os.path.isdir(path):
      there = (os.path.isfile(os.path.join(path, n)) for n in wanted)
      if any(there):
        key = own if own in name else name.replace(os.sep, '/').strip('/')
        return key, archives.open_files(path), ''
    else:
      files = archives.open_files(path, scratch=scratch)
      for prefix in ('', f'{own}/'):
        if any(prefix + n in files for n in wanted):
          return own, files, prefix
  places = given or ', '.join((*_places_of(own), split, 'images', '...'))
  raise FileNotFoundError(
    f'{root}: no images of {own}: none of {places} is there with '
    f'{wanted[0]!r} or another of the {len(annotations.file_names):,} images '
    f'of {annotations.origin}'
  )


def _places_of(own: str) -> tuple[str, ...]:
  suffixes = ('.zip', '.tar', '.tar.gz')
  return own, f'images/{own}', *(f'{own}{suffix}' for suffix in suffixes)


def _image_places(
  split: str, own: str, annotations: Annotations, root: str, given: str | None
) -> Iterator[str]:
  """Folders and archives below the root where images may lie, in order."""
  if given is not None:
    yield given.replace(SPLIT, split)
    return
  yield from _places_of(own)
  beside = os.path.dirname(os.path.relpath(annotations.origin, root))
  for name in truth_pairs.names(split) if split != truth_pairs.ALL else ():
    yield from (name, f'images/{name}', f'{name}/images')
  if not beside.startswith('..') and not root.endswith('.zip'):
    yield beside
  yield from ('images', '')


def has_one(
  root: str, splits: Sequence[str], year: int, kind: str = 'instances'
) -> bool:
  """Whether a folder looks like a COCO data set with one of the splits.

  Args:
    root: the folder.
    splits, year, kind: of its files, see `annotation_names`.
  """
  names = (n for s in splits for n in annotation_names(s, kind, year))
  return any(
    _looks_like_one(os.path.join(root, name)) for name in dict.fromkeys(names)
  ) or os.path.isfile(os.path.join(root, _zip_of('train', year)))


def _looks_like_one(path: str) -> bool:
  """Whether a file is called as COCO's are, or begins as they do."""
  if not os.path.isfile(path):
    return False
  if os.path.basename(path).startswith(_OWN_NAMES):
    return True
  with retries.open_binary(path) as file:
    head = file.read(_HEAD_BYTES)
  keys = b'"images"', b'"annotations"', b'"categories"'
  return head.lstrip().startswith(b'{') and any(key in head for key in keys)
