"""Tables 2 and 3 as studies: what starts from what, small from end to end."""

import csv

import pytest

from configs.studies import table2, table3
from tools import study
from tools.studies import plan

STUDIES = {'table2': (table2, 'coco'), 'table3': (table3, 'voc')}
both = pytest.mark.parametrize('name', STUDIES)


def planned(name, arguments, tmp_path):
  """The checked study."""
  return plan.build(STUDIES[name][0].get_config(arguments), name, tmp_path)


def starts(built):
  """run -> run that it starts from, or None; without the search."""
  return {
    name: jobs[0].parent.run.name if jobs[0].parent else None
    for name, jobs in built.runs.items()
    if not name.startswith('rate_')
  }


@both
def test_four_starts_in_the_synthetic_world(name, tmp_path):
  built = planned(name, None, tmp_path)
  assert starts(built) == {
    'jft': None, 'imagenet': None, 'imagenet_jft': 'imagenet', 'jft_long': None,
    'scratch': None, 'tuned_imagenet': 'imagenet', 'tuned_jft': 'jft',
    'tuned_imagenet_jft': 'imagenet_jft', 'tuned_jft_long': 'jft_long',
  }  # fmt: skip
  assert len(built.runs['tuned_jft']) == 3
  assert len(built.runs['jft']) == 1
  config = lambda run: built.runs[run][0].config
  evaluator = {'table2': 'coco_detection', 'table3': 'voc_detection'}[name]
  assert config('scratch')['evals']['val']['type'] == evaluator
  assert config('scratch')['evals']['val']['data']['split'] == 'val'
  # Arms differ in their start alone, where all starts have one rate.
  for run, parent in starts(built).items():
    if run.startswith('tuned'):
      assert parent
      same = {**config(run), 'init_from': config('scratch')['init_from']}
      assert same == dict(config('scratch'))
  seeds = [
    config(run)['input']['source'].get('seed', 0)
    for run in ('scratch', 'jft', 'imagenet')
  ]
  assert len(set(seeds)) == 3  # three worlds


@both
def test_rates_are_searched_on_images_that_no_table_shows(name, tmp_path):
  built = planned(name, None, tmp_path)
  rates = [n for n in built.runs if n.startswith('rate_')]
  assert len(rates) == 5 * 3
  for run in rates:
    (job,) = built.runs[run]
    assert job.seed not in (0, 1, 2)
    assert job.config['evals']['val']['data']['split'] == 'fasteval'
    assert job.config['schedule']['lr'] == float(run.rpartition('_')[2])
  for run in ('scratch', 'tuned_imagenet', 'tuned_jft_long'):
    start = run.removeprefix('tuned_')
    arm = built.runs[run][0]
    lr = {n: v.config['schedule']['lr'] for n, v in arm.variants.items()}
    assert lr == {f'rate_{start}_{x:g}': x for x in (0.003, 0.01, 0.03)}
    assert all(v.parent is arm.parent for v in arm.variants.values())
    metric = {'table2': 'val/ap', 'table3': 'val/ap50'}[name]
    assert arm.run.best_of.metric == metric


@both
def test_a_rate_in_place_of_a_search(name, tmp_path):
  built = planned(name, 'lr_jft=0.005,rates=0.1,0.01', tmp_path)
  assert not [n for n in built.runs if n.startswith('rate_jft_0')]
  given = built.runs['tuned_jft'][0]
  assert given.config['schedule']['lr'] == 0.005 and not given.variants
  other = built.runs['tuned_imagenet'][0]
  assert list(other.variants) == ['rate_imagenet_0.01', 'rate_imagenet_0.1']


@both
def test_the_recipe_of_the_paper_on_real_data(name, tmp_path):
  target = STUDIES[name][1]
  built = planned(name, f'{target}=/d,jft=/j,imagenet=/i', tmp_path)
  assert starts(built) == {
    'scratch': None, 'imagenet': None, 'tuned_imagenet': 'imagenet',
    'jft': None, 'tuned_jft': 'jft', 'imagenet_jft': 'imagenet',
    'tuned_imagenet_jft': 'imagenet_jft',
  }  # fmt: skip
  arm = built.runs['tuned_jft'][0].config
  steps = {'table2': 3_000_000, 'table3': 700_000}[name]
  assert arm['total_steps'] == steps and arm['input']['batch_size'] == 1
  assert arm['input']['source']['path'] == '/d'
  assert arm['model']['bn'] == 'frozen' and arm['model']['depth'] == 101
  scratch = built.runs['scratch'][0].config
  assert scratch['model']['bn'] == 'batch'
  assert scratch['input']['batch_size'] == 8
  assert scratch['init_from']['path'] is None


