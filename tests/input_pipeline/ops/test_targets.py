"""Ops boxes, pad, image_size, decode_segmentation; and batches of them."""

import io

import numpy as np
import pytest
from PIL import Image

from input_pipeline import ops as example_ops
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops import chains, targets
from input_pipeline.ops.context import OpContext

DETECTION = [
  dict(op='decode'),
  dict(op='resize_small', size=60, max_size=100),
  dict(op='random_flip'),
  dict(op='image_size'),
  dict(op='pad', size=100),
  dict(
    op='boxes',
    max_boxes=4,
    extras=['box_crowd', 'box_difficult', 'box_ids'],
    num_keypoints=17,
  ),
]
SEGMENTATION = [
  dict(op='decode'),
  dict(op='decode_segmentation', num_classes=4),
  dict(op='resize_long', size=64),
  dict(op='random_flip'),
  dict(op='image_size'),
  dict(op='pad', size=64),
]


def build(*specs):
  context = OpContext(vocabulary=Vocabulary(names=('a', 'b', 'c')))
  return example_ops.build(specs, context)


def run(specs, example):
  rng = np.random.default_rng(0)
  for op in build(*specs):
    example = op(example, rng)
  return example


def png(array, mode=None, **options):
  picture = Image.fromarray(np.asarray(array, np.uint8), mode='L')
  if mode == 'P':
    picture.putpalette([n * 7 % 256 for n in range(768)])
    picture = Image.frombytes('P', picture.size, picture.tobytes())
    picture.putpalette([n * 7 % 256 for n in range(768)])
  elif mode:
    picture = picture.convert(mode)
  file = io.BytesIO()
  picture.save(file, 'PNG', **options)
  return file.getvalue()


def jpeg(height, width):
  rng = np.random.default_rng(height)
  pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG')
  return file.getvalue()


def blank(height, width):
  return np.zeros((height, width, 3), np.uint8)


class ListSource:
  """Examples given as a list."""

  vocabulary = Vocabulary(names=('a', 'b', 'c'))
  hierarchy = None

  def __init__(self, *examples):
    self._examples = examples

  def __len__(self):
    return len(self._examples)

  def __getitem__(self, index):
    return {'labels': np.int32([0]), **self._examples[index]}

  def key(self, index):
    return f'record {index}'

  def fingerprint(self):
    return 'list'


def test_boxes_are_padded():
  example = {
    'image': blank(9, 9),
    'boxes': np.float32([[0, 1, 2, 3], [4, 5, 8, 9]]),
    'box_labels': np.int32([2, 0]),
    'box_difficult': np.array([False, True]),
    'box_outlines': [[], []],
  }
  extras = ['box_crowd', 'box_difficult', 'box_area', 'box_ids']
  out = run([dict(op='boxes', max_boxes=3, extras=extras)], example)
  assert out['boxes'].tolist() == [[0, 1, 2, 3], [4, 5, 8, 9], [0, 0, 0, 0]]
  assert out['box_labels'].tolist() == [2, 0, -1]
  assert out['box_mask'].tolist() == [True, True, False]
  assert out['box_crowd'].tolist() == [False] * 3
  assert out['box_difficult'].tolist() == [False, True, False]
  assert out['box_area'].tolist() == [4, 16, 0]
  assert targets.whole_ids(out['box_ids']).tolist() == [-1] * 3
  assert 'box_outlines' not in out and 'keypoints' not in out
  dtypes = [out[n].dtype for n in ('boxes', 'box_labels', *extras)]
  assert dtypes == ['float32', 'int32', 'bool', 'bool', 'float32', 'int32']
  ids = np.int64([900_100_581_904, 2**31])  # as COCO's crowds have them
  stored = example | {'box_area': np.float32([3, 7]), 'box_ids': ids}
  out = run([dict(op='boxes', max_boxes=2, extras=extras)], stored)
  assert out['box_area'].tolist() == [3, 7]
  assert targets.whole_ids(out['box_ids']).tolist() == ids.tolist()
  batch = np.stack([out['box_ids']] * 3)
  assert targets.whole_ids(batch).tolist() == [ids.tolist()] * 3
  assert targets.whole_ids(np.full((1, 2), -1)).tolist() == [-1]


