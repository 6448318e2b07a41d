"""Pages of poses: images with what was found beside what is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.pages import annotated_picture, worst_page

_SURE = 0.3  # confidence from which a keypoint is drawn filled
_DRAWN = ('boxes', 'box_labels', 'box_crowd', 'keypoints')


def write(
  path: str,
  source: Any,
  chosen: Sequence[tuple[int, str]],
  lists: Any,
  names: Sequence[str],
) -> None:
  """Writes a page of images with their people and the poses found.

  Args:
    path: of the page.
    source: the images.
    chosen: (image, caption).
    lists: image_lists.ImageLists of keypoints, scores and boxes.
    names: of the classes of the boxes.
  """

  def found(image: np.ndarray, index: int, ratio: np.ndarray) -> np.ndarray:
    return detected(image, lists.of(index), ratio)

  worst_page.write(
    path, source, chosen,
    title='Worst poses', page='the page of poses',
    fields=_DRAWN, names=names, found=found,
    caption=f'found (scores; filled from a confidence of {_SURE})',
  )  # fmt: skip


def detected(
  image: np.ndarray,
  found: Mapping[str, np.ndarray],
  ratio: np.ndarray | tuple[float, float] = (1.0, 1.0),
  side: int = worst_page.SIDE,
) -> np.ndarray:
  """uint8 [h, w, 3]: an image with poses and the boxes they were found in.

  Args:
    image: uint8 [H, W, 3].
    found: keypoints [n, K, 3] y, x, confidence; scores [n]; boxes [n, 4].
    ratio: of the image's height and width to those that `found` is in.
    side: of the picture, see `annotated_picture.draw`.
  """
  order = np.argsort(found['scores'], kind='stable')  # the best on top
  keypoints = found['keypoints'][order]
  seen = np.where(keypoints[..., 2] >= _SURE, 2, 1)  # hollow: not sure
  example = {
    'image': image,
    'boxes': found['boxes'][order] * np.tile(ratio, 2),
    'keypoints': np.dstack([keypoints[..., :2] * np.array(ratio), seen]),
  }
  words = [f'{score:.2f}' for score in found['scores'][order]]
  return annotated_picture.draw(example, str, side, words=words)
