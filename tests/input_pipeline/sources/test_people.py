"""People as examples: who they are, boxes of them from files."""

import json
import pickle

import numpy as np
import pytest

from big_vision_like import protocols
from input_pipeline import pipeline
from input_pipeline.labels.space import LabelSpace
from input_pipeline.people import choice
from input_pipeline.publishers.coco import skeletons
from input_pipeline.truth import objects
from tests.input_pipeline.sources.boxes_made import jpeg, write
from tests.input_pipeline.sources.people_made import (
  CATEGORIES,
  HEIGHT,
  NAMES,
  WIDTH,
  content,
  made,
  opened,
  results,
)
from tools import prepare_coco


@pytest.fixture
def apes(tmp_path):
  return made(tmp_path / 'apes')


def test_people_of_the_truth(apes):
  source = opened(apes)
  assert isinstance(source, protocols.WithPeople)
  keys = [source.key(i) for i in range(len(source))]
  assert keys == ['train/a.jpg#0', 'train/a.jpg#4', 'train/c.jpg#0']
  assert source.image_index().tolist() == [0, 0, 2]
  assert source.image_ids().tolist() == [11, 11, 10]
  assert source.sizes().tolist() == [[HEIGHT, WIDTH]] * 3
  assert source.report_lines()[-1] == (
    '3 people in 2 of 3 images; left out: 1 of crowds, 1 without an area, 1 '
    'without a labelled keypoint'
  )
  small = source[1]
  assert small['person'] == 4 and small['person'].dtype == np.int32
  assert small['person_box'].tolist() == [40, 50, 49, 53]
  assert small['person_box'].dtype == np.float32
  assert small['person_score'] == 1
  assert small['key'] == 'train/a.jpg#4'
  whole = source.images[0]
  assert small.keys() - {'person', 'person_box', 'person_score', 'key'} == (
    whole.keys()
  )
  np.testing.assert_array_equal(small['keypoints'], whole['keypoints'])
  space = LabelSpace.of_source(source)
  assert space.keypoints.names == tuple(NAMES)
  assert space.keypoints.pairs == ((1, 2),)
  assert space.keypoints.sigmas is None
  assert pickle.loads(pickle.dumps(source))[2]['person'] == 0  # noqa: S301


@pytest.mark.parametrize(
  'options,keys,said',
  [
    (dict(min_keypoints=3), ['a.jpg#0', 'a.jpg#4'], '2 with fewer than 3 la'),
    (dict(min_side=5), ['a.jpg#0', 'c.jpg#0'], '1 with a side below 5 pixels'),
    (dict(min_keypoints=0), ['a.jpg#0', 'a.jpg#1', 'a.jpg#4', 'c.jpg#0'], ''),
    (dict(min_keypoints=0, classes=['tree']), ['b.jpg#0'], 'left out: none'),
  ],
)
def test_who_counts(apes, options, keys, said):
  source = opened(apes, **options)
  found = [source.key(i) for i in range(len(source))]
  assert found == [f'train/{key}' for key in keys]
  assert said in source.report_lines()[-1]


def test_batches_of_crops(apes):
  source = opened(apes, sigmas=[0.1] * 4)
  specs = [
    dict(op='decode'),
    dict(op='crop_person', size=(65, 47), flip=True, enlarge=(1, 1.5)),
  ]
  ops = pipeline.build_ops(specs, source)
  with_batches = pipeline.train(source, ops, batch_size=6, seed=0)
  batch = next(with_batches)
  with_batches.close()
  assert batch['_mask'].all()
  assert batch['person_keypoints'].shape == (6, 4, 3)
  # The first ape of 'a' is where the one without an area is; 'c' has one ape.
  others = (batch['other_keypoints'][..., 2] > 0).any(-1).sum(1)
  assert (others[batch['_id'] == 2] == 0).all()
  assert (others[batch['_id'] == 0] >= 1).all()
  points = batch['person_keypoints'][batch['_id'] == 0][0]
  row = np.flatnonzero(batch['_id'] == 0)[0]
  back = batch['crop_to_image'][row] @ [*points[0, :2], 1]
  np.testing.assert_allclose(back, [12, 10], atol=1e-3)


def test_prepared_people_are_known_without_reading(apes, tmp_path, monkeypatch):
  out = tmp_path / 'out'
  argv = ['--input', apes, '--output', out, '--task', 'keypoints', '--splits']
  assert prepare_coco.main([*map(str, argv), 'train', '--workers', '1']) == 0
  direct, stored = opened(apes), opened(out)
  assert stored.report_lines()[-1] == direct.report_lines()[-1]
  assert not any('were read' in line for line in stored.report_lines())
  found = {}
  for source in (direct, stored):
    images = source.images
    at = source.image_index()
    found[source] = {
      (int(images[int(at[i])]['image_id'][0]), int(source[i]['person'])): (
        source[i]['person_box'].tolist()
      )
      for i in range(len(source))
    }
  assert found[direct] == found[stored] and len(found[direct]) == 3
  # As before they were stored: the same people, read once.
  manifest = json.loads((out / 'manifest.json').read_text())
  del manifest['label_index']['train']['objects']
  (out / 'manifest.json').write_text(json.dumps(manifest))
  older = opened(out)
  assert '3 records were read to know their objects' in str(
    older.report_lines()
  )
  assert older.report_lines()[-1] == stored.report_lines()[-1]
  np.testing.assert_array_equal(older.image_index(), stored.image_index())
  monkeypatch.setattr(objects, 'MAX_READ', 2)
  with pytest.raises(ValueError, match=r'its 3 records, more than 2; prepare'):
    opened(out)


