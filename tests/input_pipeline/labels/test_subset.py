"""Subsets by chance: exact, nested, a function of the ids alone."""

import hashlib
import itertools
import math
import pickle

import numpy as np
import PIL.Image
import pytest

from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import arrays, hash_order, subset
from tests.fixtures.tiny_source import Source as TinySource
from tools import prepare_images

NAMES = ['apple', 'fruit', 'pear', 'rock']


class Named:
  """Records with names of their own; `in_hash_order` says they are sorted."""

  hierarchy = None

  def __init__(self, keys, in_hash_order=False, readable=True):
    self.vocabulary = TinySource(labels=[], names=NAMES).vocabulary
    self._keys = list(keys)
    self._readable = readable
    self.in_hash_order = in_hash_order

  def __len__(self):
    return len(self._keys)

  def __getitem__(self, index):
    return {'image': np.zeros((4, 4, 3), np.uint8), 'labels': np.array([1])}

  def key(self, index):
    assert self._readable, 'no key was to be read'
    return self._keys[index]

  def fingerprint(self):
    return 'named'


def by_hand(keys, seed):
  """Keys sorted by an independent hash of the bytes 'seed, newline, key'."""
  digest = lambda k: hashlib.blake2b(f'{seed}\n{k}'.encode(), digest_size=8)
  return sorted(keys, key=lambda k: digest(k).hexdigest())


def keys_of(source):
  return [source.key(i) for i in range(len(source))]


@pytest.mark.parametrize('seed', [0, 7])
def test_the_smallest_hashes_in_their_order(seed):
  keys = [f'photo-{i}.jpg' for i in range(1000)] + ['é', '字']
  for num in (1, 2, 10, 501, 1001):
    part = subset.select(Named(keys), dict(num_images=num, seed=seed), 'x')
    assert keys_of(part) == by_hand(keys, seed)[:num]
  whole = Named(keys)
  assert subset.select(whole, dict(num_images=1002), 'x') is whole


def test_a_function_of_the_ids_only():
  keys = [f'{i:05d}' for i in range(3000)]
  kept = keys_of(subset.take(Named(keys), 0.1))
  turned = keys_of(subset.take(Named(keys[::-1]), 0.1))
  assert kept == turned  # the same records, even in the same order
  more = [*keys, *(f'new-{i}' for i in range(3000))]
  after = keys_of(subset.take(Named(more), 0.1))
  # Records added later push some out, and never change who comes first.
  old = [k for k in after if not k.startswith('new')]
  assert old == kept[: len(old)] and 0 < len(old) < len(kept) < len(after)


def test_nested_for_any_two_sizes():
  source = Named([f'{i}' for i in range(10_000)])
  sizes = [1, 33, 34, 1000, 3000, 9999]
  parts = [subset.select(source, dict(num_images=m), 'x') for m in sizes]
  for small, large in itertools.pairwise(parts):
    assert keys_of(small) == keys_of(large)[: len(small)]
  for fraction in (0.0001, 0.12345, 0.5, 0.999):
    part = subset.take(source, fraction)
    assert len(part) == round(10_000 * fraction)
    assert keys_of(part) == keys_of(parts[-1])[: len(part)]
  assert len(subset.take(source, 1e-9)) == 1


@pytest.mark.parametrize('stored', [False, True])
@pytest.mark.parametrize('seed', [0, 3])
def test_the_rest_is_what_is_left_out(stored, seed):
  source = Named([f'{i}' for i in range(1000)], in_hash_order=stored)
  given = dict(fraction=0.95, seed=seed)
  part = subset.select(source, given, 'x')
  rest = subset.select(source, dict(given, rest=True), 'x')
  assert len(rest) == 50
  assert sorted(keys_of(part) + keys_of(rest)) == sorted(keys_of(source))
  if not stored:
    assert keys_of(rest) == by_hand(keys_of(source), seed)[950:]
  assert part.fingerprint() != rest.fingerprint()
  assert rest.description.startswith('50 of 1,000 records, those not drawn')
  if seed == 0:
    assert keys_of(subset.take(rest, 0.5)) == keys_of(rest)[:25]


