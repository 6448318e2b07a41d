"""docs/add-a-*.md: each shows files that stand as they are, and they run.

That of an evaluator is in tests/evaluators/test_plugin.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import evaluate, train
from big_vision_like.checkpoints import folders, reading
from big_vision_like.config import loading
from big_vision_like.runtime import writers
from input_pipeline.labels.space import LabelSpace
from tests.conftest import ROOT, xla_flags
from tools import extract_features

pytestmark = pytest.mark.usefixtures('programs_kept')

FIXTURES = ROOT / 'tests' / 'fixtures'
PATH = ['my_project', str(ROOT)]  # Python's, of a reader of the pages
PAGES = {
  'add-a-model.md': ('my_package/my_model.py', 'my_model_config.py'),
  'add-a-source.md': (
    'make_my_data.py', 'my_package/my_source.py', 'my_source_config.py',
  ),
  'add-a-task.md': ('my_package/my_task.py', 'my_task_config.py'),
  'streams.md': ('my_streams_config.py', 'my_package/my_streams_task.py'),
}  # fmt: skip


@pytest.mark.parametrize('page', PAGES)
def test_the_page_shows_the_files_that_run(page):
  text = (ROOT / 'docs' / page).read_text()
  shown = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert shown == [(FIXTURES / name).read_text() for name in PAGES[page]]


def commands(page) -> list[list[str]]:
  """The indented commands of a page that start with python, as words."""
  text = (ROOT / 'docs' / page).read_text().replace('\\\n', ' ')
  lines = re.findall(
    r'^ {4}(?:PYTHONPATH=my_project )?python (.*)$', text, re.MULTILINE
  )
  return [line.split() for line in lines]


def run(words, folder):
  """Exit code, output and errors of `python WORDS`, in a process of its own."""
  done = subprocess.run(
    [sys.executable, *words],
    cwd=folder,
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join(PATH),
      'XLA_FLAGS': xla_flags(),
    },
    capture_output=True,
    text=True,
  )
  return {'code': done.returncode, 'out': done.stdout, 'err': done.stderr}


@pytest.fixture
def quick_run(command_line):
  """As `run`, of `python -m MODULE ...`, without the seconds of importing."""

  def quick(words, folder, path=PATH):
    flag, module, *args = words
    assert flag == '-m'
    return command_line(*args, module=module, cwd=folder, path=path)

  return quick


@pytest.fixture
def folder(tmp_path):
  """Where a reader of the pages works: my_project/ and nothing else."""
  (tmp_path / 'my_project').symlink_to(FIXTURES)
  return tmp_path


def figures(workdir, key):
  found = writers.read_metrics(str(workdir))
  return {m['step']: m[key] for m in found if key in m}


@pytest.mark.slow
def test_the_commands_for_a_source(folder, quick_run):
  make, train_it, stats = commands('add-a-source.md')
  assert run(make, folder)['code'] == 0
  done = quick_run([*train_it, '--config.total_steps=4'], folder)
  assert done['code'] == 0, done['err']
  found = figures(folder / 'workdirs/mine', 'val/map@100')
  assert sorted(found) == [0, 4] and all(0 < x <= 100 for x in found.values())
  done = quick_run(stats, folder)
  assert done['code'] == 0, done['err']
  # What goes wrong, in the words of the page.
  page = (ROOT / 'docs' / 'add-a-source.md').read_text()
  wrong = ' '.join(train_it).replace('my_data', 'my_date').replace('mine', 'x')
  for path in (PATH, [str(ROOT)]):
    done = quick_run(wrong.split(), folder, path)
    assert done['code'] == 2
    assert done['err'].strip().replace(str(ROOT), '') in page


@pytest.mark.slow
def test_the_command_for_a_task(folder):
  (train_it,) = commands('add-a-task.md')
  train_it = [w.replace('config.py', 'config.py:tiny') for w in train_it]
  done = run(train_it, folder)
  assert done['code'] == 0, done['err']
  found = figures(folder / 'workdirs/mine', 'train/confidence')
  assert found and all(0 < x < 1 for x in found.values())


@pytest.mark.slow
def test_the_command_for_several_streams(folder, quick_run):
  (train_it,) = commands('streams.md')
  train_it = [w.replace('config.py', 'config.py:tiny') for w in train_it]
  done = quick_run(train_it, folder)
  assert done['code'] == 0, done['err']
  page = (ROOT / 'docs' / 'streams.md').read_text()
  named = re.findall(r'`(train/(?:main|photos)/\w+)`', page)
  assert len(named) == 4
  for name in named:
    assert figures(folder / 'workdirs/two', name)
  again = quick_run([*train_it, '--mode=eval'], folder)
  assert again['code'] == 0 and 'photos/top1' in again['out']


def test_the_loss_of_the_task_page(monkeypatch):
  """By float64 numpy, with padded classes and a label given twice."""
  monkeypatch.syspath_prepend(str(FIXTURES))
  from my_package import my_task

  class Fixed(my_task.Task):
    def logits(self, params, extra, image, rng, train):
      return params, extra

  rng = np.random.default_rng(0)
  logits = rng.normal(size=(3, 8)).astype(np.float32)
  ids = np.array([[0, 4, 0], [-1, -1, -1], [2, -1, -1]], np.int32)
  task = Fixed(None, LabelSpace.of_count(5), class_multiple=8, gamma=1.5)
  batch = {'image': np.zeros((3, 2, 2, 3), np.uint8), 'label_ids': ids}
  found, _, aux = task.loss(logits, {}, batch, None, True)
  p = 1 / (1 + np.exp(-logits[:, :5].astype(np.float64)))
  true = np.zeros((3, 5), bool)
  true[0, [0, 4]] = true[2, 2] = True
  p = np.where(true, p, 1 - p)
  expected = (-((1 - p) ** 1.5) * np.log(p)).sum(1)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_allclose(aux['confidence'], p.mean(1), rtol=1e-5)


@pytest.mark.slow
def test_the_commands_for_a_model(folder, quick_run):
  train_it, predict_it, export_it = commands('add-a-model.md')
  train_it = [w.replace('config.py', 'config.py:tiny') for w in train_it]
  (folder / 'photos').mkdir()
  Image.new('RGB', (40, 40), (90, 9, 9)).save(folder / 'photos' / 'a.png')
  for words in (train_it, predict_it, export_it):
    done = quick_run(words, folder)
    assert done['code'] == 0, done['err']
  (line,) = (folder / 'labels' / 'predictions.jsonl').read_text().splitlines()
  assert json.loads(line)['predictions']
  assert (folder / 'exported' / 'model.stablehlo').is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
  ('was', 'now', 'message'),
  [
    (
      'x.mean((1, 2))',
      'x',
      "error: model my_package.my_model.Model: endpoint 'pooled' must be "
      '[B, D] with B=16, got [16, 2, 2, 256]\n',
    ),
    (
      'import jax\n',
      'import no_such_library\n',
      "error: model 'my_package.my_model': an import inside the module fails: "
      "No module named 'no_such_library' "
      '({folder}/my_project/my_package/my_model.py, line 3)\n',
    ),
  ],
)
def test_a_wrong_model_ends_in_one_line(tmp_path, quick_run, was, now, message):
  shutil.copytree(FIXTURES, tmp_path / 'my_project')
  file = tmp_path / 'my_project' / 'my_package' / 'my_model.py'
  assert file.read_text().count(was) == 1
  file.write_text(file.read_text().replace(was, now))
  train_it, *_ = commands('add-a-model.md')
  train_it = [w.replace('config.py', 'config.py:tiny') for w in train_it]
  done = quick_run(train_it, tmp_path)
  assert done['code'] == 2
  assert done['err'] == message.format(folder=tmp_path)


@pytest.fixture
def my_config(monkeypatch):
  """The config of the model's page, without evaluators."""
  monkeypatch.syspath_prepend(str(FIXTURES))

  def make(**changes):
    path = str(FIXTURES / 'my_model_config.py')
    config = loading.load(f'{path}:tiny', '--config')
    with config.unlocked():
      config.evals = {}
      config.schedule = dict(type='constant', lr=0.01)
      for name, value in changes.items():
        config[name] = value
    return config

  return make


