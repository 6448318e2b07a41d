"""voc source: a split of a small development kit, read without preparing."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from big_vision_like.config import plugins
from input_pipeline import batch_fields, pipeline
from input_pipeline.publishers.voc import annotation_xml
from input_pipeline.sources import detect
from input_pipeline.sources.voc import Source
from tests.input_pipeline.publishers.voc_made import (
  HEIGHT,
  WIDTH,
  class_ids,
  files,
  jpeg,
  mask_png,
  write,
  write_tar,
)
from tools import prepare_images

DECODE = [dict(op='decode'), dict(op='decode_segmentation')]
OTHER = {
  'VOC2012/JPEGImages/2008_000009.jpg': jpeg(9),
  'VOC2012/SegmentationClassAug/2008_000009.png': mask_png(class_ids(7), 'L'),
  'VOC2012/SegmentationClassAug/2007_000032.png': mask_png(class_ids(3)),
}


@pytest.fixture
def devkit(tmp_path):
  write(tmp_path / 'in', files())
  return tmp_path / 'in'


def keys(source) -> list[str]:
  return [source.key(i) for i in range(len(source))]


def masks_of(source) -> dict[str, np.ndarray]:
  found = {}
  for i in range(len(source)):
    example = source[i]
    for op in pipeline.build_ops(DECODE, source):
      example = op(example, np.random.default_rng(0))
    assert example['image'].shape == (HEIGHT, WIDTH, 3)
    found[source.key(i)] = example['segmentation']
  return found


@pytest.mark.parametrize('below', ['', 'VOCdevkit', 'VOCdevkit/VOC2012'])
def test_masks(devkit, below):
  path = str(devkit / below)
  for split, number, present in (('train', 32, (1, 15)), ('val', 33, (20,))):
    source = Source(path=path, split=split)
    assert source.vocabulary.names == annotation_xml.CLASSES
    name = f'VOC2012/2007_{number:06}.jpg'
    np.testing.assert_array_equal(masks_of(source)[name], class_ids(*present))
    assert source[0]['labels'].tolist() == [k - 1 for k in present]
    assert keys(source) == [name] and 'boxes' not in source[0]
  copy = pickle.loads(pickle.dumps(source))  # noqa: S301
  assert copy.fingerprint() == source.fingerprint() and keys(copy) == [name]


def test_boxes(devkit):
  source = Source(path=str(devkit), split='trainval', task='detection')
  assert keys(source) == [
    'VOC2007/000005.jpg', 'VOC2007/000007.jpg', 'VOC2012/2008_000002.jpg',
  ]  # fmt: skip
  example = source[1]
  assert example['boxes'].tolist() == [[1, 0, 4, 31]]  # y0, x0, y1, x1
  assert 'segmentation' not in example
  assert source.report_lines()[-1] == (
    'boxes only; masks are read by task="segmentation"'
  )


def test_a_tar_as_downloaded(devkit, tmp_path):
  write_tar(tmp_path / 'VOCtrainval_11-May-2012.tar', files())
  path = str(tmp_path / 'VOCtrainval_11-May-2012.tar')
  packed, unpacked = (
    Source(path=p, split='val') for p in (path, str(devkit))
  )  # fmt: skip
  assert keys(packed) == keys(unpacked)
  assert packed[0]['image'] == unpacked[0]['image']


def test_trainaug_is_a_split_of_its_own(devkit, tmp_path):
  """Its list, and its masks first; `train` stays what it was."""
  write(devkit, OTHER)
  path = str(devkit)
  with pytest.raises(
    ValueError, match=r"'trainaug' .*: train, val\. .*put its"
  ):
    Source(path=path, split='trainaug')
  names = tmp_path / 'aug.txt'
  names.write_text('2008_000009\n2007_000032\n')
  given = masks_of(
    Source(path=path, split='trainaug', trainaug_list=str(names))
  )
  assert [*given] == ['VOC2012/2008_000009.jpg', 'VOC2012/2007_000032.jpg']
  for mask, number in zip(given.values(), (7, 3)):
    np.testing.assert_array_equal(mask, class_ids(number))
  lists = devkit / 'VOCdevkit/VOC2012/ImageSets/Segmentation'
  (lists / 'trainaug.txt').write_text(names.read_text())
  own = masks_of(Source(path=path, split='trainaug'))
  assert own.keys() == given.keys()
  train = masks_of(Source(path=path, split='train'))
  name = 'VOC2012/2007_000032.jpg'
  assert [*train] == [name]
  np.testing.assert_array_equal(train[name], class_ids(1, 15))


def test_masks_of_trainaug_from_a_zip(devkit, tmp_path):
  write(devkit, OTHER)
  names, masks = tmp_path / 'aug.txt', tmp_path / 'aug.zip'
  names.write_text('2008_000009\n2007_000032\n')
  with zipfile.ZipFile(masks, 'w') as archive:
    archive.writestr('any/2008_000009.png', mask_png(class_ids(11)))
  options = dict(trainaug_list=str(names), trainaug_masks=str(masks))
  source = Source(path=str(devkit), split='trainaug', **options)
  for mask, number in zip(masks_of(source).values(), (11, 3)):
    np.testing.assert_array_equal(mask, class_ids(number))
  assert '1 from trainaug_masks, 1 from SegmentationClassAug' in (
    ' '.join(source.report_lines())
  )
  # The same options for the evaluation set: they do not concern it.
  assert len(Source(path=str(devkit), split='val', **options)) == 1


@pytest.mark.parametrize(
  'options, message',
  [
    (
      {'split': 'test'},
      "'test' for task='segmentation'; .*: train, val; task=",
    ),
    ({'split': 'tset'}, r"'tset' for task=.* VOC2012: train, val$"),
    (
      {'task': 'detection'},
      "'train' .*: test, trainval; task='segmentation' has",
    ),
    ({'task': 'pose'}, "task='pose'; valid: detection, segmentation"),
    ({'trainaug_list': 'x.txt'}, "split='train' is the list of that name"),
    ({'vocabulary': 'x'}, 'vocabulary belongs to the task detection, not seg'),
    ({'holdout_percent': 5.0}, 'holdout_percent belongs to the task detec'),
    ({'trainaug_masks': 'x'}, 'trainaug_masks needs trainaug_list'),
    ({'task': 'detection', 'trainaug_list': 'x'}, 'belongs to the task segmen'),
    ({'split': 'trainaug', 'trainaug_list': '/no.txt'}, '/no.txt: no such fi'),
    ({'path': '/no/such'}, "path='/no/such': no such file or folder"),
    ({'path': ''}, "path must be a path, got ''"),
  ],
)
def test_mistakes(devkit, options, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    pipeline.open_source({'type': 'voc', 'path': str(devkit), **options})


def test_no_lists(tmp_path):
  kept = {k: v for k, v in files().items() if 'ImageSets' not in k}
  write(tmp_path, kept)
  with pytest.raises(FileNotFoundError, match='no ImageSets/Segmentation/'):
    Source(path=str(tmp_path))


def test_detect(devkit, tmp_path, monkeypatch):
  for below in ('', 'VOCdevkit', 'VOCdevkit/VOC2012'):
    assert detect.kind_of(str(devkit / below)) == 'voc'
  monkeypatch.chdir(devkit / 'VOCdevkit/VOC2012')
  assert detect.kind_of('.') == 'voc'
  # Neither boxes without masks, nor what only has the name.
  for name in (
    'x/VOC2007/JPEGImages/1.jpg', 'VOC2012/SegmentationClass/1.png',
  ):  # fmt: skip
    path = tmp_path / 'other' / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b'1')
    assert detect.kind_of(str(path.parents[2])) == 'folder'
  source = detect.Source(path=str(devkit), split='val')
  assert source.report_lines()[-1].endswith('by task="detection"')
  assert len(source) == 1 and 'voc' in plugins.names('source')


def test_prepared_as_it_is_read(devkit, tmp_path, capsys):
  argv = ['--input', devkit, '--output', tmp_path / 'out', '--workers', 1]
  assert prepare_images.main(list(map(str, argv))) == 0
  assert 'masks only; boxes are' in capsys.readouterr().out
  for split in ('train', 'val'):
    stored = detect.Source(path=str(tmp_path / 'out'), split=split)
    direct = detect.Source(path=str(devkit), split=split)
    assert stored[0]['segmentation'] == direct[0]['segmentation']
    assert stored[0]['image'] == direct[0]['image']


def test_a_mask_is_decoded_once_and_handed_on_as_it_is(devkit, monkeypatch):
  """Most of the time of reading a mask went into two more codings of it."""
  source = Source(path=str(devkit), split='train')
  ops = pipeline.build_ops(DECODE, source)
  decoded, encoded = [], []
  real_load, real_save = PngImageFile.load_prepare, Image.Image.save
  monkeypatch.setattr(
    PngImageFile,
    'load_prepare',
    lambda self: decoded.append(1) or real_load(self),
  )
  monkeypatch.setattr(
    Image.Image,
    'save',
    lambda self, *args, **options: (
      encoded.append(1) or real_save(self, *args, **options)
    ),
  )
  raw = source[0]
  example = batch_fields.apply(ops, raw, np.random.default_rng(0))
  assert len(decoded) == 1 and not encoded
  name = source.key(0).partition('/')[2].replace('.jpg', '.png')
  stored = next(devkit.rglob(f'SegmentationClass/{name}')).read_bytes()
  assert bytes(raw['segmentation']) == stored
  wanted = np.array(Image.open(io.BytesIO(stored)))
  np.testing.assert_array_equal(example['segmentation'], wanted)
  assert raw['labels'].tolist() == [
    int(i) - 1 for i in np.unique(wanted) if i not in (0, 255)
  ]
  # What an op of the user's own writes into it stays out of the record.
  example['segmentation'][:] = 9
  np.testing.assert_array_equal(raw['segmentation'].ids, wanted)


def test_a_mask_goes_to_other_processes_with_its_ids(devkit):
  mask = Source(path=str(devkit), split='train')[0]['segmentation']
  same = pickle.loads(pickle.dumps(mask))  # noqa: S301
  assert same == mask
  np.testing.assert_array_equal(same.ids, mask.ids)