def test_the_rest_of_a_stored_order_has_its_labels():
  """Of the last places, without a prefix to cut."""
  source = Named(map(str, range(4)), in_hash_order=True)
  ends = np.array([1, 2, 4, 5])
  source.label_index = lambda: (ends, np.array([0, 1, 2, 3, 1], np.int32))
  rest = subset.select(source, dict(num_images=2, rest=True), 'x')
  found = arrays.of(rest)
  assert found.ends.tolist() == [2, 3] and found.labels.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
  'options, words',
  [
    (dict(rest=True), 'x.rest: needs fraction or num_images'),
    (dict(fraction=1.0, rest=True), 'x.rest: 9 of 9 records: no rest'),
    (dict(num_images=9, rest=True), 'x.rest: 9 of 9 records: no rest'),
  ],
)
def test_no_rest(options, words):
  with pytest.raises(ValueError, match=words):
    subset.select(Named(map(str, range(9))), options, 'x')


def within(count, num, share):
  """Whether a binomial count is within 5 standard deviations."""
  return abs(count - num * share) < 5 * math.sqrt(num * share * (1 - share))


@pytest.mark.parametrize('stored', [False, True])
def test_other_seeds_draw_independently(stored):
  source = Named([f'{i}' for i in range(20_000)], in_hash_order=stored)
  drawn = []
  for seed in (0, 1, 2):
    part = subset.select(source, dict(fraction=0.5, seed=seed), 'x')
    drawn.append(set(keys_of(part)))
    assert len(drawn[-1]) == 10_000
    smaller = subset.select(source, dict(fraction=0.1, seed=seed), 'x')
    assert set(keys_of(smaller)) < drawn[-1]
  for a, b in ((0, 1), (0, 2), (1, 2)):
    assert within(len(drawn[a] & drawn[b]), 10_000, 0.5)
  assert within(len(drawn[0] & drawn[1] & drawn[2]), 10_000, 0.25)


@pytest.mark.parametrize('hashes', ['keys', 'positions'])
def test_every_record_is_as_likely(hashes):
  num, num_seeds = 64, 2000
  hits = np.zeros(num, int)
  for seed in range(num_seeds):
    if hashes == 'keys':
      found = hash_order.key_hashes(map(str, range(num)), seed)
    else:
      found = hash_order.position_hashes(range(num), seed)
    hits[hash_order.smallest(found, 16)] += 1
  assert hits.sum() == 16 * num_seeds
  assert all(within(h, num_seeds, 0.25) for h in hits)


def test_prefix_of_data_stored_in_hash_order_reads_no_key():
  source = Named('abcdefghij', in_hash_order=True, readable=False)
  part = subset.take(source, 0.3)
  assert len(part) == 3 and part.in_hash_order
  again = subset.take(part, 0.67)  # a fraction of a fraction
  source._readable = True
  assert keys_of(part) == ['a', 'b', 'c'] and keys_of(again) == ['a', 'b']
  # 300 million records: no array of them is made.
  huge = pipeline.open_source(
    dict(
      type='synthetic', num_images=300_000_000, subset=dict(num_images=10**8)
    )
  )
  assert len(huge) == 10**8 and len(pickle.dumps(huge)) < 10**6
  assert huge.key(99_999_999).endswith('099999999')


