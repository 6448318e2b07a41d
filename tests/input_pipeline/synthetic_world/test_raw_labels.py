"""Statistics of the synthetic labels, against their definitions.

Tolerances are four standard errors of the quantity estimated.
"""

import numpy as np
import pytest

from input_pipeline.sources.synthetic import Source
from input_pipeline.synthetic_world import taxonomy

N = 4000


@pytest.fixture(scope='module')
def source() -> Source:
  return Source(num_classes=300, num_images=10**6, seed=11)


@pytest.fixture(scope='module')
def sample(source):
  """(raw labels, leaf classes shown, true labels) of N images."""
  world = source.world
  scenes = [world.scene(i) for i in range(N)]
  raw = [source.labels(i) for i in range(N)]
  return raw, [s.labels for s in scenes], [world.true_labels(s) for s in scenes]


def close_to(found: np.ndarray, expected: float) -> bool:
  found = np.asarray(found, np.float64)
  return abs(found.mean() - expected) < 4 * found.std() / len(found) ** 0.5


def parents(source, label: int) -> set[int]:
  h = source.hierarchy
  return set(h.parents[label])


def test_number_of_labels(sample):
  raw, shown, _ = sample
  assert close_to([len(r) for r in raw], 1.26)
  assert max(len(r) for r in raw) >= 3
  missing = [len(r) < len(s) for r, s in zip(raw, shown)]
  assert np.mean(missing) > 0.3  # incomplete


def test_share_of_wrong_labels(sample):
  raw, _, true = sample
  wrong = [c not in set(t.tolist()) for r, t in zip(raw, true) for c in r]
  assert close_to(wrong, 0.2)


def test_wrong_labels_are_neighbours(source, sample):
  raw, shown, true = sample
  near, leaves = [], set(source.world.taxonomy.leaves.tolist())
  for r, s, t in zip(raw, shown, true):
    family = set().union(*(parents(source, c) for c in s))
    family |= set().union(*(parents(source, p) for p in family))
    for c in set(r.tolist()) - set(t.tolist()):
      assert c in leaves
      above = parents(source, c)
      above |= set().union(*(parents(source, p) for p in above))
      near.append(bool(above & family))
  error = 4 * (0.8 * 0.2 / len(near)) ** 0.5
  assert 0.8 - error < np.mean(near) < 0.97  # some random ones are near too


def test_random_confusions_follow_the_frequencies():
  source = Source(num_classes=300, neighbour_noise=0.0, noise=1.0, zipf=1.0)
  frequency = source.world.frequency
  wrong = np.concatenate([source.labels(i) for i in range(2000)])
  position = np.searchsorted(frequency.taxonomy.leaves, wrong)
  top = np.argsort(-frequency.leaf)[:10]
  share = frequency.leaf[top].sum()
  assert abs(np.isin(position, top).mean() - share) < 0.12  # true ones excluded


@pytest.mark.parametrize('share', [0.0, 0.05, 0.4])
def test_some_labels_are_coarse(share):
  """Of the right labels; a little less where an ancestor is already given."""
  source = Source(num_classes=300, depth=3, coarse=share)
  world = source.world
  right = np.concatenate(
    [
      np.intersect1d(source.labels(i), world.true_labels(world.scene(i)))
      for i in range(1500)
    ]
  )
  coarse = ~np.isin(right, world.taxonomy.leaves)
  error = 4 * (share * (1 - share) / len(coarse)) ** 0.5
  assert 0.96 * share - error <= coarse.mean() <= share + error


def test_recall_is_the_share_of_shown_classes_labelled():
  source = Source(num_classes=300, recall=0.7, noise=0.0)
  scenes = [source.world.scene(i) for i in range(N)]
  shown = np.array([len(s.labels) for s in scenes])
  given = np.array([len(source.labels(i)) for i in range(N)])
  assert abs(given.sum() / shown.sum() - 0.7) < 0.02
  full = Source(num_classes=300, recall=1.0, noise=0.0)
  assert all(len(full.labels(i)) == shown[i] for i in range(300))


def test_other_label_rates():
  source = Source(num_classes=300, labels_per_image=1.7)
  assert close_to([len(source.labels(i)) for i in range(2000)], 1.7)
  for single in (dict(labels_per_image=1), dict(max_objects=1)):
    source = Source(num_classes=300, **single)
    assert source.world.labels_per_image == 1
    assert all(len(source.labels(i)) == 1 for i in range(200))


def test_no_noise_means_true_labels():
  source = Source(num_classes=50, noise=0.0)
  for i in range(300):
    true = source.world.true_labels(source.world.scene(i))
    assert np.isin(source.labels(i), true).all()


def test_all_noise_means_none_is_true():
  source = Source(num_classes=10, noise=1.0)
  for i in range(300):
    true = source.world.true_labels(source.world.scene(i))
    assert len(true) == 10 or not np.isin(source.labels(i), true).any()


