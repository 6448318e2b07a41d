"""Order, resumption, processes, workers, bad records, evaluation."""

import collections
import tracemalloc

import numpy as np
import pytest

from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import subset
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary

OPS = [
  dict(op='random_crop', size=4),
  dict(op='random_flip'),
  dict(op='labels', fill_in=True, max_labels=4),
]
EVAL_OPS = [dict(op='center_crop', size=4), OPS[-1]]
NAMES = ('a', 'b', 'c')


class ListSource:
  """Images of noise; records listed in `bad` cannot be used."""

  def __init__(self, num, bad=()):
    self.vocabulary = Vocabulary(names=NAMES)
    self.hierarchy = Hierarchy.from_edges(NAMES, [('b', 'a')])
    self._num = num
    self._bad = frozenset(bad)

  def __len__(self):
    return self._num

  def __getitem__(self, index):
    if index in self._bad:
      raise BadExample('damaged')
    rng = np.random.default_rng(index)
    image = rng.integers(0, 255, (8, 8, 3), np.uint8)
    return {'image': image, 'labels': np.array([index % 3], np.int32)}

  def key(self, index):
    return f'record {index}'

  def fingerprint(self):
    return str(self._num)


def batches(source, num, **options):
  ops = pipeline.build_ops(OPS, source)
  options = dict(batch_size=4, seed=7, max_bad_fraction=1.0) | options
  iterator = pipeline.train(source, ops, **options)
  out = [next(iterator) for _ in range(num)]
  iterator.close()
  return out


