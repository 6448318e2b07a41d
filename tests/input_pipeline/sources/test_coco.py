"""coco source: data in COCO's form, its own and a user's, and its ids."""

import json
import zipfile

import numpy as np
import pytest

from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.subset import select
from input_pipeline.sources.coco import Source
from input_pipeline.sources.records import Source as Records
from tests import tiny
from tests.input_pipeline.sources.boxes_made import (
  BOXES,
  HEIGHT,
  LABELS,
  WIDTH,
  check,
  jpeg,
  write,
)
from tools import prepare_coco, prepare_images

IDS = {'a': 7, 'b': 2**40, 'c': 3}  # of images
CATEGORIES = {'zebra': 24, 'apple tree': 5}
NAMES = ('apple tree', 'zebra')  # by category id


def content(members, categories=CATEGORIES, **changed):
  annotations = []
  for name in members:
    for box, label in zip(BOXES[name], LABELS[name]):
      y0, x0, y1, x1 = box
      annotations.append(
        {
          'id': len(annotations) + 1,
          'image_id': IDS[name],
          'category_id': categories[NAMES[label]],
          'bbox': [x0, y0, x1 - x0, y1 - y0],
        }
      )
  images = [
    {'id': IDS[n], 'file_name': f'{n}.jpg', 'height': HEIGHT, 'width': WIDTH}
    for n in members
  ]
  listed = [{'id': i, 'name': name} for name, i in categories.items()]
  whole = dict(images=images, annotations=annotations, categories=listed)
  return json.dumps(whole | changed)


def images(folder, members):
  return {f'{folder}/{n}.jpg': jpeg(ord(n)) for n in members}


SPLITS = {'train': 'ab', 'val': 'c'}
# Layout -> (annotations of a split, folder of its images, start of keys).
LAYOUTS = {
  'COCO': ('annotations/instances_{s}2017.json', '{s}2017', '{s}2017'),
  'COCO without a year': ('annotations/instances_{s}.json', '{s}', '{s}'),
  'images/split': ('annotations/{s}.json', 'images/{s}', 'images/{s}'),
  'one folder of images': ('{s}.json', 'images', 'images'),
  'beside the images': ('{s}/_annotations.coco.json', '{s}', '{s}'),
}


def made(root, layout='COCO', **changed):
  truth, folder, key = LAYOUTS[layout]
  for split, members in SPLITS.items():
    text = changed.get(split, content(members))
    write(root, {truth.format(s=split): text})
    write(root, images(folder.format(s=split), members))
  return key


def opened(root, split='train', **options):
  return Source(path=str(root), split=split, **options)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts(tmp_path, layout):
  key = made(tmp_path, layout)
  for split, members in SPLITS.items():
    source = opened(tmp_path, split)
    check(source, {n: f'{key.format(s=split)}/{n}.jpg' for n in members})


def test_other_names_are_told(tmp_path):
  write(tmp_path, {'truth/x_train.json': content('ab')})
  write(tmp_path, images('pictures/train', 'ab'))
  with pytest.raises(FileNotFoundError, match=r'train2017\.json: no such file'):
    opened(tmp_path)
  source = opened(
    tmp_path, annotations='truth/x_{split}.json', images='pictures/{split}'
  )
  check(source, {n: f'pictures/train/{n}.jpg' for n in 'ab'})


def test_one_file_of_all_images(tmp_path):
  write(tmp_path, {'annotations/instances_default.json': content('abc')})
  write(tmp_path, images('images', 'abc'))
  keys = {n: f'images/{n}.jpg' for n in 'abc'}
  check(opened(tmp_path, 'all'), keys)
  parts = [opened(tmp_path, s, holdout_percent=70) for s in ('train', 'val')]
  found = [source.key(i) for source in parts for i in range(len(source))]
  assert sorted(found) == sorted(keys.values())


def test_what_is_not_said_is_filled_in_and_told_once(tmp_path):
  made(tmp_path)
  source = opened(tmp_path)
  example = source[0]
  assert example['box_crowd'].tolist() == [False, False]
  assert example['box_area'].tolist() == [800, 40]
  path = tmp_path / 'annotations/instances_train2017.json'
  assert source.report_lines()[:2] == [
    f'{path}: 2 annotations have no iscrowd: taken as 0',
    f'{path}: 2 annotations have no area: that of the box is taken',
  ]
  boxes = json.loads(content('ab'))['annotations']
  boxes[0] |= {'iscrowd': 1, 'area': 3.5}
  made(tmp_path, train=content('ab', annotations=boxes))
  example = opened(tmp_path)[0]
  assert example['box_crowd'].tolist() == [True, False]
  assert example['box_area'].tolist() == [3.5, 40]
  boxes[1] |= {'iscrowd': True}
  made(tmp_path, train=content('ab', annotations=boxes))
  assert opened(tmp_path)[0]['box_crowd'].tolist() == [True, True]


def prepare(root, out, *args):
  argv = ['--input', root, '--output', out, '--workers', 1, *args]
  return prepare_coco.main([str(a) for a in argv])


