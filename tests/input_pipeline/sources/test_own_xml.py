"""Folders of XML with classes of their own, in the layouts people have."""

import pickle
import zipfile

import numpy as np
import pytest

from input_pipeline.examples.errors import BadExample
from input_pipeline.sources.records import Source as Records
from input_pipeline.sources.voc import Source
from tests.input_pipeline.sources.boxes_made import (
  NAMES,
  OBJECTS,
  check,
  jpeg,
  write,
  xml,
)
from tools import prepare_voc

# Layout -> (where images and XML of a split lie, splits?).
LAYOUTS = {
  'side by side': ('{s}/{n}.jpg', '{s}/{n}.xml'),
  'splits above': ('{s}/images/{n}.jpg', '{s}/annotations/{n}.xml'),
  'splits below': ('Images/{s}/{n}.jpg', 'Annotations/{s}/{n}.xml'),
  'lists': ('JPEGImages/{n}.jpg', 'Annotations/{n}.xml'),
}
SPLITS = {'train': 'ab', 'val': 'c'}


def made(root, layout, **changed):
  image, truth = LAYOUTS[layout]
  files = {}
  for split, names in SPLITS.items():
    for n in names:
      files[image.format(s=split, n=n)] = jpeg(ord(n))
      text = changed.get(n, xml(*OBJECTS[n]))
      files[truth.format(s=split, n=n)] = text
    if layout == 'lists':
      files[f'ImageSets/Main/{split}.txt'] = '\n'.join(names)
  write(root, files)
  return image


def opened(root, split='train', **options):
  return Source(path=str(root), split=split, task='detection', **options)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_layouts(tmp_path, layout):
  image = made(tmp_path / 'mine', layout)
  for split, names in SPLITS.items():
    source = opened(tmp_path / 'mine', split)
    check(source, {n: image.format(s=split, n=n) for n in names})
  train = opened(tmp_path / 'mine')
  index = [train.key(i)[-5] for i in range(2)].index('a')
  assert train[index]['box_difficult'].tolist() == [False, True]
  copy = pickle.loads(pickle.dumps(train))  # noqa: S301
  assert copy.fingerprint() == train.fingerprint()
  assert copy.fingerprint() != opened(tmp_path / 'mine', 'val').fingerprint()


def test_not_divided(tmp_path):
  write(
    tmp_path,
    {f'{n}.jpg': jpeg(ord(n)) for n in 'abc'}
    | {f'{n}.xml': xml(*OBJECTS[n]) for n in 'abc'},
  )
  check(opened(tmp_path, 'all'), {n: f'{n}.jpg' for n in 'abc'})
  parts = [opened(tmp_path, s, holdout_percent=40) for s in ('train', 'val')]
  keys = [source.key(i) for source in parts for i in range(len(source))]
  assert sorted(keys) == ['a.jpg', 'b.jpg', 'c.jpg']
  with pytest.raises(ValueError, match=r"'train'; splits there: none\. Where"):
    opened(tmp_path)


def test_in_a_zip(tmp_path):
  made(tmp_path / 'mine', 'splits above')
  with zipfile.ZipFile(tmp_path / 'mine.zip', 'w') as archive:
    for path in (tmp_path / 'mine').rglob('*.*'):
      archive.write(path, path.relative_to(tmp_path))
  source = opened(tmp_path / 'mine.zip')
  check(source, {n: f'mine/train/images/{n}.jpg' for n in 'ab'})


def test_what_publishers_call_val(tmp_path):
  write(
    tmp_path,
    {
      'train/a.jpg': jpeg(97), 'train/a.xml': xml(*OBJECTS['a']),
      'valid/c.jpg': jpeg(99), 'valid/c.xml': xml(*OBJECTS['c']),
    },
  )  # fmt: skip
  check(opened(tmp_path, 'val'), {'c': 'valid/c.jpg'})


