"""tfds source on data sets prepared here; TensorFlow is never imported."""

import copy
import json
import pathlib
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds

from big_vision_like.config import trust
from configs import imagenet_transfer
from input_pipeline import pipeline
from input_pipeline.sources import tfds as tfds_source

NAMES = ['cat', 'dog', 'bird']


def jpeg(i):
  return simplejpeg.encode_jpeg(np.full((8, 8, 3), i, np.uint8))


class Tiny(tfds.core.GeneratorBasedBuilder):
  """20 + 5 images; label i % 3 and sequences of 0, 1 or 2 labels."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    label = tfds.features.ClassLabel(names=NAMES)
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(
            shape=(None, None, 3), encoding_format='jpeg'
          ),
          'label': label,
          'number': np.int64,
          'weight': np.float32,
          'tags': tfds.features.Sequence(label),
          'objects': tfds.features.Sequence({'label': label}),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {
      'train': self._generate_examples(20),
      'test': self._generate_examples(5, labelled=False),
    }

  def _generate_examples(self, n, labelled=True):
    for i in range(n):
      tags = [NAMES[(i + j) % 3] for j in range(i % 3)]
      yield (
        i,
        {
          'image': jpeg(i),
          'label': NAMES[i % 3] if labelled else -1,
          'number': i % 4,
          'weight': 0.5,
          'tags': tags,
          'objects': [{'label': tag} for tag in tags],
        },
      )


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  builder = Tiny(data_dir=folder, file_format='array_record')
  builder.download_and_prepare()
  return str(folder)


@pytest.fixture
def directory(data_dir, tmp_path):
  copy = tmp_path / 'tiny' / '1.0.0'
  shutil.copytree(pathlib.Path(data_dir, 'tiny', '1.0.0'), copy)
  return copy


def by_brightness(source):
  """Label names of each image, by the grey value that identifies it."""
  found = {}
  for i in range(len(source)):
    example = source[i]
    assert isinstance(example['image'], bytes)
    assert example['labels'].dtype == np.int32
    np.testing.assert_array_equal(source.labels(i), example['labels'])
    value = simplejpeg.decode_jpeg(example['image'])[0, 0, 0]
    found[int(value)] = [source.vocabulary.names[j] for j in example['labels']]
  return found


def test_single_labels(data_dir):
  source = tfds_source.Source(name='tiny', data_dir=data_dir)
  assert source.vocabulary.names == tuple(NAMES)
  assert by_brightness(source) == {i: [NAMES[i % 3]] for i in range(20)}
  assert source.key(3) == '1.0.0:train:3' or source.key(3) == 'tiny:train:3'
  assert 'tensorflow' not in sys.modules
  for index in (-1, 20):
    with pytest.raises(IndexError):
      source[index]


@pytest.mark.parametrize('feature', ['tags', 'objects/label'])
def test_label_sequences(data_dir, feature):
  source = tfds_source.Source(
    name='tiny:1.0.0', data_dir=data_dir, label_feature=feature
  )
  assert by_brightness(source) == {
    i: sorted((NAMES[(i + j) % 3] for j in range(i % 3)), key=NAMES.index)
    for i in range(20)
  }


def test_split_parts_and_missing_labels(data_dir):
  def size(split):
    return len(tfds_source.Source(name='tiny', data_dir=data_dir, split=split))

  assert size('train[:90%]') == 18 and size('train[90%:]') == 2
  assert size('train+test') == 25
  test = tfds_source.Source(name='tiny', data_dir=data_dir, split='test')
  assert all(len(test.labels(i)) == 0 for i in range(5))


def test_directory_and_pickle(directory):
  source = tfds_source.Source(directory=str(directory))
  copy = pickle.loads(pickle.dumps(source))  # noqa: S301
  assert by_brightness(copy) == by_brightness(source)
  assert copy.fingerprint() == source.fingerprint()


def test_vocabulary_matches_by_name(data_dir, tmp_path):
  labels = tmp_path / 'labels.jsonl'
  labels.write_text(
    '{"name": "pet"}\n{"name": "dog", "parents": ["pet"]}\n'
    '{"name": "bird"}\n{"name": "cat", "parents": ["pet"]}\n'
  )
  options = dict(name='tiny', data_dir=data_dir)
  source = tfds_source.Source(**options, vocabulary=str(labels))
  assert by_brightness(source) == {i: [NAMES[i % 3]] for i in range(20)}
  assert source.hierarchy.close(np.array([1])).tolist() == [0, 1]
  numbers = tmp_path / 'numbers.txt'
  numbers.write_text('zero\none\ntwo\nthree\n')
  source = tfds_source.Source(
    **options, vocabulary=str(numbers), label_feature='number'
  )
  words = ['zero', 'one', 'two', 'three']
  assert by_brightness(source) == {i: [words[i % 4]] for i in range(20)}
  numbers.write_text('zero\none\n')
  with pytest.raises(ValueError, match="label 'cat' is not among the 2 names"):
    tfds_source.Source(**options, vocabulary=str(numbers))
  source = tfds_source.Source(
    **options, vocabulary=str(numbers), label_feature='number'
  )
  with pytest.raises(
    ValueError, match=r'labels \[[23]\] are not all in 0\.\.1'
  ):
    by_brightness(source)


def test_fingerprint_differs_between_splits_and_features(data_dir):
  def fingerprint(**options):
    source = tfds_source.Source(name='tiny', data_dir=data_dir, **options)
    return source.fingerprint()

  assert fingerprint() == fingerprint()
  others = [
    fingerprint(split='test'),
    fingerprint(split='train[:5]'),
    fingerprint(label_feature='tags'),
  ]
  assert len({fingerprint(), *others}) == 4


@pytest.mark.parametrize(
  'options, message',
  [
    ({'name': 'imagenet2012'}, 'not prepared.*tfds build imagenet2012 --file_'),
    ({'name': 'tiny:2.0.0'}, r'version 2\.0\.0 is not prepared.*: 1\.0\.0'),
    ({'name': '../tiny'}, r'not of the form NAME\[/CONFIG\]\[:VERSION\]'),
    ({}, 'give either name or directory'),
    ({'name': 'tiny', 'directory': '/x'}, 'give either name or directory'),
    ({'directory': '/none'}, r'/none: no dataset_info\.json'),
    ({'name': 'tiny', 'split': 'val'}, r"'val'; splits: .*train \(20\)"),
    ({'name': 'tiny', 'split': 'train[:5x]'}, r"cannot read split 'train\[:5x"),
    ({'name': 'tiny', 'split': 'train[20:]'}, r'has no records|cannot read'),
    ({'name': 'tiny', 'image_feature': 'imag'}, "did you mean 'image'.*featu"),
    ({'name': 'tiny', 'label_feature': 'lbl'}, "'lbl' is not among: .*label"),
    (
      {'name': 'tiny', 'label_feature': 'objects/lbl'},
      "'lbl' is not among: label",
    ),
    ({'name': 'tiny', 'label_feature': 'weight'}, 'must hold class numbers'),
    ({'name': 'tiny', 'label_feature': 'image'}, 'must hold class numbers'),
    (
      {'name': 'tiny', 'label_feature': 'number'},
      'no class names; give the op',
    ),
    ({'name': 'tiny', 'vocabulary': '/none.txt'}, 'no such file'),
  ],
)
def test_mistakes(data_dir, options, message):
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    tfds_source.Source(data_dir=data_dir, **options)


def test_damaged_or_other_formats(directory):
  info = directory / 'dataset_info.json'
  text = info.read_text()
  info.write_text(text.replace('array_record', 'tfrecord'))
  with pytest.raises(ValueError, match='prepared as tfrecord, which has no ra'):
    tfds_source.Source(directory=str(directory))
  info.write_text('{')
  with pytest.raises(ValueError, match='cannot be opened by tensorflow-datase'):
    tfds_source.Source(directory=str(directory))
  info.write_text(text)


def test_damaged_shards_are_found_at_the_start(directory):
  shard = next(directory.glob('*train*array_record*'))
  data = shard.read_bytes()
  other = next(directory.glob('*test*array_record*'))
  for damage, message in (
    (data[: len(data) // 2], r"1 of the shards of split 'train\[:50%\]'"),
    (other.read_bytes(), ': 5 records instead of 20'),
    (b'', 'cannot be used'),
    (None, ': missing'),
  ):
    if damage is None:
      shard.unlink()
    else:
      shard.write_bytes(damage)
    with pytest.raises(ValueError, match=message):
      tfds_source.Source(directory=str(directory), split='train[:50%]')
    tfds_source.Source(directory=str(directory), split='test')
  shard.write_bytes(data)
  assert len(tfds_source.Source(directory=str(directory))) == 20


def test_configurations_are_listed(data_dir, tmp_path):
  shutil.copytree(
    pathlib.Path(data_dir, 'tiny', '1.0.0'),
    tmp_path / 'coco' / '2017' / '1.0.0',
  )
  with pytest.raises(ValueError, match='configurations, choose one: coco/2017'):
    tfds_source.Source(name='coco', data_dir=str(tmp_path))
  source = tfds_source.Source(name='coco/2017', data_dir=str(tmp_path))
  assert len(source) == 20


def test_importing_and_reading_need_no_tensorflow(data_dir):
  code = (
    'import sys\n'
    'from input_pipeline.sources.tfds import Source\n'
    f'source = Source(name="tiny", data_dir={data_dir!r})\n'
    'assert source[0]["image"][:2] == b"\\xff\\xd8"\n'
    'assert "tensorflow" not in sys.modules and "jax" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


class Buildable(Tiny):
  """Tiny under another name: what is defined here tfds knows by name."""


class NeedsTensorFlow(Tiny):
  def _generate_examples(self, n, labelled=True):
    import tensorflow  # noqa: F401

    yield from super()._generate_examples(n, labelled)


def test_build_prepares_once_without_tensorflow(tmp_path):
  options = dict(name='buildable', data_dir=str(tmp_path))
  with pytest.raises(FileNotFoundError, match='let the option build=True try'):
    tfds_source.Source(**options)
  source = tfds_source.Source(**options, build=True)
  assert by_brightness(source) == {i: [NAMES[i % 3]] for i in range(20)}
  assert 'tensorflow' not in sys.modules
  (shard,) = (tmp_path / 'buildable').glob('1.0.0/*train.array_record*')
  first = shard.stat().st_mtime_ns
  assert len(tfds_source.Source(**options)) == 20
  assert len(tfds_source.Source(**options, build=True)) == 20
  assert shard.stat().st_mtime_ns == first


@pytest.mark.parametrize(
  'options, message',
  [
    (
      {'name': 'needs_tensor_flow'},
      "builder of 'needs_tensor_flow' needs tensorflow, which is not installed "
      'here; prepare it elsewhere with `tfds build needs_tensor_flow --file_',
    ),
    ({'name': 'no_such_set'}, "'no_such_set' cannot be prepared here: Datase"),
    ({'name': 'buildable:7.0.0'}, "'buildable:7.0.0' cannot be prepared here"),
    ({'directory': 'x'}, 'build=True needs the name of a data set'),
    ({'name': 'x', 'build': 'yes'}, "build='yes' must be bool"),
  ],
)
def test_what_cannot_be_built(tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    pipeline.open_source(
      {'type': 'tfds', 'build': True, 'data_dir': str(tmp_path), **options}
    )
  found = list(tmp_path.rglob('*.array_record*'))
  assert not [path for path in found if '.incomplete' not in str(path)]


def test_parts_of_a_split_by_arguments_of_the_transfer_config(data_dir):
  """Data sets such as tf_flowers have one split only."""
  text = (
    f'source=tfds,name=tiny,path={data_dir},num_classes=0,'
    'train_split=train[:75%],val_split=train[75%:]'
  )
  config = imagenet_transfer.get_config(text)
  train, val = (
    pipeline.open_source(section)
    for section in (config.input.source, config.evals.val.data)
  )
  images = lambda source: {source[i]['image'] for i in range(len(source))}
  assert (len(train), len(val)) == (15, 5)
  assert images(train) | images(val) == {jpeg(i) for i in range(20)}


@pytest.mark.parametrize(
  'text, splits',
  [
    ('', ('train', 'val')),
    ('train_split=all,val_split=dev', ('all', 'dev')),
    ('source=tfds', ('train', 'validation')),
    ('source=tfds,name=cifar10', ('train', 'test')),
    ('source=tfds,name=food101,val_split=validation', ('train', 'validation')),
  ],
)
def test_splits_of_the_transfer_config(text, splits):
  config = imagenet_transfer.get_config(text)
  found = config.input.source['split'], config.evals.val.data['split']
  assert found == splits


@pytest.fixture
def stranger(directory, tmp_path, monkeypatch):
  """(write features.json that names their class somewhere, did it run)."""
  ran = tmp_path / 'ran'
  (tmp_path / 'their_gift').mkdir()
  (tmp_path / 'their_gift' / 'code.py').write_text(
    f'open({str(ran)!r}, "w").close()\n'
  )
  monkeypatch.syspath_prepend(str(tmp_path))
  path = directory / 'features.json'
  own = json.loads(path.read_text())

  def write(change):
    sys.modules.pop('their_gift.code', None)
    path.write_text(json.dumps(change(copy.deepcopy(own), THEIRS)))

  return write, ran.exists


THEIRS = 'their_gift.code.Label'


def _inside(features, name, key='pythonClassName'):
  nested = features['featuresDict']['features']['objects']
  nested['sequence']['feature']['featuresDict']['features']['label'] = {
    key: name,
    'classLabel': {'numClasses': '3'},
  }
  return features


def _in_text(features, name):
  """JSON within the JSON, in the form of older versions."""
  inner = {'feature': {'type': name, 'content': {}}, 'length': None}
  own = 'tensorflow_datasets.core.features.sequence_feature.Sequence'
  features['featuresDict']['features']['tags'] = {
    'pythonClassName': own,
    'jsonFeature': {'json': json.dumps(inner)},
  }
  return features


FORMS = {
  'top': lambda features, name: {**features, 'pythonClassName': name},
  'inside': _inside,
  'snake case': lambda f, name: _inside(f, name, 'python_class_name'),
  'older version': lambda _, name: {'type': name, 'content': {}},
  'in text': _in_text,
}


@pytest.mark.parametrize('form', FORMS)
def test_nobodys_code_runs_by_what_a_stored_config_names(
  stranger, directory, form, monkeypatch
):
  write, ran = stranger
  write(FORMS[form])
  with pytest.raises(ValueError, match='names the module') as refused:
    _open_as_stored(directory)
  text = str(refused.value)
  assert text.startswith(f'{directory}/features.json names the module')
  assert repr(THEIRS) in text and text.endswith('add --trust')
  assert '\n' not in text and not ran()
  # Where it is the user's own it runs; it registers no class of that name.
  monkeypatch.setattr(trust, '_strange', [])
  with pytest.raises(ValueError, match='cannot be opened'):
    tfds_source.Source(directory=str(directory))
  assert ran()


def _open_as_stored(directory, **options):
  config = {'input': {'source': {'type': 'tfds'}}}
  trust.check(config, 'checkpoint', False)
  if directory is not None:
    options['directory'] = str(directory)
  return tfds_source.Source(**options)


def test_names_that_only_begin_like_the_librarys(stranger, directory):
  write, ran = stranger
  for name in ('tensorflow_datasets_too.a.B', ' tensorflow_datasets.a.B', '.B'):
    write(lambda features, _, name=name: _inside(features, name))
    with pytest.raises(ValueError, match='names the module'):
      _open_as_stored(directory)
  assert not ran()


def test_what_a_stored_config_names_is_opened_and_not_built(data_dir, tmp_path):
  assert len(_open_as_stored(None, name='tiny', data_dir=data_dir)) == 20
  with pytest.raises(ValueError, match=r"the builder of 'mnist'.*--trust"):
    _open_as_stored(None, name='mnist', data_dir=str(tmp_path), build=True)