def test_a_record_without_boxes_gives_the_same_fields():
  op = dict(op='boxes', max_boxes=2, extras=['box_ids'], num_keypoints=5)
  none = run([op], {'image': blank(4, 4)})
  one = run(
    [op],
    {
      'image': blank(4, 4),
      'boxes': np.float32([[0, 0, 1, 1]]),
      'box_labels': np.int32([1]),
      'keypoints': np.ones((1, 5, 3), np.float32),
    },
  )
  assert none.keys() == one.keys()
  for name in none:
    assert none[name].dtype == one[name].dtype
    assert none[name].shape == one[name].shape
  assert not none['box_mask'].any()
  np.testing.assert_array_equal(one['keypoints'][0], 1)
  np.testing.assert_array_equal(one['keypoints'][1], 0)


def test_more_boxes_than_fit_are_a_bad_example():
  example = {
    'boxes': np.zeros((3, 4), np.float32),
    'box_labels': np.zeros(3, np.int32),
  }
  with pytest.raises(BadExample, match=r'3 boxes .* max_boxes=2 of input\.ops'):
    run([dict(op='boxes', max_boxes=2)], example)


def test_mistakes_of_a_data_set_are_named():
  boxes = {'boxes': np.zeros((1, 4), np.float32)}
  op = dict(op='boxes', max_boxes=2)
  with pytest.raises(ValueError, match='boxes and no box_labels'):
    run([op], boxes)
  with pytest.raises(ValueError, match=r'box label 3 is outside .* 3 names'):
    run([op], boxes | {'box_labels': np.int32([3])})
  wrong = {
    'box_labels': np.int32([0]),
    'keypoints': np.zeros((1, 5, 3), np.float32),
  }
  with pytest.raises(ValueError, match=r'num_keypoints=17, .* has 5'):
    run([op | dict(num_keypoints=17)], boxes | wrong)
  with pytest.raises(ValueError, match='padded already'):
    run([op, op], {})


@pytest.mark.parametrize(
  'spec,message',
  [
    (dict(op='boxes', max_boxes=0), 'max_boxes=0 must be int of at least 1'),
    (dict(op='boxes', max_boxes=1, extras=['crowd']), 'crowd.* box_crowd'),
    (dict(op='boxes', max_boxes=1, num_keypoints=-1), 'num_keypoints=-1 must'),
    (dict(op='pad', size=9, fill=256), r'fill=256 must be .*\[0, 255\]'),
    (dict(op='pad', size=9, fill=[1, 2]), r'fill=\[1, 2\] must .* list of 3'),
    (dict(op='pad', size=0), 'size=0 must be int of at least 1'),
    (
      dict(op='decode_segmentation', num_classes=256),
      r'num_classes=256 must be int in \[1, 255\] or None',
    ),
  ],
)
def test_mistakes_in_options(spec, message):
  with pytest.raises(ValueError, match=message):
    build(spec)


def test_pad_by_hand():
  image = np.full((2, 3, 3), 9, np.uint8)
  ids = np.uint8([[1, 2, 3], [0, 0, 255]])
  example = {'image': image, 'segmentation': ids, 'boxes': np.ones((1, 4))}
  out = run([dict(op='pad', size=(3, 5), fill=[1, 2, 3])], example)
  assert out['image'][:2, :3].tolist() == image.tolist()
  assert (out['image'][2] == [1, 2, 3]).all()
  assert (out['image'][:, 3:] == [1, 2, 3]).all()
  assert out['segmentation'].tolist() == [
    [1, 2, 3, 255, 255], [0, 0, 255, 255, 255], [255] * 5,
  ]  # fmt: skip
  assert out['boxes'] is example['boxes']
  grey = run([dict(op='pad', size=3)], {'image': image})['image']
  assert grey[2].tolist() == [[128] * 3] * 3
  with pytest.raises(BadExample, match='2x3 is larger than the canvas 2x2'):
    run([dict(op='pad', size=2)], {'image': image})


IDS = [[0, 1, 2], [3, 21, 255]]


@pytest.mark.parametrize('mode', ['P', None])
def test_segmentation_is_indices_never_colours(mode):
  example = {'image': blank(2, 3), 'segmentation': png(IDS, mode)}
  op = dict(op='decode_segmentation', num_classes=255)
  out = run([op], example)['segmentation']
  assert out.dtype == np.uint8 and out.tolist() == IDS


