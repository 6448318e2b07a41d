"""make_fasteval on a pool of 60 images, against loops over sets."""

import io
import os
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from big_vision_like.metrics import ranking
from big_vision_like.metrics.average_precision import RankingOptions
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import records
from input_pipeline.sources.records import Source
from tests.evaluators import harness
from tools import make_fasteval

NAMES = ('food', 'fruit', 'apple', 'pear', 'car', 'van, red', 'thing', 'rare')
PARENTS = {
  'fruit': ['food'], 'apple': ['fruit'], 'pear': ['fruit'], 'van, red': ['car'],
  'food': ['thing'], 'car': ['thing'],
}  # fmt: skip
SPLITS = {'train': 4, 'validation': 40, 'test': 20}


def png(number: int) -> bytes:
  file = io.BytesIO()
  Image.fromarray(np.full((4, 4, 3), number, np.uint8)).save(file, 'PNG')
  return file.getvalue()


def draw(negatives=True, seed=0) -> dict[str, list[records.Record]]:
  """Records of each split; pixels are the number within all."""
  rng = np.random.default_rng(seed)
  out, number = {}, 0
  for split, size in SPLITS.items():
    out[split] = []
    for i in range(size):
      order = rng.permutation(7)  # 'rare' is nowhere but in one image
      p, n = rng.integers(0, 4, 2)
      labels = [7] if split == 'test' and i == 3 else sorted(order[:p].tolist())
      sure = np.where(rng.random(len(labels)) < 0.8, 1.0, 0.6)
      out[split].append(
        records.Record(
          f'{split}/{i}.png',
          png(number),
          np.array(labels, np.int32),
          sure.astype(np.float32),
          np.array(sorted(order[p : p + n].tolist()), np.int32)
          if negatives
          else None,
        )
      )
      number += 1
  return out


def write(folder, splits) -> str:
  """A prepared data set with two shards a split."""
  folder.mkdir()
  shards = {}
  for split, rows in splits.items():
    shards[split] = []
    for i, part in enumerate((rows[::2], rows[1::2])):
      name = manifests.shard_name(split, i, 2)
      num = records.write_shard(str(folder / name), part)
      shards[split].append(manifests.describe(str(folder), name, num))
  Vocabulary(names=NAMES, counts=np.arange(8)).save(folder / 'vocabulary.jsonl')
  edges = [f'{c}\t{p}\n' for c, above in PARENTS.items() for p in above]
  (folder / 'hierarchy.tsv').write_text(''.join(edges))
  manifests.Manifest(
    {s: tuple(v) for s, v in shards.items()},
    {s: sum(len(r.labels) for r in v) for s, v in splits.items()},
    {},
    hierarchy='hierarchy.tsv',
  ).save(str(folder))
  return str(folder)


@pytest.fixture(scope='module')
def pool(tmp_path_factory):
  return write(tmp_path_factory.mktemp('a') / 'pool', draw())


def up(name):
  return {name}.union(*(up(p) for p in PARENTS.get(name, [])))


def down(name):
  return {other for other in NAMES if name in up(other)}


def states(record, min_confidence=0.0):
  """(labels, negatives) as sets of names, completed."""
  labels = [
    NAMES[c] for c, q in zip(record.labels, record.label_conf)
    if q >= np.float32(min_confidence)
  ]  # fmt: skip
  present = set().union(*map(up, labels))
  absent = [NAMES[c] for c in record.negatives]
  return present, set().union(*(down(n) for n in absent if n not in present))


def run(*args):
  return make_fasteval.main([str(a) for a in args])


def lines(path):
  return path.read_text().splitlines()


