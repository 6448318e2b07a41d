"""COCO 2017 and 2014: detection, segmentation outlines and person keypoints.

The labels of an image are the categories present in it, those of crowds
included. Every annotated box is kept, also one without an area, but for those
outside their images; `report_lines` counts and names them. Keys are folder and
file name: 'val2017/000000000139.jpg'.

The paper trains on train + val without 8,000 images of val, `minival*`, and
evaluates on those (Sun et al. 2017, section 5.2); `minival_ids` makes the two
splits.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from big_vision_like.protocols import Objects
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import image_files
from input_pipeline.files.archives import Files
from input_pipeline.image_sets import (
  box_checks,
  boxed_files,
  fingerprint,
  holdout,
)
from input_pipeline.labels import ragged, text_lines
from input_pipeline.labels.space import Skeleton
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.coco import annotations as coco_annotations
from input_pipeline.publishers.coco import layout, skeletons
from input_pipeline.publishers.coco.annotations import Annotations

Task = Literal['instances', 'keypoints', 'both']
Year = Literal[2017, 2014]
TASKS: tuple[Task, ...] = get_args(Task)
YEARS: tuple[Year, ...] = get_args(Year)
MINIVAL = 'minival'
TRAINVAL_MINUS_MINIVAL = 'trainval_minus_minival'
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
  """Random access to images with their boxes; see docs/add-a-source.md.

  Attributes:
    external_ids: COCO's id of each category, by label.
    has_truth: whether there are annotations at all.
  """

  hierarchy = None

  def __init__(self, parts: Sequence[Part]):
    """Takes the images of the parts, one part after the other.

    Raises:
      ValueError: their categories differ.
    """
    first = parts[0].annotations
    for part in parts[1:]:
      other = part.annotations
      if (other.category_ids, other.categories) != (
        first.category_ids, first.categories,
      ):  # fmt: skip
        raise ValueError(
          f'{first.origin} and {other.origin} have different categories'
        )
    self._parts = tuple(parts)
    self._checked = [_check(part.annotations) for part in parts]
    self.vocabulary = Vocabulary(first.categories)
    self.external_ids = first.category_ids
    self.has_truth = any(part.annotations.has_truth for part in parts)
    self.keypoints = _skeleton([part.annotations for part in parts])
    self._ends = np.cumsum([len(part.rows) for part in parts])

  def __len__(self) -> int:
    return int(self._ends[-1])

  def _locate(self, index: int) -> tuple[int, int]:
    """(number of the part, row of its annotation file) of an image."""
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    number = int(np.searchsorted(self._ends, index, side='right'))
    rows = self._parts[number].rows
    return number, int(rows[index - self._ends[number] + len(rows)])

  def _boxes(self, number: int, row: int) -> np.ndarray:
    """int64 [n] annotations of an image, those outside it left out."""
    start, end = self._parts[number].annotations.ends[row : row + 2]
    outside = self._checked[number].outside[start:end]
    return start + np.flatnonzero(~outside)

  def key(self, index: int) -> str:
    """Folder and file name."""
    number, row = self._locate(index)
    part = self._parts[number]
    name = part.annotations.file_names[row]
    return f'{part.folder}/{name}' if part.folder else name

  def labels(self, index: int) -> np.ndarray:
    """int32 [n] ascending ids of the categories present, crowds included."""
    number, row = self._locate(index)
    labels = self._parts[number].annotations.labels
    return np.unique(labels[self._boxes(number, row)])

  def __getitem__(self, index: int) -> dict[str, Any]:
    """'image' bytes, 'labels', and fields of examples/annotations.py.

    Those are image_id, boxes, box_labels, box_crowd, box_area, box_ids,
    box_outlines and, where the task has them, keypoints. A list without truth
    has the first of them alone.

    Raises:
      BadExample: the image is missing or damaged, or of another size than the
        annotations state.
    """
    number, row = self._locate(index)
    part = self._parts[number]
    found = part.annotations
    image = part.files.read(part.prefix + found.file_names[row])
    size = image_files.header_size(image)
    stated = tuple(found.sizes[row].tolist())
    if size is not None and size != stated:
      raise BadExample(boxed_files.different_size(size, stated))
    example = {
      'image': image,
      'labels': self.labels(index),
      'image_id': found.image_ids[row : row + 1],
    }
    if not found.has_truth:
      return example
    rows = self._boxes(number, row)
    example |= {
      'boxes': found.boxes[rows],
      'box_labels': found.labels[rows],
      'box_crowd': found.crowd[rows],
      'box_area': found.area[rows],
      'box_ids': found.ids[rows],
      'box_outlines': [found.outline(i) for i in rows.tolist()],
    }
    if found.keypoints is not None:
      example['keypoints'] = found.keypoints[rows]
    return example

  def sizes(self) -> np.ndarray:
    """int32 [n, 2] height and width of the images, as the files state them."""
    return self._of_images('sizes')

  def image_ids(self) -> np.ndarray:
    """int64 [n] COCO's ids of the images."""
    return self._of_images('image_ids')

  def _of_images(self, name: str) -> np.ndarray:
    parts = self._parts
    return np.concatenate([getattr(p.annotations, name)[p.rows] for p in parts])

  def objects(self) -> Objects | None:
    """The boxes of all records, as those hold them; None without truth."""
    if not self.has_truth:
      return None
    first, columns = 0, []
    for part, checked in zip(self._parts, self._checked):
      columns.append(_objects(part, checked, first))
      first += len(part.rows)
    return Objects(*map(np.concatenate, zip(*columns)))

  def fingerprint(self) -> str:
    """Changes with annotations, names, order, and sizes of image files."""
    pieces: list[bytes | np.ndarray] = []
    for part in self._parts:
      found = part.annotations
      pieces += [part.files.fingerprint().encode(), part.folder.encode()]
      pieces += ['\n'.join(found.file_names).encode(), part.rows, found.ends]
      pieces += [found.image_ids, np.array(found.category_ids), found.sizes]
      pieces += [found.boxes, found.labels, found.crowd, found.area, found.ids]
      pieces += [found.outlines, found.outline_ends]
      if found.keypoints is not None:
        pieces.append(found.keypoints)
    return fingerprint.digest(pieces, self.vocabulary, None)

  def report_lines(self) -> list[str]:
    """Counts of what a reader might stumble over."""
    lines = []
    for part, checked in zip(self._parts, self._checked):
      lines += [*part.annotations.notes, _line(part, checked)]
    return lines


