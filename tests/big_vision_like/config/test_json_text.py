"""JSON files that nest too deeply, wherever they are read."""

import json

import pytest

from big_vision_like import mending
from big_vision_like.checkpoints import place
from big_vision_like.config import json_text, loading, settings
from big_vision_like.runtime import figures
from input_pipeline.prepared import manifest
from tools.cli import data_argument

DEEP = '[' * 200_000


def nested(depth: int) -> str:
  return '[' * depth + ']' * depth


def test_depth_is_bounded_before_anything_walks_through_it():
  assert json_text.parse(nested(100)) == json.loads(nested(100))
  for text in (nested(101), nested(900), DEEP, '{"a":' * 200_000, '1' + DEEP):
    with pytest.raises(ValueError) as error:
      json_text.parse(text)
    assert '\n' not in str(error.value)
  with pytest.raises(ValueError, match=r'^f: not JSON: .*more than 100 deep'):
    json_text.parse(DEEP, 'f')
  with pytest.raises(ValueError, match=r'^f: not JSON: '):
    json_text.parse(b'\xff', 'f')
  with pytest.raises(ValueError, match=r'^f: not JSON: '):
    json_text.parse('9' * 5000, 'f')


@pytest.mark.parametrize('text', [DEEP, '{"a":' * 900 + '1' + '}' * 900])
def test_every_reader_names_its_file(tmp_path, text):
  config, records = tmp_path / 'config.json', tmp_path / 'records'
  records.mkdir()
  for path in (config, records / 'manifest.json', tmp_path / 'run.json'):
    path.write_text(text)
  calls = [
    (config, lambda: settings.from_json(config)),
    (config, lambda: loading.load(str(config), '--config')),
    (config, lambda: data_argument.parse(str(config))),
    (records, lambda: manifest.load(str(records))),
    (tmp_path / 'run.json', lambda: place._id(tmp_path / 'run.json')),
  ]
  for path, call in calls:
    with pytest.raises(ValueError) as error:
      call()
    assert str(path) in str(error.value) and '\n' not in str(error.value)
  assert figures.parse(text.encode()) is None
  assert any('config.json.damaged' in line for line in mending.mend(tmp_path))
