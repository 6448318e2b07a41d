"""PCK: the share of keypoints found near enough to where they are.

Near enough is nearer than a part of the longer side of the person's box (Yang
and Ramanan 2013). Each pose is compared with the person that it was made for,
so that nothing is matched and no score plays a part.
"""

from collections.abc import Sequence

import numpy as np


def figures(
  found: np.ndarray,
  truth: np.ndarray,
  boxes: np.ndarray,
  part: float = 0.2,
  names: Sequence[str] = (),
) -> dict[str, float]:
  """PCK in percent, over all labelled keypoints and of each kind.

  Args:
    found: float [n, K, 2 or more]: x, y and what plays no part.
    truth: float [n, K, 3]: x, y, visibility; above 0 is labelled.
    boxes: float [n, 4]: x, y, width, height.
    part: of the longer side.
    names: of the K keypoints; none: no figure of each.

  Returns:
    'pck@0.2' and 'pck@0.2/<name>' for a part of .2. What no keypoint is
    labelled for is left out.
  """
  offset = found[..., :2].astype(np.float64) - truth[..., :2]
  distance = np.hypot(offset[..., 0], offset[..., 1])
  near = distance < part * boxes[:, 2:].max(axis=1)[:, None]
  labelled = truth[..., 2] > 0
  near &= labelled
  key = f'pck@{part:g}'
  result = {}
  if labelled.any():
    result[key] = float(100 * near.sum() / labelled.sum())
  for k, name in enumerate(names):
    if labelled[:, k].any():
      share = near[:, k].sum() / labelled[:, k].sum()
      result[f'{key}/{name}'] = float(100 * share)
  return result