def _skeleton(found: Sequence[Annotations]) -> Skeleton | None:
  """Of the keypoints of all parts.

  Raises:
    ValueError: they have different ones.
  """
  having = [one for one in found if one.keypoints is not None]
  if not having:
    return None
  first = having[0]
  for other in having[1:]:
    if (other.num_keypoints, other.keypoint_names) != (
      first.num_keypoints, first.keypoint_names,
    ):  # fmt: skip
      raise ValueError(
        f'{first.origin} and {other.origin} have different keypoints'
      )
  return skeletons.of(first.keypoint_names, first.num_keypoints)


def _check(found: Annotations) -> box_checks.Checked:
  owners = np.repeat(np.arange(len(found.image_ids)), np.diff(found.ends))
  return box_checks.check(found.boxes, found.sizes[owners])


def _objects(
  part: Part, checked: box_checks.Checked, first: int
) -> tuple[np.ndarray, ...]:
  """The columns of Objects, of a part whose images begin at `first`."""
  found = part.annotations
  counts = np.diff(found.ends)[part.rows]
  starts = found.ends[part.rows]
  rows = ragged.positions(starts, counts)
  image = np.repeat(np.arange(len(counts)), counts)
  inside = ~checked.outside[rows]
  rows, image = rows[inside], image[inside]
  of_image = np.bincount(image, minlength=len(counts))
  number = ragged.positions(np.zeros_like(of_image), of_image)
  labelled = np.zeros(len(rows), np.int32)
  if found.keypoints is not None:
    labelled = (found.keypoints[rows, :, 2] > 0).sum(axis=1, dtype=np.int32)
  return (
    image + first, number.astype(np.int32), found.boxes[rows],
    found.labels[rows], found.crowd[rows], labelled, found.area[rows],
  )  # fmt: skip


def _line(part: Part, checked: box_checks.Checked) -> str:
  """What a part holds."""
  found = part.annotations
  if not found.has_truth:
    return f'{part.folder}: {len(part.rows):,} images without truth'
  chosen = np.zeros(len(found.image_ids), bool)
  chosen[part.rows] = True
  counts = np.diff(found.ends)
  owners = np.repeat(np.arange(len(counts)), counts)
  boxes = np.flatnonzero(chosen[owners])

  def name(i: int) -> str:
    at = boxes[i]
    return f'{found.file_names[owners[at]]} annotation {found.ids[at]}'

  text = box_checks.line(
    box_checks.Checked(
      checked.outside[boxes], checked.beyond[boxes], checked.empty[boxes]
    ),
    name,
    int((counts[chosen] == 0).sum()),
    crowd=found.crowd[boxes],
  )
  if found.keypoints is not None:
    labelled = (found.keypoints[boxes, :, 2] > 0).any(axis=1).sum()
    text += f', {labelled:,} boxes with keypoints'
  return f'{part.folder}: {text}' if part.folder else text