def test_per_class_figures_of_voc(tmp_path):
  built = planned('table3', 'voc=/d,jft_checkpoint=/j', tmp_path)
  whole, classes = built.tables
  assert [row.run for row in whole.rows] == ['scratch', 'tuned_jft']
  metrics = [column.metric for column in classes.columns]
  assert len(metrics) == 20 and metrics[0] == 'val/ap50/aeroplane'


@both
def test_checkpoints_in_place_of_pretraining(name, tmp_path):
  target = STUDIES[name][1]
  built = planned(
    name, f'{target}=d,jft_checkpoint=/j,imagenet_checkpoint=i,weights=w',
    tmp_path,
  )  # fmt: skip
  paths = {n: j[0].config['init_from']['path'] for n, j in built.runs.items()}
  assert paths == {
    'scratch': None, 'tuned_imagenet': './i', 'tuned_jft': '/j',
    'tuned_weights': './w',
  }  # fmt: skip
  weights = built.runs['tuned_weights'][0].config
  assert weights['task']['pixels'] == 'imagenet'
  both = planned(name, f'{target}=d,jft=/j,imagenet_checkpoint=i', tmp_path)
  assert both.runs['imagenet_jft'][0].config['init_from']['path'] == './i'


def test_published_figures_stand_beside(tmp_path):
  (table,) = planned('table2', 'coco=d,jft_checkpoint=/j', tmp_path).tables
  rows = {row.run or row.title: row.published for row in table.rows}
  assert rows['tuned_jft'] == {'val/ap50': 56.9, 'val/ap': 36.7}
  assert rows['He et al.']['val/ap'] == 32.2
  assert table.baseline == 'scratch'  # there is no ImageNet


@both
@pytest.mark.parametrize(
  'arguments, words',
  [
    ('jft=a', 'jft needs {}=DIR'),
    ('{}=a', '{}=DIR needs one of jft, jft_checkpoint'),
    ('{}=a,jft=b,jft_checkpoint=c', 'give one of the two'),
    ('{}=a,jft=b,lr_jft=0.1', 'lr_jft is for the synthetic world'),
    ('{}=a,jft=b,rates=0.1', 'rates is for the synthetic world'),
    ('lr_jft=-1', 'lr_jft=-1.0 must be > 0'),
    ('lr_weights=1', 'lr_weights: there is no such start'),
    ('rates=0.1,x', "rates='0.1,x' must be numbers > 0"),
    ('rates=0.1,0', "rates='0.1,0' must be numbers > 0"),
    ('rates=0.1,0.10', 'has a rate twice'),
    ('images=0', 'images=0 must be at least 1'),
    ('epochs=3', "unknown config argument 'epochs'"),
  ],
)
def test_mistakes(name, arguments, words):
  module, target = STUDIES[name]
  with pytest.raises(ValueError, match=words.format(target)):
    module.get_config(arguments.format(target))


# tests/configs/test_table1.py has the same way, test_detection_recipes.py the
# start of a detector from a classifier.
@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize('name', STUDIES)
def test_tiny_runs_one_arm_end_to_end(name, tmp_path, capfd):
  """Pretraining, then detection from it; test_table1.py runs all."""
  folder = tmp_path / name
  command = [
    '--config', f'configs/studies/{name}.py:tiny', '--workdir', str(folder),
    '--only', 'tuned_jft',
  ]  # fmt: skip
  assert study.main(command) == 0, capfd.readouterr()
  with (folder / 'results.csv').open(newline='') as file:
    runs = {row['run']: row for row in csv.DictReader(file)}
  finished = [n for n, row in runs.items() if row['status'] == 'finished']
  searched = ['rate_jft_0.003', 'rate_jft_0.01']
  assert sorted(finished) == ['jft', *searched, 'tuned_jft']
  with (folder / 'search.csv').open(newline='') as file:
    states = {row['candidate']: row['state'] for row in csv.DictReader(file)}
  assert list(states) == searched and 'chosen' in states.values()
  log = (folder / 'runs/tuned_jft/seed0/log.txt').read_text()
  start = folder / 'runs/jft/seed0/checkpoints/6'
  assert f'warm start from {start}' in log
  with (folder / f'{name}.csv').open(newline='') as file:
    rows = {(row['row'], row['metric']): row for row in csv.DictReader(file)}
  mean = rows['300M, fine-tuned', 'val/ap50']['mean']
  assert mean == runs['tuned_jft']['val/ap50']