def test_chooses_by_definition(pool, tmp_path, capsys):
  out = tmp_path / 'out'
  code = run(
    '--input', f'{pool}:validation,test', '--output', out, '--num_images', 25,
    '--min_positives', 8, '--min_negatives', 6, '--min_confidence', 1,
  )  # fmt: skip
  printed = capsys.readouterr()
  assert code == 0, printed.err
  drawn = draw()
  pooled = {r.key: r for s in ('validation', 'test') for r in drawn[s]}
  known = {key: states(r, 1) for key, r in pooled.items()}

  def enough(keys, name):
    positives = sum(name in known[k][0] for k in keys)
    return positives >= 8 and sum(name in known[k][1] for k in keys) >= 6

  wanted = {n for n in NAMES if enough(known, n)}
  assert 2 < len(wanted) < len(NAMES)
  number = {
    key: len(present & wanted) + len(absent & wanted)
    for key, (present, absent) in known.items()
  }
  source = Source(path=str(out), split='fasteval')
  chosen = [source.read(i) for i in range(len(source))]
  keys = {r.key for r in chosen}
  assert len(chosen) == len(keys) == 25
  rest = [number[k] for k in pooled if k not in keys]
  assert min(number[k] for k in keys) >= max(rest)
  classes = [n for n in NAMES if n in wanted and enough(keys, n)]
  assert lines(out / 'classes.txt') == classes
  assert len(classes) < len(wanted)  # some are too rare among the chosen
  share = {n: sum(n in known[k][0] for k in keys) / 25 for n in classes}
  rows = [f'"{n}"' if ',' in n else n for n in classes]
  assert lines(out / 'weights.csv') == [
    'name,weight', *(f'{row},{share[n]!r}' for row, n in zip(rows, classes))
  ]  # fmt: skip
  for record in chosen:  # as they were, without what is not sure
    original = pooled[record.key]
    sure = original.label_conf == 1
    assert record.image == original.image
    assert record.labels.tolist() == original.labels[sure].tolist()
    assert record.label_conf.tolist() == [1] * int(sure.sum())
    assert record.negatives.tolist() == original.negatives.tolist()
  figures = dict(
    re.findall(r'^ *(\S.*?) +([\d.,]+) *(?:\(|$)', printed.out, re.M)
  )
  mean = lambda values: f'{sum(values) / 25:.2f}'
  assert figures['images'] == '25'
  assert figures['classes'] == str(len(classes))
  assert figures['labels an image, as recorded'] == mean(
    len(r.labels) for r in chosen
  )
  assert figures['after fill-in'] == mean(len(known[k][0]) for k in keys)
  assert figures['of the classes above'] == mean(share[n] * 25 for n in classes)
  assert figures['verified negatives of these'] == mean(
    len(known[k][1] & set(classes)) for k in keys
  )
  unsure = sum(int((r.label_conf < 1).sum()) for r in pooled.values())
  assert f'{unsure} labels of the pool are less sure than 1.0' in printed.out
  clash = sum(
    NAMES[c] in known[k][0] for k, r in pooled.items() for c in r.negatives
  )
  assert f'{clash} verified negatives of the pool are above' in printed.out


def test_the_data_set_is_whole(pool, tmp_path):
  out = tmp_path / 'new' / 'out'
  args = ('--input', f'{pool}:validation', '--num_images', 9)
  args += ('--min_positives', 1)
  assert run(*args, '--output', out, '--shard_mb', 0.0005) == 0
  manifest = manifests.load(str(out))
  assert len(manifest.splits['fasteval']) > 1
  assert manifests.verify(str(out), manifest, 'fasteval') == []
  source = Source(path=str(out), split='fasteval')
  whole = Source(path=pool, split='validation')
  assert source.vocabulary.names == NAMES
  np.testing.assert_array_equal(source.vocabulary.counts, np.arange(8))
  np.testing.assert_array_equal(
    source.hierarchy.ancestors.values, whole.hierarchy.ancestors.values
  )
  assert source.in_hash_order
  ends, labels = source.label_index()
  for i in range(9):
    np.testing.assert_array_equal(source.labels(i), source.read(i).labels)
  assert len(ends) == 9 and len(labels) == manifest.labels['fasteval']
  again = tmp_path / 'again'
  again.mkdir()  # an empty folder will do
  assert run(*args, '--output', again, '--shard_mb', 0.0005) == 0
  for name in os.listdir(out):
    assert (out / name).read_bytes() == (again / name).read_bytes(), name
  assert set(os.listdir(tmp_path)) == {'new', 'again'}


