"""Noise audits: clusters against brute force, the command on a tiny run."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image
from sklearn import cluster

from big_vision_like import experiment
from big_vision_like.inference import embedder
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary
from tests import saved_run, tiny
from tools import noise_audit
from tools.cli import data_argument
from tools.noise import class_images, feature_clusters


def blobs(rng, sizes, dim=16, spread=0.02):
  """Points around random unit vectors, and which vector each is near."""
  centres = rng.normal(size=(len(sizes), dim))
  owner = np.repeat(np.arange(len(sizes)), sizes)
  points = centres[owner] + spread * rng.normal(size=(len(owner), dim))
  return (points * rng.uniform(1, 9, (len(owner), 1))).astype(np.float32), owner


class TestClusters:
  def test_found_with_distances_to_their_means(self):
    points, owner = blobs(np.random.default_rng(0), (50, 20, 30))
    found = feature_clusters.find(points, num_clusters=3)
    assert found.num_clusters == 3
    # Largest first: blob 0, then 2, then 1.
    np.testing.assert_array_equal(found.cluster, np.array([0, 2, 1])[owner])
    unit = points.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    means = np.stack([unit[owner == k].mean(0) for k in range(3)])
    expected = np.linalg.norm(unit - means[owner], axis=1)
    np.testing.assert_allclose(found.distance, expected, atol=1e-4)

  def test_as_tight_as_those_of_scikit_learn(self):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(400, 8)).astype(np.float32)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    found = feature_clusters.find(points, num_clusters=8, seed=3)
    other = cluster.KMeans(8, n_init=10, random_state=0).fit(unit)
    ours = float((found.distance.astype(np.float64) ** 2).sum())
    assert other.inertia_ * 0.97 < ours < other.inertia_ * 1.05

  def test_wrong_images_are_in_the_last_bucket(self):
    points, owner = blobs(np.random.default_rng(2), (40, 40), spread=0.05)
    odd = np.random.default_rng(3).normal(size=(6, 16)).astype(np.float32)
    found = feature_clusters.find(np.concatenate([points, odd]), num_clusters=2)
    assert (found.bucket[len(owner) :] == 4).all()

  @pytest.mark.parametrize('num', [1, 3, 10, 103])
  def test_buckets_are_equal_and_ordered(self, num):
    rng = np.random.default_rng(num)
    points = rng.normal(size=(num, 4)).astype(np.float32)
    found = feature_clusters.find(points)
    assert found.num_clusters == min(8, max(num // 4, 1))
    assert found.num_buckets == min(5, num)
    sizes = np.bincount(found.bucket)
    assert len(sizes) == found.num_buckets and np.ptp(sizes) <= 1
    in_order = found.bucket[np.argsort(found.distance, kind='stable')]
    assert (np.diff(in_order) >= 0).all()
    members = [found.members(b) for b in range(found.num_buckets)]
    assert sorted(np.concatenate(members).tolist()) == list(range(num))
    assert (np.diff(found.distance[np.concatenate(members)]) >= 0).all()

  def test_same_seed_same_clusters(self):
    points = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    one, two = (feature_clusters.find(points, seed=5) for _ in range(2))
    np.testing.assert_array_equal(one.cluster, two.cluster)
    np.testing.assert_array_equal(one.distance, two.distance)

  def test_equal_images_and_zero_vectors(self):
    found = feature_clusters.find(np.zeros((20, 3), np.float32))
    assert found.distance.tolist() == [0] * 20

  @pytest.mark.parametrize(
    'options, words',
    [
      (dict(num_clusters=0), 'num_clusters=0 must be'),
      (dict(num_buckets=0), 'num_buckets=0 must be'),
      (dict(seed=-1), 'seed=-1 must be'),
    ],
  )
  def test_mistakes(self, options, words):
    with pytest.raises(ValueError, match=words):
      feature_clusters.find(np.ones((5, 2), np.float32), **options)
    bad = np.array([[1, 2], [np.inf, 1]], np.float32)
    with pytest.raises(ValueError, match='image 1 are not finite'):
      feature_clusters.find(bad)

  def test_spread_takes_the_ends(self):
    assert feature_clusters.spread(np.arange(10, 21), 3) == [10, 15, 20]
    assert feature_clusters.spread(np.arange(2), 3) == [0, 1]
    assert feature_clusters.spread(np.arange(5), 1) == [0]


class Labels:
  """A source of labels only: 0 is the parent of 1 and 2; 3 is alone."""

  rows = ([1], [2, 3], [0], [3], [3, 1], [], [3])
  vocabulary = Vocabulary(('fruit', 'apple', 'pear', 'car', 'unused'))
  hierarchy = Hierarchy.from_edges(
    vocabulary.names, [('apple', 'fruit'), ('pear', 'fruit')]
  )

  def __len__(self):
    return len(self.rows)

  def labels(self, index):
    return np.array(self.rows[index], np.int32)

  def key(self, index):
    return str(index)


class TestClassImages:
  def test_records_and_counts(self):
    raw = class_images.ClassImages(Labels())
    assert raw.counts().tolist() == [1, 2, 1, 4, 0]
    assert [raw.of(c).tolist() for c in range(5)] == [
      [2], [0, 4], [1], [1, 3, 4, 6], []
    ]  # fmt: skip
    filled = class_images.ClassImages(Labels(), filled_in=True)
    assert filled.counts().tolist() == [4, 2, 1, 4, 0]
    assert filled.of(0).tolist() == [0, 1, 2, 4]
    assert filled.of(1).tolist() == [0, 4]

  def test_choice_by_count(self):
    found = class_images.ClassImages(Labels())
    assert found.by_count(9) == [3, 1, 0, 2]  # the unused one never
    assert found.by_count(2) == [3, 2]
    assert found.by_count(9, 'head') == [3, 1]
    assert found.by_count(9, 'torso') == [0]
    assert found.by_count(9, 'tail') == [2]
    assert found.by_count(9, min_images=2) == [3, 1]
    with pytest.raises(ValueError, match='--min_images=5 images; the largest'):
      found.by_count(9, min_images=5)
    with pytest.raises(ValueError, match='too few classes'):
      found.by_count(9, 'tail', min_images=2)

  def test_choice_by_name(self):
    found = class_images.ClassImages(Labels())
    assert found.named(['car', 'apple', 'car']) == [3, 1]
    with pytest.raises(ValueError, match=r"'aple' is not among.*'apple'"):
      found.named(['aple'])
    with pytest.raises(ValueError, match="no record carries 'unused'"):
      found.named(['unused'])


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  exp = experiment.build(
    tiny.config(), space=LabelSpace.of_count(13), devices=jax.devices()[:1]
  )
  return saved_run.save(tmp_path_factory.mktemp('run'), exp, exp.init(3))


@pytest.fixture(scope='module')
def source():
  return pipeline.open_source(tiny.config().input.source.to_dict())


def run(workdir, output, *argv):
  argv = ['--checkpoint', workdir, '--output', output, *argv]
  return noise_audit.main([str(a) for a in argv])


def read_rows(folder):
  text = (folder / 'audit.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def largest(source):
  found = class_images.ClassImages(source)
  label = int(found.counts().argmax())
  return source.vocabulary.names[label], found.of(label)


def test_distances_are_those_of_the_features(workdir, source, tmp_path, capsys):
  """With one cluster the centroid is the mean of the unit vectors."""
  name, indices = largest(source)
  code = run(workdir, tmp_path, '--class_name', name, '--num_clusters', 1)
  assert code == 0
  rows = read_rows(tmp_path)
  assert sorted(row['index'] for row in rows) == indices.tolist()
  assert {row['class'] for row in rows} == {name}
  assert all(row['key'] == source.key(row['index']) for row in rows)
  order = [row['index'] for row in rows]
  _, vectors = embedder.Embedder(workdir).embed_all(source, order)
  unit = vectors.astype(np.float64)
  unit /= np.linalg.norm(unit, axis=1, keepdims=True)
  expected = np.linalg.norm(unit - unit.mean(0), axis=1)
  distances = [row['distance'] for row in rows]
  np.testing.assert_allclose(distances, expected, atol=2e-4)
  assert distances == sorted(distances)
  buckets = [row['bucket'] for row in rows]
  assert buckets == sorted(buckets) and set(buckets) == {1, 2, 3, 4, 5}
  assert f'{len(rows)}   1  {distances[0]:.2f} |' in capsys.readouterr().out


def test_pictures_and_page(workdir, source, tmp_path):
  code = run(
    workdir, tmp_path, '--num_classes', 2, '--min_images', 4, '--columns', 3,
    '--num_buckets', 4, '--thumbnail', 20, '--max_images', 9, '--filled_in',
  )  # fmt: skip
  assert code == 0
  rows = read_rows(tmp_path)
  names = list(dict.fromkeys(row['class'] for row in rows))
  assert len(names) == 2
  found = class_images.ClassImages(source, filled_in=True)
  counts = [found.counts()[source.vocabulary.index(n)] for n in names]
  assert counts[0] == found.counts().max() > 9
  page = (tmp_path / 'report.html').read_text()
  assert f'>{counts[0]}<' in page
  for name in names:
    (path,) = tmp_path.glob(f'*-{name}-buckets.png')
    picture = np.asarray(Image.open(path))
    assert picture.shape == (32 + 54 + 4 * 66, 32 + 150 + 3 * 24, 3)
    # The first picture of the first row is the nearest image, resized.
    (nearest, *_) = (row for row in rows if row['class'] == name)
    (resize,) = pipeline.build_ops(
      [dict(op='resize', size=20, antialias=True)], source
    )
    example = resize(source[nearest['index']], np.random.default_rng(0))
    top, left = 16 + 54, 16 + 150
    np.testing.assert_array_equal(
      picture[top : top + 20, left : left + 20], example['image']
    )
    assert list(tmp_path.glob(f'*-{name}-clusters.png'))
    assert name in page
  shown = [min(count, 9) for count in counts]  # all are among the farthest 10
  assert len(re.findall('<img', page)) == 2 * 2 + sum(shown) == 4 + len(rows)


class Broken:
  """A source of which some images cannot be used; their labels can."""

  def __init__(self, source, bad):
    self._source, self._bad = source, set(bad)
    self.vocabulary, self.hierarchy = source.vocabulary, source.hierarchy
    self.labels, self.key = source.labels, source.key

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    if index in self._bad:
      raise BadExample('cut short')
    return self._source[index]


def test_unusable_images_are_counted_and_named(
  workdir, source, tmp_path, capsys, monkeypatch
):
  found = class_images.ClassImages(source)
  whole, part = np.argsort(-found.counts(), kind='stable')[[1, 0]].tolist()
  bad = {*found.of(whole).tolist(), found.of(part)[0]}
  monkeypatch.setattr(
    data_argument, 'open_data', lambda text, **_: Broken(source, bad)
  )
  names = [source.vocabulary.names[label] for label in (whole, part)]
  code = run(
    workdir, tmp_path, '--data', 'records:any', '--class_name', ','.join(names)
  )
  assert code == 0
  good = [i for i in found.of(part).tolist() if i not in bad]
  assert sorted(row['index'] for row in read_rows(tmp_path)) == good
  out = capsys.readouterr().out
  assert f'images that cannot be used: {len(bad)}\n' in out
  assert f'{source.key(int(found.of(part)[0]))}: cut short' in out
  assert f'no usable image: {names[0]}\n' in out
  page = (tmp_path / 'report.html').read_text()
  assert 'cut short' in page and 'no usable image' in page


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--class_name', 'nothing'], "--class_name: 'nothing' is not among"),
    (['--columns', '0'], '--columns must be at least 1, got 0'),
    (['--workers', '-1'], '--workers must not be negative'),
    (['--thumbnail', '8'], '--thumbnail must be 16 to 512'),
    (['--class_name', 'a', '--classes', 'tail'], 'not both'),
    (['--data', 'records:nowhere'], 'nowhere'),
    (['--checkpoint', 'nowhere'], "--checkpoint='nowhere': no checkpoint"),
  ],
)
def test_mistakes(workdir, tmp_path, capsys, argv, words):
  assert run(workdir, tmp_path, *argv) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ') and words in err


def test_a_file_as_output_is_named(workdir, tmp_path, capsys):
  (tmp_path / 'out').write_text('')
  assert run(workdir, tmp_path / 'out', '--min_images', 1) == 2
  error = capsys.readouterr().err
  assert re.match(r"error: --output '.*/out': is a file, not a folder\n", error)