@pytest.mark.parametrize('split', ['fasteval', 'val', 'train_clean'])
@pytest.mark.parametrize('traits', [0, 3])
def test_clean_splits_are_closed_and_complete(split, traits):
  source = Source(split=split, num_classes=120, traits=traits)
  stream = 'train' if split == 'train_clean' else split
  for i in range(200):
    labels = set(source.labels(i).tolist())
    expected = set()
    for thing in source.world.scene(i, stream).objects:
      todo = [thing.label]
      while todo:  # climb every parent link
        expected.add(todo[-1])
        todo.extend(parents(source, todo.pop()) - expected)
    assert labels == expected


def test_traits_make_a_dag():
  source = Source(num_classes=120, traits=3)
  h = source.hierarchy
  several = np.flatnonzero(h.parents.lengths > 1)
  assert len(several) > 3
  for label in several:
    names = {source.vocabulary.names[p] for p in parents(source, label)}
    assert names & {'striped', 'spotted', 'ringed', 'checked', 'rayed',
                    'shaded', 'spiral', 'zigzag', 'marbled'}  # fmt: skip


def test_expected_counts(source):
  """Weights of the vocabulary against counting, for labels of all levels."""
  shown = np.zeros(300)
  other = Source(num_classes=300, num_images=10**6, seed=11, traits=4)
  trait = np.zeros(300)
  for i in range(N):
    shown[source.world.true_labels(source.world.scene(i))] += 1
    trait[other.world.true_labels(other.world.scene(i))] += 1
  for src, counted in ((source, shown), (other, trait)):
    p = src.vocabulary.weights
    error = np.sqrt(np.maximum(p * (1 - p), 1e-4) / N)
    z = (counted / N - p) / error
    assert np.abs(z).max() < 5.5  # of 300
    assert 0.8 < z.std() < 1.2


def far_off(given: list[np.ndarray], expected: np.ndarray) -> np.ndarray:
  """Classes that the labels of some images name another number of times.

  A count is binomial: its standard deviation is at most sqrt(n p), and of some
  hundred classes none is 4.5 of them away; where n p is small its upper end is
  Poisson's, hence 4.5 more.
  """
  counted = np.bincount(np.concatenate(given), minlength=len(expected))
  bound = 4.5 * np.sqrt(len(given) * expected) + 4.5
  return np.flatnonzero(np.abs(counted - len(given) * expected) > bound)


@pytest.mark.parametrize(
  'options',
  [
    dict(num_classes=200), dict(num_classes=100, depth=0),
    dict(num_classes=150, noise=0.5, coarse=0.3, max_objects=6),
    dict(num_classes=60, max_objects=1, noise=0.6),
    dict(num_classes=300, split='train_clean', traits=2),
  ],
  ids=str,
)  # fmt: skip
def test_counts_are_the_images_of_each_raw_label(options):
  source = Source(num_images=10**7, **options)
  expected = source.vocabulary.counts / 1e7
  given = [source.labels(i) for i in range(4000)]
  mean = np.mean([len(ids) for ids in given])
  assert expected.sum() == pytest.approx(mean, rel=0.03)
  assert far_off(given, expected).size == 0


def test_counts_are_not_those_of_what_images_show(source, sample):
  """Many labels are missing: 1.26 of about two classes shown are given."""
  seen, leaves = source.world.frequency.seen(), source.world.taxonomy.leaves
  shown = np.zeros(300)
  shown[leaves] = seen[leaves]
  assert source.vocabulary.counts.sum() == pytest.approx(1.26e6, rel=1e-3)
  assert 1.26 / shown.sum() < 0.7
  assert far_off(sample[0], source.vocabulary.counts / 1e6).size == 0
  assert far_off(sample[0], shown).size > 20


def test_counts_of_single_labels_are_about_those_of_objects():
  source = Source(num_classes=40, num_images=10**6, single_label=True)
  counted = np.bincount(
    [source.labels(i)[0] for i in range(1000)], minlength=40
  )
  expected = source.vocabulary.counts / 1e3
  often = expected > 70
  assert often.sum() > 1
  ratio = counted[often] / expected[often]
  assert ratio.min() > 0.7 and ratio.max() < 1.4  # some look larger


@pytest.mark.parametrize('exponent', [0.5, 1.0, 1.5])
def test_zipf_tail(exponent):
  source = Source(num_classes=2000, zipf=exponent, max_objects=1)
  leaf = np.sort(source.world.frequency.leaf)[::-1]
  slope = np.polyfit(np.log(1 + np.arange(len(leaf))), np.log(leaf), 1)[0]
  assert slope == pytest.approx(-exponent, abs=1e-6)
  drawn = np.bincount(
    source.world.frequency.draw(np.random.default_rng(0).random(10**6)),
    minlength=len(leaf),
  )
  head = np.argsort(-source.world.frequency.leaf)[:20]
  assert np.allclose(drawn[head] / 1e6, leaf[:20], rtol=0.1)


