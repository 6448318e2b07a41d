"""Your own images with boxes in YOLO's text form (docs/targets.md).

  DATA/data.yaml or DATA/classes.txt          names of the classes
  DATA/train/images/a.jpg, DATA/train/labels/a.txt, DATA/valid/...
  DATA/images/train/a.jpg, DATA/labels/train/a.txt
  DATA/images/a.jpg, DATA/labels/a.txt        no splits
A line of a.txt is `class cx cy width height`, the class counted from 0, the
rest in shares of the image's width and height. An image without a text file
has no boxes.
"""

import os
from collections.abc import Mapping, Sequence

import numpy as np

from big_vision_like import protocols
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import archives, image_files
from input_pipeline.image_sets import holdout, truth_pairs, yolo_files
from input_pipeline.image_sets.boxed_files import BoxedFiles, Truth
from input_pipeline.image_sets.truth_pairs import Pairs
from input_pipeline.labels import text_lines
from input_pipeline.labels.vocabulary import Vocabulary

_MAX_TEXT_BYTES = 16 << 20
_NO_LABELS = (*yolo_files.NAME_FILES, 'train.txt', 'val.txt', 'valid.txt',
              'test.txt', 'README.txt', 'README.dataset.txt',
              'README.roboflow.txt', 'requirements.txt')  # fmt: skip


class Source:
  """One split of a YOLO data set.

  Args (options):
    path: the data set's folder.
    split: 'train', 'val' (or 'valid'), 'test'; as data.yaml says where they
      lie, else by the folders' names. 'all' takes every image.
    holdout_percent: share of the images that is 'val', for a folder without
      splits; decided by each image's own path.
    vocabulary: file of the classes; default: the names of data.yaml, else
      classes.txt or obj.names.

  Raises (at construction):
    FileNotFoundError: nothing is there, or nothing names the classes.
    ValueError: bad option, unknown split, a label file that is not as it
      should be, by file and line.
  """

  def __new__(
    cls,
    *,
    path: str,
    split: str = 'train',
    holdout_percent: holdout.Percent | None = None,
    vocabulary: str | None = None,
  ) -> protocols.Source:
    path = image_files.check_path('path', path)
    if not os.path.isdir(path):
      raise FileNotFoundError(f'path={path!r}: no such folder')
    told = yolo_files.describe(path, vocabulary)
    pairs = truth_pairs.pair(archives.open_files(path), '.txt', _NO_LABELS)
    if not pairs.images:
      raise ValueError(
        f'{path}: no images in it; suffixes: {", ".join(image_files.SUFFIXES)}'
      )
    if not pairs.truths:
      raise ValueError(
        f'{path}: {len(pairs.images):,} images and no .txt with boxes; these '
        f'lie beside the images, or in a folder labels'
      )
    divided = _told_splits(path, told, pairs)
    notes = _unfollowed(told, divided)
    if 'train' not in divided:
      divided = truth_pairs.splits([*pairs.images])
    paths = truth_pairs.chosen(
      [*pairs.images], divided, split, holdout_percent, path
    )
    truth = _truth(pairs, paths, told.vocabulary)
    rows = np.array([pairs.images[p] for p in paths], np.int64)
    return BoxedFiles(
      [pairs.files],
      np.stack([np.zeros_like(rows), rows], axis=1),
      [pairs.key(p) for p in paths],
      truth,
      told.vocabulary,
      notes + _notes(pairs, paths),
    )


def _told_splits(
  path: str, told: yolo_files.Description, pairs: Pairs
) -> dict[str, list[str]]:
  """Split -> common paths, by data.yaml, of the splits that lead to images.

  Exported files often name folders that were somewhere else ('../train').
  """
  by_name = {pairs.files.names[row]: p for p, row in pairs.images.items()}
  found: dict[str, list[str]] = {}
  for split, places in told.splits.items():
    chosen: dict[str, None] = {}
    for place in places:
      full = os.path.join(told.root, place)
      inside = os.path.relpath(full, path).replace(os.sep, '/')
      if os.path.isdir(full) and not inside.startswith('..'):
        start = '' if inside == '.' else f'{inside}/'
        chosen |= {p: None for n, p in by_name.items() if n.startswith(start)}
      elif os.path.isfile(full) and full.endswith('.txt'):
        chosen |= dict.fromkeys(_listed(full, path, by_name))
    if chosen:
      found[split] = list(chosen)
  return found


def _unfollowed(
  told: yolo_files.Description, found: Mapping[str, Sequence[str]]
) -> list[str]:
  """Of what data.yaml says, the splits that lead nowhere."""
  instead = 'left out' if 'train' in found else 'folders of images decide'
  return [
    f'{told.origin}: {split}: {", ".join(places):.80} leads to no image here: '
    f'{instead}'
    for split, places in told.splits.items()
    if split not in found
  ]


def _listed(file: str, path: str, by_name: Mapping[str, str]) -> Sequence[str]:
  """Common paths of the images of a list, relative to it or to the set."""
  found = []
  for number, line in enumerate(text_lines.read(file), 1):
    if not line.strip():
      continue
    places = (
      os.path.relpath(os.path.join(folder, line.strip()), path)
      for folder in (os.path.dirname(file), path)
    )
    names = [n.replace(os.sep, '/') for n in places]
    name = next((n for n in names if n in by_name), None)
    if name is None:
      raise ValueError(f'{file}:{number}: no such image: {line.strip()!r:.80}')
    found.append(by_name[name])
  return found


def _truth(pairs: Pairs, paths: Sequence[str], classes: Vocabulary) -> Truth:
  boxes, labels = [], []
  for path in paths:
    row = pairs.truths.get(path)
    data = b''
    where = ''
    if row is not None:
      where = os.path.join(pairs.files.path, pairs.files.names[row])
      try:
        data = pairs.files.read_at(row, max_bytes=_MAX_TEXT_BYTES)
      except BadExample as error:
        raise ValueError(f'{where}: {error.reason}') from None
    found = yolo_files.parse(data, where, len(classes))
    boxes.append(found[0])
    labels.append(found[1])
  return Truth(
    lengths=np.array([len(ids) for ids in labels], np.int64),
    boxes=np.concatenate(boxes),
    labels=np.concatenate(labels),
    difficult=None,
    sizes=np.zeros((len(paths), 2), np.int32),
    relative=True,
  )


def _notes(pairs: Pairs, paths: Sequence[str]) -> list[str]:
  lines = []
  without = [p for p in paths if p not in pairs.truths]
  if without:
    lines.append(
      f'{len(without):,} images have no .txt, for example '
      f'{pairs.key(without[0])}: images without boxes'
    )
  imageless = [p for p in pairs.truths if p not in pairs.images]
  if imageless:
    lines.append(
      f'{len(imageless):,} .txt files belong to no image, for example '
      f'{pairs.key(imageless[0])}: passed over'
    )
  return lines