def test_random_choice_is_by_seed_and_not_by_labels(pool, tmp_path):
  chosen = []
  for i, seed in enumerate((0, 0, 1)):
    out = tmp_path / str(i)
    code = run(
      '--input', f'{pool}:validation', '--output', out, '--num_images', 10,
      '--choose', 'random', '--seed', seed, '--min_positives', 1,
    )  # fmt: skip
    assert code == 0
    source = Source(path=str(out), split='fasteval')
    chosen.append([source.read(i).key for i in range(10)])
  assert chosen[0] == chosen[1] and set(chosen[0]) != set(chosen[2])
  # A set of 20 holds that of 10 with the same seed.
  out = tmp_path / 'larger'
  run(
    '--input', f'{pool}:validation', '--output', out, '--num_images', 20,
    '--choose', 'random', '--min_positives', 1,
  )  # fmt: skip
  source = Source(path=str(out), split='fasteval')
  assert {source.read(i).key for i in range(20)} > set(chosen[0])


def test_frequent_classes_and_given_weights(tmp_path, capsys):
  """Without recorded negatives all that is not labelled is absent."""
  pool = write(tmp_path / 'pool', draw(negatives=False))
  (tmp_path / 'list.txt').write_text('apple\nfruit\npear\nvan, red\nrare\n')
  (tmp_path / 'popularity.csv').write_text('name,weight\nfruit,7\npear,3\n')
  out = tmp_path / 'out'
  args = (
    '--input', f'{pool}:validation,test', '--output', out,
    '--classes', tmp_path / 'list.txt', '--max_classes', 1,
    '--popularity', tmp_path / 'popularity.csv',
  )  # fmt: skip
  assert run(*args) == 0
  assert lines(out / 'classes.txt') == ['fruit']
  assert lines(out / 'weights.csv') == ['name,weight', 'fruit,7.0']
  printed = capsys.readouterr().out
  assert 'asked for 14,000 images, the pool has 60' in printed
  assert 'verified negatives' not in printed
  assert run(*args[:6], '--output', tmp_path / 'b', *args[8:]) == 2
  assert "no weight for 2 of the chosen classes, such as 'apple'" in (
    capsys.readouterr().err
  )


def test_the_evaluator_takes_it(pool, tmp_path):
  """With classes.txt and weights.csv, over known pairs."""
  out = tmp_path / 'out'
  args = ('--input', f'{pool}:validation', '--output', out, '--num_images', 30)
  assert run(*args, '--min_positives', 5, '--min_confidence', 1) == 0
  label = dict(
    op='labels', max_labels=8, fill_in=True, max_negatives=8,
    fill_in_negatives=True,
  )  # fmt: skip
  entry = dict(
    type='multilabel_map',
    data=dict(type='records', path=str(out), split='fasteval'),
    ops=[*harness.IMAGE_OPS, label],
    batch_size=8,
    unknown='ignore',
    annotated=str(out / 'classes.txt'),
    weights=str(out / 'weights.csv'),
  )
  scores = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
  figures = harness.build(entry, harness.context(8)).run(scores)
  source = Source(path=str(out), split='fasteval')
  ids = {name: i for i, name in enumerate(NAMES)}
  rows = [source.read(i) for i in range(30)]
  known = [[[ids[n] for n in names] for names in states(r)] for r in rows]
  padded = [
    np.array([row[i] + [-1] * (8 - len(row[i])) for row in known])
    for i in (0, 1)
  ]
  numbers = [
    Image.open(io.BytesIO(r.image)).getpixel((0, 0))[0] for r in rows
  ]  # fmt: skip
  classes = lines(out / 'classes.txt')
  weights = np.zeros(8)
  for name in classes:
    weights[ids[name]] = np.mean([ids[name] in row[0] for row in known])
  expected = ranking.mean_average_precision(
    scores[numbers], padded[0], RankingOptions(unknown='ignore'),
    weights=weights, annotated=np.isin(NAMES, classes),
    negative_ids=padded[1],
  )  # fmt: skip
  assert figures['map@100'] == pytest.approx(expected, rel=1e-12)
  assert figures['num_classes_evaluated'] == len(classes)


