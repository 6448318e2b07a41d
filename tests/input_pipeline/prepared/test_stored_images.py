"""Sizes and numbers of the images beside the shards of a prepared split."""

import json

import numpy as np
import pytest

from input_pipeline import canvases, pipeline
from input_pipeline.sources.records import Source
from tests.input_pipeline.sources.boxes_made import jpeg, write
from tools import prepare_images

SIZES = {'a': (20, 40), 'b': (33, 17), 'c': (8, 8), 'd': (64, 9)}
OPS = [
  dict(op='decode'),
  dict(op='canvas', sizes=[[40, 40], [64, 64]]),
]


@pytest.fixture(params=[1, 3])
def prepared(tmp_path, request):
  for name, size in SIZES.items():
    write(tmp_path / 'in', {f'train/x/{name}.jpg': jpeg(1, *size)})
  write(tmp_path / 'in', {'train/x/e.jpg': b'no image'})
  argv = ['--input', tmp_path / 'in', '--output', tmp_path / 'out']
  argv += ['--splits', 'train', '--num_shards', request.param, '--workers', 1]
  argv += ['--keep_bad', '--max_bad_fraction', 1]
  assert prepare_images.main([*map(str, argv)]) == 0
  return tmp_path / 'out'


def test_sizes_of_what_is_stored(prepared):
  source = Source(path=str(prepared))
  sizes = source.sizes()
  assert sizes.dtype == np.int32
  for i in range(5):
    wanted = SIZES.get(source.stored_key(i)[2], (0, 0))
    assert tuple(sizes[i].tolist()) == wanted
  assert source.image_ids() is None  # nothing has numbered them
  assert not list(prepared.glob('*.images.npy')), 'side files stay'
  chosen = canvases.choose(source, pipeline.build_ops(OPS, source))
  assert [len(r) for r in chosen.records] == [4, 1]
  resized = [OPS[0], dict(op='resize_small', size=8), OPS[1]]
  chosen = canvases.choose(source, pipeline.build_ops(resized, source))
  assert [len(r) for r in chosen.records] == [4, 1]  # 57 x 8
  assert prepare_images.main(['--output', str(prepared), '--verify']) == 0


def test_data_sets_from_before_there_were_sizes(prepared):
  path = prepared / 'manifest.json'
  content = json.loads(path.read_text())
  del content['label_index']['train']['image_sizes']
  path.write_text(json.dumps(content))
  source = Source(path=str(prepared))
  assert source.sizes() is None
  chosen = canvases.choose(source, pipeline.build_ops(OPS, source))
  assert chosen.sizes == ((64, 64),) and 'does not know' in chosen.report


def test_a_file_that_was_changed(prepared):
  path = prepared / 'train.image_sizes.npy'
  np.save(path, np.zeros((4, 2), np.int32))
  with pytest.raises(ValueError, match=r'train\.image_sizes\.npy: '):
    Source(path=str(prepared))