def test_ids_of_images_and_categories_are_kept(tmp_path):
  made(tmp_path / 'in')
  source = opened(tmp_path / 'in')
  assert source.image_ids().tolist() == [7, 2**40]
  assert source.external_ids == (5, 24)
  assert prepare(tmp_path / 'in', tmp_path / 'out') == 0
  assert prepare_images.main(
    ['--input', str(tmp_path / 'out'), '--output', str(tmp_path / 'again')]
  ) == 0  # fmt: skip
  for folder in ('out', 'again'):
    stored = Records(path=str(tmp_path / folder))
    assert stored.external_ids == (5, 24) and stored.has_truth
    for i, number in enumerate(stored.image_ids().tolist()):
      assert stored[i]['image_id'].tolist() == [number]
      assert IDS[stored.stored_key(i)[-5]] == number
    np.testing.assert_array_equal(stored.sizes(), [[HEIGHT, WIDTH]] * 2)
    assert 'no iscrowd: taken as 0' in ' '.join(stored.report_lines())
  space = LabelSpace.of_source(stored)
  read = LabelSpace.from_json(json.loads(json.dumps(space.to_json())), 'meta')
  assert read.external_ids == (5, 24)
  part = select(stored, {'labels': ['zebra'], 'num_images': 1}, 'subset')
  assert LabelSpace.of_source(part).external_ids == (24,)
  assert part.image_ids().tolist() == [7]
  np.testing.assert_array_equal(part.sizes(), [[HEIGHT, WIDTH]])


def test_sizes_of_reduced_images(tmp_path):
  made(tmp_path / 'in')
  assert prepare(tmp_path / 'in', tmp_path / 'out', '--long_side', 10) == 0
  stored = Records(path=str(tmp_path / 'out'))
  np.testing.assert_array_equal(stored.sizes(), [[5, 10]] * 2)
  assert stored[0]['image_id'] == stored.image_ids()[0]
  assert stored[0]['original_size'].tolist() == [HEIGHT, WIDTH]


def test_a_training_file_alone(tmp_path, capsys):
  write(tmp_path / 'in', {'annotations/instances_train2017.json': content('a')})
  write(tmp_path / 'in', images('train2017', 'a'))
  assert prepare(tmp_path / 'in', tmp_path / 'out') == 2
  assert 'instances_val2017.json: no such file' in capsys.readouterr().err
  assert prepare(tmp_path / 'in', tmp_path / 'out', '--splits', 'train') == 0
  assert len(Records(path=str(tmp_path / 'out'))) == 1


@pytest.mark.parametrize('zipped', [False, True])
def test_images_without_truth(tmp_path, zipped):
  """test-dev: the list of images, for the test server."""
  whole = json.loads(content('abc'))
  del whole['annotations']
  name = 'annotations/image_info_test-dev2017.json'
  made(tmp_path / 'in')
  write(tmp_path / 'in', images('test2017', 'abc'))
  if zipped:
    path = tmp_path / 'in/image_info_test2017.zip'
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr(name, json.dumps(whole))
  else:
    write(tmp_path / 'in', {name: json.dumps(whole)})
  source = opened(tmp_path / 'in', 'test-dev')
  assert not source.has_truth and source.image_ids().tolist() == [*IDS.values()]
  assert source.key(0) == 'test2017/a.jpg' and 'boxes' not in source[0]
  assert source.report_lines() == ['test2017: 3 images without truth']
  args = '--splits', 'train,test-dev'
  assert prepare(tmp_path / 'in', tmp_path / 'out', *args) == 0
  stored = Records(path=str(tmp_path / 'out'), split='test-dev')
  assert not stored.has_truth and Records(path=str(tmp_path / 'out')).has_truth
  assert sorted(stored.image_ids()) == sorted(IDS.values())
  for options in (
    dict(path=str(tmp_path / 'in'), split='test-dev'),
    dict(path=str(tmp_path / 'out'), split='test-dev'),
  ):
    config = tiny.config()
    config.input.source = dict(type='detect', **options)
    with pytest.raises(ValueError, match=r'^input\.source: a list of 3 images'):
      pipeline.open_train(config)
  # Images that have a list of annotations, even empty, have truth.
  made(tmp_path / 'in', train=content('ab', annotations=[]))
  assert opened(tmp_path / 'in').has_truth


def test_minival(tmp_path):
  made(tmp_path)
  write(tmp_path, {'ids.txt': f'{IDS["c"]}\n'})
  options = dict(minival_ids=str(tmp_path / 'ids.txt'))
  assert opened(tmp_path, 'minival', **options).key(0) == 'val2017/c.jpg'
  rest = opened(tmp_path, 'trainval_minus_minival', **options)
  assert rest.image_ids().tolist() == [7, 2**40]
  assert len(opened(tmp_path, 'val', **options)) == 1
  with pytest.raises(ValueError, match="split 'minival' needs minival_ids"):
    opened(tmp_path, 'minival')