def test_boxes_in_pixels_of_the_original_image(apes, tmp_path):
  out = tmp_path / 'out'
  argv = ['--input', apes, '--output', out, '--task', 'keypoints', '--splits']
  more = ['train', '--long_side', '40', '--workers', '1']
  assert prepare_coco.main([*map(str, argv), *more]) == 0
  source = opened(out)
  by_image = {int(source[i]['image_id'][0]): source[i] for i in range(3)}
  assert by_image[10]['person_box'].tolist() == [10, 8, 30, 38]
  assert by_image[10]['boxes'][0].tolist() == [5, 4, 15, 19]
  assert by_image[10]['original_size'].tolist() == [HEIGHT, WIDTH]
  ops = pipeline.build_ops(
    [dict(op='decode'), dict(op='crop_person', size=(65, 47))], source
  )
  (batch,) = pipeline.evaluation(source, ops, batch_size=3)
  for map_back, points in zip(
    batch['crop_to_image'], batch['person_keypoints']
  ):
    back = map_back @ [*points[0, :2], 1]
    np.testing.assert_allclose(back, [12, 10], atol=1e-3)


def test_a_subset_of_the_images_and_of_the_people(apes):
  last = opened(apes, of=dict(subset=dict(num_images=2, seed=3)))
  whole = opened(apes)
  known = {whole.key(i): whole[i]['person_box'].tolist() for i in range(3)}
  for i in range(len(last)):
    assert known[last.key(i)] == last[i]['person_box'].tolist()
  some = opened(apes, subset=dict(num_images=2))
  assert isinstance(some, protocols.WithPeople)
  assert len(some.image_index()) == 2
  for i, image in enumerate(some.image_index().tolist()):
    assert some.key(i).startswith(some.images.key(image))


def test_labels_are_chosen_below_the_people(apes):
  with pytest.raises(ValueError, match=r'subset\.labels: of people the labels'):
    opened(apes, subset=dict(labels=['ape']))
  chosen = opened(apes, of=dict(subset=dict(labels=['ape'])))
  whole = opened(apes)
  assert [chosen.key(i) for i in range(3)] == [whole.key(i) for i in range(3)]
  assert chosen.vocabulary.names == ('ape',)
  for i in range(3):
    np.testing.assert_array_equal(
      chosen[i]['person_box'], whole[i]['person_box']
    )


def test_people_of_the_synthetic_world():
  world = dict(
    type='synthetic', annotations=True, num_images=12, num_classes=9,
    num_keypoints=5, image_size=64,
  )  # fmt: skip
  source = pipeline.open_source(dict(type='people', of=world))
  images = source.images
  known = images.objects()
  for i in range(12):
    example, of = images[i], known.image == i
    rows = np.flatnonzero(of)[example['box_numbers']]
    labelled = (example['keypoints'][..., 2] > 0).sum(1)
    np.testing.assert_array_equal(known.num_keypoints[rows], labelled)
    np.testing.assert_array_equal(known.labels[rows], example['box_labels'])
    # Whole outlines hold what can be seen, to half a pixel.
    seen, whole = example['boxes'], known.boxes[rows]
    assert (seen[:, :2] >= whole[:, :2] - 1).all()
    assert (seen[:, 2:] <= whole[:, 2:] + 1).all()
  for i in range(len(source)):
    example = source[i]
    box = example['boxes'][example['person']]
    np.testing.assert_array_equal(example['person_box'], box)
  hidden = source._place(images[0], 7)
  assert hidden == -1


@pytest.fixture
def found(apes, tmp_path):
  """Boxes of 'a': one far off, two of the first ape, one of the second, which
  has no keypoints; of 'c': one of the ape, one of no class of people."""
  path = results(
    tmp_path / 'found.json',
    (10, [9, 11, 30, 20], 0.9),
    (11, [60, 50, 9, 9], 0.8),
    (11, [8, 10, 30, 21], 0.5),
    (11, [7, 10, 30, 20], 0.7),
    (11, [40, 10, 30, 20], 0.6),
    (11, [8, 10, 30, 0], 0.9),
    (12, [1, 1, 9, 9], 0.9, {'category_id': 9}),
    (11, [8, 10, 30, 20], 0.05),
  )
  return apes, path


