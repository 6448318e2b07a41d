"""What the bytes of a prepared split depend on, besides the source."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recipe:
  """The settings of a preparation (docs/preparing-data.md).

  Attributes:
    num_shards: of the split, or None for shards of about `shard_mb`.
    shard_mb: target size of a shard in MB (10^6 bytes).
    resize: both sides of the stored image in pixels, or None.
    long_side: most pixels of the longer side of the stored image, or None;
      the aspect ratio is kept and nothing is enlarged.
    quality: JPEG quality of images that are stored resized.
    limit: number of images to take of the shuffled order, or None for all.
    keep_bad: store images that cannot be decoded too.
    seed: of the order.

  Raises:
    ValueError: a value out of range, or both `resize` and `long_side`.
  """

  num_shards: int | None = None
  shard_mb: float = 256
  resize: int | None = None
  long_side: int | None = None
  quality: int = 95
  limit: int | None = None
  keep_bad: bool = False
  seed: int = 0

  def __post_init__(self):
    for name in ('num_shards', 'resize', 'long_side', 'limit'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f'{name} must be at least 1, got {value}')
    if self.resize is not None and self.long_side is not None:
      raise ValueError(
        f'resize={self.resize} and long_side={self.long_side}: give one; '
        'resize makes squares, long_side keeps the aspect ratio'
      )
    if not 1 <= self.quality <= 100:
      raise ValueError(f'quality must be in 1 to 100, got {self.quality}')
    if not self.shard_mb > 0:
      raise ValueError(f'shard_mb must be positive, got {self.shard_mb}')
