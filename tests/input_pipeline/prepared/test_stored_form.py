"""Images and their annotations as a record holds them, against the hand."""

import io

import numpy as np
import pytest
from PIL import Image

from input_pipeline.examples.errors import BadExample
from input_pipeline.ops import bilinear
from input_pipeline.prepared import stored_form
from input_pipeline.prepared.recipe import Recipe


def noise(height: int, width: int) -> np.ndarray:
  rng = np.random.default_rng(height * 1000 + width)
  return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = 'JPEG', **options) -> bytes:
  out = io.BytesIO()
  Image.fromarray(pixels).save(out, kind, **options)
  return out.getvalue()


def palette(ids: np.ndarray) -> bytes:
  """A VOC-like mask: class ids that look like colours."""
  mask = Image.fromarray(ids, 'L').convert('P')
  mask.putdata(ids.ravel().tolist())
  mask.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
  out = io.BytesIO()
  mask.save(out, 'PNG')
  return out.getvalue()


def decoded(data: bytes) -> np.ndarray:
  with Image.open(io.BytesIO(data)) as picture:
    return np.asarray(picture)


def triangle(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """Bilinear filter widened by the reduction, in float64, an axis at a time."""
  out = image.astype(np.float64)
  for axis, target in ((0, height), (1, width)):
    size = out.shape[axis]
    scale = max(size / target, 1)
    centres = (np.arange(target) + 0.5) * size / target
    distance = np.abs(np.arange(size) + 0.5 - centres[:, None]) / scale
    weights = np.maximum(1 - distance, 0)
    weights /= weights.sum(1, keepdims=True)
    out = np.moveaxis(np.tensordot(weights, out, (1, axis)), 0, axis)
  return out


@pytest.mark.parametrize(
  'size,long_side,expected',
  [
    ((40, 100), 50, (20, 50)),
    ((100, 40), 50, (50, 20)),
    ((33, 100), 50, (16, 50)),  # 16.5 to even
    ((1, 100), 20, (1, 20)),  # never nothing
    ((40, 50), 50, (40, 50)),
    ((10, 20), 50, (10, 20)),  # never enlarged
  ],
)
def test_long_side(size, long_side, expected):
  given = encoded(noise(*size))
  image, annotations = stored_form.image_and_annotations(
    {'image': given}, Recipe(long_side=long_side)
  )
  assert decoded(image).shape[:2] == expected
  if expected == size:
    assert image == given and annotations is None
  else:
    assert annotations is not None
    assert annotations['original_size'].tolist() == list(size)


def test_long_side_is_filtered():
  grey = np.repeat(noise(60, 90)[:, :, :1], 3, axis=2)  # JPEG blurs colours
  image, _ = stored_form.image_and_annotations(
    {'image': grey}, Recipe(long_side=30, quality=100)
  )
  expected = triangle(grey, 20, 30)
  assert np.abs(decoded(image) - expected).max() < 4
  # Four neighbours of each pixel and no filter would be far from that.
  four = bilinear.resize(grey, 20, 30)
  assert np.abs(four - expected).max() > 80


def test_resize_is_the_op_and_keeps_what_fits():
  square = encoded(noise(16, 16), 'PNG')
  image, annotations = stored_form.image_and_annotations(
    {'image': square}, Recipe(resize=16)
  )
  assert image == square and annotations is None
  image, _ = stored_form.image_and_annotations(
    {'image': encoded(noise(20, 30))}, Recipe(resize=16)
  )
  assert decoded(image).shape == (16, 16, 3)


def test_arrays_are_stored_without_loss():
  pixels = noise(9, 7)
  image, _ = stored_form.image_and_annotations({'image': pixels}, Recipe())
  np.testing.assert_array_equal(decoded(image), pixels)


def test_annotations_move_with_their_image():
  ids = np.random.default_rng(0).integers(0, 21, (60, 100)).astype(np.uint8)
  ids[0, :50] = 255
  example = {
    'image': noise(60, 100),
    'labels': np.array([1], np.int32),
    'boxes': np.array([[0, 10, 60, 100], [6, 20, 12, 30]], np.float32),
    'box_labels': np.array([1, 2], np.int32),
    'box_area': np.array([5400, 60], np.float32),
    'keypoints': np.array([[[30, 50, 2]], [[0, 0, 0]]], np.float32),
    'box_outlines': [[[10.0, 0.0, 100.0, 60.0, 10.0, 60.0]], []],
    'segmentation': palette(ids),
  }
  image, found = stored_form.image_and_annotations(
    example, Recipe(long_side=50)
  )
  assert decoded(image).shape == (30, 50, 3) and found is not None
  np.testing.assert_allclose(found['boxes'], [[0, 5, 30, 50], [3, 10, 6, 15]])
  np.testing.assert_allclose(found['box_area'], [1350, 15])
  np.testing.assert_allclose(found['keypoints'], [[[15, 25, 2]], [[0, 0, 0]]])
  assert found['box_outlines'][0] == [[5, 0, 50, 30, 5, 30]]
  assert found['box_labels'].tolist() == [1, 2]
  assert found['original_size'].tolist() == [60, 100]
  rows, columns = np.arange(30) * 2 + 1, np.arange(50) * 2 + 1  # pixel centres
  np.testing.assert_array_equal(
    decoded(found['segmentation']), ids[rows][:, columns]
  )
  with Image.open(io.BytesIO(found['segmentation'])) as mask:
    assert mask.mode == 'P'
    with Image.open(io.BytesIO(example['segmentation'])) as given:
      assert mask.getpalette() == given.getpalette()
  _, squared = stored_form.image_and_annotations(example, Recipe(resize=10))
  assert squared is not None
  np.testing.assert_allclose(squared['boxes'][1], [1, 2, 2, 3])


def test_a_mask_is_the_one_that_training_would_have_made():
  """48 -> 20 pixels: the centre of pixel 12 is on the edge of 29 and 30."""
  ids = np.tile(np.arange(48, dtype=np.uint8), (48, 1))
  example = {'image': noise(48, 48), 'segmentation': palette(ids)}
  _, found = stored_form.image_and_annotations(example, Recipe(resize=20))
  assert found is not None
  columns = [(2 * i + 1) * 48 // 40 for i in range(20)]
  assert columns[12] == 30
  assert decoded(found['segmentation']).tolist() == [columns] * 20


def test_annotations_of_kept_images_are_kept():
  mask = palette(np.full((6, 8), 255, np.uint8))
  example = {'image': encoded(noise(6, 8)), 'segmentation': mask}
  image, found = stored_form.image_and_annotations(example, Recipe(long_side=8))
  assert image == example['image'] and found == {'segmentation': mask}


def test_the_first_size_stays():
  example = {'image': noise(60, 100), 'original_size': np.int32([600, 1000])}
  _, found = stored_form.image_and_annotations(example, Recipe(long_side=50))
  assert found is not None and found['original_size'].tolist() == [600, 1000]


@pytest.mark.parametrize(
  'mask,message',
  [
    (palette(np.zeros((6, 9), np.uint8)), r'of 6x9 pixels for an image of 6x8'),
    (encoded(noise(6, 8), 'PNG'), "mode 'RGB', it must hold class ids"),
    (palette(np.zeros((6, 8), np.uint8))[:60], 'cannot be decoded'),
    (encoded(noise(6, 8)), 'cannot be decoded'),
  ],
)
def test_bad_masks_are_refused(mask, message):
  example = {'image': noise(6, 8), 'segmentation': mask}
  with pytest.raises(BadExample, match=message):
    stored_form.image_and_annotations(example, Recipe())


def test_two_sizes_are_refused():
  with pytest.raises(ValueError, match='resize=5 and long_side=6: give one'):
    Recipe(resize=5, long_side=6)
