"""COCO's objects and VOC's masks stay in place through a training chain."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from input_pipeline import ops as example_ops
from input_pipeline.examples import outlines
from input_pipeline.ops.context import OpContext

pytestmark = [
  pytest.mark.real_data,
  pytest.mark.filterwarnings('ignore:__array__:DeprecationWarning'),
]
CHAIN = [
  dict(op='resize', size=340),
  dict(op='random_crop', size=299),
  dict(op='random_flip'),
]


def run(specs, example, seed):
  rng = np.random.default_rng(seed)
  for op in example_ops.build(specs, OpContext()):
    example = op(example, rng)
  return example


def records(folder):
  """(image, annotations) of COCO, as its own files have them."""
  path = folder / 'coco_tiny/annotations/instances_val2017.json'
  data = json.loads(path.read_text())
  for image in data['images']:
    yield (
      image,
      [a for a in data['annotations'] if a['image_id'] == image['id']],
    )


def test_outlines_and_boxes_lie_where_cocos_own_masks_went(real_data):
  api = pytest.importorskip('pycocotools.mask')
  num = num_crowds = 0
  for seed, (image, found) in enumerate(records(real_data)):
    height, width = image['height'], image['width']
    pixels = np.zeros((height, width, 3), np.uint8)
    xywh = np.array([a['bbox'] for a in found], np.float32).reshape(-1, 4)
    x, y, w, h = xywh.T
    example = {
      'image': pixels,
      'boxes': np.stack([y, x, y + h, x + w], 1),
      'box_ids': np.arange(len(found)),
      'box_area': np.float32([a['area'] for a in found]),
      'box_outlines': [a['segmentation'] for a in found],
    }
    out = run(CHAIN, example, seed)
    place = {int(i): n for n, i in enumerate(out['box_ids'])}
    for i, annotation in enumerate(found):
      runs = api.frPyObjects(annotation['segmentation'], height, width)
      runs = api.merge(runs) if isinstance(runs, list) else runs
      inside = api.decode(runs).astype(np.uint8) * 255
      picture = np.repeat(inside[..., None], 3, 2)
      moved = run(CHAIN, {'image': picture}, seed)['image'][..., 0] > 127
      if moved.sum() < 400:
        continue
      n = place[i]
      ours = outlines.mask(out['box_outlines'][n], 299, 299)
      assert (ours & moved).sum() > 0.9 * (ours | moved).sum()
      if not annotation['iscrowd']:  # their areas are not those of their runs
        assert abs(out['box_area'][n] / moved.sum() - 1) < 0.1
      rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
      tight = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
      outside = np.array(out['boxes'][n]) - tight
      assert outside[:2].max() <= 1.5 and outside[2:].min() >= -1.5
      num += 1
      num_crowds += annotation['iscrowd']
  assert num > 100 and num_crowds


def test_voc_masks_are_indices_and_move_with_their_pixels(real_data):
  folder = real_data / 'voc2012_slice/VOCdevkit/VOC2012'
  specs = [dict(op='decode'), dict(op='decode_segmentation', num_classes=21)]
  for seed, path in enumerate(sorted(folder.glob('SegmentationClass*/*.png'))):
    jpeg = (folder / 'JPEGImages' / f'{path.stem}.jpg').read_bytes()
    example = {'image': jpeg, 'segmentation': path.read_bytes()}
    ids = np.array(Image.open(io.BytesIO(path.read_bytes())))
    plain = run(specs, example, seed)
    np.testing.assert_array_equal(plain['segmentation'], ids)
    moved = run([*specs, *CHAIN], example, seed)['segmentation']
    for label in np.setdiff1d(moved, [255]):
      picture = np.repeat((ids == label)[..., None], 3, 2).astype(np.uint8)
      soft = run(CHAIN, {'image': picture * 255}, seed)['image'][..., 0]
      # Off the rims, where bilinear mixing is not all or nothing.
      np.testing.assert_array_equal(moved[soft == 255], label)
      assert not (moved[soft == 0] == label).any()
