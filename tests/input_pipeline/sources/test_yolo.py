"""YOLO folders in the layouts people have, and their mistakes."""

import pickle

import numpy as np
import pytest

from input_pipeline.examples.errors import BadExample
from input_pipeline.sources.records import Source as Records
from input_pipeline.sources.yolo import Source
from tests.input_pipeline.sources.boxes_made import LINES, check, jpeg, write
from tools import prepare_images

SPLITS = {'train': 'ab', 'val': 'c'}
LAYOUTS = {
  'above': ('{s}/images/{n}.jpg', '{s}/labels/{n}.txt'),
  'below': ('images/{s}/{n}.jpg', 'labels/{s}/{n}.txt'),
  'beside': ('{s}/{n}.jpg', '{s}/{n}.txt'),
}
# Ways to name the classes.
NAMES = {
  'classes.txt': 'apple tree\nzebra\n',
  'data.yaml': 'nc: 2\nnames: [apple tree, zebra]\n',
  'obj.names': 'apple tree\nzebra\n\n',
  'dataset.yaml': 'names:\n  1: zebra\n  0: apple tree\n',
}


def made(root, layout='above', names='classes.txt', splits=SPLITS, **changed):
  image, truth = LAYOUTS[layout]
  files = {names: NAMES[names]}
  for split, members in splits.items():
    for n in members:
      files[image.format(s=split, n=n)] = jpeg(ord(n))
      files[truth.format(s=split, n=n)] = changed.get(n, LINES[n])
  write(root, files)
  return image


def opened(root, split='train', **options):
  return Source(path=str(root), split=split, **options)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('names', NAMES)
def test_layouts(tmp_path, layout, names):
  image = made(tmp_path, layout, names)
  for split, members in SPLITS.items():
    source = opened(tmp_path, split)
    check(source, {n: image.format(s=split, n=n) for n in members})
  copy = pickle.loads(pickle.dumps(source))  # noqa: S301
  assert copy.fingerprint() == source.fingerprint()


def test_not_divided(tmp_path):
  made(tmp_path, splits={'.': 'abc'})
  keys = {n: f'images/{n}.jpg' for n in 'abc'}
  check(opened(tmp_path, 'all'), keys)
  parts = [opened(tmp_path, s, holdout_percent=40) for s in ('train', 'val')]
  found = [source.key(i) for source in parts for i in range(len(source))]
  assert sorted(found) == sorted(keys.values())
  with pytest.raises(ValueError, match='use split="all", or holdout_percent'):
    opened(tmp_path)


@pytest.mark.parametrize(
  'text',
  [
    'train: images/first\nval: images/second\n',
    'path: .\ntrain: [images/first]\nval: ./images/second/\n',
    'train: lists/train.txt\nval: images/second\n',
  ],
)
def test_data_yaml_says_where_the_splits_lie(tmp_path, text):
  made(tmp_path, 'below', splits={'first': 'ab', 'second': 'c'})
  lines = 'images/first/a.jpg\n./images/first/b.jpg\n'
  write(
    tmp_path,
    {'data.yaml': NAMES['data.yaml'] + text, 'lists/train.txt': lines},
  )
  check(opened(tmp_path), {n: f'images/first/{n}.jpg' for n in 'ab'})
  check(opened(tmp_path, 'val'), {'c': 'images/second/c.jpg'})


def test_data_yaml_that_names_folders_elsewhere(tmp_path):
  """Exports name '../train/images', wherever they are unpacked."""
  text = 'train: ../train/images\nval: ../valid/images\n'
  made(tmp_path / 'x', splits={'train': 'ab', 'valid': 'c'})
  write(tmp_path / 'x', {'data.yaml': NAMES['data.yaml'] + text})
  check(opened(tmp_path / 'x', 'val'), {'c': 'valid/images/c.jpg'})


def test_images_without_a_file_have_no_boxes_and_are_counted(tmp_path):
  made(tmp_path)
  (tmp_path / 'train/labels/b.txt').unlink()
  write(tmp_path, {'train/labels/e.txt': LINES['a']})
  source = opened(tmp_path)
  check(source, {n: f'train/images/{n}.jpg' for n in 'ab'})
  assert source.report_lines() == [
    '1 images have no .txt, for example train/images/b.jpg: images without '
    'boxes',
    '1 .txt files belong to no image, for example train/labels/e.txt: passed '
    'over',
    '2 boxes, 0 without an area (kept), 0 outside their images (left out), 0 '
    'reach beyond the image (kept), 1 images without a box (kept)',
  ]


def test_borders_and_boxes_without_an_area(tmp_path):
  lines = '0 0.9 0.5 0.3 0.5\n0 0.5 0.5 0 0.2\n0 0.166667 0.5 0.333336 1\n'
  made(tmp_path, a=lines)
  source = opened(tmp_path)
  np.testing.assert_allclose(
    source[0]['boxes'],
    [[5, 30, 15, 42], [8, 20, 12, 20], [0, 0, 20, 13.3334]],
    atol=1e-4,
  )
  assert source[0]['boxes'][2, 1] == 0  # rounding does not pass the border
  assert source.report_lines()[-1].startswith(
    '3 boxes, 1 without an area (kept): train/images/a.jpg box 2, 0 outside '
    'their images (left out), 1 reach beyond'
  )


