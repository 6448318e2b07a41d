"""Streams beside the main one: order, resumption, bad records, names."""

import numpy as np
import pytest

from big_vision_like.config import settings, stream_names
from configs import common
from input_pipeline import pipeline, streams
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels.vocabulary import Vocabulary


class Source:
  """Images of noise with one label; records listed in `bad` cannot be used."""

  hierarchy = None

  def __init__(
    self,
    *,
    split: str = 'train',
    num: int = 20,
    classes: int = 3,
    bad: tuple = (),
    wrong: tuple = (),
  ):
    self.vocabulary = Vocabulary(tuple(f'{split} {i}' for i in range(classes)))
    self._split = split
    self._num = num
    self._bad = {*bad}
    self._wrong = {*wrong}

  def __len__(self):
    return self._num

  def __getitem__(self, index):
    if index in self._bad:
      raise BadExample('damaged')
    rng = np.random.default_rng(index)
    image = rng.integers(0, 255, (8, 8, 3), np.uint8)
    label = 99 if index in self._wrong else index % len(self.vocabulary)
    return {'image': image, 'labels': np.array([label], np.int32)}

  def key(self, index):
    return f'record {index}'

  def fingerprint(self):
    return f'{self._split} {self._num}'


OPS = [dict(op='random_crop', size=4), dict(op='random_flip')]


def config_of(also=('other',), main=None, **given):
  """A complete config of a stream of 20 records and others of 13."""
  c = common.base()
  kind = 'tests.input_pipeline.test_streams'
  c.input.source = dict(type=kind, **(main or {}))
  c.input.ops = [*OPS, dict(op='labels', max_labels=2)]
  c.input.batch_size = 4
  c.input.max_bad_fraction = 1.0
  c.seed = 7
  options = {k: given.pop(k) for k in ('bad', 'wrong') if k in given}
  for name in also:
    c.input.also[name] = common.stream(
      source=dict(type=kind, split=name, num=13, classes=5, **options),
      ops=[*OPS, dict(op='single_label')],
      batch_size=6,
      **{'max_bad_fraction': 1.0, **given},
    )
  return settings.complete(c)


def batches(config, num, **options):
  data = streams.train(
    streams.open_all(config), config, **{'start_step': 0, **options}
  )
  found = [next(data) for _ in range(num)]
  data.close()
  return found


def assert_same(left, right):
  assert len(left) == len(right) > 0
  for a, b in zip(left, right):
    assert a.keys() == b.keys()
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def of_stream(batch, name):
  """The fields of a stream under their plain names."""
  return {
    k.rpartition('/')[2]: v
    for k, v in batch.items()
    if stream_names.stream_of(k) == name
  }


def test_a_batch_has_each_stream_under_its_name():
  (batch,) = batches(config_of(), 1)
  assert {k: v.shape for k, v in batch.items()} == {
    'image': (4, 4, 4, 3),
    'label_ids': (4, 2),
    '_id': (4,),
    '_mask': (4,),
    'other/image': (6, 4, 4, 3),
    'other/label': (6,),
    'other/_id': (6,),
    'other/_mask': (6,),
  }
  np.testing.assert_array_equal(batch['other/label'], batch['other/_id'] % 5)


def test_the_main_stream_is_what_it_is_alone():
  """Also what `pipeline.train` has always made of the seed."""
  config = config_of()
  both, alone = batches(config, 8), batches(config_of(also=()), 8)
  assert_same([of_stream(b, '') for b in both], alone)
  source = pipeline.open_train(config)
  ops = pipeline.build_ops(config.input.ops, source)
  before = pipeline.train(
    source, ops, batch_size=4, seed=7, max_bad_fraction=1.0
  )
  assert_same(alone, [next(before) for _ in range(8)])
  before.close()


