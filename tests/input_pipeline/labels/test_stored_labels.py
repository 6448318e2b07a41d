"""The label index against the lists it was made of."""

import copy
import pickle

import numpy as np
import pytest

from input_pipeline.labels import stored_labels
from input_pipeline.labels.stored_labels import StoredLabels

SHARDS = {
  'a': [[3, 1], [], [2]],
  'b': [[]],
  'c': [[7, 3, 3], [0]],
}
ROWS = [row for rows in SHARDS.values() for row in rows]


@pytest.fixture
def folder(tmp_path):
  """A split 'train' joined from the side files of three shards."""
  total = 0
  for name, rows in SHARDS.items():
    path = stored_labels.side_path(str(tmp_path), name)
    arrays = [np.array(row, np.int32) for row in rows]
    number = stored_labels.write_side(path, arrays)
    assert number == sum(map(len, rows))
    assert stored_labels.side_is_whole(path, len(rows), number)
    assert not stored_labels.side_is_whole(path, len(rows), number + 1)
    total += number
  names = stored_labels.join(str(tmp_path), 'train', sides(tmp_path), 6, total)
  assert names == {
    'labels': 'train.labels.npy', 'label_ends': 'train.label_ends.npy',
  }  # fmt: skip
  return tmp_path


def sides(folder):
  for name, rows in SHARDS.items():
    path = stored_labels.side_path(str(folder), name)
    yield stored_labels.read_side(path, len(rows))


def test_labels_of_each_record(folder):
  index = StoredLabels(str(folder), 'train', 6)
  for one in (index, copy.deepcopy(index)):
    assert [one.labels(i).tolist() for i in range(6)] == ROWS
    assert one.labels(0).dtype == np.int32
  ends, labels = index.arrays()
  assert ends.dtype == np.int64 and ends.tolist() == [2, 2, 3, 3, 6, 7]
  assert labels.dtype == np.int32 and labels.tolist() == [3, 1, 2, 7, 3, 3, 0]
  assert isinstance(labels.base, np.memmap)
  assert len(pickle.dumps(index)) < 1000  # the arrays stay on disk


def test_images_of_each_label(folder):
  counts = stored_labels.images_per_label(sides(folder), 9)
  assert counts.tolist() == [sum(c in row for row in ROWS) for c in range(9)]


def test_a_split_without_labels(tmp_path):
  path = stored_labels.side_path(str(tmp_path), 'x')
  assert stored_labels.write_side(path, [np.zeros(0, np.int32)] * 2) == 0
  part = stored_labels.read_side(path, 2)
  stored_labels.join(str(tmp_path), 'val', [part], 2, 0)
  assert StoredLabels(str(tmp_path), 'val', 2).labels(1).tolist() == []


def test_other_files_are_refused(folder):
  with pytest.raises(ValueError, match='6 records and 7 labels, should be 5'):
    StoredLabels(str(folder), 'train', 5).arrays()
  path = folder / 'train.labels.npy'
  np.save(path, np.zeros(7, np.float32))
  with pytest.raises(ValueError, match='float32'):
    StoredLabels(str(folder), 'train', 6).arrays()
  np.save(path, np.array([{}] * 7))  # a pickle: not opened
  with pytest.raises(ValueError, match='Python objects'):
    StoredLabels(str(folder), 'train', 6).arrays()