def test_a_damaged_image(tmp_path):
  made(tmp_path)
  write(tmp_path, {'train/images/a.jpg': b'no image'})
  with pytest.raises(BadExample, match='no size that can be read'):
    opened(tmp_path)[0]


@pytest.mark.parametrize(
  ('files', 'options', 'message'),
  [
    ({'train/labels/a.txt': '0 .5 .5 .5 .5\n0 12 .5 .1 .1\n'}, {},
     r"labels/a\.txt:2: cx must be a share of the image, 0 to 1, got '12"),
    ({'train/labels/a.txt': '0 .5 .5 .5 1.1\n'}, {}, 'height must be a share'),
    ({'train/labels/a.txt': '0 .5 .5 -.5 .5\n'}, {}, 'width must be a share'),
    ({'train/labels/a.txt': '0 .5 .5 .5 0_1\n'}, {}, "height .* got '0_1'"),
    ({'data.yaml': 'names: [a, a]\n'}, {}, r"data\.yaml.* 'a' is already"),
    ({'train/labels/a.txt': '0 nan .5 .5 .5\n'}, {}, r'txt:1: cx .*nan'),
    ({'train/labels/a.txt': '2 .5 .5 .5 .5\n'}, {},
     r'a\.txt:1: class 2, but there are 2 classes: 0 to 1'),
    ({'train/labels/a.txt': 'zebra .5 .5 .5 .5\n'}, {},
     r"txt:1: a class is a number from 0, got 'zebra'"),
    ({'train/labels/a.txt': '-1 .5 .5 .5 .5\n'}, {}, "from 0, got '-1'"),
    ({'train/labels/a.txt': '0 .5 .5 .5\n'}, {}, 'height, got 4 numbers$'),
    ({'train/labels/a.txt': '0 .1 .1 .2 .2 .3 .3\n'}, {}, '7 numbers .poly'),
    ({'train/labels/a.txt': b'0 .1 \xff'}, {}, r'a\.txt:1: not UTF-8'),
    ({'data.yaml': 'names: [a, b, c]\n'}, {},
     r'different numbers of classes: 3 in names of .*\.yaml, 2 in .*classes'),
    ({'data.yaml': 'nc: 5\n'}, {}, r'5 in nc of .*data\.yaml, 2 in'),
    ({'data.yaml': 'names: [a\n'}, {}, r'data\.yaml:2: not YAML'),
    ({'data.yaml': 'names: {0: a, 2: b}\n'}, {}, 'numbers 0 to 1, got 0, 2'),
    ({'data.yaml': '- a\n'}, {}, 'expected keys and values'),
    ({'data.yaml': '!!python/object/apply:os.system [ls]\n'}, {},
     r'data\.yaml:1: not YAML'),
    ({'data.yaml': 'train: {a: b}\n'}, {}, 'train must be a folder or a list'),
    ({'data.yaml': 'train: list.txt\n', 'list.txt': 'no.jpg\n'}, {},
     r"list\.txt:1: no such image: 'no\.jpg'"),
    ({'train/images/a.png': jpeg(1)}, {}, "two images for 'train/a'"),
    ({}, {'split': 'test'}, "unknown split 'test'; splits there: train, val"),
    ({}, {'path': '/no/where'}, "path='/no/where': no such folder"),
  ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path, files, options, message):
  made(tmp_path)
  write(tmp_path, files)
  with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
    Source(**{'path': str(tmp_path), **options})
  assert '\n' not in str(error.value)


def test_a_split_that_leads_nowhere_is_said(tmp_path):
  made(tmp_path)
  write(tmp_path, {'data.yaml': 'train: pics/train\nval: val/images\n'})
  lines = opened(tmp_path).report_lines()
  assert lines[0].endswith(
    'data.yaml: train: pics/train leads to no image here: folders of images '
    'decide'
  )


def test_nothing_names_the_classes_and_nothing_has_boxes(tmp_path):
  made(tmp_path)
  (tmp_path / 'classes.txt').unlink()
  with pytest.raises(FileNotFoundError, match='nothing names the classes: no'):
    opened(tmp_path)
  write(tmp_path, {'names.txt': 'x\ny\n'})
  for path in tmp_path.glob('*/labels/*.txt'):
    path.unlink()
  with pytest.raises(ValueError, match=r'3 images and no \.txt with boxes'):
    opened(tmp_path)


def test_prepared(tmp_path):
  image = made(tmp_path / 'in')
  argv = ['--input', tmp_path / 'in', '--output', tmp_path / 'out']
  argv += ['--type', 'yolo', '--workers', 1]
  assert prepare_images.main([*map(str, argv)]) == 0
  source = Records(path=str(tmp_path / 'out'), split='val')
  assert source.stored_key(0) == image.format(s='val', n='c')
  np.testing.assert_allclose(source[0]['boxes'], [[4, 10, 10, 20]], atol=1e-5)
