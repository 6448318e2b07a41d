"""The command on labels small enough to judge by hand."""

import csv
import json

import numpy as np
import pytest

from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.prepared import manifest, records
from tools import label_noise
from tools.cli import data_argument
from tools.noise import label_lists

NOISY = """key,labels
a,apple
b,pear
c,apple;car
d,car
e,apple
f,fruit
"""
# b is an apple, nothing is known of e, c has a bird too, d shows nothing.
CLEAN = """key,labels
a,apple
b,apple
c,apple; car; bird
d,
f,apple
"""
EDGES = 'apple\tfruit\npear\tfruit\n'


@pytest.fixture
def files(tmp_path):
  for name, text in (
    ('noisy.csv', NOISY), ('clean.csv', CLEAN), ('is_a.tsv', EDGES),
  ):  # fmt: skip
    (tmp_path / name).write_text(text)
  return tmp_path


@pytest.fixture
def dataset(tmp_path):
  """The noisy labels as a data set with a hierarchy."""
  folder = tmp_path / 'set'
  folder.mkdir()
  names = ('apple', 'bird', 'car', 'fruit', 'pear')
  (folder / 'is_a.tsv').write_text(EDGES)
  described = (None, None, None, None, 'sweet green pear')
  Vocabulary(names, descriptions=described).save(folder / 'vocabulary.jsonl')
  name = 'train-00000-of-00001.array_record'
  rows = [line.split(',') for line in NOISY.splitlines()[1:]]
  records.write_shard(
    str(folder / name),
    [
      records.Record(
        key=key,
        image=b'not read' * 1000,  # past what is checked at the start
        labels=np.array([names.index(n) for n in labels.split(';')], np.int32),
      )
      for key, labels in rows
    ],
  )
  manifest.Manifest(
    splits={'train': (manifest.describe(str(folder), name, len(rows)),)},
    labels={'train': 7},
    options={},
    vocabulary='vocabulary.jsonl',
    hierarchy='is_a.tsv',
    hierarchy_unlisted='error',
  ).save(str(folder))
  return folder


def run(capsys, *argv, code=0):
  assert label_noise.main([str(a) for a in argv]) == code
  out = capsys.readouterr()
  return out.err if code else out.out


def table(folder):
  with (folder / 'label_noise.csv').open() as file:
    return {(r['labels'], r['label']): r for r in csv.DictReader(file)}


def check_raw(rows):
  """precision and recall of the raw labels, counted by hand."""
  apple = rows['raw', 'apple']
  assert [apple[k] for k in ('uses', 'checked', 'right', 'shown')] == list(
    '3224'
  )
  assert (apple['precision'], apple['recall']) == ('1', '0.5')
  assert rows['raw', 'pear']['precision'] == '0'
  assert rows['raw', 'pear']['instead'] == 'apple (1)'
  assert rows['raw', 'car']['precision'] == '0.5'
  assert rows['raw', 'car']['instead'] == 'nothing else (1)'
  assert (rows['raw', 'bird']['shown'], rows['raw', 'bird']['found']) == tuple(
    '10'
  )
  assert rows['raw', 'bird']['precision'] == 'nan'


def test_two_files(capsys, files):
  out = run(
    capsys, '--data', files / 'noisy.csv', '--clean', files / 'clean.csv',
    '--output', files / 'out',
  )  # fmt: skip
  rows = table(files / 'out')
  check_raw(rows)
  assert rows['raw', 'fruit']['precision'] == '0'  # no hierarchy: not known
  assert 'records with clean labels: 5' in out
  assert '3 of 6 labels' in out  # precision
  assert '3 of 6 labels' in out.partition('recall')[2]
  assert out.index('car ') < out.index('apple ')  # most wrong labels first
  page = (files / 'out' / 'report.html').read_text()
  assert 'nothing else (1)' in page and '50.0%' in page


