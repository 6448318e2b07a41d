"""Resize, crops and flip against float64 numpy, hand-made cases and Pillow."""

import copy

import numpy as np
import pytest
from PIL import Image

from input_pipeline import ops as example_ops
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops import bilinear, fused
from input_pipeline.ops.context import OpContext

SIZES = [(375, 500), (64, 64), (340, 340), (1, 7), (900, 333), (339, 341)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def reference_bilinear(image, height, width) -> np.ndarray:
  """float64, one output pixel at a time along each axis; no rounding."""

  def interpolate(table, length):  # along axis 0
    size, out = len(table), []
    for i in range(length):
      x = (i + 0.5) * size / length - 0.5
      low = int(np.floor(x))
      a, b = (table[min(max(k, 0), size - 1)] for k in (low, low + 1))
      out.append(a + (b - a) * (x - low))
    return np.stack(out)

  rows = interpolate(image.astype(np.float64), height)
  return interpolate(rows.swapaxes(0, 1), width).swapaxes(0, 1)


def run(specs, image, seed=0):
  rng = np.random.default_rng(seed)
  example = {'image': image}
  for op in example_ops.build(specs, OpContext()):
    example = op(example, rng)
  return example['image']


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('target', [(340, 340), (299, 61), (2, 1000)])
def test_resize_is_bilinear_without_antialias(size, target):
  image = picture(*size)
  out = run([dict(op='resize', size=target)], image)
  assert out.dtype == np.uint8 and out.shape == (*target, 3)
  exact = reference_bilinear(image, *target)
  assert np.abs(out - exact).max() < 0.501  # rounded to nearest


def test_resize_by_hand():
  image = np.uint8([[[0] * 3, [100] * 3]])  # [1,2,3]
  out = run([dict(op='resize', size=(1, 4))], image)
  assert out[0, :, 0].tolist() == [0, 25, 75, 100]


def test_enlarging_equals_pillow():
  # The two filters agree where nothing is reduced; Pillow rounds twice.
  image = picture(60, 80)
  ours = run([dict(op='resize', size=(111, 203))], image).astype(int)
  theirs = Image.fromarray(image).resize((203, 111), Image.Resampling.BILINEAR)
  assert np.abs(ours - np.asarray(theirs)).max() <= 1


def test_antialias_is_pillows_filter():
  image = picture(400, 500)
  ours = run([dict(op='resize', size=50, antialias=True)], image)
  theirs = Image.fromarray(image).resize((50, 50), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(ours, np.asarray(theirs))
  plain = run([dict(op='resize', size=50)], image)
  assert plain.std() > 2 * ours.std()  # noise survives without the filter


def test_resize_small_keeps_the_aspect_ratio():
  for shape, expected in [
    ((375, 500), (256, 341)),
    ((500, 375), (341, 256)),
    ((100, 100), (256, 256)),
  ]:
    image = picture(*shape)
    out = run([dict(op='resize_small', size=256)], image)
    assert out.shape == (*expected, 3)
    assert np.abs(out - reference_bilinear(image, *expected)).max() < 0.501


@pytest.mark.parametrize(
  'shape, size, expected',
  [
    ((375, 500), 513, (375, 500)),
    ((513, 10), 513, (513, 10)),
    ((1000, 500), 513, (513, 256)),
    ((20, 60), (30, 30), (10, 30)),
    ((60, 20), (30, 90), (30, 10)),
    ((2, 999), 9, (1, 9)),
  ],
)
def test_shrink_to_fit_leaves_what_fits(shape, size, expected):
  image = picture(*shape)
  out = run([dict(op='shrink_to_fit', size=size)], image)
  wanted = image
  if shape != expected:
    wanted = run([dict(op='resize', size=expected)], image)
  np.testing.assert_array_equal(out, wanted)


@pytest.mark.parametrize('shape', [(5, 7), (4, 4), (340, 341)])
def test_center_crop_starts_at_the_floor_of_half_the_rest(shape):
  image = picture(*shape)
  out = run([dict(op='center_crop', size=4)], image)
  top, left = (shape[0] - 4) // 2, (shape[1] - 4) // 2
  np.testing.assert_array_equal(out, image[top : top + 4, left : left + 4])


def test_central_crop_by_hand():
  # tf.image.central_crop: start int((n - n*f)/2), size n - 2*start
  for n, fraction, start in [(8, 0.875, 0), (100, 0.875, 6), (340, 0.875, 21)]:
    image = picture(n, n)
    out = run([dict(op='central_crop', fraction=fraction)], image)
    end = n - start
    np.testing.assert_array_equal(out, image[start:end, start:end])


def test_random_crop_reaches_every_place_equally():
  image = np.zeros((3, 4, 3), np.uint8)
  image[..., 0], image[..., 1] = np.arange(3)[:, None], np.arange(4)
  (op,) = example_ops.build([dict(op='random_crop', size=(2, 2))], OpContext())
  rng = np.random.default_rng(1)
  seen = np.zeros((2, 3), int)
  for _ in range(6000):
    out = op({'image': image}, rng)['image']
    assert out.shape == (2, 2, 3)
    seen[out[0, 0, 0], out[0, 0, 1]] += 1
  expected = 1000
  assert (np.abs(seen - expected) < 5 * np.sqrt(expected)).all()


def test_random_flip_mirrors_half_of_the_images():
  image = picture(3, 4)
  (op,) = example_ops.build([dict(op='random_flip')], OpContext())
  rng, flipped = np.random.default_rng(2), 0
  for _ in range(4000):
    out = op({'image': image}, rng)['image']
    same = np.array_equal(out, image)
    assert same or np.array_equal(out, np.fliplr(image))
    flipped += not same
  assert abs(flipped - 2000) < 5 * np.sqrt(1000)
  np.testing.assert_array_equal(
    run([dict(op='random_flip', probability=1.0)], image), np.fliplr(image)
  )


@pytest.mark.parametrize('crop', ['random_crop', 'center_crop', None])
@pytest.mark.parametrize('flip', [True, False])
@pytest.mark.parametrize('size', SIZES)
def test_fused_ops_equal_the_single_ones_bit_by_bit(size, crop, flip):
  specs = [dict(op='resize', size=(170, 165))]
  specs += [dict(op=crop, size=(149, 151))] if crop else []
  specs += [dict(op='random_flip')] if flip else []
  fused = example_ops.build(specs, OpContext())
  single = [example_ops.build([s], OpContext())[0] for s in specs]
  assert len(fused) == 1 and len(single) == len(specs)
  image = picture(*size)
  before = copy.deepcopy(image)
  for seed in range(6):
    one, two = np.random.default_rng(seed), np.random.default_rng(seed)
    a, b = fused[0]({'image': image}, one), {'image': image}
    for op in single:
      b = op(b, two)
    np.testing.assert_array_equal(a['image'], b['image'])
    assert one.bit_generator.state == two.bit_generator.state
  np.testing.assert_array_equal(image, before)


def test_what_is_not_fused_stays_in_order():
  specs = [
    dict(op='decode'),
    dict(op='resize', size=40, antialias=True),
    dict(op='random_crop', size=30),
    dict(op='resize', size=20),
    dict(op='resize', size=21),
    dict(op='random_flip'),
    dict(op='center_crop', size=8),
  ]
  kinds = [type(o).__name__ for o in example_ops.build(specs, OpContext())]
  assert kinds == [
    'Decode', 'Resize', 'RandomCrop', 'Resize', 'ResizedWindow', 'CenterCrop',
  ]  # fmt: skip


def test_windows_of_a_resize_are_its_parts():
  image = picture(37, 53)
  whole = bilinear.resize(image, 29, 31)
  part = bilinear.resize(image, 29, 31, bilinear.Window(3, 5, 20, 22, True))
  np.testing.assert_array_equal(part, whole[3:23, 5:27][:, ::-1])


def test_an_image_smaller_than_the_crop_is_a_bad_example():
  with pytest.raises(BadExample, match=r'20x30 is smaller .* 25x25'):
    run([dict(op='center_crop', size=25)], picture(20, 30))


@pytest.mark.parametrize(
  'specs,message',
  [
    ([dict(op='resise', size=3)], r"input.ops\[0\].*'resise'.*'resize'"),
    (
      [dict(op='no.such.Op')],
      "op 'no.such.Op': there is no module 'no'.*PYTHONPATH",
    ),
    ([dict(size=3)], "dict with the key 'op'"),
    (['decode'], "dict with the key 'op'"),
    (
      [dict(op='decode'), dict(op='resize')],
      r'\[1\] \(resize\).*missing.*size',
    ),
    ([dict(op='resize', size=340, aspect=1)], "unknown option 'aspect'"),
    (
      [dict(op='resize', size=0)],
      'size=0 must be int of at least 1 or list of 2 int',
    ),
    ([dict(op='resize', size=(1, 2, 3))], r'size=\(1, 2, 3\) must be int of'),
    (
      [dict(op='resize', size='340')],
      "size='340' must be int of at least 1 or",
    ),
    ([dict(op='resize', size=3.5)], r'size=3\.5 must be int of at least 1 or'),
    ([dict(op='resize', size=3, antialias=1)], 'antialias=1 must be bool'),
    ([dict(op='resize_small', size=-1)], 'size=-1 must be int of at least 1'),
    (
      [dict(op='central_crop', fraction=87.5)],
      r'fraction=87\.5 must be float in \(0, 1\]',
    ),
    (
      [dict(op='random_flip', probability=2)],
      r'^input.ops\[0\] \(random_flip\): probability=2 must be float',
    ),
    (
      [dict(op='random_flip', probability=float('nan'))],
      r'probability=nan must be float in \[0, 1\]',
    ),
    (
      [dict(op='resize', size=256), dict(op='random_crop', size=299)],
      'size 299x299 does not fit into the resized image 256x256',
    ),
  ],
)
def test_mistakes_are_named_when_the_ops_are_built(specs, message):
  with pytest.raises(ValueError, match=message):
    example_ops.build(specs, OpContext())


class Brighten:
  """An op of a user's own."""

  def __init__(self, context, *, by: int):
    self.by = by

  def __call__(self, example, rng):
    return example | {'image': example['image'] + np.uint8(self.by)}


def test_own_ops_by_import_path():
  path = f'{__name__}.Brighten'
  image = np.zeros((2, 2, 3), np.uint8)
  assert run([dict(op=path, by=3)], image).max() == 3
  with pytest.raises(ValueError, match="unknown option 'bi'"):
    example_ops.build([dict(op=path, bi=3)], OpContext())


def test_every_listed_op_exists():
  for name in example_ops.OPS:
    assert callable(example_ops.find('x', name)), name
  assert fused.fuse([]) == []
