"""No command writes into the data that it reads."""

import os

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs import common
from tools import (
  dataset_stats,
  dedup,
  extract_features,
  inspect_data,
  label_noise,
  noise_audit,
  predict,
)
from tools.cli import output_folder


@pytest.fixture
def photos(tmp_path):
  """An image folder with one picture."""
  (tmp_path / 'photos/train/cat').mkdir(parents=True)
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(
    tmp_path / 'photos/train/cat/0.png'
  )
  return tmp_path / 'photos'


def everything(folder):
  return sorted(str(path) for path in folder.rglob('*'))


def test_inside_by_any_name(tmp_path, photos):
  os.symlink(photos, tmp_path / 'link')
  for output in (
    photos,
    photos / 'train/out',
    tmp_path / 'link/out',
    photos / 'train/../out',
  ):
    with pytest.raises(ValueError, match=r"--output '.*' lies inside --input"):
      output_folder.refuse_inside(str(output), ['no', str(photos)])
  for output in (tmp_path / 'out', tmp_path / 'photos2', tmp_path):
    output_folder.refuse_inside(str(output), [str(photos)])
  table = tmp_path / 'labels.csv'
  table.write_text('')
  output_folder.refuse_inside(str(tmp_path / 'out'), [str(table)])


def test_a_file_in_its_place_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(ValueError, match=r'--out .*file.: is a file'):
    output_folder.make(str(tmp_path / 'file'), '--out')
  with pytest.raises(ValueError, match=r'--output .*deep.: Not a directory'):
    output_folder.make(str(tmp_path / 'file/deep'))
  output_folder.make(str(tmp_path / 'new/deep'))
  assert (tmp_path / 'new/deep').is_dir()


@pytest.mark.parametrize(
  'tool,argv,message',
  [
    (dedup, '--within {0}:train --output {0}/train', 'lies inside --within'),
    (dedup, '--train {0}:train --eval {0}:val --output {0}/x', '--train'),
    (
      dedup,
      '--within folder:{0}:train --output {0}_out --state {0}/train/state',
      "/train/state' lies inside --within",
    ),
    (
      noise_audit,
      '--checkpoint no --data folder:{0}:train --output {0}/train/audit',
      "/train/audit' lies inside --data",
    ),
    (
      noise_audit,
      '--checkpoint no --data folder:{0} --output {0}/train/cat/0.png/x',
      'lies inside --data',
    ),
    (
      extract_features,
      '--checkpoint no --data {0} --output {0}/features',
      'lies inside --data',
    ),
    (
      predict,
      '--checkpoint no --input {0}/train --output {0}/train/out',
      'lies inside --input',
    ),
    (
      label_noise,
      '--data folder:{0} --clean clean.csv --output {0}/train/noise',
      'lies inside --data',
    ),
  ],
)
def test_commands_refuse_it(photos, capsys, tool, argv, message):
  before = everything(photos)
  assert tool.main(argv.format(photos).split()) == 2
  assert message.format(photos) in capsys.readouterr().err
  assert everything(photos) == before


def test_commands_with_a_config_refuse_it(photos):
  source = dict(type='folder', path=str(photos), split='train')
  before = everything(photos)
  with pytest.raises(ValueError, match=r'--out .* inside input.source.path'):
    dataset_stats.run(source, out=str(photos / 'train/stats'))
  config = common.base()
  config.input.source = ConfigDict(source)
  config.input.ops = [dict(op='decode'), dict(op='resize', size=4)]
  with pytest.raises(ValueError, match=r'--output .* inside input.source.path'):
    inspect_data.run(config, output=str(photos / 'train/cat/sheet.png'))
  assert everything(photos) == before
