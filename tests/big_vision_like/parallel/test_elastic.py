"""A checkpoint moves between meshes, widths of the head, workers, processes."""

import jax
import numpy as np
import pytest

from big_vision_like import experiment, opening, train
from big_vision_like.checkpoints import folders, manager
from big_vision_like.runtime import writers
from input_pipeline import pipeline
from input_pipeline.labels.space import LabelSpace
from tests import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('programs_kept')]

STEPS = 20
SAVED = 3


def config(num_classes, mesh, **changes):
  """A run that is long enough for 20 steps after the restart.

  The rate is small: rounding must not grow (see test_sharded_training).
  """
  return tiny.config(
    evals={},
    **{
      'total_steps': SAVED + STEPS,
      'input.source.num_classes': num_classes,
      'input.source.num_images': 2000,
      'schedule.lr': 1e-4,
      'mesh.data': mesh[0],
      'mesh.model': mesh[1],
      'ckpt.every_steps': SAVED,
      'ckpt.keep_every_steps': SAVED,
      **changes,
    },
  )


class Run:
  """Trains in a folder; keeps losses and records of the batches."""

  def __init__(self, monkeypatch):
    self._monkeypatch = monkeypatch

  def __call__(self, folder, num_classes, mesh, **changes):
    ids = []
    real = pipeline.TrainIterator.__next__
    devices = jax.devices()[: mesh[0] * mesh[1]]

    def noting(iterator):
      batch = real(iterator)
      ids.append(batch['_id'])
      return batch

    with self._monkeypatch.context() as patch:
      patch.setattr(pipeline.TrainIterator, '__next__', noting)
      build = experiment.build
      patch.setattr(
        opening.experiment,
        'build',
        lambda *a, **k: build(*a, **{**k, 'devices': devices}),
      )
      train.run(config(num_classes, mesh, **changes), str(folder))
    losses = {
      m['step']: m['train/loss']
      for m in writers.read_metrics(folder)
      if 'train/loss' in m
    }
    return losses, np.stack(ids)


@pytest.fixture
def run(monkeypatch):
  return Run(monkeypatch)


def restored(folder, num_classes, mesh, **changes):
  """The state of step SAVED on a mesh."""
  exp = experiment.build(
    config(num_classes, mesh, **changes),
    space=LabelSpace.of_count(num_classes),
    devices=jax.devices()[: mesh[0] * mesh[1]],
  )
  ckpt = manager.Checkpointer(str(folder), read_only=True)
  state = ckpt.restore(exp.abstract_state, SAVED)
  ckpt.close()
  return state


def only_first(folder, tmp_path):
  """A workdir that ends with the checkpoint of step SAVED."""
  import shutil

  new = tmp_path / 'again'
  shutil.copytree(folder, new)
  for path in (new / folders.FOLDER).iterdir():
    if path.name != str(SAVED):
      shutil.rmtree(path)
  (new / writers.METRICS).unlink()
  return new


@pytest.fixture(
  scope='module', params=[500, pytest.param(18_291, marks=pytest.mark.nightly)]
)
def undisturbed(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp('whole')
  with pytest.MonkeyPatch.context() as patch:
    losses, ids = Run(patch)(folder, request.param, (8, 1))
  return request.param, folder, losses, ids


@pytest.mark.parametrize(
  'mesh',
  [
    (4, 2),
    pytest.param((1, 8), marks=pytest.mark.nightly),
    pytest.param((1, 1), marks=pytest.mark.nightly),
  ],
)
def test_another_mesh_goes_on_with_the_same_run(
  undisturbed, mesh, run, tmp_path
):
  num_classes, folder, losses, ids = undisturbed
  before = restored(folder, num_classes, (8, 1))
  after = restored(folder, num_classes, mesh)
  kernel = after.params['head']['kernel']
  assert kernel.sharding.shard_shape(kernel.shape)[1] == (
    kernel.shape[1] // mesh[1]
  )
  raw = lambda s: jax.device_get(s.replace(rng=jax.random.key_data(s.rng)))
  jax.tree.map(np.testing.assert_array_equal, raw(after), raw(before))
  again = only_first(folder, tmp_path)
  threads = {'input.threads': 1, 'input.prefetch': 1}
  new_losses, new_ids = run(again, num_classes, mesh, **threads)
  np.testing.assert_array_equal(new_ids, ids[SAVED:])
  steps = range(SAVED + 1, SAVED + STEPS + 1)
  np.testing.assert_allclose(
    [new_losses[s] for s in steps], [losses[s] for s in steps], rtol=1e-5
  )


@pytest.mark.parametrize('undisturbed', [500], indirect=True)
@pytest.mark.parametrize(
  'multiple', [pytest.param(1, marks=pytest.mark.nightly), 24]
)
def test_a_head_of_another_padding_goes_on(
  undisturbed, multiple, run, tmp_path
):
  num_classes, folder, losses, _ = undisturbed
  change = {'task.class_multiple': multiple}
  before = restored(folder, num_classes, (1, 1))
  after = restored(folder, num_classes, (1, 1), **change)
  assert (
    after.params['head']['kernel'].shape[1] == -(-500 // multiple) * multiple
  )
  for name in ('kernel', 'bias'):
    a, b = (np.asarray(s.params['head'][name]) for s in (after, before))
    np.testing.assert_array_equal(a[..., :500], b[..., :500])
    assert not a[..., 500:].any()
  again = only_first(folder, tmp_path)
  new_losses, _ = run(again, num_classes, (1, 1), **change)
  steps = range(SAVED + 1, SAVED + STEPS + 1)
  np.testing.assert_allclose(
    [new_losses[s] for s in steps], [losses[s] for s in steps], rtol=1e-5
  )


@pytest.mark.parametrize('undisturbed', [500], indirect=True)
def test_other_workers_see_the_same_records(undisturbed, run, tmp_path):
  num_classes, folder, _, ids = undisturbed
  again = only_first(folder, tmp_path)
  workers = {'input.workers': 2, 'total_steps': SAVED + 5}
  _, new_ids = run(again, num_classes, (8, 1), **workers)
  np.testing.assert_array_equal(new_ids, ids[SAVED : SAVED + 5])