def test_another_order_of_categories_is_matched_by_name(tmp_path):
  """Ids 1 and 2 the other way round, as programs number them anew."""
  other = {'zebra': 1, 'apple tree': 2}
  made(tmp_path / 'in', val=content('c', other))
  assert prepare(tmp_path / 'in', tmp_path / 'out') == 0
  val = Records(path=str(tmp_path / 'out'), split='val')
  assert val.vocabulary.names == NAMES
  assert val[0]['box_labels'].tolist() == [1]
  assert val.external_ids == (2, 1)
  assert 'matched by name' in ' '.join(val.report_lines())
  # Alone it has the order of its own ids, and says so by its names.
  alone = opened(tmp_path / 'in', 'val')
  assert alone.vocabulary.names == ('zebra', 'apple tree')
  assert alone.external_ids == (1, 2)


def test_other_classes_stop_with_both_lists(tmp_path, capsys):
  other = {'zebra': 1, 'apple tree': 2, 'aple tree': 3}
  made(tmp_path / 'in', val=content('c', other))
  assert prepare(tmp_path / 'in', tmp_path / 'out') == 2
  error = capsys.readouterr().err
  assert "val2017.json: 'aple tree' (near: 'apple tree'); only in" in error
  assert error.endswith('instances_train2017.json: none\n')


def changed_boxes(*boxes):
  found = json.loads(content('a'))['annotations'][:1]
  return [found[0] | {'id': i, 'bbox': box} for i, box in enumerate(boxes)]


def test_bad_boxes_are_counted_and_named(tmp_path):
  boxes = [[50, 3, 4, 4], [5, 5, 0, 4], [38, 1, 9, 4], [-8, 0, 8, 20]]
  made(tmp_path, train=content('ab', annotations=changed_boxes(*boxes)))
  source = opened(tmp_path)
  assert source[0]['box_ids'].tolist() == [1, 2]
  assert source[0]['boxes'].tolist() == [[5, 5, 9, 5], [1, 38, 5, 47]]
  assert source.labels(0).tolist() == [1]
  assert source.report_lines()[-1] == (
    'train2017: 2 boxes, 0 of crowds, 1 without an area (kept): a.jpg '
    'annotation 1, 2 outside their images (left out): a.jpg annotation 0; '
    'a.jpg annotation 3, 1 reach beyond the image (kept), 1 images without a '
    'box (kept)'
  )


def test_an_image_of_another_size_is_bad(tmp_path):
  made(tmp_path)
  write(tmp_path, {'train2017/a.jpg': jpeg(1, WIDTH, HEIGHT)})
  with pytest.raises(BadExample, match=r'is 40x20, .* for 20x40 .*EXIF orien'):
    opened(tmp_path)[0]


def altered(name, **change):
  whole = json.loads(content('ab'))
  whole[name][0] |= change
  return json.dumps(whole)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', r'train2017\.json:1 column 1: the file ends too early'),
    ('{}', r"train2017\.json: no 'images' in it"),
    ('[]', r'train2017\.json:1 column 1: expected a JSON object'),
    (content('ab')[:200], r'train2017\.json:1 column \d+: (not JSON|the file)'),
    (content('ab', images=[]), 'image_id 7 is not in the file'),
    (content('', images=[], annotations=[]), r'train2017\.json: no images in'),
    (content('aa'), 'image id 7 occurs twice'),
    (altered('images', file_name='b.jpg'), r"two images of the name 'b\.jpg'"),
    (altered('images', height=None), 'height must be a whole number.* None'),
    (altered('annotations', category_id=1), 'category_id 1 is not in the file'),
    (altered('annotations', image_id=1), 'image_id 1 is not in the file'),
    (altered('annotations', bbox=[3, 3, -1, 4]),
     r'bbox \[3, 3, -1, 4\] has a negative .* \(annotation 1 of image 7\)'),
    (altered('annotations', bbox=[3, 3, float('nan'), 4]), 'NaN is not a JSON'),
    (altered('annotations', bbox=[3, 3, 4]), 'must be 4 finite numbers'),
    (altered('annotations', bbox=None), r'4 finite numbers, got None .*tion 1'),
    (altered('annotations', area=-3), 'area must be at least 0, got -3'),
    (altered('annotations', iscrowd=2), 'iscrowd must be 0 or 1, got 2'),
    (altered('annotations', image_id='7'), "image_id must be a whole .* '7'"),
    (altered('categories', id=99), 'category_id 24 is not in the file'),
  ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path, text, message):
  made(tmp_path, train=text)
  with pytest.raises(ValueError, match=message) as error:
    opened(tmp_path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'split': 'tset'}, r'instances_tset2017\.json: no such file, nor'),
    ({'annotations': 'no.json'}, r'no\.json: no such file'),
    ({'images': 'no'}, r"none of no is there with 'a\.jpg'"),
    ({'task': 'boxes'}, "task must be one of instances, .*'boxes'"),
    ({'year': 2015}, 'year must be 2017 or 2014'),
    ({'path': '/no/where'}, "path='/no/where': no such folder"),
  ],
)
def test_wrong_options(tmp_path, options, message):
  made(tmp_path)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    Source(**{'path': str(tmp_path), **options})