def test_a_stream_depends_on_seed_and_name_alone():
  """Not on the streams beside it; another name or seed is another order."""
  ids = lambda config, name: np.stack(
    [b[f'{name}/_id'] for b in batches(config, 3)]
  )
  two = config_of(also=('one', 'other'))
  first, second = ids(two, 'one'), ids(two, 'other')
  np.testing.assert_array_equal(second, ids(config_of(), 'other'))
  assert (first != second).any()
  two.seed = 8
  assert (ids(two, 'other') != second).any()
  source = streams.open_source(two, 'other')
  main = pipeline.training_order(len(source), 7, 0)
  assert [next(main)[1] for _ in range(18)] != second.ravel().tolist()


def test_every_epoch_has_every_record_of_each_stream():
  found = np.concatenate([b['other/_id'] for b in batches(config_of(), 13)])
  for epoch in range(6):
    assert sorted(found[13 * epoch : 13 * (epoch + 1)]) == [*range(13)]


@pytest.mark.parametrize('start', [1, 2, 5, 7])
def test_all_streams_go_on_from_any_step(start):
  config = config_of()
  assert_same(
    batches(config, 8)[start:], batches(config, 8 - start, start_step=start)
  )


def test_seeking_far_reads_nothing_on_the_way():
  config = config_of()
  config.input.prefetch = config.input.threads = 1
  (batch,) = batches(config, 1, start_step=10**7)
  order = pipeline.training_order(
    13, stream_names.seed_of(7, 'other'), 6 * 10**7
  )
  wanted = [next(order)[1] for _ in range(6)]
  assert batch['other/_id'].tolist() == wanted


@pytest.mark.slow
def test_workers_do_not_change_the_batches():
  config = config_of()
  plain = batches(config, 4)
  config.input.workers = 2
  assert_same(plain, batches(config, 4))
  config.input.also.other.workers = 1
  assert_same(plain[2:], batches(config, 2, start_step=2))


def test_processes_share_the_batches_of_each_stream():
  config = config_of()
  whole = batches(config, 3)
  parts = [batches(config, 3, part=lambda size, i=i: (i, 2)) for i in (0, 1)]
  for step, batch in enumerate(whole):
    for name, value in batch.items():
      rows = np.concatenate([part[step][name] for part in parts])
      np.testing.assert_array_equal(rows, value)


def test_bad_records_are_counted_and_named_by_stream():
  config = config_of(main=dict(bad=(2,)), bad=(3, 11))
  data = streams.train(streams.open_all(config), config, start_step=0)
  found = [next(data) for _ in range(13)]  # six epochs of the other
  data.close()
  for batch in found:
    is_bad = np.isin(batch['other/_id'], [3, 11])
    np.testing.assert_array_equal(batch['other/_mask'], ~is_bad)
    np.testing.assert_array_equal(batch['_mask'], batch['_id'] != 2)
  assert (data.bad['other'].count, data.bad['other'].seen) == (12, 78)
  assert data.bad['other'].reasons.keys() == {
    '[other] record 3',
    '[other] record 11',
  }
  assert data.bad[''].reasons == {'record 2': 'damaged'}
  assert data.key('other/_id', 4) == '[other] record 4'
  assert data.key('_id', 4) == 'record 4'


def test_each_stream_has_its_own_budget_of_bad_records():
  config = config_of(bad=(3, 11), max_bad_fraction=0.05)
  with pytest.raises(
    ValueError, match=r'(?s)input\.also\.other\.max_bad_fraction=0\.05.*\[other'
  ):
    batches(config, 5)


def test_a_mistake_of_the_data_names_the_stream():
  config = config_of(wrong=(5,))
  with pytest.raises(ValueError, match=r'input\.also\.other\.ops') as error:
    batches(config, 5)
  assert any('[other] record 5' in n for n in error.value.__notes__)