def test_classes_of_a_file(tmp_path):
  made(tmp_path, 'lists')
  write(tmp_path, {'classes.txt': 'zebra\napple tree\ncar\n'})
  source = opened(tmp_path)
  assert source.vocabulary.names == ('zebra', 'apple tree', 'car')
  assert source[0]['box_labels'].tolist() == [0, 1]
  write(tmp_path, {'other.txt': 'apple tre\nzebra\n'})
  with pytest.raises(
    ValueError,
    match=r"a\.xml: object 2: unknown class 'apple tree'; near: 'apple tre'; "
    r'valid: apple tre, zebra',
  ):
    opened(tmp_path, vocabulary=str(tmp_path / 'other.txt'))


def test_own_classes_in_a_folder_called_voc2007(tmp_path):
  root = tmp_path / 'VOC2007'
  made(root, 'lists')
  with pytest.raises(ValueError, match=r'valid: aeroplane.*by vocabulary'):
    opened(root)
  write(tmp_path, {'names.txt': '\n'.join(NAMES)})
  source = opened(root, vocabulary=str(tmp_path / 'names.txt'))
  check(source, {n: f'VOC2007/{n}.jpg' for n in 'ab'})


def test_a_kit_without_lists_by_holdout(tmp_path):
  files = {f'Annotations/{n}.xml': xml(('dog', 1, 1, 5, 5)) for n in 'abc'}
  files |= {f'JPEGImages/{n}.jpg': jpeg(ord(n)) for n in 'abc'}
  write(tmp_path / 'VOCdevkit/VOC2012', files)
  source = opened(tmp_path / 'VOCdevkit', 'all')
  assert len(source) == 3 and len(source.vocabulary) == 20
  assert source[0]['box_labels'].tolist() == [11]


def test_sizes_that_are_not_stated_are_read(tmp_path):
  made(tmp_path, 'lists', a=xml(*OBJECTS['a'], size=None))
  source = opened(tmp_path)
  check(source, {n: f'JPEGImages/{n}.jpg' for n in 'ab'})
  made(tmp_path, 'lists', a=xml(*OBJECTS['a'], size=(0, 0)))
  source = opened(tmp_path)
  check(source, {n: f'JPEGImages/{n}.jpg' for n in 'ab'})
  assert (
    '1 XML files without a size, for example of JPEGImages/a.jpg: that of the '
    'image is taken'
  ) in source.report_lines()


def test_bad_boxes_are_counted_and_named(tmp_path):
  boxes = [
    ('zebra', 41, 1, 50, 9),  # beside the image
    ('zebra', 30, 1, 50, 9),  # beyond it
    ('zebra', 6, 3, 6, 9),  # one column: VOC's corners are inclusive
    ('zebra', 2, 2, 3, 3),
  ]
  made(tmp_path, 'lists', a=xml(*boxes))
  source = opened(tmp_path)
  np.testing.assert_array_equal(
    source[0]['boxes'], [[0, 29, 9, 50], [2, 5, 9, 6], [1, 1, 3, 3]]
  )
  assert source.report_lines()[-1] == (
    '3 boxes, 0 difficult (kept, marked), 0 without an area (kept), 1 outside '
    'their images (left out): JPEGImages/a.jpg box 1, 1 reach beyond the image '
    '(kept), 1 images without a box (kept)'
  )


def test_images_of_another_size_are_bad_and_a_turned_one_says_so(tmp_path):
  made(tmp_path, 'lists', a=xml(*OBJECTS['a'], size=(40, 20)))
  source = opened(tmp_path)
  with pytest.raises(BadExample, match=r'is 20x40, .* for 40x20 .*EXIF'):
    source[0]


def test_images_without_xml_and_the_reverse(tmp_path):
  made(tmp_path, 'side by side')
  write(tmp_path, {'train/d.jpg': jpeg(100), 'train/e.xml': xml()})
  source = opened(tmp_path)
  assert '1 images without XML are left out, for example train/d.jpg' in (
    source.report_lines()
  )
  missing = [source.key(i) for i in range(3)].index('train/e.xml')
  with pytest.raises(BadExample, match='the image is missing'):
    source[missing]


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa">]><annotation></annotation>'


