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
