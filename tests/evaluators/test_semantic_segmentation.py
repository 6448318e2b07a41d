"""mIoU at the original size against brute force over all pixels.

The yardstick is scipy's linear interpolation in float64 and scikit-learn's
scores of the pixels of all images put together.
"""

import csv

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import (
  accuracy_score,
  balanced_accuracy_score,
  confusion_matrix,
  jaccard_score,
)

from tests.evaluators import harness
from tests.fixtures import mask_source

SIDE, STRIDE, GRID, CANVAS = 33, 8, 5, 61
NAMES = ['aeroplane', 'potted plant', 'cat']
CLASSES = ['background', 'aeroplane', 'potted_plant', 'cat']
# (height, width): one as the net sees it, some larger, smaller, thin.
SIZES = [
  (33, 33), (61, 44), (20, 61), (17, 9), (50, 50), (1, 30), (40, 2), (25, 33),
  (33, 12), (60, 61), (8, 8),
]  # fmt: skip
DECODED = [
  dict(op='decode'),
  dict(op='decode_segmentation'),
  dict(op='full_segmentation', max_size=CANVAS),
]
OPS = {
  'warp': [*DECODED, dict(op='resize', size=SIDE), dict(op='image_size')],
  'pad': [
    *DECODED,
    dict(op='resize_long', size=SIDE),
    dict(op='image_size'),
    dict(op='pad', size=SIDE),
  ],
}


def _entry(ops='warp', **options):
  source = dict(
    type='tests.fixtures.mask_source', sizes=SIZES, names=NAMES, num_ids=4
  )
  source |= options.pop('data', {})
  entry = dict(
    type='semantic_segmentation',
    data=source,
    ops=OPS[ops] if isinstance(ops, str) else ops,
    batch_size=4,
  )
  return entry | options


def _context(**options):
  return harness.context(len(NAMES), **dict(name='val') | options)


def _logits(num_classes=4):
  rng = np.random.default_rng(2)
  shape = len(SIZES), GRID, GRID, num_classes
  return rng.standard_normal(shape).astype(np.float32)


def _predicted(logits, seen, full):
  """int [H, W]: the best class at each pixel centre of the original."""
  rows, columns = (
    ((np.arange(n) + 0.5) * part / n - 0.5) / STRIDE
    for part, n in zip(seen, full)
  )
  points = np.meshgrid(rows, columns, indexing='ij')
  values = [
    ndimage.map_coordinates(one.astype(float), points, order=1, mode='nearest')
    for one in np.moveaxis(logits, -1, 0)
  ]
  return np.argmax(values, axis=0)


def _seen(size, ops):
  """Height and width of a record as the net sees it."""
  if ops == 'warp':
    return SIDE, SIDE
  return tuple(max(1, round(n * SIDE / max(size))) for n in size)


def _pixels(logits, records, ops='warp', num_ids=4):
  """(true, predicted) of all pixels that are not void."""
  true, predicted = [], []
  for index in records:
    size = SIZES[index]
    mask = mask_source.mask_of(index, size, num_ids)
    best = _predicted(logits[index], _seen(size, ops), size)
    true.append(mask[mask != 255])
    predicted.append(best[mask != 255])
  return np.concatenate(true), np.concatenate(predicted)


def _expected(true, predicted, names=CLASSES):
  iou = jaccard_score(
    true, predicted, labels=range(len(names)), average=None, zero_division=0
  )
  figures = {
    'miou': 100 * iou.mean(),
    'pixel_accuracy': 100 * accuracy_score(true, predicted),
    'mean_accuracy': 100 * balanced_accuracy_score(true, predicted),
    'num_pixels': len(true),
  }
  return figures | {f'iou/{n}': 100 * v for n, v in zip(names, iou)}


