"""Mistakes in the order of a chain that its ops' own words tell.

Walked forwards, from the record on: which fields `keep` has dropped, whether
boxes are padded already, whether the whole image is there, and, of records
whose image is encoded, whether it is decoded yet. An op that does not say what
it reads and makes (declared.py) may do anything: behind it nothing is known,
and nothing is refused.
"""

from collections.abc import Sequence

from big_vision_like.protocols import Op
from input_pipeline.ops import chains
from input_pipeline.ops.declared import Declared

Placed = tuple[str, Op]  # config key of an op, and the op


def check(ops: Sequence[Placed]) -> None:
  """Refuses a chain that no record passes.

  Args:
    ops: of the chain, before any are fused.

  Raises:
    ValueError: naming the op that is out of order.
  """
  _check_kept(ops)
  _check_padded(ops)
  _check_whole(ops)


def before_decoding(ops: Sequence[Op]) -> str | None:
  """What is wrong with a chain for encoded images; None: nothing.

  That is the first op that computes with pixels, where nothing decodes them
  before. Whether images are encoded their records say.
  """
  for op in ops:
    if not chains.declared(op):
      return None
    if isinstance(op, Declared) and 'image' in op.reads and op.needs_pixels:
      return (
        f"{op.where} works on pixels, but the images are encoded: put 'decode' "
        'before it'
      )
    if 'image' in op.makes:
      return None
  return None


def _check_kept(ops: Sequence[Placed]) -> None:
  """No op reads what a `keep` before it drops."""
  kept: set[str] | None = None  # None: all that a record has
  keeper = ''
  for where, op in ops:
    if not chains.declared(op):
      kept = None
      continue
    if kept is not None:
      does_without = op.does_without if isinstance(op, Declared) else ()
      missing = sorted({*op.reads} - kept - {*does_without, 'key'})
      if missing:
        raise ValueError(
          f'{where} reads {", ".join(map(repr, missing))}, which {keeper} '
          f'drops; name {"it" if len(missing) == 1 else "them"} in its fields'
        )
      kept |= {*op.makes}
    if isinstance(op, Declared) and op.keeps_only is not None:
      kept, keeper = {*op.keeps_only}, where


def _check_padded(ops: Sequence[Placed]) -> None:
  """Boxes are padded after all ops that move them."""
  padder = ''
  for where, op in ops:
    if not chains.declared(op):
      return
    if not isinstance(op, Declared):
      continue
    if padder and op.moves_targets:
      raise ValueError(
        f'{where} moves boxes, which {padder} has padded to their final form: '
        'put the op that pads them after all that resize, crop or flip'
      )
    if {'boxes', 'box_mask'} <= {*op.makes}:
      padder = where
    if op.keeps_only is not None and 'boxes' not in op.keeps_only:
      padder = ''


def _check_whole(ops: Sequence[Placed]) -> None:
  """What takes a part of the whole image comes before what cuts it.

  What has made the fields of a crop is their last place: they follow no resize.
  """
  reframer = cropper = ''
  for where, op in ops:
    if not chains.declared(op):
      return
    if not isinstance(op, Declared):
      continue
    if op.needs_whole and reframer:
      raise ValueError(
        f'{where} takes its part of the whole image, which {reframer} cuts, '
        'mirrors or pads: put it before that'
      )
    if cropper and op.moves_targets:
      raise ValueError(
        f'{where} would move the image away from the keypoints that {cropper} '
        'has made: put it before, if it only resizes, or leave it out'
      )
    reframer = where if op.reframes else reframer
    cropper = where if 'crop_to_image' in op.makes else cropper
