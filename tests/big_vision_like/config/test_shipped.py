"""Shipped configs and tools, from a checkout; installed: test_wheel.py."""

import pytest

from big_vision_like.config import loading, shipped
from tests.conftest import ROOT


def test_a_checkout_has_them_at_its_top():
  assert shipped.package('tools') == 'tools'
  assert shipped.folder('configs') == ROOT / 'configs'


def test_a_shipped_config_is_found_from_any_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = loading.load('configs/quickstart.py:tiny', '--config')
  assert config.input.batch_size == 16
  study = loading.load('configs/studies/table1.py:tiny', '--config')
  assert 'runs' in study


def test_a_file_at_hand_comes_first(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs/quickstart.py').write_text(
    'from configs import common\n'
    'def get_config():\n'
    '  config = common.base()\n'
    '  config.seed = 7\n'
    '  return config\n'
  )
  assert loading.load('configs/quickstart.py', '--config').seed == 7


@pytest.mark.parametrize('text', ['configs/no.py', 'quickstart.py', 'x/y.py:a'])
def test_what_is_nowhere_is_named(text, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(
    FileNotFoundError, match=f'--config={text}: no config file'
  ):
    loading.load(text, '--config')


@pytest.mark.parametrize(
  'text, words',
  [
    ('def get_config(:\n', r'mine\.py:1: SyntaxError'),
    ('x = 1\nx = {}[2]\n', r'mine\.py:2: KeyError'),
    ('import sys\nsys.exit(3)\n', r'mine\.py:2: SystemExit: 3'),
    ('def get_config():\n  return 3\n', 'must return a ConfigDict, got int'),
  ],
)
def test_mistakes_of_a_relative_path_have_their_line(
  text, words, tmp_path, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'mine.py').write_text(text)
  with pytest.raises(ValueError, match=words):
    loading.load('mine.py', '--config')


def test_a_frozen_config_is_taken(tmp_path):
  path = tmp_path / 'frozen.py'
  path.write_text(
    'from ml_collections import FrozenConfigDict\n'
    'def get_config():\n'
    '  return FrozenConfigDict(dict(seed=5))\n'
  )
  config = loading.load(str(path), '--config')
  config.seed = 6
  assert config.seed == 6