@pytest.mark.parametrize(
  ('ops', 'shape', 'batch_size'),
  [
    ('warp', None, 1),
    ('warp', None, 4),
    ('pad', None, 16),
    ('pad', (8, 1), 8),
    ('warp', (2, 4), 16),
  ],
)
def test_brute_force(ops, shape, batch_size):
  """Any size, batch size and mesh; 11 images pad the last batch."""
  logits = _logits()
  mesh = shape and harness.mesh(*shape)
  evaluator = harness.build(
    _entry(ops, batch_size=batch_size), _context(mesh=mesh)
  )
  figures = evaluator.run(logits)
  everything = range(len(SIZES))
  expected = _expected(*_pixels(logits, everything, ops))
  assert figures == pytest.approx(expected | {'num_images': len(SIZES)})
  sizes = np.prod(SIZES, axis=1).sum()
  assert 0.75 * sizes < figures['num_pixels'] < 0.85 * sizes


def test_perfect_logits_score_100():
  """Masks of whole images, each of one class; the first has two halves."""
  logits = np.zeros((3, GRID, GRID, 4), np.float32)
  sizes = [(33, 33), (33, 33), (33, 33)]
  entry = _entry(data=dict(sizes=sizes, num_ids=1, void=0.0))
  logits[..., 0] = 1
  figures = harness.build(entry, _context()).run(logits)
  assert figures['miou'] == figures['pixel_accuracy'] == 100
  # Classes without a true or predicted pixel have no figure.
  assert [n for n in figures if n.startswith('iou/')] == ['iou/background']
  logits[1, ..., 2] = 2
  figures = harness.build(
    entry,
    _context(),
  ).run(logits)
  assert figures['miou'] == pytest.approx(100 * (2 / 3 + 0) / 2)
  assert figures['iou/potted_plant'] == 0


def test_at_the_size_of_the_input():
  logits = _logits()
  ops = [dict(op='decode'), dict(op='decode_segmentation'), OPS['warp'][3]]
  evaluator = harness.build(_entry(ops, size='input'), _context())
  figures = evaluator.run(logits)
  true, predicted = [], []
  for index, size in enumerate(SIZES):
    mask = mask_source.mask_of(index, size, 4)
    # Nearest pixel of the original for each of the input.
    rows, columns = (
      np.floor((np.arange(SIDE) + 0.5) * n / SIDE).astype(int) for n in size
    )
    mask = mask[rows[:, None], columns]
    best = _predicted(logits[index], (SIDE, SIDE), (SIDE, SIDE))
    true.append(mask[mask != 255])
    predicted.append(best[mask != 255])
  expected = _expected(*map(np.concatenate, (true, predicted)))
  assert figures == pytest.approx(expected | {'num_images': len(SIZES)})


def test_without_a_background():
  logits = _logits(num_classes=3)
  entry = _entry(data=dict(num_ids=3, background=False), per_class=False)
  figures = harness.build(entry, _context()).run(logits)
  pixels = _pixels(logits, range(len(SIZES)), num_ids=3)
  expected = _expected(*pixels, names=['a', 'b', 'c'])
  assert figures == pytest.approx(
    {n: v for n, v in expected.items() if not n.startswith('iou/')}
    | {'num_images': len(SIZES)}
  )


def test_excluded_records_give_second_figures():
  logits = _logits()
  entry = _entry(exclude_ids=['record-1', 9])
  figures = harness.build(entry, _context()).run(logits)
  rest = [i for i in range(len(SIZES)) if i not in (1, 9)]
  everything = _expected(*_pixels(logits, range(len(SIZES))))
  kept = _expected(*_pixels(logits, rest))
  expected = everything | {'num_images': len(SIZES)}
  expected |= {f'{n}/dedup': v for n, v in kept.items()}
  assert figures == pytest.approx(expected | {'num_images/dedup': len(rest)})
  assert figures['miou'] != figures['miou/dedup']