@pytest.mark.parametrize('given', ['file', 'records'])
def test_fill_in_makes_ancestors_right_and_found(capsys, files, dataset, given):
  data = files / 'noisy.csv' if given == 'file' else f'records:{dataset}:train'
  hierarchy = ['--hierarchy', files / 'is_a.tsv'] if given == 'file' else []
  out = run(
    capsys, '--data', data, '--clean', files / 'clean.csv', '--fill_in',
    *hierarchy, '--output', files / 'out',
  )  # fmt: skip
  rows = table(files / 'out')
  check_raw(rows)
  # f is an apple: 'fruit' is right of it. Four images show fruit, one says so.
  raw, filled = rows['raw', 'fruit'], rows['filled', 'fruit']
  assert (raw['precision'], raw['recall']) == ('1', '0.25')
  # Apples a, c and the pear b, which is an apple, now say fruit as well.
  assert (filled['checked'], filled['right'], filled['recall']) == tuple('441')
  assert filled['uses'] == '5'
  assert rows['filled', 'apple'] == {**rows['raw', 'apple'], 'labels': 'filled'}
  assert 'labels after fill-in' in out
  page = (files / 'out' / 'report.html').read_text()
  for text in (out, page):  # where a label has a description, people see it
    assert ('sweet green pear' in text) == (given == 'records')


def test_weights_are_uses_in_all_records(capsys, files):
  out = run(
    capsys, '--data', files / 'noisy.csv', '--clean', files / 'clean.csv'
  )
  # apple 3 of 7 uses at 1, car 2 at 1/2, pear and fruit 1 each at 0
  assert f'{(3 * 1 + 2 * 0.5) / 7:.1%}' in out.partition('weighted')[2]


def test_match_by_position_and_json(capsys, files):
  rows = [{'key': f'row {i}', 'labels': ['apple']} for i in range(6)]
  path = files / 'clean.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  out = run(
    capsys, '--data', files / 'noisy.csv', '--clean', path,
    '--match', 'position',
  )  # fmt: skip
  assert 'records with clean labels: 6' in out
  assert '3 of 7 labels' in out
  err = run(
    capsys, '--data', files / 'noisy.csv', '--clean', path, code=2
  )  # fmt: skip
  assert "none of the 6 keys of --clean is in --data; the first is 'row 0'" in (
    err
  )


def test_clean_rows_of_unknown_records_and_unread_rows_are_counted(
  capsys, files
):
  (files / 'clean.csv').write_text(
    'name,who,truth\na,x,apple\nzz,x,apple\nb,y,apple\n'
  )
  (files / 'noisy.csv').write_text('name,who,said\na,x,pear\nb,x,apple\n')
  out = run(
    capsys, '--data', files / 'noisy.csv', '--clean', files / 'clean.csv',
    '--key_column', 'name', '--labels_column', 'said',
    '--clean_column', 'truth', '--rows', 'who=x',
  )  # fmt: skip
  assert 'records with clean labels: 1\n' in out
  assert 'clean labels of unknown records: 1\n' in out
  assert '0 of 1 labels' in out


def test_unusable_records_are_listed(capsys, files, dataset):
  shard = dataset / 'train-00000-of-00001.array_record'
  data = bytearray(shard.read_bytes())
  place = data.rindex(b'not read')
  data[place] ^= 1
  shard.write_bytes(bytes(data))
  out = run(
    capsys, '--data', f'records:{dataset}', '--clean', files / 'clean.csv'
  )
  assert 'records that cannot be used: 1' in out
  assert 'cannot be used: train-00000-of-00001.array_record:5: corrupt' in out