def test_ids_are_the_background_and_those_of_the_vocabulary():
  op = dict(op='decode_segmentation')
  example = {'image': blank(1, 5), 'segmentation': png([[0, 1, 2, 3, 255]])}
  run([op], example)
  with pytest.raises(BadExample, match='class 4 in the segmentation'):
    run([op], example | {'segmentation': png([[0, 1, 2, 4, 255]])})


def test_ids_of_masks_without_a_background_are_those_of_the_vocabulary():
  context = OpContext(
    vocabulary=Vocabulary(names=('a', 'b', 'c')), background=False
  )
  (op,) = example_ops.build([dict(op='decode_segmentation')], context)
  example = {'image': blank(1, 4), 'segmentation': png([[0, 1, 2, 255]])}
  rng = np.random.default_rng(0)
  op(example, rng)
  with pytest.raises(BadExample, match='class 3 in the segmentation'):
    op(example | {'segmentation': png([[0, 1, 3, 255]])}, rng)


def test_palettes_of_few_bits_keep_their_indices():
  small = [[0, 1, 2], [3, 2, 1]]
  example = {'image': blank(2, 3), 'segmentation': png(small, 'P', bits=2)}
  out = run([dict(op='decode_segmentation')], example)['segmentation']
  assert out.tolist() == small


def grey_of_two_bits():
  """PNG of a 4x1 image of grey levels 0 to 3 of two bits, by hand."""
  import struct
  import zlib

  def chunk(kind, data):
    body = kind + data
    length, checksum = len(data), zlib.crc32(body)
    return struct.pack('>I', length) + body + struct.pack('>I', checksum)

  header = struct.pack('>IIBBBBB', 4, 1, 2, 0, 0, 0, 0)
  pixels = zlib.compress(bytes([0, 0b00011011]))
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    [chunk(b'IHDR', header), chunk(b'IDAT', pixels), chunk(b'IEND', b'')]
  )


@pytest.mark.parametrize(
  'encoded,message',
  [
    (png(IDS, 'RGB'), 'mode RGB'),
    (png(IDS, 'RGBA'), 'mode RGBA'),
    (png(IDS, 'LA'), 'mode LA'),
    (png(IDS, '1'), 'mode 1'),
    (grey_of_two_bits(), 'mode L; it must have a palette or 8-bit grey'),
    (png(IDS)[:50], 'cannot be decoded'),
    (jpeg(2, 3), 'cannot be decoded'),
    (png([[0, 1], [2, 3]]), 'segmentation of 2x2 for an image of 2x3'),
    (png([[0, 1, 9], [2, 3, 255]]), r'class 9 .* allows 4 and 255'),
  ],
)
def test_other_segmentations_are_bad_examples(encoded, message):
  example = {'image': blank(2, 3), 'segmentation': encoded}
  op = dict(op='decode_segmentation', num_classes=4)
  with pytest.raises(BadExample, match=message):
    run([op], example)


def test_segmentation_follows_a_jpeg_decoded_smaller():
  ids = np.repeat(np.arange(8, dtype=np.uint8), 8)[:, None].repeat(96, 1)
  example = {
    'image': jpeg(64, 96),
    'segmentation': png(ids),
    'boxes': np.float32([[8, 16, 64, 96]]),
  }
  decode = dict(op='decode_segmentation', num_classes=8)
  specs = [dict(op='decode', min_size=30), decode]
  out = run([*specs, dict(op='image_size')], example)
  assert out['image'].shape[:2] == (32, 48)
  assert out['boxes'].tolist() == [[4, 8, 32, 48]]
  np.testing.assert_array_equal(out['segmentation'], ids[1::2, 1::2])
  assert out['original_size'].tolist() == [64, 96]
  assert out['image_size'].tolist() == [32, 48]


def test_turning_by_exif_is_refused_for_targets():
  example = {'image': jpeg(8, 8), 'boxes': np.zeros((0, 4), np.float32)}
  with pytest.raises(ValueError, match=r'apply_exif=True turns .* boxes would'):
    run([dict(op='decode', apply_exif=True)], example)


