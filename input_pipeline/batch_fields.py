"""The fields of a batch: which there are, and what shape the ops give them.

Shapes are found by running the ops on blank examples, before any data is
opened; every example must then come out alike. docs/data.md lists the fields.
"""

import functools
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from input_pipeline.examples.errors import BadExample
from input_pipeline.ops.targets import raw_fields

# The fields that a batch may have; all else of an example is dropped.
FIELDS = (
  'image', 'label_ids', 'label_conf', 'negative_ids', 'label', 'boxes',
  'box_mask', 'box_labels', 'box_crowd', 'box_difficult', 'box_area', 'box_ids',
  'segmentation', 'full_segmentation', 'full_size', 'keypoints', 'image_size',
  'original_size',
)  # fmt: skip
_FIELDS = frozenset(FIELDS)

Example = dict[str, Any]
Op = Callable[[Example, np.random.Generator], Example]


def example_spec(ops: Sequence[Op], where: str = 'input.ops') -> Example:
  """Shapes and dtypes of one example, found by running the ops on two blanks.

  Returns:
    dict of zero arrays; label fields are filled with -1.

  Raises:
    ValueError: the ops do not fix the shape of every field.
  """
  outs = _run_on_blanks(ops, where)
  for name in outs[0]:
    a, b = outs[0][name], outs[1][name]
    if a.shape != b.shape:
      raise ValueError(
        f'{where}: the size of {name!r} follows the input image ({a.shape} '
        f'and {b.shape}); end with an op that fixes it, such as resize or crop'
      )
  ids = ('label_ids', 'negative_ids', 'label', 'box_labels', 'box_ids')
  fills: dict[str, int] = dict.fromkeys(ids, -1)
  return {k: np.full_like(v, fills.get(k, 0)) for k, v in outs[0].items()}


def _run_on_blanks(ops: Sequence[Op], where: str) -> list[Example]:
  """What the ops make of blanks of two sizes.

  Crops need images that are large enough and `pad` small ones, so the blanks
  are those of the first scale that fits.
  """
  reasons = []
  for scale in (1, 1 / 4, 1 / 16, 4, 16):  # the large ones take time
    shapes = [(round(480 * scale), round(640 * scale))]
    shapes += [(round(331 * scale), round(500 * scale))]
    try:
      return [
        select(apply(ops, _dummy(*shape), record_rng(0, 0, 0)))
        for shape in shapes
      ]
    except BadExample as bad:
      reasons.append(bad.reason)
  raise ValueError(f'{where}: no image passes the ops: {reasons[0]}')


def batch_spec(example: Example, batch_size: int) -> dict[str, Any]:
  """(shape, dtype) of every device field of a batch."""
  spec = {
    k: ((batch_size, *v.shape), v.dtype)
    for k, v in {**example, '_id': np.int32(0), '_mask': np.bool_(0)}.items()
  }
  return spec


def apply(ops: Sequence[Op], example: Example, rng: Any) -> Example:
  """The example after all ops; may raise BadExample."""
  for op in ops:
    example = op(example, rng)
  return example


def select(example: Example) -> Example:
  """The fields of a batch; targets that no op has padded are left out."""
  raw = raw_fields(example)
  return {
    k: np.asarray(v)
    for k, v in example.items()
    if k in _FIELDS and k not in raw
  }


def record_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
  """Generator of one record in one epoch; `seed` is mixed already."""
  key = np.array([seed, epoch << 40 | index], np.uint64)
  return np.random.Generator(np.random.Philox(key=key))


@functools.cache
def _blank_png(height: int, width: int) -> bytes:
  file = io.BytesIO()
  Image.new('L', (width, height)).save(file, 'PNG')
  return file.getvalue()


def _dummy(height: int, width: int) -> Example:
  """A blank record: one label, no boxes, a segmentation."""
  return {
    'image': np.full((height, width, 3), 127, np.uint8),
    'labels': np.zeros(1, np.int32),
    'negatives': np.zeros(0, np.int32),
    'boxes': np.zeros((0, 4), np.float32),
    'segmentation': _blank_png(height, width),
  }
