"""COCO's photographs: what is stored agrees with pycocotools."""

import numpy as np
import pytest
from pycocotools import coco as pycoco
from pycocotools import mask as pymask

from input_pipeline.sources.records import Source
from tools import prepare_coco

pytestmark = [
  pytest.mark.real_data,
  # pycocotools' own, under NumPy 2.
  pytest.mark.filterwarnings('ignore:__array__ implementation'),
]


@pytest.fixture(scope='module')
def folder(real_data):
  return real_data / 'coco_tiny'


@pytest.fixture(scope='module')
def prepared(folder, tmp_path_factory):
  out = tmp_path_factory.mktemp('coco') / 'out'
  argv = ['--input', folder, '--output', out, '--task', 'both', '--workers', 1]
  assert prepare_coco.main(list(map(str, argv))) == 0
  return out


def outline_mask(outline, height, width):
  """bool [H, W] of a stored outline.

  COCO has two decimals. pycocotools rounds vertices to fifths of a pixel, so
  that a float32 of 376.9 falls to the other side: the decimals are restored.
  """
  if isinstance(outline, dict):
    if isinstance(outline['counts'], list):
      outline = pymask.frPyObjects(outline, height, width)
  else:
    outline = [np.round(np.float64(polygon), 2).tolist() for polygon in outline]
    outline = pymask.merge(pymask.frPyObjects(outline, height, width))
  return pymask.decode(outline).astype(bool)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_against_pycocotools(folder, prepared, split):
  base = folder / 'annotations'
  truth = pycoco.COCO(str(base / f'instances_{split}2017.json'))
  persons = pycoco.COCO(str(base / f'person_keypoints_{split}2017.json'))
  names = [truth.cats[i]['name'] for i in sorted(truth.getCatIds())]
  source = Source(path=str(prepared), split=split)
  assert list(source.vocabulary.names) == names and len(names) == 80
  found_ids, differing, with_keypoints = set(), 0, 0
  for i in range(len(source)):
    example = source[i]
    image = int(example['key'].split('/')[1].removesuffix('.jpg'))
    height, width = truth.imgs[image]['height'], truth.imgs[image]['width']
    given = {a['id']: a for a in truth.loadAnns(truth.getAnnIds([image]))}
    assert set(example['box_ids'].tolist()) == set(given)
    found_ids.add(image)
    labels = {names.index(truth.cats[a['category_id']]['name'])
              for a in given.values()}  # fmt: skip
    assert example['labels'].tolist() == sorted(labels)
    for n, number in enumerate(example['box_ids'].tolist()):
      wanted = given[number]
      x, y, w, h = wanted['bbox']
      np.testing.assert_allclose(
        example['boxes'][n], [y, x, y + h, x + w], rtol=1e-6
      )
      np.testing.assert_allclose(
        example['box_area'][n], wanted['area'], rtol=1e-6
      )
      assert example['box_crowd'][n] == wanted['iscrowd']
      assert names[example['box_labels'][n]] == truth.cats[
        wanted['category_id']
      ]['name']  # fmt: skip
      mask = outline_mask(example['box_outlines'][n], height, width)
      differing += np.sum(mask != truth.annToMask(wanted).astype(bool))
      points = persons.anns.get(number, {}).get('keypoints', [0] * 51)
      expected = np.array(points).reshape(17, 3)[:, [1, 0, 2]]
      np.testing.assert_array_equal(example['keypoints'][n], expected)
      with_keypoints += bool(expected[:, 2].any())
  assert found_ids == set(truth.imgs)
  assert differing == 0
  assert with_keypoints == {'train': 57, 'val': 46}[split]