@pytest.mark.slow
def test_a_model_without_batch_statistics(my_config, tmp_path):
  """Saves, resumes to the bit, evaluates, starts others, gives features."""
  whole = train.run(my_config(), str(tmp_path / 'whole'))
  assert whole.extra == {}
  run_dir = tmp_path / 'parts'
  train.run(my_config(total_steps=3), str(run_dir))
  path = folders.find(run_dir)
  assert reading.stored_shapes(path, 'extra') == {}
  state = train.run(my_config(), str(run_dir))
  for a, b in zip(
    jax.tree.leaves((state.params, state.opt_state)),
    jax.tree.leaves((whole.params, whole.opt_state)),
    strict=True,
  ):
    np.testing.assert_array_equal(a, b)
  evals = loading.load(f'{FIXTURES / "my_model_config.py"}:tiny', '').evals
  scores = evaluate.run(my_config(evals=evals), str(run_dir))
  assert 0 < scores['fasteval/map@100'] <= 100
  init = dict(path=str(run_dir), reinit=['head/.*'])
  warm = train.run(
    my_config(init_from=init, total_steps=1, optim=dict(type='sgd')),
    str(tmp_path / 'warm'),
  )
  assert warm.extra == {} and int(warm.nonfinite_step) == -1
  data = f'{run_dir}/config.json'
  args = ['--checkpoint', str(run_dir), '--data', data]
  args += ['--format', 'safetensors', '--output', str(tmp_path / 'features')]
  assert extract_features.main(args) == 2  # the names are not of this program
  assert not extract_features.main([*args, '--trust'])


@pytest.mark.slow
def test_checkpoints_with_and_without_statistics_do_not_fit_each_other(
  my_config, tmp_path
):
  train.run(my_config(total_steps=1), str(tmp_path / 'a'))
  model = dict(type='resnet', depth=14, width=4)
  config = my_config(total_steps=2, model=model)
  config.resume.accept_config_change = True
  with pytest.raises(ValueError, match='does not fit the model'):
    train.run(config, str(tmp_path / 'a'))
