"""dataset_stats: figures by hand, files written, mistakes, start-up."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from big_vision_like import vocabulary
from big_vision_like.hierarchy import Hierarchy
from input_pipeline import label_arrays
from input_pipeline.errors import BadExample
from tools import dataset_stats, label_statistics, statistics_table

# ml_collections loads config files by a deprecated call of importlib.
pytestmark = pytest.mark.filterwarnings('ignore:.*load_module')

# fruit <- apple, pear; rock alone. Images: apple | apple, rock | fruit | none.
TABLE = """path,labels,split
1.jpg,apple,train
2.jpg,apple;rock,train
3.jpg,fruit,train
4.jpg,,train
5.jpg,rock,val
"""
LABELS = """{"name": "apple", "parents": ["fruit"]}
{"name": "fruit"}
{"name": "pear", "parents": ["fruit"]}
{"name": "rock"}
"""
CONFIG = """
import ml_collections

def get_config(arg='table'):
  source = dict(type=arg, path={path!r}, vocabulary={vocabulary!r})
  config = ml_collections.ConfigDict(dict(input=dict(source=source)))
  config.input.source.check_files = 0
  config.evals = dict(val=dict(data={{**config.input.source, 'split': 'val'}}))
  config.lock()
  return config
"""


@pytest.fixture
def config(tmp_path):
  (tmp_path / 't.csv').write_text(TABLE)
  (tmp_path / 'labels.jsonl').write_text(LABELS)
  path = tmp_path / 'config.py'
  path.write_text(
    CONFIG.format(
      path=str(tmp_path / 't.csv'), vocabulary=str(tmp_path / 'labels.jsonl')
    )
  )
  return str(path)


def run(monkeypatch, *arguments):
  argv = ['dataset_stats', *arguments]
  monkeypatch.setattr(sys, 'argv', argv)  # overrides are read from there
  dataset_stats.main(argv)


def test_figures_by_hand(config, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'out' / 'deep'
  run(monkeypatch, '--config', config, '--out', str(out))
  summary = json.loads((out / 'stats.json').read_text())
  raw, filled = summary['labels']['raw'], summary['labels']['filled']
  assert (summary['images'], summary['classes']) == (4, 4)
  assert summary['images_gaining_labels'] == 2
  assert (raw['total'], filled['total']) == (4, 6)
  assert (raw['per_image_mean'], filled['per_image_mean']) == (1.0, 1.5)
  assert (raw['per_image_max'], filled['per_image_max']) == (2, 3)
  assert raw['images_by_number_of_labels'] == [1, 2, 1]
  assert filled['images_by_number_of_labels'] == [1, 1, 1, 1]
  assert raw['images_without'] == filled['images_without'] == 1
  assert raw['classes_with_images'] == filled['classes_with_images'] == 3
  assert (filled['largest_class'], filled['largest_class_images']) == (
    'fruit',
    3,
  )
  assert raw['classes_with_fewer_images_than']['20'] == 4
  assert summary['hierarchy']['max_depth'] == 1
  assert summary['hierarchy']['max_children_node'] == 'fruit'
  table = capsys.readouterr().out
  assert re.search(r'^per image, mean +1\.00 +1\.50$', table, re.MULTILINE)
  assert re.search(r'^images that gain labels +50\.0%$', table, re.MULTILINE)
  with PIL.Image.open(out / 'long_tail.png') as image:
    assert (
      image.size[0] > 1000 and len(image.convert('RGB').getcolors(1 << 20)) > 50
    )
  counted = vocabulary.load(out / 'vocabulary.jsonl')
  assert counted.counts.tolist() == [2, 1, 0, 1]
  assert counted.parents == (('fruit',), (), ('fruit',), ())


def test_split_key_and_limit(config, tmp_path, monkeypatch, capsys):
  def images():
    found = re.search(r'^(\d+) images: (.*)$', capsys.readouterr().out, re.M)
    return int(found[1]), found[2]

  run(monkeypatch, '--config', config, '--split', 'val')
  assert images() == (1, 'all 1 records')
  run(monkeypatch, '--config', config, '--key', 'evals.val.data')
  assert images() == (1, 'all 1 records')
  run(
    monkeypatch,
    f'--config={config}:table',
    '--limit',
    '2',
    '--out',
    str(tmp_path / 'o'),
  )
  assert images() == (2, 'all 4 records (sampled from 4 records)')
  # Counts of a sample are no counts of the data set.
  assert sorted(os.listdir(tmp_path / 'o')) == ['long_tail.png', 'stats.json']


class Synthetic:
  """A source without the fast path, one record of which is bad."""

  vocabulary = vocabulary.Vocabulary(tuple(f'c{i}' for i in range(300)))
  hierarchy = Hierarchy.from_edges(
    vocabulary.names, [(f'c{i}', f'c{(i - 1) // 2}') for i in range(1, 300)]
  )
  size = 2000

  def __len__(self):
    return self.size

  def __getitem__(self, index):
    if index == 5:
      raise BadExample('broken')
    rng = np.random.default_rng(index)
    return {'labels': rng.integers(0, 300, rng.integers(0, 4)), 'image': b''}

  def key(self, index):
    return f'record {index}'

  def fingerprint(self):
    return 'f'


def test_scan_agrees_with_a_plain_count(monkeypatch):
  monkeypatch.setattr(
    label_arrays, 'READ_BLOCK', 300
  )  # several chunks, one rest
  source = Synthetic()
  found = label_statistics.scan(source, range(len(source)))
  raw, filled, gaining = np.zeros(300), np.zeros(300), 0
  for index in range(len(source)):
    if index == 5:
      continue
    labels = {int(i) for i in source[index]['labels']}
    closed = set(labels)
    for label in labels:
      while label:
        label = (label - 1) // 2
        closed.add(label)
    raw[list(labels)] += 1
    filled[list(closed)] += 1
    gaining += len(closed) > len(labels)
  np.testing.assert_array_equal(found.raw.images, raw)
  np.testing.assert_array_equal(found.filled.images, filled)
  assert found.num_gaining == gaining
  assert found.bad == {'record 5': 'broken'}
  summary = label_statistics.summarise(source, found, len(source))
  assert (summary['images'], summary['records_bad']) == (1999, 1)
  assert 'cannot be used: record 5: broken' in statistics_table.table([summary])


def test_without_a_hierarchy(tmp_path, capsys):
  (tmp_path / 't.csv').write_text('path,labels\n1.jpg,$x_1$\n2.jpg,b\n')
  (summary,) = dataset_stats.run(
    dict(type='table', path=str(tmp_path / 't.csv'), check_files=0),
    out=str(tmp_path),
  )
  assert list(summary['labels']) == ['raw'] and 'hierarchy' not in summary
  assert 'fill-in' not in capsys.readouterr().out
  assert (tmp_path / 'long_tail.png').stat().st_size > 10_000


@pytest.mark.parametrize(
  'arguments, message',
  [
    ([], '--config is missing'),
    (['--config', '/none.py'], 'none.py'),
    (['--config', 'CONFIG', 'more'], "unknown argument 'more'"),
    (['--config', 'CONFIG', '--splt', 'val'], 'splt'),
    (['--config', 'CONFIG', '--split', 'vla'], "'vla' (did you mean 'val'?)"),
    (
      ['--config', 'CONFIG', '--key', 'input.sorce'],
      "no 'sorce' in the config",
    ),
    (['--config', 'CONFIG', '--limit', '0'], '--limit must be at least 1'),
    (['--config', 'CONFIG', '--limit', 'x'], 'limit'),
    (['--config', 'CONFIG', '--out', 'CONFIG'], 'File exists'),
    (
      ['--config', 'CONFIG', '--config.input.source.pth=x'],
      'no such config key',
    ),
    (['--config', 'CONFIG', '--config.input.source.check_files=1'], 'no image'),
    (['--config', 'CONFIG:no_such'], "unknown source 'no_such'"),
  ],
)
def test_mistakes_end_with_one_message(
  config, monkeypatch, capsys, arguments, message
):
  arguments = [a.replace('CONFIG', config) for a in arguments]
  with pytest.raises(SystemExit) as exit_:
    run(monkeypatch, *arguments)
  assert exit_.value.code == 2
  shown = capsys.readouterr().err
  assert shown.startswith('error: ') and message in shown


def test_help_is_quick_and_imports_little(project_root):
  code = (
    'import runpy, sys\n'
    "sys.argv = ['dataset_stats', '--help']\n"
    'try:\n'
    "  runpy.run_module('tools.dataset_stats', run_name='__main__')\n"
    'except SystemExit as end:\n'
    '  assert end.code == 0\n'
    "assert not {'jax', 'grain', 'matplotlib'} & set(sys.modules)\n"
  )
  start = time.perf_counter()
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=project_root,
    check=True,
    capture_output=True,
    text=True,
  )
  assert '--limit' in done.stdout and 'long_tail.png' in done.stdout
  assert time.perf_counter() - start < 10  # half a second on an idle machine