@pytest.mark.parametrize(
  'change, words',
  [
    (('clean.csv', 'key,label\na,apple\n'), "clean.csv:2: no column 'labels'"),
    (('clean.csv', 'key,labels\na,aple\n'), "'aple' of 'a' is not a label"),
    (('clean.csv', 'key,labels\na,car\na,car\n'), "3: 'a' is already at line"),
    (('clean.csv', 'key,labels\na\n'), 'clean.csv:2: 1 fields, but the header'),
    (('clean.csv', 'key,labels\n'), 'clean.csv: no rows'),
    (('clean.csv', 'key,labels\n,car\n'), "clean.csv:2: 'key' is no key: ''"),
    (('clean.csv', 'key,key\n'), 'a column twice'),
  ],
)
def test_mistakes_in_files(capsys, files, dataset, change, words):
  name, text = change
  (files / name).write_text(text)
  err = run(
    capsys, '--data', f'records:{dataset}', '--clean', files / name, code=2
  )
  assert err.startswith('error: ') and words in err


@pytest.mark.parametrize(
  'argv, words',
  [
    (['--data', 'records'], "'records': no such file or folder, nor of the fo"),
    (['--data', 'tests'], "--data='tests' is not of the form records:DIR"),
    (['--data', 'NOISY', '--top', '0'], '--top must be at least 1'),
    (['--data', 'NOISY', '--rows', 'x'], 'not of the form COLUMN=VALUE'),
    (['--data', 'NOISY', '--rows', 'key=zz'], 'no rows with key=zz'),
    (['--data', 'NOISY', '--fill_in'], '--fill_in needs a hierarchy'),
    (['--data', 'nope.csv'], 'nope.csv: no such file'),
    (['--data', 'configs/nope.py'], "no config file 'configs/nope.py'"),
    (['--data', 'main.py'], "'main.py' has no function get_config"),
    (['--data', 'nope/config.json'], '--data=nope/config.json: No such file'),
  ],
)
def test_mistakes_in_the_command(capsys, files, argv, words):
  argv = [str(files / 'noisy.csv') if a == 'NOISY' else a for a in argv]
  err = run(capsys, *argv, '--clean', files / 'clean.csv', code=2)
  assert err.startswith('error: ') and words in err


def test_data_argument():
  parse = data_argument.parse
  assert parse('records:/a/b:val') == dict(
    type='records', path='/a/b', split='val'
  )
  assert parse('folder:/a:b/c') == dict(
    type='folder', path='/a:b/c', split='train'
  )
  world = parse('configs/quickstart.py:images=50,noise=0.4')
  assert (world['num_images'], world['noise']) == (50, 0.4)
  assert label_lists.is_file('a/b.csv.gz')
  assert not label_lists.is_file('table:a.csv')
  assert not label_lists.is_file('configs/x.py:y.csv/z')


def test_synthetic_world_has_the_noise_it_was_given(capsys, tmp_path):
  """Of 3,000 images with noise=0.2, against all that they show."""
  source = data_argument.open_data('configs/quickstart.py:images=3000')
  from input_pipeline.sources.synthetic import Source

  truth = Source(split='train_clean', num_images=3000, num_classes=200)
  clean = tmp_path / 'clean.jsonl'
  with clean.open('w') as file:
    for i in range(3000):
      names = [truth.vocabulary.names[k] for k in truth.labels(i)]
      file.write(json.dumps({'key': source.key(i), 'labels': names}) + '\n')
  args = label_noise.parser().parse_args(
    ['--data', 'configs/quickstart.py:images=3000', '--clean', str(clean)]
  )
  (raw,) = label_noise.run(args)
  n, right = raw.counts.given.sum(), raw.counts.right.sum()
  assert abs(right - 0.8 * n) < 4 * (n * 0.16) ** 0.5
  assert 'records with clean labels: 3,000' in capsys.readouterr().out


def test_a_hierarchy_that_is_not_there(files, capsys):
  argv = ('--data', files / 'noisy.csv', '--clean', files / 'clean.csv')
  said = run(capsys, *argv, '--fill_in', '--hierarchy', '/nope', code=2)
  assert said == 'error: /nope: no such file\n'
