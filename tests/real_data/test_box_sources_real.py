"""Real photographs with boxes: read directly, in other forms, on canvases."""

import collections
import io

import numpy as np
import pytest
from PIL import Image

from input_pipeline import pipeline
from input_pipeline.sources.records import Source as Records
from tools import prepare_coco, prepare_voc

pytestmark = pytest.mark.real_data

# The paper's: shorter side 600, longer at most 1024 (Sun et al. 2017, 5.2); at
# an eighth of it.
OPS = [
  dict(op='decode'),
  dict(op='resize_small', size=75, max_size=128),
  dict(op='random_flip'),
  dict(op='image_size'),
  dict(op='canvas', sizes=[[80, 128], [128, 80]]),
  dict(op='boxes', max_boxes=60, extras=['box_crowd', 'box_area', 'box_ids']),
]


def opened(path, **options):
  return pipeline.open_source(dict(type='detect', path=str(path), **options))


def batches(source, num):
  ops = pipeline.build_ops(OPS, source)
  data = pipeline.train(source, ops, batch_size=5, seed=0)
  found = [next(data) for _ in range(num)]
  data.close()
  assert data.bad.count == 0
  return found


def real_sizes(source):
  found = []
  for i in range(len(source)):
    with Image.open(io.BytesIO(source[i]['image'])) as picture:
      found.append((picture.height, picture.width))
  return found


@pytest.fixture(scope='module')
def coco(real_data):
  return real_data / 'coco_tiny'


@pytest.fixture(scope='module')
def voc(real_data):
  return real_data / 'voc2012_slice'


def test_coco_without_a_bad_example(coco):
  source = opened(coco)
  assert len(source) == 50 and len(source.vocabulary) == 80
  assert source.external_ids[-1] == 90  # COCO's ids have gaps
  np.testing.assert_array_equal(source.sizes(), real_sizes(source))
  for i, number in enumerate(source.image_ids().tolist()):
    assert source.key(i) == f'train2017/{number:012d}.jpg'
  shapes = collections.Counter()
  ids = collections.Counter()
  for batch in batches(source, 20):  # a pass of each canvas at least
    shapes[batch['image'].shape[1:3]] += 1
    ids.update(batch['_id'].tolist())
    sizes = np.tile(batch['image_size'][:, None], 2)
    assert (batch['boxes'] <= sizes + 0.1).all() and (batch['boxes'] >= 0).all()
  assert set(shapes) == {(80, 128), (128, 80)}
  assert len(ids) == 50


def test_voc_without_a_bad_example(voc):
  source = opened(voc, task='detection', split='all')
  assert len(source) == 50 and len(source.vocabulary) == 20
  np.testing.assert_array_equal(source.sizes(), real_sizes(source))
  assert sum(len(source[i]['boxes']) for i in range(50)) == 135
  assert len(batches(source, 20)) == 20


@pytest.mark.parametrize('what', ['coco', 'voc'])
def test_prepared_records_keep_all_of_it(what, request, tmp_path):
  path = request.getfixturevalue(what)
  options = dict(task='detection') if what == 'voc' else {}
  split = 'all' if what == 'voc' else 'val'
  direct = opened(path, split=split, **options)
  module = prepare_coco if what == 'coco' else prepare_voc
  argv = ['--input', path, '--output', tmp_path / 'out', '--splits', split]
  assert module.main([*map(str, argv), '--workers', '1']) == 0
  stored = Records(path=str(tmp_path / 'out'), split=split)
  assert stored.vocabulary.names == direct.vocabulary.names
  assert stored.external_ids == getattr(direct, 'external_ids', None)
  by_key = {direct.key(i): i for i in range(len(direct))}
  assert len(stored) == len(direct)
  for i in range(len(stored)):
    index = by_key[stored.stored_key(i)]
    one, other = stored[i], direct[index]
    assert one.keys() - {'key'} == other.keys()
    for name in other.keys() - {'image', 'box_outlines'}:
      np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(stored.sizes()[i], direct.sizes()[index])
    if what == 'coco':
      assert stored.image_ids()[i] == direct.image_ids()[index]


def test_the_same_boxes_as_yolo(coco, tmp_path):
  """COCO's numbers written as YOLO's, with six decimals."""
  source = opened(coco)
  for i in range(len(source)):
    example, (height, width) = source[i], source.sizes()[i]
    stem = source.key(i).partition('/')[2].removesuffix('.jpg')
    lines = []
    for label, (y0, x0, y1, x1) in zip(
      example['box_labels'].tolist(), example['boxes'].tolist()
    ):
      shares = (
        (x0 + x1) / 2 / width, (y0 + y1) / 2 / height,
        (x1 - x0) / width, (y1 - y0) / height,
      )  # fmt: skip
      lines.append(f'{label} ' + ' '.join(f'{n:.6f}' for n in shares))
    for folder, suffix, data in (
      ('images', 'jpg', example['image']),
      ('labels', 'txt', '\n'.join(lines).encode()),
    ):
      place = tmp_path / 'train' / folder / f'{stem}.{suffix}'
      place.parent.mkdir(parents=True, exist_ok=True)
      place.write_bytes(data)
  (tmp_path / 'classes.txt').write_text('\n'.join(source.vocabulary.names))
  yolo = opened(tmp_path)
  assert yolo.vocabulary.names == source.vocabulary.names
  assert '0 reach beyond the image' in yolo.report_lines()[-1]
  names = {yolo.key(i).rpartition('/')[2]: i for i in range(len(yolo))}
  for i in range(len(source)):
    found = yolo[names[source.key(i).rpartition('/')[2]]]
    np.testing.assert_allclose(found['boxes'], source[i]['boxes'], atol=2e-3)
    np.testing.assert_array_equal(found['box_labels'], source[i]['box_labels'])
