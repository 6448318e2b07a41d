"""The truth of poses, read from records."""

import numpy as np
import pytest

from input_pipeline.examples.errors import BadExample
from input_pipeline.truth import true_keypoints


class Records:
  """Records as they are given; BadExample where one is an error."""

  def __init__(self, *records):
    self._records = records

  def __len__(self):
    return len(self._records)

  def __getitem__(self, index):
    if isinstance(self._records[index], Exception):
      raise self._records[index]
    return self._records[index]

  def key(self, index):
    return f'r{index}'


def record(num, **changed):
  boxes = np.array([[1, 2, 11, 22 + i] for i in range(num)], np.float32)
  points = np.array([[[3, 4, 2], [0, 0, 0]]] * num, np.float32)
  return {
    'image': np.zeros((50, 100, 3), np.uint8),
    'boxes': boxes.reshape(-1, 4),
    'box_labels': np.arange(num, dtype=np.int32),
    'keypoints': points.reshape(num, 2, 3),
    **changed,
  }


def test_columns():
  bare = record(0, keypoints=np.zeros((0, 0, 3), np.float32))
  crowd = record(
    1, box_crowd=np.array([True]), box_area=np.array([7], np.float32)
  )
  images, labels, keypoints, boxes, area, crowds = true_keypoints.read(
    Records(record(2), bare, crowd), 'here'
  )
  assert images.tolist() == [0, 0, 2] and labels.tolist() == [0, 1, 0]
  assert boxes.tolist() == [[2, 1, 20, 10], [2, 1, 21, 10], [2, 1, 20, 10]]
  assert keypoints.tolist() == [[[4, 3, 2], [0, 0, 0]]] * 3
  assert area.tolist() == [200, 210, 7]
  assert crowds.tolist() == [False, False, True]
  for column in (keypoints, boxes, area):
    assert column.dtype == np.float64


def test_pixels_are_those_of_the_original_image():
  """The stored image has half the height and a quarter of the width."""
  small = record(1, original_size=np.array([100, 400], np.int32))
  _, _, keypoints, boxes, area, _ = true_keypoints.read(Records(small), 'here')
  assert boxes.tolist() == [[8, 2, 80, 20]]
  assert keypoints.tolist() == [[[16, 6, 2], [0, 0, 0]]]
  assert area.tolist() == [1600]


def test_no_object_at_all():
  columns = true_keypoints.read(Records(record(0)), 'here')
  assert [column.shape for column in columns] == [
    (0,), (0,), (0, 0, 3), (0, 4), (0,), (0,)
  ]  # fmt: skip


@pytest.mark.parametrize(
  'second, words',
  [
    ({'image': b''}, 'here: r1 has no boxes'),
    (
      {k: v for k, v in record(1).items() if k != 'keypoints'},
      'here: r1 has no keypoints; it must be a data set of poses',
    ),
    (
      record(1, keypoints=np.zeros((1, 3, 3), np.float32)),
      'here: r1 has 3 keypoints a box, r0 2',
    ),
    (
      record(1, keypoints=np.zeros((2, 2, 3), np.float32)),
      r'here: r1: keypoints of shape \[2, 2, 3\] of 1 boxes',
    ),
    (
      record(1, keypoints=np.full((1, 2, 3), 5, np.float32)),
      'here: r1: a keypoint of visibility 5',
    ),
    (BadExample('torn'), 'here: r1 cannot be used: torn'),
  ],
)
def test_mistakes_name_the_record(second, words):
  with pytest.raises(ValueError, match=words):
    true_keypoints.read(Records(record(1), second), 'here')
