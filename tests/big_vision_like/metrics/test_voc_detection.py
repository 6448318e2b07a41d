"""VOC's AP by hand and against a plain loop over the devkit's rules."""

import numpy as np
import pytest

from big_vision_like.metrics import voc_detection
from big_vision_like.metrics.box_pairs import Detections, Truth
from tests.big_vision_like.metrics.test_coco_detection import (
  BOX,
  FAR,
  detections,
  truth,
)  # fmt: skip

NAMES = ['cat', 'dog', 'cow']


def test_by_hand():
  """Three boxes; hits at ranks 1 and 3: precision 1, 1/2, 2/3 at recalls 1/3,
  1/3, 2/3. All-point: 1/3 + 2/3 * 1/3 = 5/9. 11-point: 1 at 0, .1, .2, .3 and
  2/3 at .4, .5, .6: 6 / 11."""
  found = voc_detection.figures(
    truth((1, 0, BOX, False), (1, 0, FAR, False), (2, 0, BOX, False)),
    detections(
      (1, 0, BOX, 0.9), (1, 0, [200, 200, 5, 5], 0.8), (2, 0, BOX, 0.7)
    ),
    NAMES,
  )
  assert found == pytest.approx(
    {'ap50': 500 / 9, 'ap50_11point': 600 / 11, 'ap50/cat': 500 / 9}
  )


def test_difficult_boxes_are_neither_hits_nor_false_alarms():
  found = voc_detection.figures(
    truth((1, 0, BOX, False), (1, 0, FAR, True), (1, 1, FAR, True)),
    detections((1, 0, FAR, 0.9), (1, 0, FAR, 0.8), (1, 0, BOX, 0.7)),
    NAMES,
  )
  # Both detections of the difficult box are dropped; dogs have no other box.
  assert found == {'ap50': 100, 'ap50_11point': 100, 'ap50/cat': 100}


def test_a_box_is_found_once():
  found = voc_detection.figures(
    truth((1, 0, BOX, False), (2, 0, BOX, False)),
    detections((1, 0, BOX, 0.9), (1, 0, BOX, 0.8), (2, 0, BOX, 0.7)),
    NAMES,
  )
  assert found['ap50'] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


def test_a_detection_asks_for_the_box_it_overlaps_most_even_if_taken():
  second = [0, 2, 10, 10]
  found = voc_detection.figures(
    truth((1, 0, BOX, False), (1, 0, second, False)),
    detections((1, 0, BOX, 0.9), (1, 0, [0, 0.5, 10, 10], 0.8)),
    NAMES,
  )
  assert found['ap50'] == 50  # COCO's rule would give it the second box


def test_widths_of_inclusive_corners():
  """Of 10 and 6 pixels: .5 if exclusive (5 of 10), 6/11 if inclusive."""
  rows = truth((1, 0, [0, 0, 10, 10], False))
  guess = detections((1, 0, [0, 0, 5, 10], 0.9))
  below = detections((1, 0, [0, 0, 4.9, 10], 0.9))
  at = lambda found, inclusive: voc_detection.figures(
    rows, found, NAMES, inclusive=inclusive
  )['ap50']
  assert at(guess, False) == 100  # the threshold itself is enough
  assert at(below, False) == 0
  assert at(below, True) == 100


def test_nothing_there_and_mistakes():
  assert voc_detection.figures(truth(), detections(), NAMES) == {}
  rows = truth((1, 0, BOX, False))
  assert voc_detection.figures(rows, detections(), NAMES) == {
    'ap50': 0, 'ap50_11point': 0, 'ap50/cat': 0,
  }  # fmt: skip
  with pytest.raises(ValueError, match=r'iou must lie in \(0, 1\], got 50'):
    voc_detection.figures(rows, detections(), NAMES, iou=50)


def _plain(rows: Truth, found: Detections, label: int, iou: float, extra: int):
  """(all-point, 11-point) as VOCdevkit's VOCevaldet.m and VOCap.m go."""
  mine = np.flatnonzero(rows.labels == label)
  used = dict.fromkeys(mine, False)
  num = sum(not rows.ignored[j] for j in mine)
  order = [i for i in range(len(found.images)) if found.labels[i] == label]
  order.sort(key=lambda i: -found.scores[i])
  hits, alarms = [], []
  for i in order:
    x, y, w, h = found.boxes[i]
    most, best = -np.inf, None
    for j in mine:
      if rows.images[j] != found.images[i]:
        continue
      u, v, p, q = rows.boxes[j]
      wide = min(x + w, u + p) - max(x, u) + extra
      high = min(y + h, v + q) - max(y, v) + extra
      if wide > 0 and high > 0:
        areas = (w + extra) * (h + extra) + (p + extra) * (q + extra)
        overlap = wide * high / (areas - wide * high)
        if overlap > most:
          most, best = overlap, j
    if most >= iou and rows.ignored[best]:
      continue
    is_hit = most >= iou and not used[best]
    if is_hit:
      used[best] = True
    hits.append(is_hit)
    alarms.append(not is_hit)
  if not num:
    return None
  hit, alarm = np.cumsum(hits), np.cumsum(alarms)
  recall, precision = hit / num, hit / (hit + alarm)
  eleven = 0.0
  for t in range(11):
    above = precision[recall >= t / 10]
    eleven += (above.max() if len(above) else 0) / 11
  recall = np.concatenate([[0], recall, [1]])
  precision = np.concatenate([[0], precision, [0]])
  for i in range(len(precision) - 2, -1, -1):
    precision[i] = max(precision[i], precision[i + 1])
  step = np.flatnonzero(recall[1:] != recall[:-1]) + 1
  return ((recall[step] - recall[step - 1]) * precision[step]).sum(), eleven


def _made_up(seed):
  rng = np.random.default_rng(seed)
  box = lambda: np.append(rng.uniform(0, 60, 2), rng.uniform(10, 60, 2))
  rows = [
    (rng.integers(6), rng.integers(3), box(), rng.random() < 0.3)
    for _ in range(40)
  ]
  found = []
  for _ in range(150):
    image, label, start, _ = rows[rng.integers(len(rows))]
    start = start + rng.normal(0, rng.choice([1, 6]), 4)
    found.append((image, label, np.maximum(start, 1), rng.random()))
  return truth(*rows), detections(*found)


@pytest.mark.parametrize('inclusive', [False, True])
@pytest.mark.parametrize(('seed', 'iou'), [(0, 0.5), (1, 0.5), (2, 0.7)])
def test_plain_loop(seed, iou, inclusive):
  rows, found = _made_up(seed)
  ours = voc_detection.figures(rows, found, NAMES, iou=iou, inclusive=inclusive)
  plain = [
    _plain(rows, found, label, iou, int(inclusive)) for label in range(3)
  ]
  name = f'ap{round(100 * iou)}'
  for label, (area, _) in enumerate(plain):
    assert ours[f'{name}/{NAMES[label]}'] == pytest.approx(100 * area)
  mean = np.mean(plain, axis=0)
  assert ours[name] == pytest.approx(100 * mean[0])
  assert ours[f'{name}_11point'] == pytest.approx(100 * mean[1])
  assert 5 < ours[name] < 95