def test_original_size():
  specs = [dict(op='decode'), dict(op='resize', size=5), dict(op='image_size')]
  out = run(specs, {'image': jpeg(12, 8)})
  assert out['original_size'].tolist() == [12, 8]
  assert out['image_size'].tolist() == [5, 5]
  known = run(specs, {'image': jpeg(12, 8), 'original_size': np.int32([7, 6])})
  assert known['original_size'].tolist() == [7, 6]
  with pytest.raises(ValueError, match='put decode before'):
    run([dict(op='image_size')], {'image': blank(3, 3)})


def annotated(height, width, num):
  return {
    'image': jpeg(height, width),
    'boxes': np.float32([[0, 0, height, width]] * num).reshape(-1, 4),
    'box_labels': np.arange(num, dtype=np.int32) % 3,
    'box_outlines': [[]] * num,
    'segmentation': png(np.full((height, width), 3)),
  }


def test_batches_of_detection():
  source = ListSource(
    annotated(60, 80, 2), annotated(90, 30, 0), {'image': jpeg(20, 20)}
  )
  ops = pipeline.build_ops(DETECTION, source)
  (batch,) = pipeline.evaluation(source, ops, batch_size=4)
  assert batch['_mask'].tolist() == [True, True, True, False]
  assert batch['image_size'].tolist() == [[60, 80], [100, 33], [60, 60], [0, 0]]
  assert batch['original_size'][:3].tolist() == [[60, 80], [90, 30], [20, 20]]
  assert batch['boxes'].shape == (4, 4, 4)
  assert batch['boxes'][0, :2].tolist() == [[0, 0, 60, 80]] * 2
  assert batch['box_mask'].sum(1).tolist() == [2, 0, 0, 0]
  assert batch['box_labels'][3].tolist() == [-1] * 4  # padding
  assert batch['keypoints'].shape == (4, 4, 17, 3)
  assert (batch['image'][1, :, 33:] == 128).all()
  assert 'segmentation' not in batch and 'box_outlines' not in batch
  assert {v.itemsize for v in batch.values()} == {1, 4}  # a device's types


def test_batches_of_segmentation():
  source = ListSource(annotated(60, 80, 1), annotated(90, 30, 0))
  ops = pipeline.build_ops(SEGMENTATION, source)
  (batch,) = pipeline.evaluation(source, ops, batch_size=2)
  assert batch['segmentation'].shape == (2, 64, 64)
  assert (batch['segmentation'][0, :48] == 3).all()
  assert (batch['segmentation'][0, 48:] == 255).all()
  assert 'boxes' not in batch


def test_a_classifier_reads_annotated_records():
  source = ListSource(annotated(60, 80, 2), annotated(90, 30, 0))
  specs = [
    dict(op='decode'),
    dict(op='resize', size=40),
    dict(op='random_crop', size=32),
    dict(op='labels', max_labels=2),
  ]
  ops = pipeline.build_ops(specs, source)
  (batch,) = pipeline.evaluation(source, ops, batch_size=2)
  assert sorted(batch) == ['_id', '_mask', 'image', 'label_ids']


class CountOutlines:
  """An op of a user's own that reads what no other op does."""

  def __init__(self, context):
    del context

  def __call__(self, example, rng):
    outlines = example.get('box_outlines', ())
    return example | {'label': np.int32(len(outlines))}


def test_own_ops_get_every_target():
  source = ListSource(annotated(60, 80, 2))
  specs = [
    dict(op='decode'),
    dict(op='resize', size=9),
    dict(op=f'{__name__}.CountOutlines'),
  ]
  ops = pipeline.build_ops(specs, source)
  (batch,) = pipeline.evaluation(source, ops, batch_size=1)
  assert batch['label'].tolist() == [2]


@pytest.mark.parametrize(
  'specs,read',
  [
    (DETECTION, {'boxes', 'box_labels', 'box_crowd', 'keypoints'}),
    (SEGMENTATION, {'segmentation'}),
    ([dict(op='resize', size=9)], set()),
    (
      [dict(op='resize', size=9),
       dict(op='boxes', max_boxes=1, extras=['box_area'])],
      {'boxes', 'box_labels', 'box_area', 'box_outlines'},
    ),
  ],
)  # fmt: skip
def test_targets_that_no_op_reads_are_not_moved(specs, read):
  ops = pipeline.build_ops(specs, ListSource())
  needed = chains.needed(ops)
  assert read <= needed
  for name in {'boxes', 'keypoints', 'box_outlines', 'segmentation'} - read:
    assert name not in needed, name


