"""People as examples: who they are, boxes from files, mistakes."""

import json
import pickle

import numpy as np
import pytest

from big_vision_like import protocols
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels.space import LabelSpace
from input_pipeline.people import choice, objects
from input_pipeline.publishers.coco import skeletons
from tests.input_pipeline.sources.boxes_made import jpeg, write
from tools import prepare_coco

HEIGHT, WIDTH = 60, 80
NAMES = ['head', 'left_hand', 'right_hand', 'tail']
CATEGORIES = [
  {'id': 4, 'name': 'ape', 'keypoints': NAMES},
  {'id': 9, 'name': 'tree'},
]
# Of image 'a': a whole ape, one without a keypoint, a crowd, one without an
# area, a small one; of 'b': nothing but a tree; of 'c': an ape.
POINTS = [10, 12, 2, 14, 20, 1, 0, 0, 0, 30, 25, 2]
NONE = [0] * 12


def annotation(number, image, box, keypoints, **more):
  return {
    'id': number, 'image_id': image, 'category_id': 4, 'bbox': box,
    'area': 77.0, 'iscrowd': 0, 'keypoints': keypoints, **more,
  }  # fmt: skip


ANNOTATIONS = [
  annotation(1, 11, [8, 10, 30, 20], POINTS),
  annotation(2, 11, [40, 10, 30, 20], NONE),
  annotation(3, 11, [0, 0, 80, 60], NONE, iscrowd=1),
  annotation(4, 11, [20, 20, 0, 9], POINTS),
  annotation(5, 11, [50, 40, 3, 9], POINTS),
  annotation(6, 12, [1, 1, 9, 9], NONE, category_id=9),
  annotation(7, 10, [8, 10, 30, 20], [*POINTS[:9], 0, 0, 0]),
]


def content(**changed):
  images = [
    {'id': i, 'file_name': f'{n}.jpg', 'height': HEIGHT, 'width': WIDTH}
    for i, n in ((11, 'a'), (12, 'b'), (10, 'c'))
  ]
  whole = dict(images=images, annotations=ANNOTATIONS, categories=CATEGORIES)
  return json.dumps(whole | changed)


@pytest.fixture
def apes(tmp_path):
  return made(tmp_path / 'apes')


def made(root, **changed):
  text = content(**changed)
  write(root, {'annotations/person_keypoints_train.json': text})
  files = {f'train/{n}.jpg': jpeg(ord(n), HEIGHT, WIDTH) for n in 'abc'}
  write(root, files)
  return root


def opened(root, *, of=(), **options):
  config = dict(type='detect', path=str(root)) | dict(of)
  return pipeline.open_source(dict(type='people', of=config, **options))


def results(path, *rows):
  """Rows are image_id, bbox, score and more."""
  path.write_text(
    json.dumps(
      [
        {'image_id': i, 'category_id': 4, 'bbox': b, 'score': s, **dict(more)}
        for i, b, s, *more in (
          (*row[:3], *(row[3].items() if len(row) > 3 else ())) for row in rows
        )
      ]
    )
  )
  return str(path)


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
  with pytest.raises(BadExample, match='object 7 of the image cannot be seen'):
    source._place(images[0], 7)


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
