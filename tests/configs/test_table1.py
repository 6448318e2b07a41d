"""Table 1 as a study, small, from the command to the page."""

import csv

import pytest

from configs.studies import table1
from tools import study
from tools.studies import plan


def test_the_target_is_the_task_of_neither_pretraining(tmp_path):
  """One object an image: its label is the largest one's and all that is true.

  ImageNet's stand-in names the largest of several objects, 300M's all of them,
  and both are worlds with a hierarchy of other seeds than the target's.
  """
  built = plan.build(table1.get_config(), 'table1', tmp_path)
  source = lambda name: built.runs[name][0].config['input']['source']
  target = source('scratch')
  assert (target['max_objects'], target['depth'], target['zipf']) == (1, 0, 0.0)
  assert target['num_images'] == 1000
  for name in ('jft', 'imagenet'):
    assert not {'max_objects', 'depth', 'zipf'} & set(source(name))
  assert source('imagenet')['single_label']
  assert not source('jft').get('single_label')
  seeds = [
    source(name).get('seed', 0) for name in ('scratch', 'jft', 'imagenet')
  ]
  assert len(set(seeds)) == 3
  rates = [name for name in built.runs if name.startswith('rate_')]
  assert len(rates) == 6 * 3  # frozen features have a rate of their own
  config = built.runs['rate_frozen_0.03'][0].config
  assert config['evals']['val']['data']['split'] == 'fasteval'
  assert config['model']['freeze'] == 'backbone'
  steps = {n: j[0].config['total_steps'] for n, j in built.runs.items()}
  assert steps['jft_long'] == steps['imagenet'] + steps['imagenet_jft']


@pytest.mark.nightly  # test_detection_studies.py has the same way
@pytest.mark.slow
def test_tiny_runs_end_to_end(tmp_path, capfd):
  folder = tmp_path / 'table1'
  command = [
    '--config', 'configs/studies/table1.py:tiny', '--workdir', str(folder),
    '--jobs', '2',
  ]  # fmt: skip
  assert study.main(command) == 0, capfd.readouterr()
  with (folder / 'results.csv').open(newline='') as file:
    runs = {row['run']: row for row in csv.DictReader(file)}
  assert set(runs) == {
    'jft', 'scratch', 'tuned_jft', 'rate_jft_0.003', 'rate_jft_0.01'
  }  # fmt: skip
  assert {row['status'] for row in runs.values()} == {'finished'}
  assert 0 <= float(runs['tuned_jft']['val/top1']) <= 100
  log = (folder / 'runs/tuned_jft/seed0/log.txt').read_text()
  start = folder / 'runs/jft/seed0/checkpoints/6'
  assert f'warm start from {start}' in log
  with (folder / 'table1.csv').open(newline='') as file:
    rows = {(row['row'], row['metric']): row for row in csv.DictReader(file)}
  tuned = rows['300M, fine-tuned', 'val/top1']
  assert tuned['mean'] == runs['tuned_jft']['val/top1']
  assert tuned['published'] == '79.2'
  assert rows['MSRA checkpoint', 'val/top5']['published'] == '92.9'
  page = (folder / 'report.html').read_text()
  assert 'All 5 runs have finished.' in page
  assert page.count('data:image/png;base64,') == 3
  # A second command has nothing to do.
  capfd.readouterr()
  assert study.main(command) == 0
  assert capfd.readouterr().out.count('had finished before') == 5
