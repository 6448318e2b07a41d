"""A workdir that is renamed or removed while the run writes to it."""

import shutil

import jax
import numpy as np
import pytest

from big_vision_like import train
from big_vision_like.checkpoints import folders
from big_vision_like.checkpoints.save_failures import SaveFailed
from tests import tiny

pytestmark = pytest.mark.usefixtures('programs_kept')


def after_log(monkeypatch, step, act):
  """Does something once the figures of a step are written."""
  log = train._log

  def logged(run, at, *rest):
    share = log(run, at, *rest)
    if at == step:
      act()
    return share

  monkeypatch.setattr(train, '_log', logged)


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
  return train.run(tiny.simple(), str(tmp_path_factory.mktemp('whole')))


@pytest.mark.slow
@pytest.mark.parametrize('elsewhere', [False, True])
def test_renamed_it_is_saved_where_it_is_and_goes_on_there(
  elsewhere, undisturbed, tmp_path, monkeypatch
):
  changes = {'ckpt.dir': str(tmp_path / 'store')} if elsewhere else {}
  old, new = tmp_path / 'old', tmp_path / 'new name'
  with monkeypatch.context() as patch:
    after_log(patch, 4, lambda: old.rename(new))
    with pytest.raises(SaveFailed) as lost:
      train.run(tiny.simple(**changes), str(old))
  assert f'saved step 5 there; go on with --workdir={new}' in str(lost.value)
  assert not old.exists()
  assert folders.find(str(new)).name == '5'
  state = train.run(tiny.simple(**changes), str(new))
  assert int(state.step) == 6
  for ours, expected in zip(
    jax.tree.leaves(state.params), jax.tree.leaves(undisturbed.params)
  ):
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.slow
def test_removed_it_is_one_line_and_not_made_again(tmp_path, monkeypatch):
  folder = tmp_path / 'run'
  after_log(monkeypatch, 4, lambda: shutil.rmtree(folder))
  with pytest.raises(SaveFailed, match=r"'\S+/run' was removed$"):
    train.run(tiny.simple(**{'ckpt.every_steps': 100}), str(folder))
  assert not folder.exists()
