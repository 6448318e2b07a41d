"""inspect_data --anchors: the positives of a detector, by plain numpy."""

import numpy as np
import pytest

from big_vision_like.pages import annotated_picture
from configs import quickstart, synthetic_detection
from tools import inspect_data
from tools.cli import config_feed, positive_anchors

STRIDE, SIDE = 8, 40
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # close: some boxes have several


def detector(**task):
  config = synthetic_detection.get_config('tiny')
  config.unlock()
  config.task.update(task)
  return config


def all_anchors(base=16.0, scales=SCALES, ratios=(0.5, 1.0, 2.0)):
  found = []
  for y in range(0, SIDE, STRIDE):
    for x in range(0, SIDE, STRIDE):
      for ratio in ratios:
        for scale in scales:
          h, w = scale * base / ratio**0.5, scale * base * ratio**0.5
          found.append([y - h / 2, x - w / 2, y + h / 2, x + w / 2])
  return np.array(found)


def iou(a, b):
  low, high = np.maximum(a[:, :2], b[:2]), np.minimum(a[:, 2:], b[2:])
  shared = np.maximum(high - low, 0).prod(1)
  area = lambda x: (x[..., 2:] - x[..., :2]).prod(-1)
  return shared / (area(a) + area(b) - shared)


@pytest.fixture(scope='module')
def looks(tmp_path_factory):
  """(config, looks, page) of the command."""
  config = detector(anchor_scales=SCALES)
  page = tmp_path_factory.mktemp('sheet') / 'x.html'
  found = inspect_data.run(config, num=6, anchors=True, output=str(page))
  return config, found, page.read_text()


def test_positives_are_those_of_the_rule(looks):
  """IoU of 0.7, and for each box its best anchor (of several any: rounding)."""
  config, found, page = looks
  feed = config_feed.open_feed(config, 'input', None)
  find = positive_anchors.PositiveAnchors(config, feed)
  grid, near = all_anchors(), 1e-6
  by_overlap = 0
  for one in found:
    boxes = one.example['boxes'][one.example['box_mask']].astype(np.float64)
    overlaps = np.array([iou(grid, box) for box in boxes])  # [boxes, anchors]
    ours = find(one.example)
    for anchor, owner in zip(ours.anchors.astype(np.float64), ours.owners):
      overlap = iou(anchor[None], boxes[owner])[0]
      best = overlaps[owner].max()
      assert overlap >= min(best, 0.7) - near
      by_overlap += overlap < best - near
    assert {*ours.owners.tolist()} == {*range(len(boxes))}
    sure = np.flatnonzero((overlaps > 0.7 + near).any(0))
    rows = lambda x: {*map(tuple, (x * 100).round().astype(int).tolist())}
    kept = rows(ours.anchors)
    assert rows(grid[sure]) <= kept
    assert len(kept) == len(ours.anchors) <= len(sure) + len(boxes)
    assert ours.num_boxes == len(boxes)
    text = f'{len(ours.owners)} positive anchors of {len(boxes)} boxes'
    assert text in page
  assert by_overlap  # and not only best ones


def test_a_box_without_an_anchor_is_said():
  """No anchor of 512 pixels lies within 40: pruned, nothing is left."""
  config = detector(anchor_base=512.0, prune_anchors=True)
  feed = config_feed.open_feed(config, 'input', None)
  find = positive_anchors.PositiveAnchors(config, feed)
  one = next(
    one
    for one in (config_feed.look(feed, 0, i) for i in range(20))
    if one.example['box_mask'].any()
  )
  text, tone = find(one.example).line()
  num = int(one.example['box_mask'].sum())
  assert text == f'0 positive anchors of 0 boxes; {num} boxes have none'
  assert tone == 'bad'


def test_boxes_that_are_not_in_the_batch_count_too(tmp_path):
  """An evaluator reads boxes from the records, not from its ops."""
  config = detector()
  config.evals.val.ops = config.evals.val.ops[:-1]
  (one,) = inspect_data.run(
    config, key='evals.val', num=1, anchors=True,
    output=str(tmp_path / 'x.html'),
  )  # fmt: skip
  feed = config_feed.open_feed(config, 'evals.val', None)
  found = positive_anchors.PositiveAnchors(config, feed)(one.example)
  assert found.num_boxes == len(one.example['boxes']) > 0
  assert set(found.owners.tolist()) == set(range(found.num_boxes))


def test_outlines_are_thin_and_in_the_colour_of_their_box():
  example = {
    'image': np.zeros((20, 30, 3), np.uint8),
    'boxes': np.array([[2, 2, 8, 8], [9, 14, 19, 28]], np.float32),
    'box_labels': np.array([0, 5]),
  }
  anchor = np.array([10.0, 15.0, 16.0, 21.0])
  plain = annotated_picture.draw(example, lambda _: '', 30)
  drawn = annotated_picture.draw(
    example, lambda _: '', 30, faint=[(anchor, 1)]
  )  # fmt: skip
  changed = (plain != drawn).any(-1)
  rows, columns = np.nonzero(changed)
  assert (rows.min(), columns.min()) >= (10, 15)
  assert (rows.max(), columns.max()) == (15, 20)
  assert not changed[11:15, 16:20].any()
  assert (drawn[changed] == annotated_picture.colour(5)).all()


def test_a_task_without_anchors_is_refused(tmp_path):
  with pytest.raises(ValueError, match="--anchors: the task 'multilabel' has"):
    inspect_data.run(
      quickstart.get_config('tiny'), num=1, anchors=True,
      output=str(tmp_path / 'x.html'),
    )  # fmt: skip
