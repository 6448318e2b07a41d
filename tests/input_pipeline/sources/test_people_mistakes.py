"""Mistakes in people as examples: options, files of boxes, annotations."""

import json

import numpy as np
import pytest

from input_pipeline import pipeline
from input_pipeline.truth import objects
from tests.input_pipeline.sources.boxes_made import jpeg, write
from tests.input_pipeline.sources.people_made import (
  ANNOTATIONS,
  CATEGORIES,
  NAMES,
  NONE,
  POINTS,
  made,
  opened,
)


@pytest.fixture
def apes(tmp_path):
  return made(tmp_path / 'apes')


def test_names_that_contradict_the_annotations(tmp_path):
  categories = [dict(CATEGORIES[0], keypoints=NAMES[:3]), CATEGORIES[1]]
  root = made(tmp_path, categories=categories)
  with pytest.raises(ValueError, match=r'keypoint_names=None, but the data do'):
    opened(root)
  source = opened(root, keypoint_names=NAMES, keypoint_pairs=[[1, 2]])
  assert source.space.keypoints.pairs == ((1, 2),)
  assert (
    "category 'ape' names 3 keypoints, the annotations have 4: their names are "
    'not taken'
  ) in source.report_lines()[0]


@pytest.mark.parametrize(
  'options,message',
  [
    (dict(classes=['gorilla']), r"classes=\['gorilla'\]: .*'gorilla'"),
    (dict(classes=[]), r'classes=\[\]'),
    (dict(classes=['tree']), 'nobody is left: 0 people .* 1 without a label'),
    (dict(min_keypoints=-1), 'min_keypoints=-1 must be'),
    (dict(min_keypoints=5), "boxes='truth': nobody is left"),
    (dict(min_side=-2.0), 'min_side=-2.0 must be'),
    (dict(min_side=float('nan')), 'min_side=nan must be'),
    (dict(min_score=float('inf')), 'min_score=inf must be'),
    (dict(unmatched='maybe'), "unmatched='maybe'"),
    (dict(keypoint_pairs=[[1, 4]]), r'keypoint_pairs=\[\[1, 4\]\] must name'),
    (dict(keypoint_pairs=[[1, 2], [2, 3]]), 'at most once'),
    (dict(keypoint_pairs=[[1, -2]]), 'keypoint_pairs='),
    (dict(sigmas=[0.1] * 17), r'17 numbers for 4 keypoints'),
    (dict(sigmas=[0.1, 0.1, 0.1, 0.0]), 'sigmas='),
    (dict(keypoint_names=['a', 'b']), r'2 names, the data have 4 keypoints'),
    (dict(keypoint_names=['a', 'b', 'c', 'a']), 'keypoint_names='),
    (dict(boxes='nothing.json'), "boxes='nothing.json': no such file"),
    (dict(boxes=''), 'boxes must be a path'),
  ],
)
def test_options_that_cannot_be(apes, options, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
    opened(apes, **options)
  text = str(error.value)
  assert text.startswith('input.source') and '\n' not in text


ROW = {'image_id': 11, 'category_id': 4, 'bbox': [8, 10, 30, 20], 'score': 0.5}


@pytest.mark.parametrize(
  'given,message',
  [
    ('{', r'not JSON: .* line 1 column 2'),
    (b'\xff\xfe', 'not JSON: not UTF-8'),
    ({'annotations': []}, "expected a list of results, .*'annotations'"),
    ([7], 'entry 0: expected an object, got 7'),
    ([ROW, {'image_id': 11}], "entry 1: has no 'category_id'"),
    ([ROW | {'image_id': 5}], r'1 values of image_id are not of the source: 5'),
    ([ROW | {'image_id': 'a.jpg'}], "image_id must be a whole number, got 'a"),
    ([ROW | {'category_id': 1}], r'category_id .* source are 4 \(ape\), 9 \(t'),
    ([ROW | {'bbox': [1, 2, 3]}], 'bbox must be 4 finite numbers'),
    ([ROW | {'bbox': [1, 2, -3, 4]}], 'has a negative width or height'),
    ([ROW | {'score': None}], 'score must be a finite number, got None'),
    (
      json.dumps([ROW]).replace('0.5', 'NaN'),
      'entry 0: score must be a finite number, got nan',
    ),
    ([], 'nobody is left: 0 people'),
  ],
)
def test_files_of_boxes_that_cannot_be(apes, tmp_path, given, message):
  path = tmp_path / 'found.json'
  if isinstance(given, list | dict):
    given = json.dumps(given)
  path.write_bytes(given if isinstance(given, bytes) else given.encode())
  with pytest.raises(ValueError, match=message) as error:
    opened(apes, boxes=str(path))
  text = str(error.value)
  assert text.startswith(f'input.source.boxes={str(path)!r}: ')
  assert '\n' not in text


def changed(**fields):
  return [ANNOTATIONS[0] | fields, *ANNOTATIONS[1:]]


@pytest.mark.parametrize(
  'annotations,message',
  [
    (changed(keypoints=POINTS[:9]), r'keypoints must be'),
    (changed(keypoints=[*POINTS[:11], 3]), r'visibilities must be 0, 1 or 2'),
    (changed(keypoints='none'), 'keypoints must be'),
    (changed(bbox=[1, 2, -3, 4]), 'has a negative width or height'),
    ([a | {'keypoints': NONE} for a in ANNOTATIONS], 'has a labelled keypoint'),
    ([], 'none of the 0 objects of the source has a labelled keypoint'),
    ([a | {'iscrowd': 1} for a in ANNOTATIONS], 'nobody is left: .* of crowds'),
  ],
)
def test_annotations_that_cannot_be(tmp_path, annotations, message):
  names = dict(keypoint_names=NAMES) if not annotations else {}
  with pytest.raises(ValueError, match=message) as error:
    opened(made(tmp_path, annotations=annotations), **names)
  assert '\n' not in str(error.value)


def test_boxes_outside_their_images_are_left_out(tmp_path):
  annotations = [*changed(bbox=[90, 2, 3, 4])]
  source = opened(made(tmp_path, annotations=annotations))
  # The numbers are those of the boxes of the record, which has no such box.
  assert [source.key(i) for i in range(2)] == [
    'train/a.jpg#3', 'train/c.jpg#0',
  ]  # fmt: skip
  assert source[0]['person_box'].tolist() == [40, 50, 49, 53]
  np.testing.assert_array_equal(source[0]['boxes'][3], [40, 50, 49, 53])


def test_a_source_without_keypoints():
  of = dict(type='synthetic', num_images=3)
  with pytest.raises(ValueError, match='the data do not say what their keypoi'):
    pipeline.open_source(dict(type='people', of=of))
  with pytest.raises(ValueError, match='has a labelled keypoint'):
    pipeline.open_source(dict(type='people', of=of, keypoint_names=['a']))


def test_people_of_people(apes):
  of = dict(type='people', of=dict(type='detect', path=str(apes)))
  with pytest.raises(ValueError, match="type='people' is of people already"):
    pipeline.open_source(dict(type='people', of=of))


def test_a_place_that_is_wrong(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"of.path='.*no such file"):
    opened(tmp_path / 'nowhere')
  with pytest.raises(ValueError, match=r'input\.source: of.*unknown'):
    opened(tmp_path, of=dict(type='synthetic', nothing=1))


def test_pose_is_read_from_two_kinds_of_data(tmp_path):
  write(tmp_path, {'cat/a.jpg': jpeg(1)})
  with pytest.raises(ValueError, match=r"task='pose', but .*\(folder\)"):
    opened(tmp_path, of=dict(task='pose'))


@pytest.mark.parametrize(
  'example,message',
  [
    (dict(boxes=np.ones((2, 4)), keypoints=np.ones((1, 3, 3))), 'of 2 boxes'),
    (dict(boxes=np.ones((1, 4)), keypoints=np.ones((1, 3, 2))), 'of shape'),
    (
      dict(boxes=np.ones((1, 4)), keypoints=np.full((1, 3, 3), 3)),
      'a keypoint of visibility 3; valid: 0, 1, 2',
    ),
    (dict(boxes=np.ones((2, 4)), box_labels=np.ones(1)), '1 box_labels of 2'),
  ],
)
def test_records_that_contradict_themselves(example, message):
  with pytest.raises(ValueError, match=message):
    objects.of_record(example, 0)


def test_records_without_boxes_have_no_objects():
  assert len(objects.of_record({'image': b''}, 3).image) == 0