def test_tail_falls_faster_than_zipf():
  plain = Source(num_classes=400).world.frequency.leaf
  leaf = Source(num_classes=400, tail=2).world.frequency.leaf
  order = np.argsort(-plain)
  rank = np.arange(1, len(leaf) + 1)
  expected = (len(leaf) + 1 - rank) ** 2 / rank
  np.testing.assert_allclose(leaf[order], expected / expected.sum(), rtol=1e-9)


def test_one_world_has_the_tail_and_the_density_of_the_paper():
  """3,000 classes below 100 images, 2,000 below 20; 37 labels an image."""
  source = Source(
    split='fasteval', num_classes=18_291, depth=12, broadest=2_876, zipf=0.9,
    tail=4, max_objects=14, num_images=3 * 10**8,
  )  # fmt: skip
  shown = source.vocabulary.weights * 3e8
  assert 2800 < (shown < 100).sum() < 3200
  assert 1800 < (shown < 20).sum() < 2200
  labels = [len(source.labels(i)) for i in range(600)]
  assert np.mean(labels) == pytest.approx(37, abs=4 * np.std(labels) / 600**0.5)


def test_scenes_have_a_theme(source, sample):
  _, shown, _ = sample
  group = source.world.taxonomy.group
  pairs = [group[s[0]] == group[s[1]] for s in shown if len(s) > 1]
  free = Source(num_classes=300, seed=11, theme=0.0)
  apart = [free.world.scene(i).labels for i in range(N)]
  unrelated = [group[s[0]] == group[s[1]] for s in apart if len(s) > 1]
  assert np.mean(pairs) > np.mean(unrelated) + 0.2


@pytest.mark.parametrize(
  'num, depth, groups, broadest',
  [(4, 1, 2, 0), (10, 1, 3, 0), (26, 12, 2, 0), (100, 0, 2, 0), (64, 2, 6, 0),
   (500, 7, 9, 40), (18_291, 12, 24, 2_876), (40, 1, 3, 12)],
)  # fmt: skip
@pytest.mark.parametrize('seed', [0, 1, 2])
def test_tree(num, depth, groups, broadest, seed):
  tree = taxonomy.grow(
    num, depth, np.random.default_rng(seed),
    num_groups=groups, fan_out=3.0, broadest=broadest,
  )  # fmt: skip
  assert tree.num_labels == len(set(tree.names)) == num
  assert tree.level.max() == depth
  inner = tree.parent[tree.parent >= 0]
  children = np.bincount(inner, minlength=num)
  assert (children[children > 0] >= 2).all()
  assert np.array_equal(np.flatnonzero(children == 0), tree.leaves)
  if broadest:
    assert broadest in children
  for label in range(0, num, max(1, num // 12)):
    chain = [label, *tree.ancestors(label)]
    assert tree.level[label] == len(chain) - 1
    assert tree.group_label[tree.group[label]] == chain[-1]
    below = tree.leaves[tree.first_leaf[label] : tree.last_leaf[label]]
    walked = [c for c in tree.leaves if label in (c, *tree.ancestors(c))]
    assert below.tolist() == [int(c) for c in walked]


def test_jft_shape():
  source = Source(num_classes=18_291, depth=12, broadest=2_876)
  assert source.hierarchy.depth.max() == 12
  children = np.bincount(source.hierarchy.parents.values, minlength=18_291)
  assert children.max() == 2_876


def test_label_states(source):
  """Confidences tell right from wrong; negatives are never true."""
  options = dict(num_classes=300, num_images=10**6, seed=11, image_size=16)
  plain = Source(**options)
  rich = Source(**options, confidences=True, negatives=6)
  right, wrong, num_negatives, near = [], [], [], []
  for i in range(500):
    example = rich[i]
    labels, negatives = example['labels'], example['negatives']
    np.testing.assert_array_equal(labels, plain.labels(i))
    scene = rich.world.scene(i)
    true = rich.world.true_labels(scene)
    assert example['label_conf'].shape == labels.shape
    for label, sure in zip(labels, example['label_conf']):
      (right if label in true else wrong).append(sure)
    above = rich.hierarchy.close(labels)
    assert set(negatives).isdisjoint([*true.tolist(), *above.tolist()])
    assert np.all(np.diff(negatives) > 0) and negatives.dtype == np.int32
    num_negatives.append(len(negatives))
    family = set().union(*(parents(rich, c) for c in scene.labels))
    near += [bool(parents(rich, c) & family) for c in negatives]
  assert close_to(right, 5 / 7) and close_to(wrong, 2 / 7)
  assert max(num_negatives) == 6 and np.mean(num_negatives) > 5
  assert np.mean(near) > 0.25
  np.testing.assert_array_equal(rich[3]['image'], plain[3]['image'])
  assert (
    rich.fingerprint()
    != plain.fingerprint()
    == Source(**options, negatives=0).fingerprint()
  )
  assert 'negatives' not in plain[0] and 'label_conf' not in plain[0]
  clean = Source(**options, split='val', confidences=True, negatives=6)[0]
  assert set(clean['label_conf']) == {1}
