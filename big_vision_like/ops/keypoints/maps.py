"""What the channels of a pose net's last map are.

Of K keypoints the first K are the logits of their discs, the next K the
vertical offsets to them and the last K the horizontal ones, in pixels of the
crop.
"""

import jax

PER_KEYPOINT = 3


def split(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(logits [..., K, h, w], offsets [..., 2, K, h, w]) of [..., 3 K, h, w]."""
  *lead, channels, height, width = maps.shape
  num = channels // PER_KEYPOINT
  shape = *lead, 2, num, height, width
  return maps[..., :num, :, :], maps[..., num:, :, :].reshape(shape)
