"""Chains that no record passes are refused before any data are read."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from input_pipeline import pipeline
from input_pipeline.labels.vocabulary import Vocabulary

DECODE = dict(op='decode')
SIZE = dict(op='resize', size=32)
LABELS = dict(op='labels', max_labels=3)
BOXES = dict(op='boxes', max_boxes=5)


class Records:
  """Two records of one label and one box; images encoded, or arrays."""

  vocabulary = Vocabulary(('cat', 'dog'))
  hierarchy = None

  def __init__(self, encoded: bool):
    image = Image.new('RGB', (40, 40))
    file = io.BytesIO()
    image.save(file, 'PNG')
    self._image = file.getvalue() if encoded else np.asarray(image)

  def __len__(self):
    return 2

  def __getitem__(self, index):
    return {
      'image': self._image,
      'labels': np.array([index], np.int32),
      'label_conf': np.array([0.5], np.float32),
      'boxes': np.array([[0, 0, 20, 20]], np.float32),
      'box_labels': np.array([index], np.int32),
    }

  def key(self, index):
    return str(index)

  def fingerprint(self):
    return 'records'


class OwnDecoder:
  """Decodes by itself."""

  reads = makes = frozenset({'image'})

  def __init__(self, context):
    del context

  def __call__(self, example, rng):
    return example | {'image': np.zeros((40, 40, 3), np.uint8)}


def keep(*names):
  return dict(op='keep', fields=list(names))


def batch(*specs, encoded=True):
  source = Records(encoded)
  ops = pipeline.build_ops(specs, source)
  (found,) = pipeline.evaluation(source, ops, batch_size=2)
  return found


def refused(*specs, encoded=True):
  with pytest.raises(ValueError) as told:
    pipeline.build_ops(specs, Records(encoded))
  return str(told.value)


@pytest.mark.parametrize(
  'specs,where',
  [
    ([SIZE, LABELS], 'input.ops[0] (resize)'),
    ([LABELS, dict(op='random_flip'), SIZE], 'input.ops[1] (random_flip)'),
    ([keep('image'), dict(op='pad', size=64)], 'input.ops[1] (pad)'),
    ([SIZE, DECODE], 'input.ops[0] (resize)'),
  ],
)
def test_pixels_of_an_encoded_image(specs, where):
  """Seen at the first record: reading one earlier could hang."""
  with pytest.raises(ValueError) as told:
    batch(*specs)
  assert str(told.value).startswith(
    f"{where} works on pixels, but the images are encoded: put 'decode' before "
    'it'
  )


def test_a_size_before_the_image():
  with pytest.raises(
    ValueError, match=r'^input\.ops\[0\] \(image_size\): .*put decode before$'
  ):
    batch(dict(op='image_size'), DECODE, SIZE)


def test_images_that_are_arrays_need_no_decoding():
  assert batch(SIZE, LABELS, encoded=False)['image'].shape == (2, 32, 32, 3)


def test_an_op_of_ones_own_may_decode():
  own = dict(op=f'{__name__}.OwnDecoder')
  assert batch(own, SIZE, LABELS)['image'].shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
  'kept,op,told',
  [
    (['image'], LABELS, "(labels) reads 'labels'"),
    (['image'], dict(op='single_label'), "(single_label) reads 'labels'"),
    (
      ['image', 'labels'],
      dict(op='labels', max_labels=3, max_negatives=2),
      "(labels) reads 'negatives'",
    ),
    (['image', 'boxes'], BOXES, "(boxes) reads 'box_labels'"),
    (['labels'], dict(op='pad', size=64), "(pad) reads 'image'"),
    (['image'], keep('image', 'labels'), "(keep) reads 'labels'"),
    (
      ['image'],
      dict(op='label_noise', kind='symmetric', rate=0.5),
      "(label_noise) reads 'labels'",
    ),
  ],
)
def test_a_field_that_keep_has_dropped(kept, op, told):
  assert refused(DECODE, SIZE, keep(*kept), op) == (
    f'input.ops[3] {told}, which input.ops[2] (keep) drops; name it in its '
    'fields'
  )


def test_what_records_may_lack_need_not_be_kept():
  extras = dict(**BOXES, extras=['box_crowd'])
  found = batch(DECODE, SIZE, keep('image', 'boxes', 'box_labels'), extras)
  assert not found['box_crowd'].any() and found['box_mask'].sum() == 2


def test_fields_made_behind_a_keep_are_there():
  found = batch(
    DECODE, SIZE, keep('image', 'labels'), LABELS, keep('image', 'label_ids')
  )
  np.testing.assert_array_equal(found['label_ids'], [[0, -1, -1], [1, -1, -1]])


def test_a_keep_does_not_hide_that_boxes_are_padded():
  kept = keep('image', 'boxes', 'box_labels', 'labels')
  crop = dict(op='random_crop', size=24)
  assert refused(DECODE, BOXES, kept, SIZE, crop, LABELS) == (
    'input.ops[3] (resize) moves boxes, which input.ops[1] (boxes) has padded '
    'to their final form: put the op that pads them after all that resize, '
    'crop or flip'
  )


@pytest.mark.parametrize(
  'op', [SIZE, dict(op='random_flip'), dict(op='central_crop', fraction=0.5)]
)
def test_padded_boxes_are_not_moved(op):
  told = refused(DECODE, SIZE, BOXES, op)
  assert re.match(r'input\.ops\[3\] \(\w+\) moves boxes, which .*\[2\]', told)


def test_what_does_not_move_boxes_may_follow_them():
  found = batch(DECODE, SIZE, BOXES, dict(op='pad', size=64))
  np.testing.assert_array_equal(found['boxes'][:, 0], [[0, 0, 16, 16]] * 2)
  found = batch(DECODE, BOXES, keep('image', 'labels'), SIZE, LABELS)
  assert found['image'].shape == (2, 32, 32, 3)
