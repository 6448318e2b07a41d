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
  found = {k: v for k, v in starts(built).items() if 'rate_' not in k}
  sizes = ('jft_2000', 'jft_8000', 'jft_32000')
  controls = ('jft_2000_equal', 'jft_8000_equal', 'jft_equal')
  assert found == {
    'jft': None, 'imagenet': None, 'imagenet_jft': 'imagenet', 'scratch': None,
    'jft_long': None, 'tuned_imagenet': 'imagenet', 'tuned_jft': 'jft',
    'tuned_imagenet_jft': 'imagenet_jft', 'tuned_jft_long': 'jft_long',
    **dict.fromkeys((*sizes, *controls)),
    **{f'tuned_{name}': name for name in (*sizes, *controls)},
  }  # fmt: skip
  seeds = {name: len(jobs) for name, jobs in built.runs.items()}
  assert seeds['scratch'] == seeds['tuned_jft_2000'] == 3
  assert seeds['jft'] == seeds['jft_2000'] == 1
  steps = {
    name: built.runs[name][0].config['total_steps']
    for name in ('jft', *sizes, *controls)
  }
  # Two epochs of each in batches of 32, and for the control 2,000 steps of
  # each: those of 32,000 images already are.
  assert steps == {
    'jft': 8000, 'jft_2000': 125, 'jft_8000': 500, 'jft_32000': 2000,
    'jft_2000_equal': 2000, 'jft_8000_equal': 2000, 'jft_equal': 2000,
  }  # fmt: skip
  seen = {
    name: jobs[0].run.axes['images_seen']
    for name, jobs in built.runs.items()
    if 'images_seen' in jobs[0].run.axes
  }
  assert seen == {
    'tuned_jft': 128_000, 'tuned_jft_2000': 2000, 'tuned_jft_8000': 8000,
    'tuned_jft_32000': 32_000, 'tuned_jft_2000_equal': 2000,
    'tuned_jft_8000_equal': 8000, 'tuned_jft_equal': 64_000,
  }  # fmt: skip
  figures = {figure.name: list(figure.runs) for figure in built.figures}
  assert figures['data_size'] == [
    'tuned_jft', 'tuned_jft_2000', 'tuned_jft_8000', 'tuned_jft_32000'
  ]  # fmt: skip
  assert figures['data_size_equal_steps'] == [
    'tuned_jft_equal', 'tuned_jft_2000_equal', 'tuned_jft_8000_equal',
    'tuned_jft_32000',
  ]  # fmt: skip
  titles = [built.title_of(n) for n in ('jft_8000', 'tuned_jft_8000_equal')]
  assert titles == ['8,000 images', '8,000 images, fine-tuned, equal steps']


def test_rates_are_searched_on_images_that_no_table_shows(tmp_path):
  built = planned('lr_jft=0.02', tmp_path)
  scores = lambda name: built.runs[name][0].config['evals']['val']['data']
  rates = [name for name in built.runs if name.startswith('rate_')]
  assert len(rates) == 4 * 3  # the rate of 300M is given
  for name in rates:
    (job,) = built.runs[name]
    assert job.seed not in (0, 1, 2)
    assert scores(name)['split'] == 'fasteval'
    assert job.config['schedule']['lr'] == float(name.rpartition('_')[2])
  for name in ('scratch', 'tuned_jft', 'tuned_jft_8000'):
    assert scores(name)['split'] == 'val'
    assert scores(name)['num_images'] == 2000
  lr = lambda name: built.runs[name][0].config['schedule']['lr']
  assert lr('tuned_jft') == lr('tuned_jft_2000') == 0.02
  searched = {
    name: list(jobs[0].variants)
    for name, jobs in planned(None, tmp_path).runs.items()
  }
  assert searched['tuned_jft_2000'] == searched['tuned_jft']
  assert searched['tuned_jft'] == [
    'rate_jft_0.003', 'rate_jft_0.01', 'rate_jft_0.03'
  ]  # fmt: skip


def test_arms_on_the_target_differ_in_their_start_only(tmp_path):
  built = planned(None, tmp_path)  # where all starts have one rate
  arms = [jobs[0].config for n, jobs in built.runs.items() if 'tuned' in n]
  scratch = built.runs['scratch'][0].config
  assert scratch['init_from']['path'] is None
  for config in arms:
    assert config['init_from']['path'] is not None
    same = {**config, 'init_from': scratch['init_from']}
    assert same == dict(scratch)


def test_300m_and_imagenet_as_far_apart_as_in_the_paper(tmp_path):
  """Sun et al. 2017: 300M has 234 times ImageNet's images, 7.2 its steps."""
  built = planned(None, tmp_path)
  config = lambda name: built.runs[name][0].config
  images = lambda name: config(name)['input']['source']['num_images']
  steps = lambda name: config(name)['total_steps']
  assert 50 < images('jft') / images('imagenet') < 500
  assert 5 < steps('jft') / steps('imagenet') < 10
  # Its control trains for as long as ImageNet and 300M after it.
  assert steps('jft_long') == steps('imagenet') + steps('imagenet_jft')
  assert steps('imagenet_jft') == steps('jft')
  assert images('jft_long') == images('jft')


def test_pretraining_can_be_replicated(tmp_path):
  built = planned('replicate,seeds=4', tmp_path)
  assert len(built.runs['jft']) == len(built.runs['jft_2000']) == 4
  for job in built.runs['tuned_imagenet_jft']:
    assert job.parent.seed == job.seed
    assert job.parent.parent.seed == job.seed


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


@pytest.mark.nightly  # test_detection_studies.py has the same way
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
  searched = ['rate_jft_0.003', 'rate_jft_0.01']
  assert sorted(finished) == ['jft', *searched, 'tuned_jft']
  log = (folder / 'runs/tuned_jft/seed0/log.txt').read_text()
  start = folder / 'runs/jft/seed0/checkpoints/6'
  assert f'warm start from {start}' in log
  with (folder / 'figure6.csv').open(newline='') as file:
    rows = {(row['row'], row['metric']): row for row in csv.DictReader(file)}
  mean = rows['300M, fine-tuned', 'val/miou']['mean']
  assert mean == runs['tuned_jft']['val/miou']
