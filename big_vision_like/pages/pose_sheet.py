"""Pages of poses: images with what was found beside what is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.pages import annotated_picture, html_page
from input_pipeline import pipeline
from input_pipeline.examples.errors import record_named

_SIDE = 320  # pixels of a picture
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
  decode = pipeline.build_ops([dict(op='decode')], source, 'pictures')[0]
  rng = np.random.default_rng(0)  # decoding has no chance
  parts = []
  for index, caption in chosen:
    with record_named(source, index, 'the page of poses'):
      example = source[index]
      image = decode({'image': example['image']}, rng)['image']
    there = {k: v for k, v in example.items() if k in _DRAWN}
    there['image'] = image
    picture = annotated_picture.draw(there, lambda i: names[i], _SIDE)
    parts += [
      html_page.element('p', f'{source.key(index)}: {caption}'),
      html_page.figure(picture, 'there'),
      html_page.figure(
        detected(image, lists.of(index)),
        f'found (scores; filled from a confidence of {_SURE})',
      ),
    ]
  text = '' if parts else html_page.element('p', 'No image has a mistake.')
  html_page.save(path, 'Worst poses', text, *parts)


def detected(image: np.ndarray, found: Mapping[str, np.ndarray]) -> np.ndarray:
  """uint8 [h, w, 3]: an image with poses and the boxes they were found in.

  Args:
    image: uint8 [H, W, 3].
    found: keypoints [n, K, 3] y, x, confidence; scores [n]; boxes [n, 4].
  """
  order = np.argsort(found['scores'], kind='stable')  # the best on top
  keypoints = found['keypoints'][order]
  seen = np.where(keypoints[..., 2] >= _SURE, 2, 1)  # hollow: not sure
  example = {
    'image': image,
    'boxes': found['boxes'][order],
    'keypoints': np.concatenate([keypoints[..., :2], seen[..., None]], axis=2),
  }
  words = [f'{score:.2f}' for score in found['scores'][order]]
  return annotated_picture.draw(example, str, _SIDE, words=words)
