"""The op `canvas`: a few shapes for images that keep their aspect ratio.

A program is compiled for each shape of a batch, so images of any size share a
few canvases, landscape and portrait for example. All images of a batch have
one: which, input_pipeline/canvases.py decides by the sizes that the source
knows.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np

from big_vision_like.config.option_types import NonEmpty
from input_pipeline.ops import geometry, targets
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared

Size = tuple[int, int]


class Canvas(Declared):
  """Puts the image at the top left of the smallest canvas that it fits into.

  In a batch all examples have the same one. A segmentation is filled with 255;
  boxes and keypoints stay where they are. An image that fits into none is a
  bad example.

  Args (options):
    sizes: canvases, [[height, width], ...] in pixels. Of equal areas the one
      listed first is taken.
    fill: grey level or [r, g, b], 0 to 255. Default: 128, which is 0 on the
      device.
  """

  reads = makes = frozenset({'image'})
  shows_whole = reframes = True

  def __init__(
    self,
    context: OpContext,
    *,
    sizes: Annotated[
      Sequence[tuple[geometry.Pixels, geometry.Pixels]], NonEmpty()
    ],
    fill: targets.Fill = targets.GREY,
  ):
    listed = [geometry.sides(size) for size in sizes]
    if len(set(listed)) < len(listed):
      raise ValueError(f'{context.where}: a canvas twice in sizes: {sizes!r}')
    self.where = context.where
    self.sizes = tuple(sorted(listed, key=lambda size: size[0] * size[1]))
    self._pads = {
      size: targets.Pad(context, size=size, fill=fill)
      for size in (*self.sizes, self.around)
    }

  @property
  def around(self) -> Size:
    """The one canvas that all others fit into."""
    return (
      max(height for height, _ in self.sizes),
      max(width for _, width in self.sizes),
    )

  def smallest(self, height: int, width: int) -> Size | None:
    """The smallest canvas for an image of this size; None: there is none."""
    fitting = (s for s in self.sizes if height <= s[0] and width <= s[1])
    return next(fitting, None)

  def pad(self, size: Size) -> targets.Pad:
    """The op that takes every image to one canvas."""
    return self._pads[size]

  def size_after(self, height: int, width: int) -> Size | None:
    return self.smallest(height, width)

  def __call__(self, example: dict, rng: np.random.Generator) -> dict:
    size = self.smallest(*example['image'].shape[:2]) or self.sizes[-1]
    return self.pad(size)(example, rng)


def of(ops: Sequence[Any]) -> Canvas | None:
  """The op `canvas` of a chain, None where there is none.

  Raises:
    ValueError: there are two.
  """
  found = [op for op in ops if isinstance(op, Canvas)]
  if len(found) > 1:
    raise ValueError(f'{found[1].where}: a chain has one op canvas at most')
  return found[0] if found else None


def fixed(
  ops: Sequence[Callable[..., Any]], size: Size | None = None
) -> list[Callable[..., Any]]:
  """The chain whose `canvas` is this one; None: the largest of its own."""
  return [
    op.pad(size or op.sizes[-1]) if isinstance(op, Canvas) else op for op in ops
  ]