def test_boxes_of_a_file(found):
  apes, path = found
  source = opened(apes, boxes=path, min_score=0.1)
  keys = [source.key(i) for i in range(len(source))]
  assert keys == ['train/a.jpg#2', 'train/c.jpg#0']
  first, second = source[0], source[1]
  assert first['person'] == 0 and second['person'] == 0
  assert first['person_box'].tolist() == [10, 7, 30, 37]
  assert first['person_score'] == np.float32(0.7)
  assert source.report_lines()[-1] == (
    f'2 people by {path} in 2 of 3 images; left out: 1 of other classes, 1 of '
    'a score below 0.1, 1 without an area, 2 of no person of the truth, 1 '
    'without a labelled keypoint'
  )


def test_evaluation_keeps_boxes_of_nobody(found):
  apes, path = found
  source = opened(apes, boxes=path, unmatched='keep')
  assert len(source) == 6
  people = {source.key(i): int(source[i]['person']) for i in range(6)}
  assert people == {
    'train/a.jpg#0': -1,
    'train/a.jpg#1': -1,  # its person is taken by a better one
    'train/a.jpg#2': 0,
    'train/a.jpg#3': 1,
    'train/a.jpg#5': -1,
    'train/c.jpg#0': 0,
  }
  assert '3 of them of no person of the truth' in source.report_lines()[-1]
  ops = pipeline.build_ops(
    [dict(op='decode'), dict(op='crop_person', size=(65, 47))], source
  )
  batches = list(pipeline.evaluation(source, ops, batch_size=6))
  assert batches[0]['_mask'].all()
  labelled = (batches[0]['person_keypoints'][..., 2] > 0).any(1)
  assert labelled.tolist() == [False, False, True, False, False, True]


def test_a_list_without_truth(tmp_path):
  images = json.loads(content())['images']
  text = json.dumps({'images': images, 'categories': CATEGORIES})
  write(tmp_path, {'annotations/image_info_test-dev2017.json': text})
  files = {f'test2017/{n}.jpg': jpeg(ord(n), HEIGHT, WIDTH) for n in 'abc'}
  write(tmp_path, files)
  of = dict(type='coco', split='test-dev')
  path = results(tmp_path / 'r.json', (12, [1, 2, 30, 40], 0.5))
  names = dict(keypoint_names=NAMES, keypoint_pairs=[[1, 2]])
  source = opened(tmp_path, of=of, boxes=path, **names)
  assert not source.has_truth and len(source) == 1
  example = source[0]
  assert example['person'] == -1 and 'keypoints' not in example
  ops = pipeline.build_ops(
    [dict(op='decode'), dict(op='crop_person', size=(65, 47))], source
  )
  (batch,) = pipeline.evaluation(source, ops, batch_size=1)
  assert batch['_mask'].all() and not batch['person_keypoints'].any()
  with pytest.raises(ValueError, match=r"boxes='truth': the 3 images have no"):
    opened(tmp_path, of=of, **names)


def test_overlaps_by_hand():
  one = np.array([[0, 0, 2, 2], [1, 1, 1, 5]], np.float32)
  other = np.array([[1, 0, 3, 2], [0, 0, 2, 2], [5, 5, 6, 6]], np.float32)
  np.testing.assert_allclose(
    choice._overlaps(one, other), [[1 / 3, 1, 0], [0, 0, 0]]
  )


def test_fingerprints(found):
  apes, path = found
  seen = {
    opened(apes, **options).fingerprint()
    for options in (
      dict(),
      dict(min_keypoints=2),
      dict(min_side=1),
      dict(sigmas=[1, 1, 1, 1]),
      dict(boxes=path),
      dict(boxes=path, min_score=0.1),
      dict(boxes=path, unmatched='keep'),
      dict(of=dict(subset=dict(num_images=2))),
    )
  }
  assert len(seen) == 8
  assert opened(apes).fingerprint() == opened(apes).fingerprint()


@pytest.mark.parametrize(
  'names,pairs',
  [
    (('nose', 'left_eye', 'right_eye'), ((1, 2),)),
    (('rEye', 'RightEye', 'leftEye'), ((2, 1),)),
    (('l_hand', 'R_hand', 'l_foot', 'ankle'), ((0, 1),)),
    (('hand.R', 'hand.L'), ((1, 0),)),
    (('left', 'right', 'middle'), ((0, 1),)),
    (('left_a', 'left_A', 'right_a'), ()),
    (('ankle', 'rib', 'bright', 'lid'), ()),
  ],
)
def test_sides_by_their_names(names, pairs):
  assert skeletons.pairs_of(names) == pairs


def test_skeletons_of_files():
  person = skeletons.PERSON
  assert skeletons.of(None, 17) is person
  assert skeletons.of(person.names, 17) is person
  assert skeletons.pairs_of(person.names) == person.pairs
  assert skeletons.of(None, 5) is None
  assert skeletons.of((), 17) is None