@pytest.mark.parametrize(
  ('files', 'options', 'message'),
  [
    ({'Annotations/a.xml': BOMB}, {}, r'a\.xml:1: a document type'),
    ({'Annotations/a.xml': xml(('zebra', 9, 1, 3, 5))}, {},
     r'a\.xml: object 1: xmin, ymin, xmax, ymax = 9, 1, 3, 5 is upside down'),
    ({'Annotations/a.xml': xml(('zebra', 'nan', 1, 3, 5))}, {},
     r'a\.xml: object 1: bndbox/xmin must be a number'),
    ({'Annotations/a.xml': xml(('zebra', '1_0', 1, 3, 5))}, {},
     r'a\.xml: object 1: bndbox/xmin must be a number'),
    ({'Annotations/a.xml': xml(('zebra', 1, 1, 3, 5)).replace(
      '</bndbox>', '</bndbox><bndbox/>')}, {},
     r'a\.xml: object 1: more than one bndbox'),
    ({'Annotations/a.xml': '<?xml version="1.0" encoding="utf-99"?><a/>'}, {},
     r'a\.xml: not XML: unknown encoding'),
    ({'Annotations/a.xml': xml(('', 1, 1, 3, 5))}, {},
     r'a\.xml: object 1: name: a name must not be empty'),
    ({'Annotations/a.xml': '<annotation>'}, {}, r'a\.xml:1: not XML'),
    ({'Annotations/a.xml': '<html></html>'}, {}, 'expected <annotation>'),
    ({'Annotations/a.xml': xml(size=(-3, 4))}, {}, 'size must be whole'),
    ({'JPEGImages/a.png': jpeg(1)}, {}, r"two images for 'a': JPEGImages/a\.j"),
    ({'ImageSets/Main/train.txt': 'a\nnone\n'}, {},
     r"train\.txt:2: no annotation of 'none'"),
    ({}, {'split': 'test'}, "unknown split 'test'; splits there: train, val"),
    ({}, {'split': 'val', 'holdout_percent': 10}, 'splits of its own'),
    ({}, {'vocabulary': '/no.txt'}, r'/no\.txt: no such file'),
  ],
)  # fmt: skip
def test_mistakes_are_one_line(tmp_path, files, options, message):
  made(tmp_path, 'lists')
  write(tmp_path, files)
  with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
    opened(tmp_path, **options)
  assert '\n' not in str(error.value)


def test_no_objects_and_no_images(tmp_path):
  write(tmp_path / 'x', {'a.xml': xml(), 'a.jpg': jpeg(1)})
  with pytest.raises(ValueError, match='no object in any of 1 XML files; name'):
    opened(tmp_path / 'x', 'all')
  write(tmp_path / 'y', {'a.xml': xml(*OBJECTS['a'])})
  with pytest.raises(FileNotFoundError, match='none of the 1 images'):
    opened(tmp_path / 'y', 'all')


@pytest.mark.parametrize('args', [[], ['--splits', 'train,val']])
def test_prepared(tmp_path, args, capsys):
  image = made(tmp_path / 'mine', 'splits above')
  argv = ['--input', tmp_path / 'mine', '--output', tmp_path / 'out', *args]
  assert prepare_voc.main([*map(str, argv), '--workers', '1']) == 0
  assert '2 classes (collected and sorted): apple tree, zebra' in (
    capsys.readouterr().out
  )
  for split, names in SPLITS.items():
    source = Records(path=str(tmp_path / 'out'), split=split)
    found = {source.stored_key(i): source[i] for i in range(len(source))}
    assert {*found} == {image.format(s=split, n=n) for n in names}
    assert source.vocabulary.names == NAMES


def test_prepared_by_holdout(tmp_path):
  files = {f'{i}.jpg': jpeg(i) for i in range(20)}
  files |= {f'{i}.xml': xml(*OBJECTS['a']) for i in range(20)}
  write(tmp_path / 'mine', files)
  argv = ['--input', tmp_path / 'mine', '--output', tmp_path / 'out']
  argv += ['--holdout_percent', 30, '--workers', 1]
  assert prepare_voc.main([*map(str, argv)]) == 0
  sizes = [
    len(Records(path=str(tmp_path / 'out'), split=s)) for s in ('train', 'val')
  ]
  assert sum(sizes) == 20 and min(sizes) > 0