def test_prepared_data_hold_the_subsets_of_their_input(tmp_path, capsys):
  """A prefix of the records is the subset of the folder they were made from."""
  root = tmp_path / 'photos'
  for i in range(60):
    (root / 'train' / NAMES[i % 3]).mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8, 3), i, np.uint8)
    path = root / 'train' / NAMES[i % 3] / f'{i}.png'
    PIL.Image.fromarray(pixels).save(path)
  argv = ['--input', str(root), '--output', str(tmp_path / 'out')]
  argv += ['--splits', 'train', '--num_shards', '4', '--workers', '1']
  assert prepare_images.main(argv) == 0
  capsys.readouterr()
  photos = pipeline.open_source(dict(type='folder', path=str(root)))
  prepared = pipeline.open_source(
    dict(type='records', path=str(tmp_path / 'out'))
  )
  assert prepared.in_hash_order
  for num in (1, 7, 59):
    ours = subset.select(prepared, dict(num_images=num), 'x')
    theirs = subset.select(photos, dict(num_images=num), 'x')
    assert [ours[i]['key'] for i in range(num)] == keys_of(theirs)
    counts = [ours.vocabulary.counts, theirs.vocabulary.counts]
    np.testing.assert_array_equal(*counts)
  chosen = dict(labels=[NAMES[1]], num_images=11)
  ours = subset.select(prepared, chosen, 'x')
  theirs = subset.select(photos, chosen, 'x')
  assert [ours[i]['key'] for i in range(11)] == keys_of(theirs)
  assert ours.in_hash_order and ours.vocabulary.counts.tolist() == [11]
  other = subset.select(prepared, dict(num_images=30, seed=5), 'x')
  assert len(set(keys_of(other)) & set(keys_of(prepared)[:30])) < 25


def test_equal_hashes_keep_the_order_of_positions():
  hashes = np.array([5, 3, 3, 9, 3, 1], np.uint64)
  assert hash_order.smallest(hashes, 3).tolist() == [5, 1, 2]
  assert hash_order.smallest(hashes, 6).tolist() == [5, 1, 2, 4, 0, 3]


def test_fingerprints_differ():
  source = Named([f'{i}' for i in range(100)])
  chosen = [
    {},
    dict(fraction=0.1),
    dict(fraction=0.2),
    dict(fraction=0.1, seed=1),
    dict(labels=['fruit']),
    dict(labels=['fruit', 'rock']),
    dict(labels=['fruit', 'rock'], keep_ids=True),
    dict(labels=['fruit', 'rock'], fraction=0.1),
    dict(labels=['fruit', 'rock'], unlabelled='keep'),
  ]
  found = [subset.select(source, c, 'x').fingerprint() for c in chosen]
  assert len(set(found)) == len(found)
  same = subset.select(source, dict(num_images=10, seed=0), 'x').fingerprint()
  assert same == found[1]  # the same records, however asked for


def test_counts_are_those_of_the_subset(tmp_path):
  rows = ['a.jpg,cat', 'b.jpg,cat;dog', 'c.jpg,dog', 'd.jpg,cat', 'e.jpg,cow']
  table = '\n'.join(['path,labels,split', *(f'{row},train' for row in rows)])
  (tmp_path / 't.csv').write_text(table)
  config = dict(type='table', path=str(tmp_path / 't.csv'), check_files=0)
  for num in (1, 3, 4):
    part = pipeline.open_source(config | dict(subset=dict(num_images=num)))
    labels = [part.labels(i).tolist() for i in range(num)]
    flat = [label for row in labels for label in row]
    assert part.vocabulary.counts.tolist() == [flat.count(i) for i in range(3)]
    ends, ids, _ = part.label_index()
    assert ids.tolist() == flat
    assert np.diff(ends, prepend=0).tolist() == [len(row) for row in labels]
  # Without an index: the number to be expected.
  tiny = TinySource(labels=[[0]] * 10, names=NAMES, counts=[100, 7, 0, 3])
  half = subset.take(tiny, 0.5)
  assert half.vocabulary.counts.tolist() == [50, 4, 0, 2]
  assert half.label_index() is None


def test_reads_through_to_the_source():
  tiny = TinySource(labels=[[i % 4] for i in range(40)], names=NAMES)
  part = pickle.loads(pickle.dumps(subset.take(tiny, 0.25)))  # noqa: S301
  for i in range(len(part)):
    number = int(part.key(i).removeprefix('record-'))
    assert part[i]['image'][0, 0, 0] == number
    assert part.labels(i).tolist() == part[i]['labels'].tolist() == [number % 4]
  for i in (-1, 10):
    with pytest.raises(IndexError, match=f'record {i} of 10'):
      part[i]