def test_a_record_without_a_segmentation_is_a_bad_one():
  source = ListSource({'image': jpeg(20, 20)})
  ops = pipeline.build_ops(SEGMENTATION, source)
  iterator = pipeline.train(
    source, ops, batch_size=1, seed=0, max_bad_fraction=1.0
  )
  assert next(iterator)['_mask'].tolist() == [False]
  assert 'no segmentation' in iterator.bad.reasons['record 0']
  iterator.close()


@pytest.mark.parametrize(
  'specs,message',
  [
    ([*SEGMENTATION[:1], *SEGMENTATION[2:], SEGMENTATION[1]], 'comes before'),
    ([DETECTION[0], DETECTION[1]], 'size of .image. follows the input'),
    ([dict(op='pad', size=3)], 'no image passes the ops: .* larger than'),
  ],
)
def test_chains_in_a_wrong_order_are_refused_at_the_start(specs, message):
  ops = pipeline.build_ops(specs, ListSource())
  with pytest.raises(ValueError, match=message):
    pipeline.example_spec(ops)


def test_boxes_are_padded_after_all_that_moves_them():
  with pytest.raises(ValueError, match=r'ops\[1\] .* moves boxes, which .*'):
    pipeline.build_ops([DETECTION[-1], DETECTION[2]], ListSource())


def test_chains_for_large_images_need_no_small_ones():
  ops = pipeline.build_ops([dict(op='random_crop', size=1500)], ListSource())
  assert pipeline.example_spec(ops)['image'].shape == (1500, 1500, 3)
  ops = pipeline.build_ops([dict(op='pad', size=64)], ListSource())
  assert pipeline.example_spec(ops)['image'].shape == (64, 64, 3)


def test_the_synthetic_world_has_targets():
  source = pipeline.open_source(
    dict(type='synthetic', annotations=True, num_images=4, num_classes=9)
  )
  for specs, fields in (
    (DETECTION, {'boxes', 'box_mask', 'keypoints'}),
    (SEGMENTATION, {'segmentation', 'image_size'}),
  ):
    limits = [dict(s) for s in specs]
    if fields == {'segmentation', 'image_size'}:
      limits[1]['num_classes'] = 10
    ops = pipeline.build_ops(limits, source)
    (batch,) = pipeline.evaluation(source, ops, batch_size=4)
    assert batch['_mask'].all() and fields <= batch.keys()
  example = source[0]
  assert (example['boxes'][:, 2:] > example['boxes'][:, :2]).all()
  ids = np.array(Image.open(io.BytesIO(example['segmentation'])))
  for i, label in enumerate(example['box_labels']):
    assert (ids[example['instance_map'] == i + 1] == label + 1).all()
  assert (ids[example['instance_map'] == 0] == 0).all()


def test_objects_that_cannot_be_seen_are_left_out(monkeypatch):
  from input_pipeline.synthetic_world.render import Rendered

  source = pipeline.open_source(dict(type='synthetic', annotations=True))
  instances = np.zeros((64, 64), np.int16)
  instances[:4, :6], instances[8:, 8:] = 1, 3  # nothing of the second
  drawn = Rendered(
    image=blank(64, 64),
    instance_map=instances,
    boxes=np.float32([[0, 0, 4, 6], [0, 0, 0, 0], [8, 8, 64, 64]]),
    classes=np.int32([5, 6, 7]),
    keypoints=np.arange(3 * 17 * 3, dtype=np.float32).reshape(3, 17, 3),
    masks=None,
  )
  monkeypatch.setattr(source.world, 'render', lambda *_: drawn)
  example = source[0]
  assert example['boxes'].tolist() == [[0, 0, 4, 6], [8, 8, 64, 64]]
  assert example['box_labels'].tolist() == [5, 7]
  assert example['keypoints'][1, 0].tolist() == [102, 103, 104]
  assert example['instance_map'][[0, 6, 9], [0, 0, 9]].tolist() == [1, 0, 2]
  ids = np.array(Image.open(io.BytesIO(example['segmentation'])))
  assert ids[[0, 6, 9], [0, 0, 9]].tolist() == [6, 0, 8]