def test_fingerprints_of_one_stream_are_as_ever_and_of_several_tell_which():
  one = streams.fingerprint(streams.open_all(config_of(also=())))
  assert one == 'train 20'
  two = config_of(also=('a', 'b'))
  before = streams.fingerprint(streams.open_all(two))
  assert streams.differences(before, before) == []
  two.input.also.b.source.num = 14
  after = streams.fingerprint(streams.open_all(two))
  assert streams.differences(before, after) == [
    '  input.also.b.source: b 13 -> b 14'
  ]
  assert streams.differences(one, after) == [
    '  input.also.a.source: none -> a 13',
    '  input.also.b.source: none -> b 14',
  ]
  two.input.source.num = 21
  changed = streams.differences(
    after, streams.fingerprint(streams.open_all(two))
  )
  assert changed == ['  input.source: train 20 -> train 21']
  assert streams.differences('x', 'y') == ['  input.source: x -> y']


def test_each_stream_has_its_own_labels_and_fraction():
  opened = streams.open_all(config_of(fraction=0.5))
  assert len(opened['other'].source) < 13
  found = streams.spaces(opened)
  assert found[''].names == ('train 0', 'train 1', 'train 2')
  assert found['other'].num_classes == 5


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'source': dict(type='folder', path='/none')}, r'input\.also\.other\.sou'),
    ({'source': dict(type='foldr')}, r"unknown source 'foldr'"),
    ({'source': {}}, r'input\.also\.other\.source: missing key "type"'),
    ({'ops': [dict(op='labls')]}, r'input\.also\.other\.ops\[0\]: unknown op'),
    (
      {'ops': [dict(op='boxes', max_boxes=3)]},
      r'input\.also\.other\.source: record 0 has no boxes; it must be a data',
    ),
    ({'fraction': 0.0}, r'input\.also\.other\.fraction=0'),
  ],
)
def test_what_cannot_be_opened_names_the_stream(changes, words):
  config = config_of()
  with config.unlocked():
    for key, value in changes.items():
      config.input.also.other[key] = value
  with pytest.raises((ValueError, FileNotFoundError), match=words):
    streams.open_all(settings.complete(config))


@pytest.mark.parametrize(
  ('name', 'section', 'words'),
  [
    ('other', {'batchsize': 8}, r"'input\.also\.other\.batchsize' \(did you"),
    ('other', {'batch_size': 'x'}, r"'input\.also\.other\.batch_size' must be"),
    (
      'other',
      {'batch_size': 0},
      r'other\.batch_size=.* must be int of at least 1',
    ),
    ('other', {'workers': -1}, r'other\.workers=.* must be int in \[0, 1024\]'),
    ('other', {'max_bad_fraction': 2.0}, r'other\.max_bad_fraction'),
    ('other', 3, r"'input\.also\.other' must be a dict, got 3"),
    ('a-b', {}, r"input\.also: 'a-b' cannot name a stream"),
    ('_mask', {}, r"input\.also: '_mask' cannot name a stream"),
    ('class', {}, r"input\.also: 'class' cannot name a stream"),
    ('main', {}, r"input\.also: 'main' is config\.input itself"),
  ],
)
def test_settings_of_a_stream_are_checked(name, section, words):
  config = common.base()
  config.input.also[name] = section
  with pytest.raises(ValueError, match=words):
    settings.complete(config)


def test_parts_of_a_step_divide_every_stream():
  config = config_of()
  config.train.accum_steps = 4
  with pytest.raises(
    ValueError, match=r'accum_steps=4 does not divide input\.also\.other\.batch'
  ):
    settings.complete(config)


def test_a_stream_of_the_name_of_a_field_is_refused():
  config = config_of(also=('image',))
  spaces = streams.spaces(streams.open_all(config))
  with pytest.raises(ValueError, match=r"'image' is a field of batches"):
    streams.batch_spec(config, spaces)


def test_what_may_change_in_a_workdir_may_in_every_stream():
  old, new = config_of(), config_of()
  new.input.also.other.workers = 3
  new.input.also.other.max_bad_fraction = 0.5
  assert settings.differences(old, new) == []
  new.input.also.other.batch_size = 8
  new.input.also.other.source.num = 30
  assert settings.differences(old, new) == [
    '  input.also.other.batch_size: 6 -> 8',
    '  input.also.other.source.num: 13 -> 30',
  ]
  assert settings.differences(config_of(also=()), old)
