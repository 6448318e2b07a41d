"""dataset_stats: figures by hand, files written, mistakes, start-up."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import arrays, vocabulary
from input_pipeline.labels.hierarchy import Hierarchy
from tools import dataset_stats
from tools.statistics import label_statistics, statistics_table

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
  config.input.fraction = 1.0
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
  assert images() == (2, 'evenly spread over all 4 records')
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
  monkeypatch.setattr(arrays, 'READ_BLOCK', 300)  # several chunks, one rest
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


def test_fractions_side_by_side(config, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'o'
  run(
    monkeypatch, '--config', config, '--fractions', '0.5,1', '--out', str(out)
  )
  half, whole = json.loads((out / 'stats.json').read_text())['subsets']
  assert (half['fraction'], half['images'], whole['images']) == (0.5, 2, 4)
  assert half['subset'] == '2 of 4 records, drawn by hash with seed 0'
  assert half['fingerprint'].startswith(whole['fingerprint'])
  assert whole['labels']['raw']['total'] == 4
  # Nested: what half of the images have, all have.
  assert half['labels']['raw']['total'] <= 3
  table = capsys.readouterr().out
  assert re.search(r'^fraction +0\.5 +1$', table, re.MULTILINE)
  assert re.search(r'^images +2 +4$', table, re.MULTILINE)
  assert sorted(os.listdir(out)) == ['long_tail.png', 'stats.json']


def test_subsets_of_a_config(config, tmp_path, monkeypatch, capsys):
  text = pathlib.Path(config).read_text()
  part = tmp_path / 'part.py'
  part.write_text(
    text.replace(
      '  config.lock()',
      "  config.input.source.subset = dict(labels=['apple', 'rock'])\n"
      '  config.input.fraction = 0.5\n  config.lock()',
    )
  )
  run(monkeypatch, '--config', str(part), '--fractions', '1')
  table = capsys.readouterr().out
  assert re.search(r'^images +2$', table, re.MULTILINE)  # fruit, none: dropped
  assert re.search(r'^classes +2$', table, re.MULTILINE)
  assert re.search(r'^total +3 +3$', table, re.MULTILINE)
  assert '2 images: 2 of 4 records, 2 of 4 labels' in table
  run(monkeypatch, '--config', str(part))  # input.fraction is the default
  table = capsys.readouterr().out
  expected = '2 of 4 records, 2 of 4 labels; of these 1 of 2 records, drawn'
  assert expected in table


class Stated:
  """Records with negatives and confidences; fruit <- apple, pear; rock."""

  vocabulary = vocabulary.Vocabulary(('apple', 'fruit', 'pear', 'rock'))
  hierarchy = Hierarchy.from_edges(
    vocabulary.names, [('apple', 'fruit'), ('pear', 'fruit')]
  )
  examples = (
    dict(labels=[0], negatives=[3], label_conf=[1.0]),
    dict(labels=[3], negatives=[1], label_conf=[0.55]),
    dict(labels=[0, 3], negatives=[1, 2], label_conf=[0.05, 0.5]),
    dict(labels=[], negatives=[], label_conf=[]),
  )

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, index):
    return dict(self.examples[index], image=b'')

  def key(self, index):
    return str(index)

  def fingerprint(self):
    return 'f'


def test_states_and_confidences_by_hand():
  source = Stated()
  found = label_statistics.scan(source, range(4))
  summary = label_statistics.summarise(source, found, 4)
  states = summary['label_states']
  assert states['images_with_negatives_recorded'] == 4
  assert states['per_class']['raw'] == {
    'positive': [2, 0, 0, 2],
    'negative': [0, 2, 1, 1],
    'unknown': [2, 2, 3, 1],
  }
  # No fruit in the second image: no apple and no pear. The third has an
  # apple, so that it has no fruit is wrong.
  assert states['per_class']['filled'] == {
    'positive': [2, 2, 0, 2],
    'negative': [1, 1, 2, 1],
    'unknown': [1, 1, 2, 1],
  }
  assert states['negatives_contradicted'] == 1
  assert states['per_image']['raw'] == dict(
    positive=1.0, negative=1.0, unknown=2.0
  )
  confidence = states['confidence']
  assert confidence['labels'] == 4 and confidence['exactly_1'] == 1
  assert confidence['mean'] == pytest.approx((1 + 0.55 + 0.05 + 0.5) / 4)
  assert confidence['labels_by_bin'] == [1, 0, 0, 0, 0, 2, 0, 0, 0, 1]
  table = statistics_table.table([summary])
  assert re.search(r'^unknown +2\.00 +1\.25$', table, re.MULTILINE)
  assert re.search(r'^  0\.9 to 1\.0, 1 included +1$', table, re.MULTILINE)


def test_the_label_index_counts_the_same(monkeypatch):
  monkeypatch.setattr(arrays, 'BLOCK', 100)
  plain = Synthetic()
  labels = [[] if i == 5 else plain[i]['labels'] for i in range(len(plain))]

  class Indexed(Synthetic):
    def __getitem__(self, index):
      assert index < 10, 'records were not to be read'
      return super().__getitem__(index)

    def label_index(self):
      ends = np.cumsum([len(row) for row in labels])
      return ends, np.concatenate(labels).astype(np.int32)

  chosen = np.arange(0, len(plain), 3)  # not the broken record 5
  read = label_statistics.scan(plain, chosen)
  done = []
  mapped = label_statistics.scan(Indexed(), chosen, done.append)
  assert sum(done) == len(chosen)
  for a, b in ((read.raw, mapped.raw), (read.filled, mapped.filled)):
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.per_image, b.per_image)
  assert read.num_gaining == mapped.num_gaining > 0


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
    (['--config', 'CONFIG', '--fractions', '0.5,2'], "'2' must be a number"),
    (['--config', 'CONFIG', '--fractions', '0.5,x'], "'x' must be a number"),
    (['--config', 'CONFIG', '--out', 'CONFIG'], 'is a file, not a folder'),
    (['--config', 'CONFIG', '--key', 'evals.val'], 'evals.val.data'),
    (['--config', 'CONFIG', '--key', 'input.source.path'], 'is no source'),
    (
      ['--config', 'CONFIG', '--key', 'input.source.path.x'],
      "no 'x' in the config",
    ),
    (['--config', 'CONFIG', '--config.input.source.pth=x'], 'pth'),
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