def assert_same(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_every_epoch_is_a_new_permutation():
  ids = np.concatenate([b['_id'] for b in batches(ListSource(20), 10)])
  first, second = ids[:20], ids[20:]
  assert sorted(first) == sorted(second) == list(range(20))
  assert list(first) != list(second)
  assert list(first) != list(range(20))


def test_seed_decides_the_order_and_the_crops():
  source = ListSource(20)
  one, two = batches(source, 3), batches(source, 3)
  assert_same(one, two)
  other = batches(source, 3, seed=8)
  assert any((a['_id'] != b['_id']).any() for a, b in zip(one, other))


def test_neighbouring_seeds_share_no_epoch():
  source = ListSource(20)
  orders = {
    tuple(np.concatenate([b['_id'] for b in batches(source, 15, seed=s)])[i:j])
    for s in (0, 1, 2)
    for i, j in ((0, 20), (20, 40), (40, 60))
  }
  assert len(orders) == 9


def test_a_mistake_of_the_data_set_names_the_record():
  source = ListSource(20)
  source.vocabulary = Vocabulary(names=('a',))
  ops = pipeline.build_ops([OPS[0], dict(op='labels', max_labels=4)], source)
  iterator = pipeline.train(source, ops, batch_size=20, seed=0, threads=1)
  with pytest.raises(ValueError, match='outside the vocabulary') as error:
    next(iterator)
  iterator.close()
  assert any('record ' in note for note in error.value.__notes__)


@pytest.mark.parametrize('start', [1, 4, 5, 6, 7])
def test_resume_continues_exactly_also_at_epoch_borders(start):
  source = ListSource(20)  # epoch border after batch 5
  assert_same(
    batches(source, 8)[start:], batches(source, 8 - start, start_step=start)
  )


@pytest.mark.slow
def test_workers_do_not_change_the_batches():
  source = ListSource(20)
  plain = batches(source, 6)
  assert_same(plain, batches(source, 6, workers=2))
  assert_same(plain[3:], batches(source, 3, workers=2, start_step=3))


@pytest.mark.parametrize('count', [2, 4])
def test_processes_share_the_global_batches(count):
  source = ListSource(20)
  whole = batches(source, 5)
  parts = [
    batches(source, 5, process_index=p, process_count=count)
    for p in range(count)
  ]
  for step, batch in enumerate(whole):
    for name in ('_id', 'image'):
      rows = np.concatenate([parts[p][step][name] for p in range(count)])
      np.testing.assert_array_equal(rows, batch[name])


def test_seeking_far_costs_nothing_and_touches_nothing():
  class Counting(ListSource):
    reads = 0

    def __getitem__(self, index):
      Counting.reads += 1
      return super().__getitem__(index % 100)

  source = Counting(300_000_000)
  batch = batches(source, 1, start_step=10**8, prefetch=1, threads=1)[0]
  assert batch['_id'].max() < 300_000_000
  assert Counting.reads <= 16


class Virtual(ListSource):
  """300M records that are never stored."""

  NUM = 300_000_000

  def __init__(self):
    super().__init__(20)

  def __len__(self):
    return self.NUM

  def __getitem__(self, index):
    return super().__getitem__(index % 20)


def test_an_epoch_of_300m_records_repeats_and_omits_none():
  """A window of the order is as distinct as a permutation's.

  The whole order is checked for sizes that can be listed, with the same code.
  """
  order = lambda num, step, batch: [
    index for _, index in pipeline._Shuffled(num, 3, batch, range(batch))(step)
  ]
  for num in (1, 2, 1000, 30_030):
    assert sorted(order(num, 0, num)) == list(range(num))
    assert sorted(order(num, 1, num)) == list(range(num))
  seen = order(Virtual.NUM, 0, 50_000) + order(Virtual.NUM, 5999, 50_000)
  assert len(set(seen)) == 100_000
  assert min(seen) >= 0
  assert max(seen) < Virtual.NUM
  # Spread over the whole: every thousandth holds its share.
  share = np.histogram(seen, 1000, (0, Virtual.NUM))[0]
  assert share.min() > 50
  assert share.max() < 160
  epochs = [e for e, _ in pipeline._Shuffled(100, 3, 40, range(40))(2)]
  assert epochs == [0] * 20 + [1] * 20


def test_memory_does_not_grow_with_the_records_or_the_step():
  source = Virtual()
  peaks = []
  for step in (0, 10**3, 10**6, 10**8):
    tracemalloc.start()
    batch = batches(source, 1, start_step=step, prefetch=1, threads=1)[0]
    peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert len(batch['_id']) == 4
  assert max(peaks) < 4e6


def test_bad_records_become_masked_blanks_and_change_nothing_else():
  clean = batches(ListSource(20), 10)
  dirty = batches(ListSource(20, bad=[3, 11]), 10)
  for a, b in zip(clean, dirty):
    np.testing.assert_array_equal(a['_id'], b['_id'])
    is_bad = np.isin(b['_id'], [3, 11])
    np.testing.assert_array_equal(b['_mask'], ~is_bad)
    np.testing.assert_array_equal(a['image'][~is_bad], b['image'][~is_bad])
    assert not b['image'][is_bad].any()
    assert (b['label_ids'][is_bad] == -1).all()


def test_bad_records_are_counted_and_named():
  source = ListSource(20, bad=[3, 11])
  ops = pipeline.build_ops(OPS, source)
  iterator = pipeline.train(
    source, ops, batch_size=4, seed=0, max_bad_fraction=0.5
  )
  for _ in range(5):
    next(iterator)
  iterator.close()
  assert iterator.bad.count == 2
  assert iterator.bad.seen == 20
  assert iterator.bad.reasons == {
    'record 3': 'damaged',
    'record 11': 'damaged',
  }


def test_too_many_bad_records_stop_the_run_with_their_names():
  with pytest.raises(ValueError, match=r'(?s)max_bad_fraction=0\.05.*record 3'):
    batches(ListSource(20, bad=[3, 11]), 5, max_bad_fraction=0.05)


def test_labels_are_completed_and_padded():
  for batch in batches(ListSource(20), 5):
    for index, ids in zip(batch['_id'], batch['label_ids']):
      expected = {0: [0], 1: [0, 1], 2: [2]}[index % 3]
      assert list(ids) == expected + [-1] * (4 - len(expected))


@pytest.mark.parametrize('num', [1, 7, 8, 9])
@pytest.mark.parametrize('count', [1, 2])
def test_evaluation_yields_every_record_once(num, count):
  source = ListSource(num)
  ops = pipeline.build_ops(EVAL_OPS, source)
  seen = collections.Counter()
  lengths = set()
  for process in range(count):
    data = pipeline.evaluation(
      source, ops, batch_size=4, process_index=process, process_count=count
    )
    got = list(data)
    lengths.add(len(got))
    assert all(len(b['_mask']) == 4 // count for b in got)
    for batch in got:
      seen.update(batch['_id'][batch['_mask']].tolist())
  assert seen == collections.Counter(range(num))
  assert len(lengths) == 1


def test_evaluation_can_be_repeated():
  source = ListSource(9)
  ops = pipeline.build_ops(EVAL_OPS, source)
  data = pipeline.evaluation(source, ops, batch_size=4)
  assert_same(list(data), list(data))


def test_evaluation_refuses_a_bad_record_by_name():
  source = ListSource(9, bad=[5])
  ops = pipeline.build_ops(EVAL_OPS, source)
  with pytest.raises(ValueError, match='record 5 cannot be used: damaged'):
    list(pipeline.evaluation(source, ops, batch_size=4))


def test_a_record_of_another_type_is_an_error_not_a_cast():
  def fickle(example, rng):
    del rng
    kind = np.float32 if example.get('key') is None else np.float64
    return {'image': np.zeros(3, kind), 'labels': example['labels']}

  class Keyed:
    """A source whose records tell their key, as the blank does not."""

    vocabulary = hierarchy = None

    def __len__(self):
      return 4

    def __getitem__(self, index):
      return {'labels': np.zeros(1, np.int32), 'key': str(index)}

    def key(self, index):
      return str(index)

  batches = pipeline.train(Keyed(), [fickle], batch_size=2, seed=0)
  with pytest.raises(ValueError, match=r'float64.*promise'):
    next(batches)
  batches.close()


def test_ops_must_fix_the_size():
  ops = pipeline.build_ops([OPS[-1]], ListSource(3))
  with pytest.raises(ValueError, match='resize or crop'):
    pipeline.example_spec(ops)


def test_subsets_are_nested_and_of_the_right_size():
  source = ListSource(1000)
  keys = {}
  for fraction in (0.01, 0.1, 0.5):
    part = subset.take(source, fraction)
    keys[fraction] = {part.key(i) for i in range(len(part))}
    assert len(keys[fraction]) == len(part) == 1000 * fraction
  assert keys[0.01] < keys[0.1] < keys[0.5]
  assert subset.take(source, 1.0) is source
  assert subset.take(source, 0.1).fingerprint() != source.fingerprint()
  with pytest.raises(ValueError, match=r'input\.fraction=0'):
    subset.take(source, 0)
