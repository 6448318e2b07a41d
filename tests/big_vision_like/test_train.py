"""The trainer in process: exact resume, policies, evaluations, warm start."""

import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

from big_vision_like import evaluate, recovery, train
from big_vision_like.checkpoints import folders, manager, reading
from big_vision_like.runtime import writers
from input_pipeline import pipeline
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('programs_kept')]


def parameter_hash(state):
  leaves = jax.tree.leaves(
    (state.params, state.extra, state.opt_state, state.ema)
  )
  data = b''.join(np.asarray(x).tobytes() for x in leaves)
  return hashlib.sha256(data).hexdigest()


def lines(workdir, key):
  return {m['step']: m[key] for m in writers.read_metrics(workdir) if key in m}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """Workdir of a finished run of the tiny config, to be left as it is."""
  workdir = tmp_path_factory.mktemp('trained')
  train.run(tiny.config(), str(workdir))
  return workdir


@pytest.fixture
def workdir(trained, tmp_path):
  """A copy of it."""
  return shutil.copytree(trained, tmp_path / 'copy')


@pytest.fixture
def ids_seen(monkeypatch):
  """The `_id`s of every batch that any run in this test trains on."""
  seen = []
  real = pipeline.TrainIterator.__next__

  def recording(self):
    batch = real(self)
    seen.append(batch['_id'].tolist())
    return batch

  monkeypatch.setattr(pipeline.TrainIterator, '__next__', recording)
  return seen


@pytest.mark.parametrize(
  'ema', [pytest.param(None, marks=pytest.mark.nightly), 0.9]
)
def test_resume_is_exact_to_the_bit(tmp_path, ids_seen, ema):
  changes = {'train.ema_decay': ema, 'evals': {}}
  whole = train.run(tiny.config(**changes), str(tmp_path / 'a'))
  straight, ids_seen[:] = list(ids_seen), []
  short = tiny.config(total_steps=3, **changes)
  train.run(short, str(tmp_path / 'b'))
  resumed = train.run(tiny.config(**changes), str(tmp_path / 'b'))
  assert ids_seen == straight
  assert parameter_hash(resumed) == parameter_hash(whole)
  assert lines(tmp_path / 'a', 'train/loss') == lines(
    tmp_path / 'b', 'train/loss'
  )


def test_metrics_config_and_checkpoints_stand_where_tools_look(workdir):
  scores = lines(workdir, 'fasteval/map@100')
  assert sorted(scores) == [0, 3, 6]
  assert all(0 <= v <= 100 for v in scores.values())
  assert sorted(lines(workdir, 'train/loss')) == [1, 2, 3, 4, 5, 6]
  stored = json.loads((workdir / 'config.json').read_text())
  assert stored['input']['batch_size'] == 8
  meta = reading.read_meta(folders.find(workdir))
  assert meta['step'] == 6
  assert meta['num_classes'] == 13
  names = pipeline.open_train(tiny.config()).vocabulary
  assert meta['classes'] == names.fingerprint()
  # Again: nothing to do, nothing written twice.
  before = (workdir / 'metrics.jsonl').read_text()
  train.run(tiny.config(), str(workdir))
  assert (workdir / 'metrics.jsonl').read_text() == before


def test_keep_last_and_keep_every(tmp_path):
  changes = {
    'ckpt.every_steps': 1,
    'ckpt.keep_last': 1,
    'ckpt.keep_every_steps': 2,
    'evals': {},
  }
  train.run(tiny.simple(total_steps=5, **changes), str(tmp_path))
  ckpt = manager.Checkpointer(str(tmp_path), read_only=True)
  assert ckpt.steps() == [2, 4, 5]


def test_eval_mode_repeats_the_figures_of_training(workdir):
  figures = evaluate.run(tiny.config(), str(workdir))
  trained = lines(workdir, 'fasteval/map@100')[6]
  assert figures['fasteval/map@100'] == pytest.approx(trained, abs=1e-9)


def test_an_evaluation_that_a_stop_cut_short_runs_after_the_resume(tmp_path):
  train.run(tiny.simple(total_steps=3, evals={}), str(tmp_path))
  train.run(tiny.simple(), str(tmp_path))
  assert sorted(lines(tmp_path, 'fasteval/map@100')) == [3, 6]


def test_non_finite_loss_stops_with_step_and_records(
  programs_built_anew, tmp_path, monkeypatch
):
  real = pipeline.TrainIterator.__next__
  ids = []

  def poisoned(self):
    batch = real(self)
    ids.append(batch['_id'].tolist())
    return batch

  from big_vision_like.tasks import multilabel

  real_loss = multilabel.Task.loss

  def loss(self, params, extra, batch, rng, train):
    per_example, extra, aux = real_loss(self, params, extra, batch, rng, train)
    # Breaks on whatever batch holds record 7.
    hit = (batch['_id'] == 7).any()
    broken = per_example + jax.numpy.where(hit, np.nan, 0.0)
    return broken, extra, {**aux, 'one': broken, 'other': per_example}

  monkeypatch.setattr(pipeline.TrainIterator, '__next__', poisoned)
  monkeypatch.setattr(multilabel.Task, 'loss', loss)
  config = tiny.simple(
    total_steps=12, log_every_steps=4, evals={}, **{'ckpt.every_steps': 2}
  )
  with pytest.raises(FloatingPointError) as error:
    train.run(config, str(tmp_path))
  step = next(i for i, batch in enumerate(ids) if 7 in batch) + 1
  wrong = 'loss, one'
  assert f'at step {step} ({wrong});' in str(error.value)
  assert str(ids[step - 1]) in str(error.value)
  saved = manager.Checkpointer(str(tmp_path), read_only=True).steps()
  assert all(s < step for s in saved)
  with np.load(recovery.batch_file(str(tmp_path), step)) as kept:
    assert kept['_id'].tolist() == ids[step - 1]
    assert kept['image'].shape == (8, 16, 16, 3)
    assert f'\n  {kept["_key"][0]}\n' in str(error.value)


