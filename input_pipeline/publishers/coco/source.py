"""COCO 2017 and 2014: detection, segmentation outlines and person keypoints.

The labels of an image are the categories present in it, those of crowds
included. Every annotated box is kept, also one without an area; `report_lines`
counts them. Keys are folder and file name: 'val2017/000000000139.jpg'.

The paper trains on train + val without 8,000 images of val, `minival*`, and
evaluates on those (Sun et al. 2017, section 5.2); `minival_ids` makes the two
splits.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import archives
from input_pipeline.files.archives import Files
from input_pipeline.image_sets import fingerprint
from input_pipeline.labels import text_lines
from input_pipeline.labels.space import Skeleton
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.coco import annotations as coco_annotations
from input_pipeline.publishers.coco.annotations import Annotations

TASKS = ('instances', 'keypoints', 'both')
YEARS = (2017, 2014)
MINIVAL = 'minival'
TRAINVAL_MINUS_MINIVAL = 'trainval_minus_minival'
# Of persons; the sigmas are those of pycocotools.
PERSON = Skeleton(
  names=(
    'nose', 'left_eye', 'right_eye', 'left_ear', 'right_ear', 'left_shoulder',
    'right_shoulder', 'left_elbow', 'right_elbow', 'left_wrist', 'right_wrist',
    'left_hip', 'right_hip', 'left_knee', 'right_knee', 'left_ankle',
    'right_ankle',
  ),
  pairs=(
    (1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16),
  ),
  sigmas=(
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062,
    0.062, 0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
  ),
)  # fmt: skip
_PREFIXES = {'instances': 'instances', 'keypoints': 'person_keypoints'}
_MAX_JSON_BYTES = 4 << 30
_NUM_SHOWN = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """Some images of one annotation file.

  Attributes:
    folder: 'train2017'.
    annotations: of the whole file.
    files: where its images are.
    prefix: what stands before file names there: '' or 'train2017/'.
    rows: int64 [n] of the images.
  """

  folder: str
  annotations: Annotations
  files: Files
  prefix: str
  rows: np.ndarray


class Source:
  """Random access to images with their boxes; see docs/add-a-source.md."""

  hierarchy = None

  def __init__(self, parts: Sequence[Part]):
    """Takes the images of the parts, one part after the other.

    Raises:
      ValueError: their categories differ.
    """
    self._parts = tuple(parts)
    first = parts[0].annotations
    for part in parts[1:]:
      other = part.annotations
      if (other.category_ids, other.categories) != (
        first.category_ids, first.categories,
      ):  # fmt: skip
        raise ValueError(
          f'{first.origin} and {other.origin} have different categories'
        )
    self.vocabulary = Vocabulary(first.categories)
    points = 0 if first.keypoints is None else first.keypoints.shape[1]
    self.keypoints = PERSON if points == len(PERSON.names) else None
    self._ends = np.cumsum([len(part.rows) for part in parts])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def _locate(self, index: int) -> tuple[Part, int]:
    """(part, row of its annotation file) of an image."""
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    number = int(np.searchsorted(self._ends, index, side='right'))
    part = self._parts[number]
    return part, int(part.rows[index - self._ends[number] + len(part.rows)])

  def key(self, index: int) -> str:
    """Folder and file name."""
    part, row = self._locate(index)
    return f'{part.folder}/{part.annotations.file_names[row]}'

  def labels(self, index: int) -> np.ndarray:
    """int32 [n] ascending ids of the categories present, crowds included."""
    part, row = self._locate(index)
    start, end = part.annotations.ends[row : row + 2]
    return np.unique(part.annotations.labels[start:end])

  def __getitem__(self, index: int) -> dict[str, Any]:
    """'image' bytes, 'labels', and fields of examples/annotations.py.

    Those are boxes, box_labels, box_crowd, box_area, box_ids, box_outlines
    and, where the task has them, keypoints.

    Raises:
      BadExample: the image is missing or damaged.
    """
    part, row = self._locate(index)
    found = part.annotations
    start, end = map(int, found.ends[row : row + 2])
    example = {
      'image': part.files.read(part.prefix + found.file_names[row]),
      'labels': self.labels(index),
      'boxes': found.boxes[start:end],
      'box_labels': found.labels[start:end],
      'box_crowd': found.crowd[start:end],
      'box_area': found.area[start:end],
      'box_ids': found.ids[start:end],
      'box_outlines': [found.outline(i) for i in range(start, end)],
    }
    if found.keypoints is not None:
      example['keypoints'] = found.keypoints[start:end]
    return example

  def fingerprint(self) -> str:
    """Changes with annotations, names, order, and sizes of image files."""
    pieces: list[bytes | np.ndarray] = []
    for part in self._parts:
      found = part.annotations
      pieces += [part.files.fingerprint().encode(), part.folder.encode()]
      pieces += ['\n'.join(found.file_names).encode(), part.rows, found.ends]
      pieces += [found.boxes, found.labels, found.crowd, found.area, found.ids]
      pieces += [found.outlines, found.outline_ends]
      if found.keypoints is not None:
        pieces.append(found.keypoints)
    return fingerprint.digest(pieces, self.vocabulary, None)

  def report_lines(self) -> list[str]:
    """Counts of what a reader might stumble over."""
    lines = []
    for part in self._parts:
      found = part.annotations
      chosen = np.zeros(len(found.image_ids), bool)
      chosen[part.rows] = True
      counts = np.diff(found.ends)
      boxes = np.repeat(chosen, counts)
      sides = found.boxes[boxes, 2:] - found.boxes[boxes, :2]
      line = (
        f'{part.folder}: {boxes.sum():,} boxes, '
        f'{found.crowd[boxes].sum():,} of crowds, '
        f'{(sides <= 0).any(axis=1).sum():,} without an area (kept), '
        f'{(counts[chosen] == 0).sum():,} images without a box (kept)'
      )
      if found.keypoints is not None:
        labelled = (found.keypoints[boxes, :, 2] > 0).any(axis=1).sum()
        line += f', {labelled:,} boxes with keypoints'
      lines.append(line)
    return lines


def open_splits(
  root: str,
  *,
  task: str = 'instances',
  year: int = 2017,
  minival_ids: str | None = None,
  scratch: str | None = None,
) -> dict[str, Source]:
  """The splits of COCO as published, in a folder.

  Args:
    root: folder with annotations/ or annotations_trainval{year}.zip, and with
      train{year}/ and val{year}/ or their zips.
    task: 'instances': all categories; 'keypoints': persons with keypoints;
      'both': all categories, with the keypoints of persons.
    year: 2017 or 2014.
    minival_ids: text file of image ids, one a line, of val. With it the splits
      are `trainval_minus_minival` and `minival`, otherwise train and val.
    scratch: folder for decompressed .tar.gz files.

  Raises:
    FileNotFoundError: a file is missing; says what was expected.
    ValueError: unknown task or year, a damaged file, ids that are not in val.
  """
  if task not in TASKS:
    raise ValueError(f'task must be one of {", ".join(TASKS)}, got {task!r}')
  if year not in YEARS:
    raise ValueError(f'year must be 2017 or 2014, got {year!r}')
  if not os.path.isdir(root):
    raise FileNotFoundError(f'{root}: no such folder')
  wanted = None if minival_ids is None else read_ids(minival_ids)
  train, val = (
    _part(root, f'{split}{year}', task, year, scratch)
    for split in ('train', 'val')
  )
  if wanted is None:
    return {'train': Source([train]), 'val': Source([val])}
  rows = coco_annotations.positions(val.annotations.image_ids, wanted)
  missing = wanted[rows < 0]
  if len(missing):
    shown = ', '.join(map(str, missing[:_NUM_SHOWN]))
    raise ValueError(
      f'{minival_ids}: {len(missing):,} of {len(wanted):,} ids are not in '
      f'{val.annotations.origin}: {shown}'
      f'{", ..." if len(missing) > _NUM_SHOWN else ""}; the list of one year '
      f'does not fit the val split of another'
    )
  rest = np.setdiff1d(val.rows, rows)
  kept = [train] if not len(rest) else [
    train, dataclasses.replace(val, rows=rest),
  ]  # fmt: skip
  return {
    TRAINVAL_MINUS_MINIVAL: Source(kept),
    MINIVAL: Source([dataclasses.replace(val, rows=np.sort(rows))]),
  }


def read_ids(path: str) -> np.ndarray:
  """int64 [n] image ids of a text file, one a line.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not such a file, or an id twice; names the line.
  """
  seen: dict[int, int] = {}
  for number, line in enumerate(text_lines.read(path), 1):
    text = line.strip()
    if not text:
      continue
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
      raise ValueError(
        f'{path}:{number}: expected an image id, got {text!r:.60}'
      )
    if seen.setdefault(int(text), number) != number:
      raise ValueError(
        f'{path}:{number}: id {text} is already at line {seen[int(text)]}'
      )
  if not seen:
    raise ValueError(f'{path}: no image ids in it')
  return np.array(list(seen), np.int64)


def _part(
  root: str, folder: str, task: str, year: int, scratch: str | None
) -> Part:
  """The annotations and image files of one split."""
  zipped = os.path.join(root, f'annotations_trainval{year}.zip')
  kind = 'keypoints' if task == 'keypoints' else 'instances'
  found = _annotations(root, zipped, f'{_PREFIXES[kind]}_{folder}.json')
  if task == 'both':
    name = f'{_PREFIXES["keypoints"]}_{folder}.json'
    found = coco_annotations.with_keypoints(
      found, _annotations(root, zipped, name)
    )
  if not found.file_names:
    raise ValueError(f'{found.origin}: no images in it')
  files = _image_files(root, folder, scratch)
  for prefix in ('', f'{folder}/'):
    if any(prefix + name in files for name in found.file_names):
      rows = np.arange(len(found.file_names))
      return Part(folder, found, files, prefix, rows)
  raise FileNotFoundError(
    f'{files.path}: none of the {len(found.file_names):,} images of '
    f'{found.origin} is there, for example {found.file_names[0]!r}'
  )


def _annotations(root: str, zipped: str, name: str) -> Annotations:
  path = os.path.join(root, 'annotations', name)
  if os.path.exists(path):
    with open(path, 'rb') as file:
      return coco_annotations.parse(file.read(), path)
  member = f'annotations/{name}'
  if os.path.exists(zipped):
    files = archives.open_files(zipped)
    if member in files:
      try:
        data = files.read(member, max_bytes=_MAX_JSON_BYTES)
      except BadExample as error:
        raise ValueError(f'{zipped}: {member}: {error.reason}') from None
      return coco_annotations.parse(data, f'{zipped}/{member}')
  raise FileNotFoundError(
    f'{path}: no such file, nor {member} in {os.path.basename(zipped)}'
  )


def _image_files(root: str, folder: str, scratch: str | None) -> Files:
  names = (folder, f'images/{folder}', *(
    f'{folder}{suffix}' for suffix in ('.zip', '.tar', '.tar.gz')
  ))  # fmt: skip
  for name in names:
    path = os.path.join(root, name)
    if os.path.exists(path):
      return archives.open_files(path, scratch=scratch)
  raise FileNotFoundError(
    f'{root}: no images of {folder}: none of {", ".join(names)} is there'
  )
