"""Features of a checkpoint: those of the bare forward pass, in order."""

import jax
import numpy as np
import pytest

from big_vision_like.inference import embedder as features
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from tests import saved_run


@pytest.fixture(scope='module')
def exp():
  return saved_run.with_averages()


@pytest.fixture(scope='module')
def state(exp):
  """A state whose averages are not its parameters."""
  state = exp.init(3)
  return state.replace(ema=jax.tree.map(lambda x: x * 0.5, state.params))


@pytest.fixture(scope='module')
def workdir(exp, state, tmp_path_factory):
  return saved_run.save(tmp_path_factory.mktemp('run'), exp, state)


@pytest.fixture(scope='module')
def source(exp):
  return pipeline.open_train(exp.config)


@pytest.fixture(scope='module')
def embedder(workdir):
  return features.Embedder(workdir, batch_size=12)


def bare(exp, state, source, indices):
  """Features by hand: centre crop of the resized image, one forward pass."""
  specs = [
    dict(op='decode'),
    dict(op='resize', size=20),
    dict(op='center_crop', size=16),
  ]
  resize = pipeline.build_ops(specs, source)
  rng = np.random.default_rng(0)
  images = []
  for i in indices:
    example = source[i]
    for op in resize:
      example = op(example, rng)
    images.append(example['image'])
  predict = jax.jit(exp.predict['features'])
  out = predict(state.for_evaluation(), {'image': np.stack(images)})
  return np.asarray(out['features'])


class Broken:
  """A source of which some records cannot be used."""

  def __init__(self, source, bad):
    self._source, self._bad = source, bad
    self.vocabulary, self.hierarchy = source.vocabulary, source.hierarchy

  def __len__(self):
    return len(self._source)

  def __getitem__(self, index):
    if index in self._bad:
      raise BadExample('cut short')
    return self._source[index]

  def key(self, index):
    return f'image {index}'


def test_are_those_of_the_forward_pass_with_averaged_weights(
  exp, state, source, embedder
):
  assert embedder.batch_size == 16  # 12, for 8 devices
  assert embedder.dim == 4 * 32
  order = np.random.default_rng(0).permutation(len(source))
  expected = bare(exp, state, source, order)
  assert np.abs(expected).max() > 1e-3
  indices, found = embedder.embed_all(source, order)
  np.testing.assert_array_equal(indices, order)
  assert (indices.dtype, found.dtype) == (np.int64, np.float32)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  assert embedder.bad == {}


def test_all_records_by_default_and_no_record_at_all(source, embedder):
  batches = list(embedder.embed(source))
  assert [len(i) for i, _ in batches] == [16, 16, 16, 12]
  assert np.concatenate([i for i, _ in batches]).tolist() == list(range(60))
  indices, found = embedder.embed_all(source, [])
  assert (indices.shape, found.shape) == ((0,), (0, embedder.dim))


def test_a_record_does_not_depend_on_its_neighbours(source, embedder):
  _, whole = embedder.embed_all(source)
  _, alone = embedder.embed_all(source, [37])
  np.testing.assert_allclose(alone[0], whole[37], rtol=1e-5, atol=1e-6)


def test_unusable_records_are_left_out_and_listed(workdir, source, embedder):
  broken = Broken(source, {0, 17, 59})
  reader = features.Embedder(workdir, batch_size=16)
  indices, found = reader.embed_all(broken)
  assert indices.tolist() == [i for i in range(60) if i not in (0, 17, 59)]
  _, expected = embedder.embed_all(source, indices)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert reader.bad == dict.fromkeys(
    ('image 0', 'image 17', 'image 59'), 'cut short'
  )


def test_logits_and_the_models_vocabulary(workdir, exp, state, source):
  reader = features.Embedder(
    workdir / 'checkpoints' / '0', batch_size=8, predict_fn='logits'
  )
  assert reader.dim == 16  # 13 classes, padded to a multiple of 8
  _, found = reader.embed_all(source, [5])
  kernel = np.asarray(state.ema['head']['kernel'], np.float64)
  bias = np.asarray(state.ema['head']['bias'], np.float64)
  expected = bare(exp, state, source, [5]).astype(np.float64) @ kernel + bias
  np.testing.assert_allclose(found[:, :13], expected[:, :13], atol=1e-4)
  assert reader.vocabulary.names == source.vocabulary.names


@pytest.mark.parametrize(
  'options, words',
  [
    (dict(predict_fn='feature'), r"no prediction 'feature'.*'features'"),
    (dict(batch_size=0), 'batch_size=0 must be at least 1'),
    (dict(ops=[dict(op='decode')]), "size of 'image' follows the input"),
  ],
)
def test_mistakes(workdir, options, words):
  with pytest.raises(ValueError, match=words):
    features.Embedder(workdir, **options)


def test_no_checkpoint(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'--teacher=.*no checkpoint'):
    features.Embedder(tmp_path, where='--teacher')


@pytest.mark.parametrize('indices', [[60], [-1], [0.5], [[1]]])
def test_wrong_indices(source, embedder, indices):
  with pytest.raises(ValueError, match=r'outside the 60 records|of integers'):
    embedder.embed_all(source, indices)


def test_ops_without_chance():
  train = [
    dict(op='decode', apply_exif=True),
    dict(op='resize', size=340),
    dict(op='random_crop', size=299),
    dict(op='random_flip'),
    dict(op='label_noise', kind='symmetric', rate=0.1),
    dict(op='labels', max_labels=3),
  ]
  assert features.deterministic_ops(train) == [
    dict(op='decode', apply_exif=True),
    dict(op='resize', size=340),
    dict(op='center_crop', size=299),
  ]
  area = dict(op='random_resized_crop', size=224, antialias=True)
  assert features.deterministic_ops([area]) == [
    dict(op='resize', size=256, antialias=True),
    dict(op='center_crop', size=224),
  ]
  with pytest.raises(ValueError, match=r"op 'my\.Op': there is no module"):
    features.deterministic_ops([dict(op='my.Op')])
  own = f'{__name__}.Undeclared'
  with pytest.raises(ValueError, match=r"Undeclared' is without chance"):
    features.deterministic_ops([dict(op=own)])


class Undeclared:
  def __init__(self, context):
    del context


class Brighten:
  """An op of a user's own that says what it does."""

  reads = makes = frozenset({'image'})

  def __init__(self, context, *, by: int):
    del context, by

  def deterministic(self):
    return True


class Count(Brighten):
  makes = frozenset({'label'})


class Draws(Brighten):
  def deterministic(self):
    return False


def test_own_ops_without_chance():
  kept = dict(op=f'{__name__}.Brighten', by=3)
  gone = dict(op=f'{__name__}.Count', by=3)
  full = [
    dict(op='decode_segmentation'),
    dict(op='full_segmentation', max_size=9),
    dict(op='keep', fields=['image']),
  ]
  assert features.deterministic_ops([kept, *full, gone]) == [kept]
  with pytest.raises(ValueError, match=r"Draws' is without chance"):
    features.deterministic_ops([dict(op=f'{__name__}.Draws', by=3)])
