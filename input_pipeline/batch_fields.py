"""Which fields a batch has, and what shape the ops give them.

Shapes are found by running the ops on blank examples, before any data is
opened; every example must then come out alike. examples/fields.py is the table
of the fields.
"""

import functools
import io
import itertools
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from PIL import Image

from big_vision_like.protocols import Example, Op
from input_pipeline.examples import fields
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops import canvas, chains


def example_spec(ops: Sequence[Op], where: str = 'input.ops') -> Example:
  """Shapes and dtypes of one example, found by running the ops on two blanks.

  Returns:
    dict of arrays that hold nothing but each field's padding; on the largest
    canvas of the op `canvas`.

  Raises:
    ValueError: the ops do not fix the shape of every field, or make one of
      another type or shape than the table has.
  """
  ops = canvas.fixed(ops)
  outs = _run_on_blanks(ops, where)
  for name in outs[0]:
    a, b = outs[0][name], outs[1][name]
    if a.shape != b.shape:
      raise ValueError(
        f'{where}: the size of {name!r} follows the input image ({a.shape} '
        f'and {b.shape}); end with an op that fixes it, such as resize or crop'
      )
  if chains.needed(ops) is not None:  # else ops may make what they like
    fields.check(outs[0], where)
  return {k: np.full_like(v, fields.fill(k)) for k, v in outs[0].items()}


def _run_on_blanks(ops: Sequence[Op], where: str) -> list[Example]:
  """What the ops make of blanks of two sizes.

  Crops need images that are large enough and `pad` small ones, so the blanks
  are those of the first scale that fits; some chains take square images only.
  """
  reasons = []
  needed, finished = chains.needed(ops), chains.finished(ops)
  scales = (1, 1 / 4, 1 / 16, 4, 16)  # the large ones take time
  sizes = ((480, 640), (331, 500)), ((480, 480), (331, 331))
  for pair, scale in itertools.product(sizes, scales):
    shapes = [(round(h * scale), round(w * scale)) for h, w in pair]
    try:
      return [
        select(apply(ops, blank, record_rng(0, 0, 0)), finished)
        for blank in (_blank(*shape, needed) for shape in shapes)
      ]
    except BadExample as bad:
      reasons.append(bad.reason)
    except ValueError as error:
      if where not in str(error):  # from below the ops
        error.args = (f'{where}: {error}',)
      raise
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


def select(example: Example, finished: Collection[str]) -> Example:
  """The fields of a batch; those still in the form of a record are left out.

  Args:
    example: what the ops leave.
    finished: `chains.finished` of the ops. Ops that do not say what they make
      are known by what they make beside it.
  """
  chosen = {}
  for name, value in example.items():
    if not fields.in_batch(name) or isinstance(value, bytes):
      continue
    beside = fields.FIELDS[name].beside
    if beside is None or beside in example or name in finished:
      chosen[name] = np.asarray(value)
  return chosen


def record_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
  """Generator of one record in one epoch; `seed` is mixed already."""
  key = np.array([seed, epoch << 40 | index], np.uint64)
  return np.random.Generator(np.random.Philox(key=key))


@functools.cache
def _blank_png(height: int, width: int) -> bytes:
  file = io.BytesIO()
  Image.new('L', (width, height)).save(file, 'PNG')
  return file.getvalue()


def _blank(height: int, width: int, needed: Collection[str] | None) -> Example:
  """A blank record: one label, no boxes, a segmentation; no more than needed.

  A person in it has the box of the whole image, which no truth has.
  Where it is not known what is needed, it has what many records have.
  """
  usual = ('labels', 'negatives', 'boxes', 'segmentation')
  names = usual if needed is None else sorted({*needed} & fields.FIELDS.keys())
  blank: Example = {'image': np.full((height, width, 3), 127, np.uint8)}
  for name in names:
    form = fields.FIELDS[name].record
    if name == 'segmentation':
      blank[name] = _blank_png(height, width)
    elif name == 'person_box':
      blank[name] = np.array([0, 0, height, width], np.float32)
    elif name == 'person':
      blank[name] = np.int32(fields.fill(name))
    elif form is not None and fields.FIELDS[name].kind != 'bookkeeping':
      blank[name] = form.zeros({'L': 1})
  return blank
