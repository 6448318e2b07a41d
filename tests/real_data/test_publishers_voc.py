"""VOC's own files: boxes, labels and masks of real images.

The slice has no lists, so they are made here from the files that are there.
"""

import io
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from input_pipeline.sources.records import Source
from tools import prepare_voc

pytestmark = pytest.mark.real_data


@pytest.fixture(scope='module')
def devkit(real_data, tmp_path_factory):
  root = tmp_path_factory.mktemp('voc') / 'VOCdevkit'
  given = real_data / 'voc2012_slice' / 'VOCdevkit'
  shutil.copytree(given, root, copy_function=shutil.copyfile)
  for folder in (root, *root.rglob('*')):
    if folder.is_dir():
      folder.chmod(0o755)
  (root / 'VOC2012/ImageSets/Main').mkdir(parents=True)
  names = sorted(path.stem for path in (root / 'VOC2012/JPEGImages').iterdir())
  (root / 'VOC2012/ImageSets/Main/trainval.txt').write_text('\n'.join(names))
  masks = (root / 'VOC2012/SegmentationClassAug').iterdir()
  (root / 'trainaug.txt').write_text('\n'.join(sorted(p.stem for p in masks)))
  return root


def prepare(devkit, out, *args):
  argv = ['--input', devkit, '--output', out, '--workers', 1, *args]
  assert prepare_voc.main([str(arg) for arg in argv]) == 0


def test_boxes(devkit, tmp_path):
  prepare(devkit, tmp_path / 'out')
  source = Source(path=str(tmp_path / 'out'), split='trainval')
  assert len(source) == 50
  names, num_boxes = source.vocabulary.names, 0
  for i in range(len(source)):
    example = source[i]
    name = example['key'].removeprefix('VOC2012/').removesuffix('.jpg')
    root = ET.parse(devkit / 'VOC2012/Annotations' / f'{name}.xml').getroot()
    objects = root.findall('object')
    assert [names[k] for k in example['box_labels']] == [
      o.findtext('name') for o in objects
    ]
    corners = [
      [
        float(o.findtext(f'bndbox/{c}'))
        for c in ('xmin', 'ymin', 'xmax', 'ymax')
      ]
      for o in objects
    ]
    y0, x0, y1, x1 = example['boxes'].T
    # Back to VOC's own: pixels counted from 1, both corners inside.
    back = np.stack([x0 + 1, y0 + 1, x1, y1], axis=-1)
    np.testing.assert_array_equal(back, corners)
    assert example['box_difficult'].tolist() == [
      o.findtext('difficult') == '1' for o in objects
    ]
    with Image.open(io.BytesIO(example['image'])) as picture:
      assert x1.max() <= picture.width and y1.max() <= picture.height
    num_boxes += len(objects)
  assert num_boxes == 135


def test_masks(devkit, tmp_path):
  prepare(
    devkit, tmp_path / 'out', '--task', 'segmentation', '--trainaug_list',
    devkit / 'trainaug.txt', '--workers', 2, '--num_shards', 2,
  )  # fmt: skip
  source = Source(path=str(tmp_path / 'out'), split='trainaug')
  assert len(source) == 44
  present, void = set(), 0
  for i in range(len(source)):
    example = source[i]
    name = example['key'].removeprefix('VOC2012/').removesuffix('.jpg')
    path = devkit / 'VOC2012/SegmentationClassAug' / f'{name}.png'
    with Image.open(path) as given:
      # The palette's entry of each pixel's index, against the colours.
      palette = np.array(given.getpalette()).reshape(-1, 3)
      colours = np.asarray(given.convert('RGB'))
    with Image.open(io.BytesIO(example['segmentation'])) as stored:
      ids = np.asarray(stored)
    assert ids.dtype == np.uint8 and ids.ndim == 2
    np.testing.assert_array_equal(palette[ids], colours)
    found = {int(k) for k in np.unique(ids)} - {0, 255}
    assert {k + 1 for k in example['labels'].tolist()} == found
    present |= found
    void += int((ids == 255).sum())
  assert present <= set(range(1, 21)) and len(present) > 10 and void > 0
