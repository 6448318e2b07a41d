"""What an op says of itself, so that no list of ops is needed anywhere."""

from collections.abc import Collection
from typing import ClassVar


class Declared:
  """Declarations of an op; a class overrides what is different.

  What the class says holds for any options; an instance may narrow `reads` and
  `makes` to what its own options ask for. docs/add-an-op.md has the rules. An
  op need not inherit from this: it takes part as soon as it has the first two.

  Attributes:
    reads: fields of the example that it reads.
    makes: fields that it makes, or makes anew. What it only adapts where it is
      there, such as boxes under a crop, is in neither.
    shows_whole: of an op that makes 'image': all of the image is still to be
      seen, scaled, with its corner at the top left.
    options_for: options that fields of `makes` have to be asked for with.
    needs_pixels: of an op that reads 'image': it must be decoded before.
    moves_targets: boxes, keypoints and masks follow what it does to the image.
    reframes: of an op that makes 'image': it cuts, mirrors, turns or pads it;
      it is no longer the whole one, only scaled.
    needs_whole: of an op that reads 'image': nothing may have reframed it.
    does_without: fields of `reads` that records may lack.
    keeps_only: the fields that it leaves of an example; None: all of them.
    where: its config key, once it is built as part of a chain.
  """

  reads: frozenset[str] = frozenset()
  makes: frozenset[str] = frozenset()
  shows_whole: ClassVar[bool] = False
  options_for: ClassVar[dict[str, str]] = {}
  needs_pixels: ClassVar[bool] = True
  moves_targets: ClassVar[bool] = False
  reframes: ClassVar[bool] = False
  needs_whole: ClassVar[bool] = False
  does_without: ClassVar[frozenset[str]] = frozenset()
  keeps_only: Collection[str] | None = None
  where: str = ''

  def size_after(self, height: int, width: int) -> tuple[int, int] | None:
    """(height, width) that it makes of an image; None: known only from it."""
    return None if 'image' in self.makes else (height, width)

  def deterministic(self) -> bool:
    """Whether it draws nothing from its generator."""
    return True