MISTAKES = {
  'typo': (dict(num_image=3), r"unknown option 'num_image' \(did you mean"),
  'both': (dict(num_images=3, fraction=0.5), 'fraction or num_images, not'),
  'zero': (
    dict(num_images=0),
    r'subset\.num_images=0 must be int of at least 1',
  ),
  'float': (dict(num_images=3.0), r'num_images=3\.0 must be int'),
  'truth': (dict(seed=True, num_images=3), 'seed=True must be int'),
  'too many': (dict(num_images=41), 'num_images=41, but there are 40 records'),
  'fraction': (
    dict(fraction=1.5),
    r'subset\.fraction=1\.5 must be float in \(',
  ),
  'text': (dict(fraction='0.5'), r"fraction='0\.5' must be float in \(0"),
  'nan': (dict(fraction=math.nan), r'fraction=nan must be float in \(0, 1\]'),
  'number': (5, r'subset must be a dict, got 5'),
  'word': ('x', r"subset must be a dict, got 'x'"),
  'lonely seed': (dict(seed=3), 'seed: needs fraction or num_images'),
  'lonely unlabelled': (dict(unlabelled='keep'), 'unlabelled: needs labels'),
  'unlabelled': (dict(unlabelled='no', labels=['fruit']), 'drop, keep'),
  'fill_in': (dict(fill_in=1, labels=['fruit']), 'fill_in=1 must be bool'),
  'no hierarchy': (dict(fill_in=True, labels=['fruit']), 'has no hierarchy'),
  'empty list': (dict(labels=[]), r'labels=\[\] .* list of str, not empty'),
  'ids': (dict(labels=[1, 2]), r'labels=\[1, 2\] must be str or list'),
  'unknown': (dict(labels=['friut']), r"labels\[0\]: .*'friut'.*near: 'fruit'"),
  'twice': (dict(labels=['fruit', 'rock', 'fruit']), "'fruit' appears twice"),
  'imagenet': (dict(labels='imagenet'), 'no label of .* has an imagenet_id'),
  'nothing left': (dict(labels=['pear']), 'no record with one of the labels'),
  'suffix': (dict(labels='names.csv'), r'names\.csv: a vocabulary is'),
}


@pytest.mark.parametrize('case', MISTAKES)
def test_mistakes_are_named(case):
  options, message = MISTAKES[case]
  source = dict(
    type='tests.fixtures.tiny_source', labels=[[1]] * 40, names=NAMES
  )
  with pytest.raises(ValueError, match=message) as raised:
    pipeline.open_source(source | dict(subset=options), 'evals.x.data')
  known = ('evals.x.data.subset', 'names.csv')
  assert str(raised.value).startswith(known)


def test_mistakes_in_a_file_of_labels(tmp_path):
  source = TinySource(labels=[[1]], names=NAMES)
  path = tmp_path / 'names.txt'
  with pytest.raises(FileNotFoundError, match=r'names\.txt: no such file'):
    subset.select(source, dict(labels=str(path)), 'x')
  path.write_text('rock\nfriut\n')
  with pytest.raises(ValueError, match=r"names\.txt:2: .*'friut'"):
    subset.select(source, dict(labels=str(path)), 'x')


def test_unreadable_records_stay_to_be_counted():
  class Broken(TinySource):
    def labels(self, index):
      if index == 3:
        raise BadExample('corrupt record')
      return super().labels(index)

  source = Broken(labels=[[0], [1], [2], [1], [1, 3]], names=NAMES)
  part = subset.select(source, dict(labels=['fruit']), 'x')
  assert keys_of(part) == ['record-1', 'record-3', 'record-4']


def test_labels_outside_the_vocabulary_are_a_mistake():
  source = TinySource(labels=[[0], [1, 9], [2]], names=NAMES)
  with pytest.raises(ValueError, match='label 9 of record 1 is outside'):
    subset.select(source, dict(labels=['fruit']), 'x')
  index = arrays.build(source)
  with pytest.raises(ValueError, match='vocabulary of 9 names'):
    arrays.check(index, 9, 'x')
  arrays.check(index, 10, 'x')