def test_corrupt_records_are_left_out_and_listed(pool, tmp_path, capsys):
  copy = write(tmp_path / 'pool', draw())
  path = pathlib.Path(copy) / manifests.shard_name('test', 1, 2)
  data = bytearray(path.read_bytes())
  data[data.index(b'test/5.png') + 3] ^= 1
  path.write_bytes(data)
  manifest = manifests.load(copy)
  one = manifest.splits['test'][1]
  fixed = manifests.describe(copy, one.name, one.records)
  splits = {**manifest.splits, 'test': (manifest.splits['test'][0], fixed)}
  manifests.Manifest(splits, manifest.labels, {}).save(copy)
  out = tmp_path / 'out'
  args = ('--input', f'{copy}:test', '--output', out, '--min_positives', 1)
  assert run(*args) == 0
  printed = capsys.readouterr().out
  assert '1 records of the pool cannot be used' in printed
  assert 'left out: test-00001-of-00002.array_record:2: corrupt' in printed
  assert len(Source(path=str(out), split='fasteval')) == 19


@pytest.mark.parametrize(
  'args, message',
  [
    (
      ['--input', 'POOL'],
      'names no split; give FOLDER:SPLIT, one or more of tr',
    ),
    (['--input', 'POOL:'], 'names no split'),
    (['--input', 'POOL:val'], "has no split 'val'; valid: train, validation"),
    (['--input', 'POOL:test,test'], 'names a split twice'),
    (['--input', 'no/such:val'], "no data set folder 'no/such'"),
    (['--output', 'POOL/x'], 'POOL/x. lies inside --input'),
    (['--output', 'POOL'], 'exists; give a new or empty folder'),
    (['--num_images', '0'], '--num_images must be at least 1, got 0'),
    (['--max_classes', '0'], '--max_classes must be at least 1'),
    (['--min_negatives', '-1'], '--min_negatives must be at least 0'),
    (['--min_confidence', '2'], r'--min_confidence must be in \[0, 1\]'),
    (['--shard_mb', '0'], '--shard_mb must be positive'),
    (['--min_positives', '50'], 'no class of .* has --min_positives 50'),
    (
      ['--min_positives', '9', '--num_images', '2'],
      'none of . classes has --min_positives 9 images among the 2 chosen',
    ),
    (['--classes', 'no.txt'], r'no\.txt: no such file'),
    (['--popularity', 'no.csv'], r'no\.csv: no such file'),
  ],
)
def test_mistakes_end_with_2(pool, tmp_path, capsys, args, message):
  args = [a.replace('POOL', pool) for a in args]
  given = {'--input': f'{pool}:validation', '--output': str(tmp_path / 'out')}
  given |= dict(zip(args[::2], args[1::2]))
  assert run(*(part for pair in given.items() for part in pair)) == 2
  error = capsys.readouterr().err.replace(pool, 'POOL')
  assert error.startswith('error: ') and re.search(message, error), error
  assert os.listdir(tmp_path) == []


def test_a_pool_of_two_kinds_is_refused(tmp_path, capsys):
  splits = draw()
  splits['test'] = draw(negatives=False)['test']
  pool = write(tmp_path / 'pool', splits)
  args = ('--input', f'{pool}:validation,test', '--output', tmp_path / 'out')
  assert run(*args) == 2
  assert "'test/0.png' does not" in capsys.readouterr().err
