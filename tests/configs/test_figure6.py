"""Figure 6 as a study: what starts from what, and small from end to end."""

import csv

import pytest

from configs.studies import figure6
from tools import study
from tools.studies import plan


def planned(arguments, tmp_path):
  """The checked study."""
  return plan.build(figure6.get_config(arguments), 'figure6', tmp_path)


def starts(built):
  """run -> run that it starts from, or None."""
  return {
    name: jobs[0].parent.run.name if jobs[0].parent else None
    for name, jobs in built.runs.items()
  }


def test_starts_in_the_synthetic_world(tmp_path):
  built = planned(None, tmp_path)
  assert starts(built) == {
    'jft': None, 'imagenet': None, 'imagenet_jft': 'imagenet', 'scratch': None,
    'tuned_imagenet': 'imagenet', 'tuned_jft': 'jft',
    'tuned_imagenet_jft': 'imagenet_jft',
    'jft_300': None, 'tuned_jft_300': 'jft_300',
    'jft_1200': None, 'tuned_jft_1200': 'jft_1200',
  }  # fmt: skip
  seeds = {name: len(jobs) for name, jobs in built.runs.items()}
  assert seeds['scratch'] == seeds['tuned_jft_300'] == 3
  assert seeds['jft'] == seeds['jft_300'] == 1
  # 700 steps of 32 images see 22,400 of the 100,000 once, and 300 many times.
  seen = {
    name: jobs[0].run.axes['images_seen']
    for name, jobs in built.runs.items()
    if jobs[0].run.axes
  }
  assert seen == {
    'tuned_jft': 22_400, 'tuned_jft_300': 300, 'tuned_jft_1200': 1200,
  }  # fmt: skip
  titles = [built.title_of(n) for n in ('jft_1200', 'tuned_jft_1200')]
  assert titles == ['1,200 images', '1,200 images, fine-tuned']


def test_arms_on_the_target_differ_in_their_start_only(tmp_path):
  built = planned(None, tmp_path)
  arms = [jobs[0].config for n, jobs in built.runs.items() if 'tuned' in n]
  scratch = built.runs['scratch'][0].config
  assert scratch['init_from']['path'] is None
  for config in arms:
    assert config['init_from']['path'] is not None
    same = {**config, 'init_from': scratch['init_from']}
    assert same == dict(scratch)


def test_real_data_with_the_recipe_of_the_paper(tmp_path):
  built = planned('voc=/voc,jft=/jft,imagenet=/in', tmp_path)
  assert starts(built) == {
    'scratch': None, 'imagenet': None, 'tuned_imagenet': 'imagenet',
    'jft': None, 'tuned_jft': 'jft', 'imagenet_jft': 'imagenet',
    'tuned_imagenet_jft': 'imagenet_jft',
    'jft_10M': None, 'tuned_jft_10M': 'jft_10M',
    'jft_30M': None, 'tuned_jft_30M': 'jft_30M',
    'jft_100M': None, 'tuned_jft_100M': 'jft_100M',
  }  # fmt: skip
  arm = built.runs['tuned_jft'][0].config
  assert arm['total_steps'] == 30_000 and arm['input']['batch_size'] == 6
  assert arm['input']['source']['path'] == '/voc'
  assert arm['model']['bn'] == 'frozen'
  assert built.runs['scratch'][0].config['model']['bn'] == 'batch'
  few = built.runs['jft_30M'][0].config
  assert few['input']['source']['subset'] == dict(num_images=30_000_000)


def test_real_data_from_checkpoints(tmp_path):
  built = planned(
    'voc=v,jft_checkpoint=/j,imagenet_checkpoint=i,weights=w', tmp_path
  )
  paths = {
    name: jobs[0].config['init_from']['path']
    for name, jobs in built.runs.items()
  }
  assert paths == {
    'scratch': None, 'tuned_imagenet': './i', 'tuned_jft': '/j',
    'tuned_weights': './w',
  }  # fmt: skip
  weights = built.runs['tuned_weights'][0].config
  assert weights['task']['pixels'] == 'imagenet'
  assert weights['model']['bn'] == 'frozen'
  # JFT after a checkpoint of ImageNet.
  built = planned('voc=v,jft=/j,imagenet_checkpoint=i,sweep=false', tmp_path)
  both = built.runs['imagenet_jft'][0].config
  assert both['init_from']['path'] == './i'
  assert 'jft_10M' not in built.runs


@pytest.mark.parametrize(
  'arguments, words',
  [
    ('jft=a', 'jft needs voc=DIR'),
    ('voc=a', 'voc=DIR needs one of jft, jft_checkpoint'),
    ('voc=a,jft=b,jft_checkpoint=c', 'give one of the two'),
    ('images=0', 'images=0 must be at least 1'),
    ('seeds=-1', 'seeds=-1 must be at least 1'),
  ],
)
def test_mistakes(arguments, words):
  with pytest.raises(ValueError, match=words):
    figure6.get_config(arguments)


@pytest.mark.nightly  # test_table1.py has the same way, for another task
@pytest.mark.slow
def test_tiny_runs_one_arm_end_to_end(tmp_path, capfd):
  """Pretraining, then segmentation from it; test_table1.py runs all."""
  folder = tmp_path / 'figure6'
  command = [
    '--config', 'configs/studies/figure6.py:tiny', '--workdir', str(folder),
    '--only', 'tuned_jft',
  ]  # fmt: skip
  assert study.main(command) == 0, capfd.readouterr()
  with (folder / 'results.csv').open(newline='') as file:
    runs = {row['run']: row for row in csv.DictReader(file)}
  finished = [n for n, row in runs.items() if row['status'] == 'finished']
  assert sorted(finished) == ['jft', 'tuned_jft']
  log = (folder / 'runs/tuned_jft/seed0/log.txt').read_text()
  start = folder / 'runs/jft/seed0/checkpoints/6'
  assert f'warm start from {start}' in log
  with (folder / 'figure6.csv').open(newline='') as file:
    rows = {(row['row'], row['metric']): row for row in csv.DictReader(file)}
  mean = rows['300M, fine-tuned', 'val/miou']['mean']
  assert mean == runs['tuned_jft']['val/miou']
