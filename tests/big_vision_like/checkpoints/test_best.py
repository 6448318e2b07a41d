"""The best checkpoint, and training that ends when nothing becomes better."""

import json

import pytest

from big_vision_like import evaluate, resuming, train
from big_vision_like.checkpoints import folders, manager
from big_vision_like.checkpoints.best import Best
from big_vision_like.config import settings
from big_vision_like.runtime import writers
from tests import tiny
from tests.big_vision_like.checkpoints import small_run

pytestmark = pytest.mark.usefixtures('programs_kept')

SCORES = [3, 5, 4, 4, 2, 1]
SCORED = dict(
  type='tests.fixtures.scripted_evaluator', scores=SCORES, at_start=False
)


def config(**changes):
  """Six steps, evaluated after each, of which the second is the best."""
  return tiny.simple(
    evals={
      'val': {**SCORED, 'every_steps': 1},
      'last': {**SCORED, 'every_steps': 4},
    },
    **{'ckpt.best': 'val/score', 'ckpt.keep_last': 1, **changes},
  )


def after(values, metric='val/score', **options):
  """Steps at which it became better, and the judge."""
  judge = Best(metric, **options)
  better = [s for s, v in enumerate(values, 1) if judge.look(s, v)]
  return better, judge


def test_larger_or_smaller_and_never_what_is_equal():
  assert after(SCORES)[0] == [1, 2]
  assert after(SCORES, mode='min')[0] == [1, 5, 6]
  better, judge = after([1.0, float('nan'), 1.0, 2.0], mode='max')
  assert better == [1, 4]
  assert judge.told() == {
    'metric': 'val/score', 'mode': 'max', 'step': 4, 'value': 2.0,
  }  # fmt: skip


def test_patience_counts_evaluations_without_a_better_figure():
  for patience, number in ((1, 3), (2, 4), (4, 6)):
    assert not after(SCORES[: number - 1], patience=patience)[1].over
    assert after(SCORES[:number], patience=patience)[1].over
  assert not after([1] * 100)[1].over


@pytest.mark.parametrize('stop', range(7))
def test_what_goes_on_decides_as_what_was_never_stopped(stop):
  stored = dict(enumerate(SCORES, 1))
  judge = Best(
    'val/score', patience=2, stored=stored, start=stop, present=range(7)
  )
  better, whole = after(SCORES[:stop], patience=2)
  assert (judge.told(), judge.over) == (whole.told(), whole.over)
  later = [s for s in range(stop + 1, 7) if judge.look(s, judge.figure(s, {}))]
  assert better + later == [1, 2]


def test_a_best_step_that_is_gone_is_none():
  stored = dict(enumerate(SCORES, 1))
  judge = Best('val/score', stored=stored, start=4, present=[1, 4])
  assert judge.told()['step'] == 4  # better than that of step 1


def test_a_figure_that_the_evaluator_does_not_give():
  with pytest.raises(ValueError, match="did you mean 'val/score'"):
    Best('val/scor').figure(1, {'val/score': 1.0, 'x/y': 0.0})
  assert Best('val/score').figure(1, {'x/y': 0.0}) is None
  assert Best(None).figure(1, {'x/y': 0.0}) is None


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'ckpt.best': 'va/score'}, "did you mean 'val'"),
    ({'ckpt.best': 'val'}, 'must be EVALUATOR/METRIC'),
    ({'ckpt.best_mode': 'most'}, r"ckpt.best_mode='most'"),
    ({'ckpt.best': None, 'ckpt.patience': 3}, 'needs ckpt.best'),
    ({'ckpt.patience': 0}, r'ckpt.patience=0'),
  ],
)
def test_wrong_options(changes, message):
  with pytest.raises(ValueError, match=message):
    settings.complete(config(**changes))


@pytest.mark.slow
def test_a_run_keeps_its_best_and_ends_early(tmp_path, capsys):
  kept = lambda: manager.Checkpointer(str(tmp_path), read_only=True).steps()
  best = tmp_path / 'checkpoints' / '2'
  short, whole = {'ckpt.patience': 3, 'total_steps': 3}, {'ckpt.patience': 3}
  for changes, steps in ((short, [2, 3]), (whole, [2, 5])):  # stopped at 3
    state = train.run(config(**changes), str(tmp_path))
    assert kept() == steps
    assert json.loads((best.parent / 'best.json').read_text()) == {
      'metric': 'val/score', 'mode': 'max', 'step': 2, 'value': 5.0,
    }  # fmt: skip
    for path in (tmp_path / 'best', best.parent / 'best'):
      assert folders.find(path) == best
  assert int(state.step) == 5
  said = capsys.readouterr().out
  assert 'val/score has not become better for 3 evaluations' in said
  lines = list(writers.read_metrics(tmp_path))
  assert max(line['step'] for line in lines) == 5
  assert [m['step'] for m in lines if 'last/score' in m] == [3, 4, 5]
  # More patience, and the same run goes on.
  changes = {'ckpt.patience': 4}
  assert int(train.run(config(**changes), str(tmp_path)).step) == 6
  assert kept() == [2, 6]
  capsys.readouterr()
  assert evaluate.run(config(), str(tmp_path), 'best')['val/score'] == 5
  assert f'evaluating {best}' in capsys.readouterr().out


@pytest.mark.parametrize('suspect', [False, True])
def test_a_damaged_best_is_set_aside_and_said(tmp_path, capsys, suspect):
  root = small_run.save(tmp_path, 1, 2, keep_last=9)
  console = writers.Console()
  told = {'metric': 'val/score', 'mode': 'max', 'step': 1, 'value': 5.0}

  def check() -> str:
    (root / 'best.json').write_text(json.dumps(told))
    resuming.check_best(root, console)
    return capsys.readouterr().out

  assert check() == ''
  if suspect:
    (root / '7.damaged').mkdir()  # set aside just before, as the newest
  file = root / '1' / 'params' / '_METADATA'
  file.write_bytes(file.read_bytes()[1:])
  said = check()
  assert said.startswith(
    f'the best checkpoint {root}/1 is damaged or incomplete (params/_METADATA '
  )
  assert 'it is now called 1.damaged, and the best of the others' in said
  assert not (root / 'best.json').exists() and (root / '1.damaged').is_dir()
  assert 'is not there any more' in check()


def test_no_best_to_be_found(tmp_path):
  with pytest.raises(FileNotFoundError, match='a run keeps one with'):
    folders.find(tmp_path / 'best', '--checkpoint')
