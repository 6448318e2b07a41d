"""Where a pose net goes wrong: the images to look at first."""

from collections.abc import Sequence

import numpy as np

from big_vision_like.metrics import coco_keypoints, image_entries, oks


def worst(
  truth: coco_keypoints.Truth,
  found: coco_keypoints.Poses,
  num: int,
  sigmas: Sequence[float],
  *,
  similar: float = 0.5,
) -> list[tuple[int, str]]:
  """(image, what is wrong) of the images with the worst poses, worst first.

  A person weighs 1 less the similarity of the pose that is nearest, 1 if there
  is none.

  Args:
    truth: annotated poses, of images numbered from 0.
    found: of the same images; labels play no part.
    num: how many images at most.
    sigmas: of the keypoints.
    similar: below it a person counts as missed in the words.
  """
  checked = oks.check_sigmas(sigmas, truth.keypoints.shape[1])
  left, right = image_entries.pairs(found.images, truth.images)
  best = np.zeros(len(truth.images))
  alike = coco_keypoints.similarities(truth, found, left, right, checked)
  np.maximum.at(best, right, alike)
  images, best = truth.images[~truth.ignored], best[~truth.ignored]
  people = np.bincount(images)
  missed = np.bincount(images[best < similar], minlength=len(people))
  badness = np.bincount(images, 1 - best)
  order = np.argsort(-badness, kind='stable')[:num]
  return [
    (
      int(i),
      f'{missed[i]} of {people[i]} missed (similarity below {similar:g}), mean '
      f'{1 - badness[i] / people[i]:.2f}',
    )
    for i in order
    if badness[i] > 0
  ]
