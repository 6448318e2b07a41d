"""Few canvases: which batch has which, each record once, seeking, processes."""

import collections
import pickle
import tracemalloc

import numpy as np
import pytest

from input_pipeline import canvases, pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import subset
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops import geometry
from input_pipeline.sources import synthetic

SIZES = [[12, 20], [20, 12]]
OPS = [
  dict(op='decode'),
  dict(op='resize_small', size=12, max_size=20),
  dict(op='random_flip'),
  dict(op='image_size'),
  dict(op='canvas', sizes=SIZES),
  dict(op='boxes', max_boxes=2),
]
# Height and width of stored images -> canvas: by resize_small(12, max 20).
STORED = {
  (6, 8): (12, 20),  # 12 x 16
  (24, 24): (12, 20),  # 12 x 12 fits both: the first listed
  (50, 100): (12, 20),  # 10 x 20 by max_size
  (9, 6): (20, 12),  # 18 x 12
  (100, 30): (20, 12),  # 20 x 6
}


class Sized:
  """Images of several sizes, one box each; a size is known unless told so."""

  hierarchy = None
  vocabulary = Vocabulary(('thing',))

  def __init__(self, num, known=True, bad=()):
    shapes = [*STORED]
    order = np.random.default_rng(0).integers(len(shapes), size=num)
    self._sizes = np.array([shapes[i] for i in order], np.int32)
    self._bad = frozenset(bad)
    if known:
      self.sizes = lambda: self._sizes

  def __getstate__(self):
    return self.__dict__ | {'sizes': None}

  def __len__(self):
    return len(self._sizes)

  def __getitem__(self, index):
    if index in self._bad:
      raise BadExample('damaged')
    height, width = self._sizes[index]
    image = np.full((height, width, 3), index % 251, np.uint8)
    box = np.array([[0, 0, height, width]], np.float32)
    return {
      'image': image,
      'labels': np.zeros(1, np.int32),
      'boxes': box,
      'box_labels': np.zeros(1, np.int32),
    }

  def key(self, index):
    return f'record {index}'

  def fingerprint(self):
    return str(len(self))


def train(source, num, ops=OPS, **options):
  options = dict(batch_size=4, seed=3, max_bad_fraction=1.0) | options
  chain = pipeline.build_ops(ops, source)
  iterator = pipeline.train(source, chain, **options)
  found = [next(iterator) for _ in range(num)]
  iterator.close()
  return found


def buckets(*nums):
  """Canvases of buckets of so many records, of interleaved indices."""
  total = sum(nums)
  which = np.random.default_rng(1).permutation(
    np.repeat(range(len(nums)), nums)
  )
  records = tuple(np.flatnonzero(which == b) for b in range(len(nums)))
  sizes = tuple((10 + b, 20) for b in range(len(nums)))
  return canvases.Canvases(sizes, records, total, '')


def test_batches_have_the_canvas_of_their_images():
  source = Sized(40)
  batches = train(source, 20)
  shapes = collections.Counter(b['image'].shape[1:3] for b in batches)
  assert set(shapes) == {(12, 20), (20, 12)}
  for batch in batches:
    for row, index in enumerate(batch['_id']):
      height, width = source._sizes[index]
      assert batch['image'].shape[1:3] == STORED[int(height), int(width)]
      # The image at the top left, of its own size; grey around it.
      h, w = batch['image_size'][row]
      image = batch['image'][row]
      assert (image[:h, :w] == index % 251).all()
      assert (image[h:] == 128).all() and (image[:, w:] == 128).all()
      np.testing.assert_allclose(batch['boxes'][row, 0], [0, 0, h, w])
      ratio = min(12 / min(height, width), 20 / max(height, width))
      assert (h, w) == (round(height * ratio), round(width * ratio))


