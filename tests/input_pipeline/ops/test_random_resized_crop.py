"""random_resized_crop: the windows it draws, and what it makes of them."""

import numpy as np
import pytest
from scipy import stats

from input_pipeline import ops
from input_pipeline.ops import bilinear, geometry
from input_pipeline.ops.context import OpContext


def op(**options):
  return geometry.RandomResizedCrop(
    OpContext(where='input.ops[1]'), **{'size': 8, **options}
  )


def windows(crop, height, width, num=3000):
  rng = np.random.default_rng(0)
  return [crop.window(height, width, rng) for _ in range(num)]


def test_areas_aspects_and_places():
  """Where every draw fits: area uniform, log of the aspect ratio uniform."""
  found = windows(op(area=(0.1, 0.4)), 1000, 1000)
  area = np.array([w.height * w.width for w in found]) / 1e6
  aspect = np.log([w.width / w.height for w in found])
  uniform = lambda a, low, high: stats.kstest(a, 'uniform', (low, high - low))
  assert uniform(area, 0.1, 0.4).pvalue > 1e-3
  assert uniform(aspect, np.log(3 / 4), np.log(4 / 3)).pvalue > 1e-3
  place = [w.top / (1000 - w.height) for w in found]
  assert uniform(place, 0, 1).pvalue > 1e-3
  assert all(
    w.top + w.height <= 1000 and w.left + w.width <= 1000 for w in found
  )


@pytest.mark.parametrize(
  'shape,expected',
  [
    ((10, 1000), (10, round(10 * 4 / 3))),  # far too wide
    ((1000, 10), (round(10 / 0.75), 10)),  # far too high
  ],
)
def test_central_crop_where_nothing_fits(shape, expected):
  for w in windows(op(area=(0.9, 1)), *shape, num=5):
    assert (w.height, w.width) == expected
    assert w.top == (shape[0] - expected[0]) // 2
    assert w.left == (shape[1] - expected[1]) // 2


def test_the_crop_is_resized_and_boxes_follow():
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (40, 60, 3), np.uint8)
  crop = op(size=(16, 24))
  window = crop.window(40, 60, np.random.default_rng(5))
  example = {
    'image': image,
    'labels': np.int32([1]),
    'boxes': np.float32([[0, 0, 40, 60]]),
    'box_labels': np.int32([1]),
  }
  out = crop(example, np.random.default_rng(5))
  cut = image[
    window.top : window.top + window.height,
    window.left : window.left + window.width,
  ]
  np.testing.assert_array_equal(out['image'], bilinear.resize(cut, 16, 24))
  np.testing.assert_allclose(out['boxes'], [[0, 0, 16, 24]], rtol=1e-6)
  assert out['labels'] is example['labels']


@pytest.mark.parametrize(
  'options,message',
  [
    (dict(area=(0, 1)), r'area=\(0, 1\) must be list of 2 float in \(0, 1\]'),
    (dict(area=0.5), r'area=0\.5 must be list of 2 float'),
    (dict(aspect=(2, 1)), r'aspect=\(2, 1\) must be \(low, high\)'),
    (dict(size=0), 'size=0 must be int of at least 1'),
  ],
)
def test_mistakes_are_named(options, message):
  specs = [dict(op='decode'), dict(op='random_resized_crop', size=8) | options]
  where = r'^input.ops\[1\] \(random_resized_crop\)'
  with pytest.raises(ValueError, match=rf'{where}.*{message}'):
    ops.build(specs, OpContext())
