"""prepare_voc on tiny development kits in the publisher's form."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline.prepared import manifest as manifests
from input_pipeline.publishers.voc import annotation_xml
from input_pipeline.sources.records import Source
from tests.input_pipeline.publishers.voc_made import (
  class_ids,
  files,
  jpeg,
  mask_png,
  write,
  write_tar,
)
from tools import prepare_voc


@pytest.fixture
def devkit(tmp_path):
  root = tmp_path / 'my voc'
  write(root, files())
  return root


def prepare(inputs, out, *args) -> int:
  inputs = inputs if isinstance(inputs, list) else [inputs]
  argv = ['--input', *inputs, '--output', out, '--workers', 1, *args]
  return prepare_voc.main([str(arg) for arg in argv])


def by_key(out, split):
  source = Source(path=str(out), split=split)
  return {source[i]['key']: source[i] for i in range(len(source))}


def test_boxes_of_two_years(devkit, tmp_path, capsys):
  out = tmp_path / 'out'
  assert prepare(devkit, out) == 0
  assert Source(path=str(out), split='test').vocabulary.names == (
    annotation_xml.CLASSES
  )
  found = by_key(out, 'trainval')
  assert set(found) == {
    'VOC2007/000005.jpg', 'VOC2007/000007.jpg', 'VOC2012/2008_000002.jpg',
  }  # fmt: skip
  first = found['VOC2007/000005.jpg']
  assert first['image'] == jpeg(5)
  # 1-based inclusive corners: 5 columns of pixels, 5 to 9, from 6..10.
  assert first['boxes'].tolist() == [
    [2, 5, 9, 10], [0, 0, 20, 30], [1, 1, 2, 2],
  ]  # fmt: skip
  assert first['box_labels'].tolist() == [8, 14, 8]
  assert first['box_difficult'].tolist() == [False, True, False]
  assert first['labels'].tolist() == [8, 14]  # difficult ones count
  np.testing.assert_allclose(
    found['VOC2012/2008_000002.jpg']['boxes'], [[4, 3.7, 10, 9]], rtol=1e-6
  )
  assert set(by_key(out, 'test')) == {'VOC2007/000001.jpg'}
  text = capsys.readouterr().out
  assert '2 images of VOC2007, 1 images of VOC2012' in text
  assert (
    '5 boxes, 1 difficult (kept, marked), 0 without an area (kept), 0 outside '
    'their images (left out), 1 reach beyond the image (kept), 0 images without'
  ) in text


def test_the_order_of_classes_is_the_development_kits():
  assert len(annotation_xml.CLASSES) == 20
  assert list(annotation_xml.CLASSES) == sorted(
    annotation_xml.CLASSES
  )  # they sort so
  assert annotation_xml.CLASSES[14] == 'person'


@pytest.mark.parametrize('gathered', [True, False])
def test_tars_as_downloaded(devkit, tmp_path, gathered):
  """VOC2007 is spread over two tars; the records are the same."""
  plain, packed = tmp_path / 'plain', tmp_path / 'packed'
  assert prepare(devkit, plain) == 0
  everything = files()
  test = {
    n for n in everything if n.split('/')[-1].startswith(('000001', 'test'))
  }
  tars = tmp_path / 'tars'
  tars.mkdir()
  for name, chosen in (
    ('VOCtest_06-Nov-2007.tar', test),
    ('VOCtrainval_06-Nov-2007.tar',
     {n for n in everything if n.startswith('VOC2007')} - test),
    ('VOCtrainval_11-May-2012.tar',
     {n for n in everything if n.startswith('VOC2012')}),
  ):  # fmt: skip
    write_tar(tars / name, {n: everything[n] for n in sorted(chosen)})
  assert prepare(tars if gathered else sorted(tars.iterdir()), packed) == 0
  before, after = (manifests.load(str(out)).splits for out in (plain, packed))
  for split in ('trainval', 'test'):
    assert [s.sha256 for s in before[split]] == [s.sha256 for s in after[split]]


def test_a_folder_of_one_year(devkit, tmp_path):
  out = tmp_path / 'out'
  assert prepare(devkit / 'VOCdevkit' / 'VOC2012', out) == 0
  assert set(by_key(out, 'trainval')) == {'VOC2012/2008_000002.jpg'}


def decoded(example) -> np.ndarray:
  with Image.open(io.BytesIO(example['segmentation'])) as picture:
    assert picture.mode == 'L'
    return np.asarray(picture)


def test_masks_of_class_ids(devkit, tmp_path):
  out = tmp_path / 'out'
  assert prepare(devkit, out, '--task', 'segmentation') == 0
  train = by_key(out, 'train')['VOC2012/2007_000032.jpg']
  np.testing.assert_array_equal(decoded(train), class_ids(1, 15))
  assert train['labels'].tolist() == [0, 14]  # id in the mask - 1
  assert 'boxes' not in train
  val = by_key(out, 'val')['VOC2012/2007_000033.jpg']
  np.testing.assert_array_equal(decoded(val), class_ids(20))
  assert val['labels'].tolist() == [19]


def test_the_augmented_training_set(devkit, tmp_path, capsys):
  """Masks of the zip first, then SegmentationClassAug, then the originals."""
  listed = tmp_path / 'trainaug.txt'
  listed.write_text(
    '2007_000032\n'
    '/JPEGImages/2008_000002.jpg /SegmentationClassAug/2008_000002.png\n'
    '2007_000033\n'
  )
  masks = tmp_path / 'SegmentationClassAug.zip'
  with zipfile.ZipFile(masks, 'w') as file:
    file.writestr('SegmentationClassAug/2008_000002.png',
                  mask_png(class_ids(3), 'L'))  # fmt: skip
    file.writestr('SegmentationClassAug/2007_000033.png',
                  mask_png(class_ids(4), 'L'))  # fmt: skip
    file.writestr('__MACOSX/SegmentationClassAug/._2008_000002.png', b'x')
  write(devkit, {
    'VOC2012/SegmentationClassAug/2007_000032.png': mask_png(class_ids(7)),
  })  # fmt: skip
  out = tmp_path / 'out'
  args = ['--trainaug_list', listed, '--trainaug_masks', masks]
  assert prepare(devkit, out, '--task', 'segmentation', *args) == 0
  assert set(manifests.load(str(out)).splits) == {'trainaug', 'val'}
  found = by_key(out, 'trainaug')
  ids = {key[8:]: decoded(e).max(initial=0, where=decoded(e) < 255)
         for key, e in found.items()}  # fmt: skip
  assert ids == {
    '2007_000032.jpg': 7, '2008_000002.jpg': 3, '2007_000033.jpg': 4,
  }  # fmt: skip
  # The evaluation set keeps its own masks, also of images that the zip has.
  val = by_key(out, 'val')['VOC2012/2007_000033.jpg']
  np.testing.assert_array_equal(decoded(val), class_ids(20))
  assert manifests.load(str(out)).options['background'] is True
  assert (
    'masks: 2 from trainaug_masks, 1 from SegmentationClassAug, 0 from '
    'SegmentationClass; 0 missing'
  ) in capsys.readouterr().out


@pytest.mark.parametrize(
  ('mask', 'reason'),
  [
    (mask_png(class_ids(1), 'RGB'), 'the mask is of mode RGB'),
    (mask_png(class_ids(1) // 255, 'P', bits=4), None),
    (mask_png(class_ids(21)), 'the mask has the class id 21'),
    (mask_png(class_ids(1)[:, :-1]), 'the mask is 29x20 pixels, the image 30'),
    (b'\x89PNG\r\n\x1a\nnothing', 'mask or image cannot be decoded'),
    (None, 'the mask is missing'),
  ],
)
def test_masks_that_are_no_class_ids(devkit, tmp_path, mask, reason):
  path = devkit / 'VOCdevkit/VOC2012/SegmentationClass/2007_000032.png'
  (
    devkit / 'VOCdevkit' / 'VOC2012/ImageSets/Segmentation/train.txt'
  ).write_text('2007_000032\n2007_000033\n')
  if mask is None:
    path.unlink()
  else:
    path.write_bytes(mask)
  out = tmp_path / 'out'
  args = ['--task', 'segmentation', '--max_bad_fraction', 0.6]
  assert prepare(devkit, out, *args) == 0
  lines = (out / 'bad_images.jsonl').read_text().splitlines()
  bad = [json.loads(line) for line in lines]
  assert [b['key'] for b in bad] == ['VOC2012/2007_000032.jpg'] * bool(reason)
  assert not reason or bad[0]['reason'].startswith(reason)


def replaced(old, new):
  def apply(root):
    path = root / 'VOCdevkit/VOC2007/Annotations/000005.xml'
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))

  return apply


def wrong_list(text):
  path = 'VOCdevkit/VOC2007/ImageSets/Main/trainval.txt'
  return lambda root: (root / path).write_text(text)


def no_images(root):
  for path in (root / 'VOCdevkit/VOC2007/JPEGImages').iterdir():
    path.unlink()
  for path in (root / 'VOCdevkit/VOC2012/JPEGImages').iterdir():
    path.unlink()


def no_lists(root):
  for path in root.glob('VOCdevkit/*/ImageSets/Main/*.txt'):
    path.unlink()


BOMB = (
  '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'
  '\n<annotation>'
)


@pytest.mark.parametrize(
  ('change', 'args', 'message'),
  [
    (replaced('<annotation>', BOMB), [],
     '000005.xml:1: a document type declaration is refused'),
    (replaced('</object>', '</objekt>'), [], '000005.xml:20: not XML'),
    (replaced('<name>chair', '<name>sofa bed'), [],
     "object 1: unknown class 'sofa bed'"),
    (replaced('<xmin>6<', '<xmin>nan<'), [], 'bndbox/xmin must be a number'),
    (replaced('<xmin>6<', '<xmin>11<'), [], 'is upside down'),
    (replaced('<ymax>9</ymax>', ''), [],
     'object 1: bndbox/ymax must be a number, got None'),
    (replaced('<difficult>0', '<difficult>2'), [], 'difficult must be 0 or 1'),
    (replaced('<annotation>', '<annotation>' + ' ' * (1 << 20)), [],
     'are no annotation file'),
    (wrong_list('000005\n000005\n'), [], "trainval.txt:2: image '000005'"),
    (wrong_list(''), [], 'no image names in it'),
    (wrong_list('000005\n000123\n'), [], 'no Annotations/000123.xml'),
    (no_lists, [], 'no ImageSets/Main/*.txt in VOC'),
    (no_images, [], 'none of the 3 images of the list is there'),
    (None, ['--splits', 'train'], 'splits must be some of test, trainval'),
    (None, ['--splits', 'test,test'], 'splits must be some of test, trainval'),
    (None, ['--trainaug_list', 'x'], 'belongs to the task segmentation'),
    (None, ['--task', 'segmentation', '--trainaug_masks', 'x'],
     'trainaug_masks needs trainaug_list'),
    (None, ['--task', 'segmentation', '--trainaug_list', 'no.txt'],
     'no.txt: no such file'),
  ],
)  # fmt: skip
def test_mistakes_are_one_line(devkit, tmp_path, capsys, change, args, message):
  if change is not None:
    change(devkit)
  assert prepare(devkit, tmp_path / 'out', *args) == 2
  errors = capsys.readouterr().err
  assert errors.startswith('error: ') and message in errors, errors
  assert 'Traceback' not in errors


def test_inputs_that_are_no_devkit(tmp_path, capsys):
  assert prepare(tmp_path / 'no', tmp_path / 'out') == 2
  assert 'no: no such file or folder' in capsys.readouterr().err
  (tmp_path / 'empty').mkdir()
  assert prepare(tmp_path / 'empty', tmp_path / 'out') == 2
  assert 'neither a VOCdevkit in it nor any .xml' in capsys.readouterr().err
  assert prepare_voc.main(['--output', str(tmp_path / 'out')]) == 2
  assert '--input is needed' in capsys.readouterr().err


def test_a_name_of_another_release_in_trainaug(devkit, tmp_path, capsys):
  listed = tmp_path / 'trainaug.txt'
  listed.write_text('2007_000032\n2010_000001\n')
  args = ['--task', 'segmentation', '--trainaug_list', listed]
  assert prepare(devkit, tmp_path / 'out', *args) == 2
  assert 'trainaug.txt:2: no JPEGImages/2010_000001' in capsys.readouterr().err


def test_xml_in_another_encoding_hides_no_declaration():
  text = f'<?xml version="1.0" encoding="utf-16"?>{BOMB}</annotation>'
  with pytest.raises(ValueError, match='document type declaration is refused'):
    annotation_xml.parse(text.encode('utf-16'), 'x.xml')