def test_the_first_process_writes_the_matrix(tmp_path):
  logits = _logits()
  for index in (1, 0):
    ctx = _context(workdir=str(tmp_path), process_index=index)
    harness.build(_entry(), ctx).run(logits)
    if index:
      assert not list(tmp_path.iterdir())
  assert [p.name for p in tmp_path.iterdir()] == ['val_confusion.csv']
  with open(tmp_path / 'val_confusion.csv', newline='') as file:
    head, *rows = csv.reader(file)
  names = ['background', *NAMES]
  assert head == ['true', *names] and [row[0] for row in rows] == names
  counts = np.array([row[1:] for row in rows], int)
  np.testing.assert_array_equal(
    counts, confusion_matrix(*_pixels(logits, range(len(SIZES))))
  )


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_broken_logits_name_the_record(value):
  logits = _logits()
  logits[6, 0, 4, 2] = value
  evaluator = harness.build(_entry(), _context())
  with pytest.raises(
    ValueError,
    match=r'^evals\.val: the logits are not finite, in 1 images .*: record-6$',
  ):
    evaluator.run(logits)


def test_broken_logits_of_padding_do_not_matter():
  """The last batch is filled with blanks, whose pixels are 0."""
  logits = _logits()
  evaluator = harness.build(_entry(batch_size=16), _context())
  plain = evaluator.run(logits)

  def predict(state, batch):
    found = harness.predict(state, batch)['logits']
    return {
      'logits': jnp.where(batch['_mask'][:, None, None, None], found, jnp.nan)
    }

  evaluator._predict = predict
  evaluator._data._compiled.clear()
  assert evaluator.run(logits) == plain


def test_a_mask_larger_than_the_canvas_is_named():
  evaluator = harness.build(
    _entry(data=dict(sizes=[(61, 61), (20, 62)])), _context()
  )
  with pytest.raises(
    ValueError, match='record-1 cannot be used: image of 20x62 is larger than'
  ):
    evaluator.run(_logits())


def test_an_id_that_is_no_class_is_named():
  """3 classes and 4 ids: the last would count nowhere."""
  evaluator = harness.build(_entry(), _context())
  with pytest.raises(
    ValueError, match=r'a mask has an id that is none of 3 classes, .*record-0'
  ):
    evaluator.run(_logits(num_classes=3))


@pytest.mark.parametrize('num_classes', [2, 5])
def test_another_number_of_classes_is_refused(num_classes):
  evaluator = harness.build(_entry(data=dict(num_ids=2)), _context())
  with pytest.raises(
    ValueError,
    match=rf'evals\.val: the prediction has {num_classes} classes, the '
    r'vocabulary 3, with a background 4',
  ):
    evaluator.run(_logits(num_classes=num_classes))


@pytest.mark.parametrize('background', [True, False])
def test_the_data_know_whether_there_is_a_background(background):
  entry = _entry(data=dict(num_ids=3, background=background))
  evaluator = harness.build(entry, _context())
  with pytest.raises(ValueError, match=rf'data: background={background}, but'):
    evaluator.run(_logits(num_classes=3 + (not background)))


def test_a_set_of_void_is_refused():
  evaluator = harness.build(_entry(data=dict(void=1.0)), _context())
  with pytest.raises(ValueError, match=r'evals\.val: no pixel counts: all are'):
    evaluator.run(_logits())


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(size='full'), r"val\.size='full'; valid: original, input"),
    (dict(ops=OPS['warp'][:2]), r"ops: the size of 'image' follows the input"),
    (
      dict(ops=[DECODED[0], OPS['warp'][3], OPS['warp'][4]]),
      r"val\.ops: no op makes the field 'full_segmentation'",
    ),
    (
      dict(ops=OPS['warp'][:4]),
      r"val\.ops: no op makes the field 'image_size'",
    ),
    (
      dict(ops=[DECODED[0], OPS['warp'][3]], size='input'),
      r"val\.ops: no op makes the field 'segmentation'",
    ),
    (dict(predict_fn='mask'), r"the task has no prediction 'mask'"),
  ],
)
def test_mistakes_are_named_at_construction(options, message):
  with pytest.raises(ValueError, match=message):
    harness.build(_entry() | options, _context())
