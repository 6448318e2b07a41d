"""Masks of any images, by the segmentation model of a checkpoint.

An image is seen as the run's evaluation sees it, and its logits are taken to
its own size as the evaluator takes them (ops/interpolation.py), so a mask has
the very pixels that would be scored. Masks are filled tile by tile: memory
does not grow with the size of the images but by the masks themselves, and
there is one program for all sizes.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from big_vision_like.inference import embedder
from big_vision_like.inference.stored_model import StoredModel
from big_vision_like.inference.stored_predictor import StoredPredictor
from big_vision_like.ops import interpolation
from big_vision_like.protocols import ShowingWhole, Source
from input_pipeline import ops as example_ops

_TILE = 256  # pixels of a side
_EVALUATOR = 'semantic_segmentation'
_NOTED = {'op': 'image_size'}
_PLACING = ('pad', 'canvas')


class Mask(NamedTuple):
  """Classes of an image's pixels.

  Attributes:
    index: of the image in its source.
    ids: uint8 [H, W], at the size of the image.
    seen_size: height and width of the image as the net saw it.
  """

  index: int
  ids: np.ndarray
  seen_size: tuple[int, int]


class Segmenter(StoredPredictor):
  """Images -> masks; the arguments are those of `StoredPredictor`.

  Args:
    model: of a task 'segmentation'.
    ops: op configs from an encoded image to 'image', 'image_size' and
      'original_size'; None: `whole_image_ops` of the run.
    batch_size, threads, workers: see `StoredPredictor`.

  Attributes:
    num_outputs: classes of the logits, the background among them.
  """

  def __init__(
    self,
    model: StoredModel,
    *,
    ops: Sequence[Mapping[str, Any]] | None = None,
    batch_size: int = 8,
    threads: int = 2,
    workers: int = 0,
  ):
    self._name, _ = model.prediction('mask')
    super().__init__(
      model,
      self._name,
      whole_image_ops(model.config) if ops is None else ops,
      batch_size=batch_size,
      threads=threads,
      workers=workers,
    )
    _, *grid, self.num_outputs = self.outputs[self._name].shape
    stride = interpolation.stride_between(self.image_shape[:2], grid)
    self._fill = jax.jit(functools.partial(_tile, stride=stride))

  def masks(
    self, source: Source, indices: Sequence[int] | np.ndarray | None = None
  ) -> Iterator[Mask]:
    """Masks of the records of a source, in the order given.

    Records that cannot be used are left out; `bad` has them.

    Raises:
      ValueError: an index outside the source, or logits that are not finite.
    """
    for chosen, outputs, batch in self.batches(source, indices):
      logits = outputs[self._name]
      sizes = zip(batch['image_size'], batch['original_size'])
      for index, maps, (seen, full) in zip(chosen.tolist(), logits, sizes):
        if not np.isfinite(maps).all():
          raise ValueError(f'{source.key(index)}: its logits are not finite')
        height, width = seen.tolist()
        yield Mask(index, self._ids(maps, seen, full), (height, width))

  def _ids(
    self, maps: np.ndarray, seen: np.ndarray, full: np.ndarray
  ) -> np.ndarray:
    """uint8 [H, W] of one image; a row of tiles is under way at a time."""
    height, width = full.tolist()
    out = np.empty((height, width), np.uint8)
    on_device = jax.device_put((maps, seen, full))
    for top in range(0, height, _TILE):
      lefts = range(0, width, _TILE)
      started = [
        self._fill(*on_device, np.array([top, left], np.int32))
        for left in lefts
      ]
      for left, tile in zip(lefts, started):
        part = out[top : top + _TILE, left : left + _TILE]
        part[...] = np.asarray(tile)[: part.shape[0], : part.shape[1]]
    return out


def _tile(
  maps: jax.Array,
  seen: jax.Array,
  full: jax.Array,
  origin: jax.Array,
  *,
  stride: int,
) -> jax.Array:
  """uint8 [256, 256] class ids from pixel `origin` on."""
  shape = (_TILE, _TILE)
  ids = interpolation.class_ids(maps, shape, stride, seen, full, origin)
  return ids.astype('uint8')


def _shows_whole(op: Mapping[str, Any]) -> bool:
  """Whether an op leaves the whole image, with its corner at the top left."""
  op_class = example_ops.find('ops', op['op'])
  return isinstance(op_class, ShowingWhole) and op_class.shows_whole


def whole_image_ops(
  config: Any, evaluators: Sequence[str] = (_EVALUATOR,)
) -> list[dict[str, Any]]:
  """Op configs that show the net a whole image, and say in which size.

  They are those of the run's first evaluator of these types, or else of its
  training without chance. An image larger than the canvas of `pad` is shrunk
  to it. The sizes of any images are not known before, so those of a run with
  several canvases (`canvas`) share the one that holds all others.

  Raises:
    ValueError: ops that cut parts off: masks could not cover the image.
  """
  where, specs = 'input.ops', config.input.ops
  for name, evaluator in config.evals.items():
    if evaluator.type in evaluators:
      where, specs = f'evals.{name}.ops', evaluator.ops
      break
  ops, placed = [], []
  for op in embedder.deterministic_ops(specs):
    if op['op'] in _PLACING and not placed:
      pad = _on_one_canvas(op)
      placed = [dict(op='shrink_to_fit', size=pad['size']), _NOTED, pad]
    elif _shows_whole(op) and not placed:
      ops.append(op)
    else:
      raise ValueError(
        f'{where} of the checkpoint: after {op["op"]!r} the net does not see '
        'the whole image at its top left, so its masks or boxes are not known; '
        'resizing and then padding are'
      )
  return [*ops, *(placed or [_NOTED])]


def _on_one_canvas(op: Mapping[str, Any]) -> dict[str, Any]:
  """`pad` as it is, and in place of `canvas`."""
  if op['op'] == 'pad':
    return dict(op)
  heights, widths = zip(*op['sizes'])
  kept = {k: v for k, v in op.items() if k not in ('op', 'sizes')}
  return dict(op='pad', size=(max(heights), max(widths)), **kept)
