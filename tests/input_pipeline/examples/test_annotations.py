"""Boxes, keypoints and masks in records: types, checks, rescaling."""

import msgpack
import numpy as np
import pytest

from input_pipeline.examples import annotations
from input_pipeline.prepared import records

_RLE = {'size': [4, 5], 'counts': [20]}


def example() -> dict:
  return {
    'boxes': [[1.5, 2, 30, 40.25], [0, 0, 0, 0]],
    'box_labels': [3, 0],
    'box_crowd': [False, True],
    'box_difficult': [True, False],
    'box_area': [700.5, 0],
    'box_ids': [2**40, 7],
    'keypoints': [[[10, 20, 2]] * 17, [[0, 0, 0]] * 17],
    'box_outlines': [[[2, 1.5, 40, 1.5, 40, 30]], _RLE],
    'segmentation': b'\x89PNG',
    'original_size': [480, 640],
  }  # fmt: skip


def test_round_trip_through_a_record():
  record = records.Record(
    'k', b'jpeg', np.int32([0, 3]), negatives=np.int32([5]),
    annotations=example(),
  )  # fmt: skip
  data = records.encode(record)
  back = records.decode(data)
  assert records.encode(back) == data
  assert back.negatives is not None and back.negatives.dtype == np.int32
  np.testing.assert_array_equal(back.negatives, [5])
  assert back.annotations is not None
  assert back.annotations.keys() == example().keys()
  for name, value in example().items():
    found = back.annotations[name]
    if isinstance(found, np.ndarray):
      np.testing.assert_array_equal(found, value)
    else:
      assert found == value
  found = {k: v for k, v in back.annotations.items() if hasattr(v, 'dtype')}
  types = {k: v.dtype.name for k, v in found.items()}
  assert types == {
    'boxes': 'float32', 'box_labels': 'int32', 'box_crowd': 'bool',
    'box_difficult': 'bool', 'box_area': 'float32', 'box_ids': 'int64',
    'keypoints': 'float32', 'original_size': 'int32',
  }  # fmt: skip


def test_no_boxes_is_not_the_absence_of_boxes():
  record = records.Record(
    'k', b'', np.int32([]), negatives=np.int32([]), annotations={'boxes': []}
  )
  back = records.decode(records.encode(record))
  assert back.annotations is not None and back.negatives is not None
  assert back.annotations['boxes'].shape == (0, 4)
  assert back.negatives.shape == (0,)


@pytest.mark.parametrize(
  'change,message',
  [
    ({'bboxes': []}, "unknown field 'bboxes'; valid: boxes"),
    ({'boxes': [[1, 2, 3]] * 2}, r'boxes must be finite .* \(2, 4\)'),
    ({'boxes': [[1, 2, 3, 4], [1]]}, r'boxes must be finite'),
    ({'boxes': [[1, 2, 3, np.nan]] * 2}, r'boxes must be finite'),
    ({'boxes': [[5, 2, 3, 4]] * 2}, r'y0 <= y1 and x0 <= x1'),
    ({'boxes': ['a', 'b']}, r'boxes must be finite'),
    ({'box_labels': [1]}, r'box_labels must be finite .* \(2,\)'),
    ({'keypoints': [[[1, 2]]] * 2}, r"keypoints .* \(2, 'K', 3\)"),
    ({'box_outlines': [[]]}, 'one a box'),
    ({'segmentation': 'text'}, 'bytes of a PNG'),
    ({'original_size': [3]}, r'original_size .* \(2,\)'),
  ],
)
def test_what_breaks_the_format(change, message):
  with pytest.raises(ValueError, match=f'^annotations of .k.: .*{message}'):
    records.encode(
      records.Record('k', b'', np.int32([]), annotations=example() | change)
    )


def test_fields_of_boxes_need_boxes():
  with pytest.raises(ValueError, match="'box_labels' without boxes"):
    annotations.unpack({'box_labels': [1]})


def test_a_label_cannot_be_present_and_absent():
  bad = {'v': 1, 'key': 'k', 'image': b'', 'labels': [4, 1], 'negatives': [1]}
  with pytest.raises(ValueError, match=r'label 1 .* both'):
    records.decode(msgpack.packb(bad))


def test_rescale():
  scaled = annotations.rescale(annotations.unpack(example()), 0.5, 2)
  np.testing.assert_array_equal(scaled['boxes'][0], [0.75, 4, 15, 80.5])
  np.testing.assert_array_equal(scaled['box_area'], [700.5, 0])
  np.testing.assert_array_equal(scaled['keypoints'][0, 0], [5, 40, 2])
  assert scaled['box_outlines'][0] == [[4, 0.75, 80, 0.75, 80, 15]]
  assert scaled['box_outlines'][1] == {'size': [4, 5], 'counts': [20]}
  np.testing.assert_array_equal(scaled['original_size'], [480, 640])
  assert scaled['boxes'].dtype == scaled['keypoints'].dtype == np.float32
