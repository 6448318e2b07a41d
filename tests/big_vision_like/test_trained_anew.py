"""Steps that are trained again under another config, or on other data.

What stands in metrics.jsonl of their first training does not count: they are
evaluated again, in the resume that accepts the change and in those after it.
"""

import json
import shutil

import pytest

from big_vision_like import evaluate, opening, train
from big_vision_like.checkpoints import folders
from big_vision_like.config import settings
from big_vision_like.runtime import figures, writers
from tests import tiny

pytestmark = pytest.mark.usefixtures('programs_kept')

EVERY_STEP = {'evals.fasteval.every_steps': 1}
ACCEPT = {'resume.accept_config_change': True}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A run of 6 steps, evaluated after each; checkpoints 3 and 6."""
  workdir = tmp_path_factory.mktemp('trained')
  train.run(tiny.simple(**EVERY_STEP), str(workdir))
  return workdir


@pytest.fixture
def workdir(trained, tmp_path):
  """The same, killed before the checkpoint of step 6 was written."""
  copy = shutil.copytree(trained, tmp_path / 'run')
  shutil.rmtree(copy / 'checkpoints' / '6')
  return copy


@pytest.fixture
def evaluated(monkeypatch):
  """The steps at which evaluators ran."""
  steps = []
  real = evaluate.run_one

  def noting(scheduled, step, *rest):
    steps.append(step)
    return real(scheduled, step, *rest)

  monkeypatch.setattr(evaluate, 'run_one', noting)
  return steps


def rate(workdir):
  """train/lr of each step, as it counts."""
  lines = writers.read_metrics(workdir)
  return {m['step']: m['train/lr'] for m in lines if 'train/lr' in m}


class KilledError(Exception):
  pass


def killed_after(step):
  """The process ends when it would evaluate the step after this one."""
  real = evaluate.run_due

  def until(evals, at, *rest):
    if at > step:
      raise KilledError
    real(evals, at, *rest)

  patch = pytest.MonkeyPatch()
  patch.setattr(evaluate, 'run_due', until)
  return patch


@pytest.mark.slow
def test_an_ordinary_resume_evaluates_nothing_twice(workdir, evaluated):
  before = (workdir / 'metrics.jsonl').read_text()
  train.run(tiny.simple(**EVERY_STEP), str(workdir))
  assert evaluated == []
  assert (workdir / 'metrics.jsonl').read_text().startswith(before)
  assert not any(figures.ANEW_FROM in line for line in figures.read(workdir))


@pytest.mark.slow
def test_another_config_is_evaluated_anew(workdir, evaluated):
  before = (workdir / 'metrics.jsonl').read_text()
  change = {'schedule': dict(type='constant', lr=0.5)}
  patch = killed_after(4)
  with pytest.raises(KilledError):
    train.run(tiny.simple(**EVERY_STEP, **change, **ACCEPT), str(workdir))
  patch.undo()
  assert evaluated == [4]
  # The next resume need not accept anything, and knows what is done.
  train.run(tiny.simple(**EVERY_STEP, **change), str(workdir))
  assert evaluated == [4, 5, 6]
  text = (workdir / 'metrics.jsonl').read_text()
  assert text.startswith(before)  # nothing is taken away
  notes = [m for m in map(json.loads, text.splitlines()) if 'anew_from' in m]
  assert [(m['step'], m['anew_from']) for m in notes] == [(3, 4)]
  assert rate(workdir) == pytest.approx(
    {1: 0.01, 2: 0.01, 3: 0.01, 4: 0.5, 5: 0.5, 6: 0.5}
  )


@pytest.mark.slow
def test_back_to_the_first_data_without_a_checkpoint_of_the_others(
  workdir, evaluated
):
  """Files on disk that changed for a while: no key of the config tells."""
  from input_pipeline.sources import synthetic

  real = synthetic.Source.fingerprint
  patch = killed_after(4)
  patch.setattr(
    synthetic.Source, 'fingerprint', lambda self: real(self) + ' other'
  )
  accept = {'resume.accept_data_change': True}
  with pytest.raises(KilledError):
    train.run(tiny.simple(**EVERY_STEP, **accept), str(workdir))
  patch.undo()
  assert evaluated == [4]
  train.run(tiny.simple(**EVERY_STEP), str(workdir))
  assert evaluated == [4, 4, 5, 6]


@pytest.mark.slow
def test_what_was_expected_is_not_compared_with_the_old_figure(workdir, capsys):
  # At the end of 5 steps nothing is evaluated; step 6 was, of another run.
  change = {
    'total_steps': 5,
    'evals.fasteval.every_steps': 6,
    'evals.fasteval.at_end': False,
    'expected': {'fasteval/map@100': 50.0},
  }
  lines = list(figures.read(workdir))
  last = [m for m in lines if m['step'] == 6 or figures.is_note(m)]
  text = ''.join(json.dumps(m) + '\n' for m in last)
  (workdir / 'metrics.jsonl').write_text(text)
  train.run(tiny.simple(**change), str(workdir))
  said = capsys.readouterr().out
  assert 'fasteval/map@100: no figure, about 50 expected' in said
  assert 'trained anew from step 4 on' in said
  assert folders.find(workdir).name == '5'


class TestWhatHasChanged:
  """The note of a resume, by what lies in the workdir; the first data: 'one'.

  There the run was trained to step 6 and evaluated after each step.
  """

  @pytest.fixture
  def folder(self, tmp_path):
    config = settings.complete(tiny.simple())
    (tmp_path / settings.FILE).write_text(settings.to_json(config))
    lines = [{'step': 0, **figures.note('one')}]
    lines += [{'step': i, 'fasteval/map@100': 1.0} for i in range(7)]
    write(tmp_path, lines)
    return tmp_path

  def changes(self, folder, *, data='one', stored='one', step=3, **config):
    config = settings.complete(tiny.simple(**config))
    first = 0 if step is None else step + 1
    return opening._changes(folder, config, data, stored, first)

  def test_nothing(self, folder):
    assert self.changes(folder) == {}
    assert self.changes(folder, stored=None, step=None) == {}
    free = {'ckpt.every_steps': 2, 'input.workers': 2, 'on_eval_error': 'log'}
    assert self.changes(folder, **free) == {}

  @pytest.mark.parametrize(
    'changed',
    [
      {'schedule': dict(type='constant', lr=0.5)},
      {'seed': 3},
      {'input.fraction': 0.5},
      {'total_steps': 12},  # a schedule may follow it
    ],
  )
  def test_the_config(self, folder, changed):
    assert self.changes(folder, **changed) == figures.note('one', 4)
    start = self.changes(folder, stored=None, step=None, **changed)
    assert start == figures.note('one', 0)

  def test_the_data(self, folder):
    assert self.changes(folder, data='two') == figures.note('two', 4)
    # Files changed before there was a checkpoint.
    found = self.changes(folder, data='two', stored=None, step=None)
    assert found == figures.note('two', 0)

  def test_the_data_once_noted(self, folder):
    append(folder, {'step': 3, **figures.note('two', 4)})
    append(folder, {'step': 4, 'fasteval/map@100': 2.0})
    # Killed: the checkpoint is still of the first.
    assert self.changes(folder, data='two', stored='one') == {}
    back = self.changes(folder, data='one', stored='one')
    assert back == figures.note('one', 4)

  def test_going_back_to_before_a_change(self, folder):
    append(folder, {'step': 3, **figures.note('one', 4)})
    assert self.changes(folder) == {}
    assert self.changes(folder, step=6) == {}
    assert self.changes(folder, step=2) == figures.note('one', 3)
    start = self.changes(folder, stored=None, step=None)
    assert start == figures.note('one', 0)

  def test_options_of_an_evaluator(self, folder):
    changed = {'evals.fasteval.every_steps': 1}
    assert self.changes(folder, **changed) == figures.note(
      'one', evaluators=['fasteval']
    )
    evals = tiny.simple().evals.to_dict()
    evals['other'] = evals['fasteval']
    assert self.changes(folder, evals=evals) == {}  # it has no figures yet

  def test_a_workdir_of_before_there_were_notes(self, folder):
    lines = [m for m in figures.read(folder) if not figures.is_note(m)]
    write(folder, lines)
    assert self.changes(folder) == {}
    assert self.changes(folder, data='two') == figures.note('two', 4)
    # Without a checkpoint nothing tells what the data were.
    found = self.changes(folder, data='two', stored=None, step=None)
    assert found == figures.note('two')


def write(folder, lines):
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text)


def append(folder, line):
  write(folder, [*figures.read(folder), line])
