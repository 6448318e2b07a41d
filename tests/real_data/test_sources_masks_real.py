"""VOC's photographs with masks: as a kit, as pairs, and prepared."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from input_pipeline.publishers.voc import annotation_xml
from input_pipeline.sources import detect, masks, records, voc
from tools import prepare_images

pytestmark = pytest.mark.real_data


@pytest.fixture(scope='module')
def pairs(year, tmp_path_factory):
  """The kit's images and masks as a user's own folder; every fourth is val."""
  root = tmp_path_factory.mktemp('pairs')
  found = sorted((year / 'SegmentationClassAug').iterdir())
  for i, mask in enumerate(found):
    split = root / ('train' if i % 4 else 'val')
    image = year / 'JPEGImages' / f'{mask.stem}.jpg'
    for kind, path in (('masks', mask), ('images', image)):
      (split / kind).mkdir(parents=True, exist_ok=True)
      shutil.copyfile(path, split / kind / path.name)
  (root / 'classes.txt').write_text('\n'.join(annotation_xml.CLASSES))
  return root


def ids_of(encoded: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(encoded)) as picture:
    return np.asarray(picture)


def test_the_kit_is_read_as_it_lies(year, real_data, tmp_path):
  names = tmp_path / 'trainaug.txt'
  stems = sorted(p.stem for p in (year / 'SegmentationClassAug').iterdir())
  names.write_text('\n'.join(stems))
  for path in (real_data / 'voc2012_slice', year.parent, year):
    assert detect.kind_of(str(path)) == 'voc'
    source = voc.Source(
      path=str(path), split='trainaug', trainaug_list=str(names)
    )
    assert len(source) == len(stems) == 44
  for i, stem in enumerate(stems):
    example = source[i]
    with Image.open(year / 'SegmentationClassAug' / f'{stem}.png') as given:
      palette = np.array(given.getpalette()).reshape(-1, 3)
      colours = np.asarray(given.convert('RGB'))
    ids = ids_of(example['segmentation'])
    np.testing.assert_array_equal(palette[ids], colours)
    assert {*np.unique(ids)} - {0, 255} == {*(example['labels'] + 1).tolist()}


def test_pairs_say_what_the_kit_says(year, pairs):
  assert detect.kind_of(str(pairs)) == 'masks'
  num = 0
  for split in ('train', 'val'):
    source = masks.Source(path=str(pairs), split=split)
    for i in range(len(source)):
      example, name = source[i], source.key(i).removesuffix('.jpg')
      path = year / 'SegmentationClassAug' / f'{name}.png'
      assert example['segmentation'] == path.read_bytes()
      assert {*(example['labels'] + 1).tolist()} == (
        {*np.unique(ids_of(path.read_bytes()))} - {0, 255}
      )
      num += 1
  assert num == 44


def test_prepared_smaller_masks_stay_on_their_images(pairs, tmp_path):
  """An id is that of the pixel under the centre, to the pixel."""
  argv = ['--input', pairs, '--output', tmp_path / 'out', '--workers', 1]
  argv += ['--long_side', 200]
  assert prepare_images.main(list(map(str, argv))) == 0
  source = records.Source(path=str(tmp_path / 'out'), split='val')
  assert source.background is True
  assert source.vocabulary.names == annotation_xml.CLASSES
  for i in range(len(source)):
    example = source[i]
    stored = ids_of(example['segmentation'])
    with Image.open(io.BytesIO(example['image'])) as image:
      assert image.size == stored.shape[::-1] and max(image.size) == 200
    name = example['key'].removesuffix('.jpg')
    whole = ids_of((pairs / 'val/masks' / f'{name}.png').read_bytes())
    assert example['original_size'].tolist() == list(whole.shape)
    rows, columns = (
      ((np.arange(n) + 0.5) * full / n).astype(int)
      for n, full in zip(stored.shape, whole.shape)
    )
    np.testing.assert_array_equal(stored, whole[rows][:, columns])
