"""Boxes of data sets that tensorflow-datasets prepared, as coco and voc are."""

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds

from input_pipeline.examples.errors import BadExample
from input_pipeline.sources.records import Source as Records
from input_pipeline.sources.tfds import Source
from tools import prepare_images

NAMES = ['cat', 'dog']
COCO = [
  dict(bbox=(0.25, 0.1, 0.5, 0.4), label=1, is_crowd=True, area=7, id=2**40),
  dict(bbox=(0, 0, 1, 1), label=0, is_crowd=False, area=800, id=3),
]


class Boxes(tfds.core.GeneratorBasedBuilder):
  """Two images of 20 x 40, the first with COCO's objects, and VOC's."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    label = tfds.features.ClassLabel(names=NAMES)
    box = tfds.features.BBoxFeature()
    features = {
      'image': tfds.features.Image(encoding_format='jpeg'),
      'image/id': np.int64,
      'objects': tfds.features.Sequence(
        dict(
          bbox=box, label=label, is_crowd=np.bool_, area=np.int64, id=np.int64
        )
      ),
      'voc': tfds.features.Sequence(
        dict(bbox=box, label=label, is_difficult=np.bool_)
      ),
      'none': tfds.features.Sequence(label),
    }
    features = tfds.features.FeaturesDict(features)
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    del dl_manager
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    image = simplejpeg.encode_jpeg(np.zeros((20, 40, 3), np.uint8))
    for i, objects in enumerate([COCO, []]):
      given = [
        o | {'bbox': tfds.features.BBox(*map(float, o['bbox']))}
        for o in objects
      ]
      voc = [
        dict(bbox=o['bbox'], label=o['label'], is_difficult=o['is_crowd'])
        for o in given
      ]
      yield (
        i,
        {
          'image': image, 'image/id': 100 + i, 'objects': given, 'voc': voc,
          'none': [],
        },
      )  # fmt: skip


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  builder = Boxes(data_dir=folder, file_format='array_record')
  builder.download_and_prepare()
  return str(folder)


def examples(source):
  found = [source[i] for i in range(len(source))]
  return sorted(found, key=lambda e: -len(e['boxes']))


def test_objects_of_coco(data_dir):
  source = Source(name='boxes', data_dir=data_dir, objects_feature='objects')
  assert source.vocabulary.names == ('cat', 'dog')
  first, second = examples(source)
  np.testing.assert_allclose(
    first['boxes'], [[5, 4, 10, 16], [0, 0, 20, 40]], rtol=1e-6
  )
  assert first['box_labels'].tolist() == [1, 0]
  assert first['labels'].tolist() == [0, 1]
  assert first['box_crowd'].tolist() == [True, False]
  assert first['box_area'].tolist() == [7, 800]
  assert first['box_ids'].tolist() == [2**40, 3]
  assert first['image_id'].tolist() == [100]
  assert second['boxes'].shape == (0, 4) and second['image_id'].tolist() == [
    101
  ]
  assert 'box_difficult' not in first


def test_objects_of_voc(data_dir):
  source = Source(name='boxes', data_dir=data_dir, objects_feature='voc')
  first, _ = examples(source)
  assert first['box_difficult'].tolist() == [True, False]
  assert 'box_crowd' not in first and 'box_ids' not in first


def test_prepared(data_dir, tmp_path):
  argv = ['--type', 'tfds', '--output', str(tmp_path / 'out')]
  argv += ['--option', 'name=boxes', '--option', 'objects_feature=objects']
  argv += ['--option', f'data_dir={data_dir}', '--splits', 'train']
  assert prepare_images.main([*argv, '--workers', '1']) == 0
  stored = Records(path=str(tmp_path / 'out'))
  assert sorted(stored.image_ids()) == [100, 101]
  assert examples(stored)[0]['box_ids'].tolist() == [2**40, 3]
  np.testing.assert_array_equal(stored.sizes(), [[20, 40]] * 2)


def test_mistakes(data_dir):
  with pytest.raises(ValueError, match="objects_feature='none' must be a seq"):
    Source(name='boxes', data_dir=data_dir, objects_feature='none')
  source = Source(name='boxes', data_dir=data_dir, objects_feature='objects')
  record = dict(source._records[0])
  for box, reason in (
    ((0.5, 0, 0.2, 1), 'upside down'),
    ((0.5, 0, float('nan'), 1), 'not finite'),
  ):
    record['objects'] = dict(bbox=[box], label=[0])
    source._records = [record]
    with pytest.raises(BadExample, match=rf'objects\[0\]: bbox .* {reason}'):
      source[0]