@pytest.mark.parametrize('nums', [(7, 13), (1, 30), (5, 6, 9), (4, 4), (3, 1)])
@pytest.mark.parametrize(
  'batch_size', [pytest.param(1, marks=pytest.mark.nightly), 4, 7]
)
def test_every_record_once_in_each_pass_of_its_bucket(nums, batch_size):
  chosen = buckets(*nums)
  order = canvases.Shuffled(chosen, 5, batch_size, range(batch_size))
  num_passes = 3
  steps = 4 * num_passes * (sum(nums) // batch_size + len(nums) + 1)
  seen = [collections.Counter() for _ in nums]
  for step in range(steps):
    bucket = order.canvas(step)
    positions = order(step)
    assert len(positions) == batch_size
    assert {i for _, i in positions} <= set(chosen.records[bucket].tolist())
    seen[bucket].update(positions)
  for bucket, records in enumerate(chosen.records):
    wanted = {(e, int(i)) for e in range(num_passes) for i in records}
    assert all(seen[bucket][pair] == 1 for pair in wanted)


@pytest.mark.parametrize('nums', [(7, 13), (1, 30), (5, 6, 9)])
def test_batches_of_an_epoch_by_the_formula(nums):
  size, epochs = 4, 12
  order = canvases.Shuffled(buckets(*nums), 5, size, range(size))
  step = 0
  orders = []
  for epoch in range(epochs):
    wanted = [(epoch + 1) * n // size - epoch * n // size for n in nums]
    drawn = [order.canvas(step + i) for i in range(sum(wanted))]
    assert np.bincount(drawn, minlength=len(nums)).tolist() == wanted
    orders.append(tuple(drawn))
    step += sum(wanted)
  assert len(set(orders)) > 1  # drawn anew each epoch


def test_the_seed_decides_and_epochs_differ():
  chosen = buckets(40, 60)
  orders = {
    tuple(map(tuple, map(canvases.Shuffled(chosen, s, 4, range(4)), range(25))))
    for s in (0, 0, 1, 2)
  }
  assert len(orders) == 3


@pytest.mark.parametrize('start', [1, 9, 10, 11, 23])
def test_seeking_is_going_on(start):
  source = Sized(40)
  whole, part = train(source, 26), train(source, 26 - start, start_step=start)
  for a, b in zip(whole[start:], part, strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_seeking_costs_the_same_at_any_step():
  chosen = buckets(70_000, 50_000)
  peaks = []
  for step in (0, 10**6, 10**12):
    order = canvases.Shuffled(chosen, 0, 8, range(8))
    tracemalloc.start()
    assert len(set(order(step))) == 8
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
  assert max(peaks) < 100_000


def test_a_copy_in_a_worker_gives_the_same():
  order = canvases.Shuffled(buckets(7, 13), 5, 4, range(4))
  order(3)
  copy = pickle.loads(pickle.dumps(order))  # noqa: S301
  assert [copy(s) for s in range(20)] == [order(s) for s in range(20)]


@pytest.mark.parametrize('count', [2, 4])
def test_processes_agree_on_the_canvas_and_share_the_rows(count):
  source = Sized(40)
  whole = train(source, 12)
  parts = [
    train(source, 12, process_index=p, process_count=count)
    for p in range(count)
  ]
  for step, batch in enumerate(whole):
    for name in ('_id', 'image', 'boxes'):
      rows = np.concatenate([parts[p][step][name] for p in range(count)])
      np.testing.assert_array_equal(rows, batch[name])


@pytest.mark.slow
def test_workers_do_not_change_the_batches():
  source = Sized(40)
  for a, b in zip(train(source, 8), train(source, 8, workers=2), strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize('num', [1, 7, 40])
@pytest.mark.parametrize('count', [1, 2])
def test_evaluation_has_every_record_once(num, count):
  source = Sized(num)
  ops = pipeline.build_ops([o for o in OPS if o['op'] != 'random_flip'], source)
  seen, shapes = collections.Counter(), []
  for process in range(count):
    data = pipeline.evaluation(
      source, ops, batch_size=4, process_index=process, process_count=count
    )
    batches = list(data)
    assert len(batches) == len(data)
    shapes.append([b['image'].shape for b in batches])
    for batch in batches:
      kept = batch['_mask']
      np.testing.assert_array_equal(kept, batch['_id'] >= 0)
      seen.update(batch['_id'][kept].tolist())
  assert seen == collections.Counter(range(num))
  assert all(shape == shapes[0] for shape in shapes)


def test_where_sizes_are_not_known_there_is_one_canvas():
  source = Sized(20, known=False)
  chosen = canvases.choose(source, pipeline.build_ops(OPS, source))
  assert chosen.sizes == ((20, 20),)
  assert chosen.report == (
    'one canvas of 20x20 for all images: the source does not know the sizes of '
    'its images'
  )
  padded = [dict(op='pad', size=20) if o['op'] == 'canvas' else o for o in OPS]
  for a, b in zip(train(source, 7), train(source, 7, ops=padded), strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_an_op_that_hides_the_size():
  source = Sized(20)
  ops = [OPS[0], dict(op='central_crop', fraction=0.5), *OPS[1:]]
  chosen = canvases.choose(source, pipeline.build_ops(ops, source))
  assert chosen.sizes == ((20, 20),)
  assert 'does not say what size it makes' in chosen.report


class Doubled(geometry.ResizeSmall):
  """An op of a user's own that extends one of ours."""

  def __call__(self, example, rng):
    return super().__call__(example, rng)


def test_what_a_users_own_op_inherits_is_not_believed():
  source = Sized(20)
  name = f'{__name__}.Doubled'
  ops = [OPS[0], OPS[1] | {'op': name}, *OPS[2:]]
  chosen = canvases.choose(source, pipeline.build_ops(ops, source))
  assert 'does not say what size it makes' in chosen.report


def test_the_report_counts_and_an_image_that_fits_nowhere_is_bad():
  source = Sized(40)
  ops = [
    dict(op='canvas', sizes=[[30, 30], [60, 110]]),
    dict(op='boxes', max_boxes=1),
  ]
  chosen = canvases.choose(source, pipeline.build_ops(ops, source))
  tall = (source._sizes == (100, 30)).all(axis=1)
  large = (source._sizes == (50, 100)).all(axis=1)
  assert chosen.report == (
    f'canvases: {40 - (tall | large).sum()} on 30x30, '
    f'{(tall | large).sum()} on 60x110; {tall.sum()} images fit into none of '
    f'input.ops[0] (canvas)'
  )
  batches = train(source, 20, ops=ops)
  bad = {int(i) for b in batches for i in b['_id'][~b['_mask']]}
  assert bad == set(np.flatnonzero(tall))


def test_bad_records_change_nothing_else():
  for a, b in zip(
    train(Sized(40), 10), train(Sized(40, bad=[3, 4]), 10), strict=True
  ):
    np.testing.assert_array_equal(a['_id'], b['_id'])
    good = ~np.isin(b['_id'], [3, 4])
    np.testing.assert_array_equal(b['_mask'], good)
    np.testing.assert_array_equal(a['image'][good], b['image'][good])


def test_without_the_op_nothing_is_chosen():
  source = Sized(5)
  chosen = canvases.choose(source, pipeline.build_ops(OPS[:2], source))
  assert chosen.sizes == (None,) and chosen.report == ''


@pytest.mark.parametrize(
  'options, message',
  [
    ({'sizes': []}, r'sizes=\[\] must be list of list of 2 int'),
    ({'sizes': [[608, 0]]}, r'sizes=\[\[608, 0\]\] must be list of list of 2 '),
    ({'sizes': [[60, 80], [60, 80]]}, 'a canvas twice'),
    ({'sizes': [[60, 80]], 'fill': 300}, r'fill=300 must be int in \[0, 255\]'),
  ],
)
def test_mistakes(options, message):
  with pytest.raises(
    ValueError, match=rf'input.ops\[0\] \(canvas\).*{message}'
  ):
    pipeline.build_ops([dict(op='canvas', **options)], Sized(2))


def test_two_canvases_in_a_chain():
  source = Sized(2)
  ops = pipeline.build_ops([*OPS, OPS[4]], source)
  with pytest.raises(ValueError, match=r'\[6\] \(canvas\): a chain has one'):
    canvases.choose(source, ops)


def test_the_specification_is_of_the_largest_canvas():
  ops = pipeline.build_ops(
    [dict(op='canvas', sizes=[[700, 900], [650, 650]])], Sized(2)
  )
  assert pipeline.example_spec(ops)['image'].shape == (700, 900, 3)


def test_the_report_of_a_run_has_the_data_and_the_canvases():
  source = Sized(40)
  source.report_lines = lambda: ['40 boxes']
  found = canvases.report(source, pipeline.build_ops(OPS, source))
  assert found[0] == '40 boxes' and found[1].startswith('canvases: ')
  part = subset.take(source, 0.5)
  found = canvases.report(part, pipeline.build_ops(OPS[:2], part))
  assert found == ['of all 40 records: 40 boxes']


def test_boxes_of_the_synthetic_world():
  """Detection's world: ten classes and more, five objects, distractors."""
  options = dict(num_classes=12, depth=0, max_objects=5, annotations=True)
  source = synthetic.Source(image_size=48, num_images=30, **options)
  chain = pipeline.build_ops(OPS, source)
  assert canvases.choose(source, chain).sizes == ((12, 20),)  # all are square
  counts, labels = set(), set()
  for i in range(30):
    example = source[i]
    counts.add(len(example['boxes']))
    labels |= {*example['box_labels'].tolist()}
  assert max(counts) == 5 and len(labels) >= 10 and max(labels) < 12