def open_splits(
  root: str,
  *,
  task: str = 'instances',
  year: int = 2017,
  splits: Sequence[str] | None = None,
  minival_ids: str | None = None,
  annotations: str | None = None,
  images: str | None = None,
  holdout_percent: float | None = None,
  scratch: str | None = None,
) -> dict[str, Source]:
  """The splits of COCO as published, or of a user's own data in its form.

  Args:
    root: folder with annotations/ or annotations_trainval{year}.zip, and with
      train{year}/ and val{year}/ or their zips; or as layout.py has it.
    task: 'instances': all categories; 'keypoints': persons with keypoints;
      'both': all categories, with the keypoints of persons.
    year: 2017 or 2014.
    splits: names; None for train and val. 'test-dev', 'test' and 'unlabeled'
      are lists without truth. 'all' takes one file of all images.
    minival_ids: text file of image ids, one a line, of val. With it the splits
      are `trainval_minus_minival` and `minival`, otherwise train and val.
    annotations, images: where these lie below the root, '{split}' for the
      split, where layout.py does not know it.
    holdout_percent: one file of all images: the part that is val, by their
      names.
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
  default = ('train', 'val')
  if wanted is not None:
    default = (TRAINVAL_MINUS_MINIVAL, MINIVAL)
  splits = default if splits is None else splits
  if len(set(splits)) < len(splits) or not all(splits):
    raise ValueError(f'splits must be different names, got {", ".join(splits)}')
  minivals = {TRAINVAL_MINUS_MINIVAL, MINIVAL} & {*splits}
  if minivals and wanted is None:
    raise ValueError(f'split {min(minivals)!r} needs minival_ids')
  if wanted is not None and not minivals:
    raise ValueError(f'minival_ids is for the splits {", ".join(default)}')
  opened: dict[str, Part] = {}

  def part(split: str) -> Part:
    if split not in opened:
      one = _part(root, split, task, year, annotations, images, scratch)
      first = next(iter(opened.values()), one)
      opened[split] = dataclasses.replace(
        one,
        annotations=coco_annotations.relabelled(
          one.annotations, first.annotations
        ),
      )
    return opened[split]

  found = {}
  for split in splits:
    if split in minivals:
      assert wanted is not None
      assert minival_ids is not None
      first = [part('train')] if split == TRAINVAL_MINUS_MINIVAL else []
      inside, rest = _minival(part('val'), wanted, minival_ids)
      chosen = [*first, rest] if first else [inside]
      found[split] = Source([p for p in chosen if len(p.rows)])
    elif holdout_percent is not None:
      found[split] = Source([_held_out(part('all'), split, holdout_percent)])
    else:
      found[split] = Source([part(split)])
  return found


def _minival(val: Part, wanted: np.ndarray, origin: str) -> tuple[Part, Part]:
  """The images of a list of ids, and the others."""
  rows = coco_annotations.positions(val.annotations.image_ids, wanted)
  missing = wanted[rows < 0]
  if len(missing):
    shown = ', '.join(map(str, missing[:_NUM_SHOWN]))
    raise ValueError(
      f'{origin}: {len(missing):,} of {len(wanted):,} ids are not in '
      f'{val.annotations.origin}: {shown}'
      f'{", ..." if len(missing) > _NUM_SHOWN else ""}; the list of one year '
      f'does not fit the val split of another'
    )
  rest = np.setdiff1d(val.rows, rows)
  return (
    dataclasses.replace(val, rows=np.sort(rows)),
    dataclasses.replace(val, rows=rest),
  )


def _held_out(whole: Part, split: str, percent: float) -> Part:
  """The part of all images that is train or val."""
  holdout.check_split(split)
  names = whole.annotations.file_names
  held = np.array([holdout.held_out(os.fsencode(n), percent) for n in names])
  rows = np.flatnonzero(held == (split == 'val'))
  if split == 'all':
    rows = whole.rows
  if not len(rows):
    raise ValueError(
      f'{whole.annotations.origin}: holdout_percent={percent:g} leaves none of '
      f'the {len(names):,} images to split {split!r}'
    )
  return dataclasses.replace(whole, rows=rows)


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
  root: str,
  split: str,
  task: str,
  year: int,
  annotations: str | None,
  images: str | None,
  scratch: str | None,
) -> Part:
  """The annotations and image files of one split."""
  kind = 'keypoints' if task == 'keypoints' else 'instances'
  found = layout.read_annotations(root, split, kind, year, annotations)
  if task == 'both':
    persons = layout.read_annotations(root, split, 'keypoints', year)
    found = coco_annotations.with_keypoints(found, persons)
  if not found.file_names:
    raise ValueError(f'{found.origin}: no images in it')
  folder, files, prefix = layout.find_images(
    root, split, year, found, images, scratch
  )
  return Part(folder, found, files, prefix, np.arange(len(found.file_names)))
