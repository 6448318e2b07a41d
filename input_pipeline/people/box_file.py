"""Boxes of people from a file: results of a detector in COCO's form.

A list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"},
in pixels of the original images; what the evaluator coco_detection writes to
<workdir>/NAME_results.json. Papandreou et al. 2017 take the boxes of their own
detector, which Sun et al. 2017 were given (section 5.4).
"""

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.files import image_files, retries
from input_pipeline.labels import ragged, text_lines
from input_pipeline.publishers.coco import annotations

_NUM_SHOWN = 3


@dataclasses.dataclass(frozen=True, eq=False)
class FoundBoxes:
  """The boxes of a file, B in all, by ascending image, in the file's order.

  Attributes:
    image: int64 [B] index of the image in the source.
    number: int32 [B] of the box among those of its image in the file.
    boxes: float32 [B, 4] y0, x0, y1, x1 in pixels of the original image.
    labels: int32 [B] label ids.
    scores: float32 [B].
    digest: of the file.
  """

  image: np.ndarray
  number: np.ndarray
  boxes: np.ndarray
  labels: np.ndarray
  scores: np.ndarray
  digest: str


def read(
  path: str,
  image_numbers: np.ndarray,
  categories: Sequence[int],
  names: Sequence[str],
) -> FoundBoxes:
  """The boxes of a file.

  Args:
    path: of the file.
    image_numbers: int64 [n], what the file calls each image of the source.
    categories: what it calls each label.
    names: of the labels, for messages.

  Raises:
    FileNotFoundError: no such file.
    ValueError: not such a file, or boxes of other images or categories than
      the source's; names the entry.
  """
  where = f'boxes={path!r}'
  image_files.check_path('boxes', path)
  try:
    with retries.open_binary(path) as file:
      data = file.read()
    text = data.decode()
  except (FileNotFoundError, IsADirectoryError):
    raise FileNotFoundError(
      f"{where}: no such file; valid: 'truth', or a file of COCO results"
    ) from None
  except UnicodeDecodeError:
    raise ValueError(f'{where}: not JSON: not UTF-8') from None
  entries = text_lines.parse_json(text, where, constants=True)
  if not isinstance(entries, list):
    raise ValueError(
      f'{where}: expected a list of results, image_id, category_id, bbox and '
      f'score, got {_kind(entries)}'
    )
  rows = [_row(entry, f'{where}: entry {i}') for i, entry in enumerate(entries)]
  table = np.array(rows, np.float64).reshape(-1, 7)
  image = _positions(table[:, 0], image_numbers, 'image_id', where)
  label = _positions(
    table[:, 1], np.array(categories), 'category_id', where, names
  )
  order = np.argsort(image, kind='stable')
  image, table = image[order], table[order]
  counts = np.bincount(image, minlength=len(image_numbers))
  x, y, width, height, score = table[:, 2:].T
  return FoundBoxes(
    image=image,
    number=ragged.positions(np.zeros_like(counts), counts).astype(np.int32),
    boxes=np.stack([y, x, y + height, x + width], -1).astype(np.float32),
    labels=label[order].astype(np.int32),
    scores=score.astype(np.float32),
    digest=hashlib.blake2b(data, digest_size=8).hexdigest(),
  )


def _kind(found: Any) -> str:
  if isinstance(found, Mapping):
    keys = ', '.join(map(repr, list(found)[:_NUM_SHOWN]))
    return f'an object with {keys}' if keys else 'an object'
  return f'{found!r:.60}'


def _row(entry: Any, where: str) -> tuple[float, ...]:
  """image_id, category_id, x, y, width, height, score."""
  if not isinstance(entry, dict):
    raise ValueError(f'{where}: expected an object, got {entry!r:.60}')
  for key in ('image_id', 'category_id', 'bbox', 'score'):
    if key not in entry:
      raise ValueError(f'{where}: has no {key!r}')
  for key in ('image_id', 'category_id'):
    if type(entry[key]) is not int or abs(entry[key]) >= 2**53:
      raise ValueError(
        f'{where}: {key} must be a whole number, got {entry[key]!r:.40}'
      )
  box = entry['bbox']
  if not isinstance(box, list) or len(box) != 4 or not all(map(_finite, box)):
    raise ValueError(
      f'{where}: bbox must be 4 finite numbers x, y, width, height, got '
      f'{box!r:.80}'
    )
  if box[2] < 0 or box[3] < 0:
    raise ValueError(f'{where}: bbox {box} has a negative width or height')
  if not _finite(entry['score']):
    raise ValueError(
      f'{where}: score must be a finite number, got {entry["score"]!r:.40}'
    )
  return entry['image_id'], entry['category_id'], *box, entry['score']


def _finite(value: Any) -> bool:
  return type(value) in (int, float) and math.isfinite(value)


def _positions(
  wanted: np.ndarray,
  known: np.ndarray,
  name: str,
  where: str,
  of: Sequence[str] = (),
) -> np.ndarray:
  """int64 positions in `known` of the numbers `wanted`.

  Raises:
    ValueError: one is not there; has some of both.
  """
  wanted = wanted.astype(np.int64)
  place = annotations.positions(known, wanted)
  missing = np.unique(wanted[place < 0])
  if len(missing):
    there = (
      f'{number} ({of[i]})' if of else str(number)
      for i, number in enumerate(known[:_NUM_SHOWN].tolist())
    )
    raise ValueError(
      f'{where}: {len(missing):,} values of {name} are not of the source: '
      f'{_some(map(str, missing[:_NUM_SHOWN]), len(missing))}; those of the '
      f'source are {_some(there, len(known))}'
    )
  return place


def _some(shown: Any, total: int) -> str:
  return f'{", ".join(shown)}{", ..." if total > _NUM_SHOWN else ""}'
