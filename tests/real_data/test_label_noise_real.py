"""Labels that people gave: CIFAR-10N (Wei et al. 2022), a part of 4,000."""

import collections
import csv

import pytest

from tools import label_noise

pytestmark = pytest.mark.real_data

# Share of wrong labels in the whole of it, in whole percents.
PUBLISHED = {
  'aggre': 0.09,
  'random1': 0.17,
  'random2': 0.18,
  'random3': 0.18,
  'worse': 0.40,
}


def estimate(table, column, **options):
  argv = {
    'data': table, 'clean': table, 'key_column': 'file',
    'labels_column': column, 'clean_column': 'clean', 'rows': 'split=train',
    **options,
  }  # fmt: skip
  parts = [part for k, v in argv.items() for part in (f'--{k}', str(v))]
  return label_noise.run(label_noise.parser().parse_args(parts))[0]


@pytest.mark.parametrize('column', PUBLISHED)
def test_rates_are_the_published_ones_and_those_of_the_table(
  real_data, column, tmp_path, capsys
):
  table = real_data / 'cifar10_noisy' / 'labels.csv'
  found = estimate(table, column, output=tmp_path)
  with table.open() as file:
    rows = [r for r in csv.DictReader(file) if r['split'] == 'train']
  wrong = sum(row[column] != row['clean'] for row in rows)
  assert found.counts.given.sum() == len(rows) == 4000
  assert (found.counts.given - found.counts.right).sum() == wrong
  assert wrong / 4000 == pytest.approx(PUBLISHED[column], abs=0.012)
  with (tmp_path / 'label_noise.csv').open() as file:
    for row in csv.DictReader(file):
      own = [r for r in rows if r[column] == row['label']]
      right = sum(r['clean'] == row['label'] for r in own)
      assert (int(row['checked']), int(row['right'])) == (len(own), right)
      instead = collections.Counter(r['clean'] for r in own)
      del instead[row['label']]
      label, number = instead.most_common(1)[0]
      assert f'({number})' in row['instead'].split(', ')[0]
      assert instead[row['instead'].split(' ')[0]] == number, label
  assert 'records with clean labels: 4,000' in capsys.readouterr().out