@pytest.fixture(scope='module')
def donor(tmp_path_factory):
  """(workdir, parameters, batch statistics) of a finished run."""
  workdir = tmp_path_factory.mktemp('donor')
  state = train.run(tiny.config(total_steps=2, evals={}), str(workdir))
  return workdir, jax.device_get(state.params), jax.device_get(state.extra)


def test_eval_mode_scores_the_workdir_also_after_a_warm_start(donor, tmp_path):
  changes = {'init_from.path': str(donor[0])}
  train.run(tiny.config(total_steps=4, evals={}, **changes), str(tmp_path))
  config = tiny.config(total_steps=4, **changes)
  own = evaluate.run(config, str(tmp_path))
  other = evaluate.run(config, str(tmp_path), str(donor[0]))
  assert own != other
  written = (tmp_path / 'eval.jsonl').read_text().splitlines()
  assert [json.loads(line)['step'] for line in written] == [4, 2]
  assert not lines(tmp_path, 'fasteval/map@100')


def test_a_changed_evaluator_runs_again_at_the_same_step(workdir):
  train.run(tiny.config(**{'evals.fasteval.k': 5}), str(workdir))
  assert sorted(lines(workdir, 'fasteval/map@5')) == [6]


def test_overflowing_update_is_not_applied_and_not_saved(tmp_path):
  config = tiny.simple(evals={}, **{'schedule.lr': 1e38, 'ckpt.every_steps': 1})
  message = r'at step 1 \(update_norm\);'
  with pytest.raises(FloatingPointError, match=message) as error:
    train.run(config, str(tmp_path))
  assert 'synthetic/train/' in str(error.value)
  assert not manager.Checkpointer(str(tmp_path), read_only=True).steps()


class TestWarmStart:
  """init_from: loaded, re-initialised, left; all else is an error."""

  def config(self, path, **changes):
    return tiny.config(
      total_steps=1,
      evals={},
      **{'init_from.path': str(path), 'schedule.lr': 0.0, **changes},
    )

  def test_backbone_is_loaded_and_head_is_fresh(self, donor, tmp_path, capsys):
    workdir, params, extra = donor
    state = train.run(
      self.config(workdir, **{'model.bn': 'frozen', 'task.class_multiple': 24}),
      str(tmp_path),
    )
    got = jax.device_get(state)
    jax.tree.map(
      np.testing.assert_array_equal,
      got.params['backbone'],
      params['backbone'],
    )
    jax.tree.map(np.testing.assert_array_equal, got.extra, extra)
    assert got.params['head']['kernel'].shape[1] == 24
    assert int(got.step) == 1  # its own count, not the donor's
    said = capsys.readouterr().out
    assert 'loaded: ' in said
    assert 'reinitialised: 2 arrays (head/bias, head/kernel)' in said

  def test_an_unexpected_shape_is_an_error_that_names_it(self, donor, tmp_path):
    config = self.config(donor[0], **{'model.width': 8})
    with pytest.raises(ValueError, match=r'(?s)init_from.*backbone/block1'):
      train.run(config, str(tmp_path))

  def test_a_pattern_that_matches_nothing_is_an_error(self, donor, tmp_path):
    config = self.config(donor[0], **{'init_from.reinit': ('haed/.*',)})
    with pytest.raises(ValueError, match=r"'haed/\.\*' matches no array"):
      train.run(config, str(tmp_path))

  def test_nothing_to_reinitialise_keeps_the_head(self, donor, tmp_path):
    config = self.config(donor[0], **{'init_from.reinit': ()})
    state = train.run(config, str(tmp_path))
    np.testing.assert_array_equal(
      jax.device_get(state.params)['head']['kernel'],
      donor[1]['head']['kernel'],
    )


def test_failing_evaluator_stops_or_is_logged(tmp_path, capsys):
  broken = {
    'evals.broken': dict(
      type='tests.fixtures.broken_evaluator',
      data=dict(type='synthetic', split='fasteval', num_images=8),
      ops=[],
      batch_size=8,
      every_steps=6,
    )
  }
  with pytest.raises(RuntimeError, match='broken on purpose') as error:
    train.run(tiny.simple(**broken), str(tmp_path / 'a'))
  assert "in evaluator 'broken' at step 0" in error.value.__notes__
  config = tiny.simple(on_eval_error='log', **broken)
  state = train.run(config, str(tmp_path / 'b'))
  assert int(state.step) == 6
  assert sorted(lines(tmp_path / 'b', 'fasteval/map@100')) == [0, 3, 6]
  assert "evaluator 'broken' failed at step 6" in capsys.readouterr().out
