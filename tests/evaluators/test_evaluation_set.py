"""What of a batch goes to the devices, and what comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from evaluators.harness import device_calls
from evaluators.harness.evaluation_set import EvalData, run_over
from input_pipeline import device
from tests.evaluators import harness
from tests.fixtures import tiny_source

NAMES = [str(i) for i in range(9)]
LABELS = [[i % 9, (3 * i + 1) % 9] for i in range(21)]
OPS = [
  *harness.IMAGE_OPS,
  dict(op='labels', max_labels=4),
  dict(op='image_size'),
]


def eval_data(mesh=None, ops=OPS, labels=LABELS, **options):
  source = dict(type=harness.SOURCE, labels=labels, names=NAMES, **options)
  return EvalData(harness.context(9, mesh=mesh), source, ops, 8)


def records(state, batch):
  """Which record an image shows, and how many labels it has."""
  return {
    'record': batch['image'][:, 0, 0, 0] * state,
    'num': (batch['label_ids'] >= 0).sum(1),
    'side': jnp.full(len(batch['image']), batch['image_size'].shape[1]),
  }


def images_alone(state, batch):
  return {'record': batch['image'][:, 0, 0, 0] * state}


@pytest.mark.parametrize('shape', [None, (2, 2)])
def test_only_what_is_asked_for_comes_back(shape, monkeypatch):
  sent = []
  place = device.to_global
  monkeypatch.setattr(
    device, 'to_global', lambda b, s: sent.append(set(b)) or place(b, s)
  )
  mesh = shape and harness.mesh(*shape)
  data = eval_data(mesh)
  state = jnp.uint8(1)
  for fields in ((), ('label_ids',), ('image_size', 'image')):
    num = []
    for outputs, batch in run_over(images_alone, state, data, fields):
      assert batch.keys() == {'_id', '_mask', *fields}
      assert all(isinstance(v, np.ndarray) for v in batch.values())
      np.testing.assert_array_equal(outputs['record'], batch['_id'])
      if 'label_ids' in fields:
        true = [sorted({*LABELS[i]}) for i in batch['_id']]
        found = [row[row >= 0].tolist() for row in batch['label_ids']]
        assert found == true
      num.append(len(batch['_id']))
    assert num == [8, 8, 5]
  # Labels and sizes that no function reads stay on the host.
  assert sent == ([] if mesh is None else [{'image'}] * 9)
  del sent[:]
  for outputs, batch in run_over(records, state, data):
    true = [len({*LABELS[i]}) for i in batch['_id']]
    assert outputs['num'].tolist() == true
    assert outputs['side'].tolist() == [2] * len(true)
  if mesh is not None:  # of the sizes, the shape alone is read
    assert sent == [{'image', 'label_ids'}] * 3


def test_fields_of_several_processes_travel_through_the_devices(monkeypatch):
  """Of two parts, as the one of two processes; both are placed here."""
  mesh = harness.mesh(2, 1)
  call = device_calls.DeviceCall(
    images_alone, mesh, ('_id', 'label_ids'), num_parts=2
  )
  rng = np.random.default_rng(0)
  part = {
    'image': rng.integers(0, 256, (4, 2, 2, 3), dtype=np.uint8),
    'label_ids': rng.integers(0, 9, (4, 3), dtype=np.int32),
    'segmentation': np.zeros((4, 2, 2), np.uint8),
    '_id': np.arange(4, dtype=np.int32),
  }
  place = device.to_global
  sent = []

  def both(batch, sharding):
    sent.append(set(batch))
    return place(
      {k: np.concatenate([v, v]) for k, v in batch.items()}, sharding
    )

  monkeypatch.setattr(device, 'to_global', both)
  outputs, batch = call(jnp.uint8(1), part)
  assert sent == [{'image', 'label_ids', '_id'}]
  assert batch.keys() == {'label_ids', '_id'}
  for name, value in batch.items():
    assert value.is_fully_replicated
    np.testing.assert_array_equal(value[:4], part[name])
    np.testing.assert_array_equal(value[4:], part[name])
  assert outputs['record'].shape == (8,)


def test_masks_are_not_returned(monkeypatch):
  """Nothing of the size of the masks leaves the devices."""

  def correct(state, batch):
    return {'n': (batch['segmentation'] == 1).sum((1, 2)) * state}

  call = device_calls.DeviceCall(correct, harness.mesh(2, 1), ('_id',))
  batch = {
    'segmentation': np.ones((4, 64, 64), np.uint8),
    '_id': np.arange(4, dtype=np.int32),
  }
  outputs, kept = call(jnp.int32(1), batch)
  assert jax.tree.map(np.shape, (outputs, kept)) == ({'n': (4,)}, {'_id': (4,)})
  assert np.asarray(outputs['n']).tolist() == [64 * 64] * 4


def test_fields_that_the_ops_do_not_make_are_named():
  data = eval_data()
  with pytest.raises(ValueError, match=r"run_over .* 'label', .* label_ids"):
    next(run_over(images_alone, jnp.uint8(1), data, ('label',)))


@pytest.mark.parametrize('named', [False, True])
def test_true_labels_have_the_noise_that_batches_have(named, monkeypatch):
  if named:  # records that tell a name of their own: the noise follows it
    read = tiny_source.Source.__getitem__
    monkeypatch.setattr(
      tiny_source.Source,
      '__getitem__',
      lambda self, i: read(self, i) | {'key': f'photo {i}'},
    )
  ops = [
    *harness.IMAGE_OPS,
    dict(op='label_noise', kind='symmetric', rate=0.5),
    dict(op='random_flip'),
    dict(op='labels', max_labels=4),
  ]
  data = eval_data(ops=ops)
  true = [row.tolist() for row in data.label_ids()]
  found = []
  for batch in data.batches():
    ids = batch['label_ids'][batch['_mask']]
    found += [row[row >= 0].tolist() for row in ids]
  assert true == found
  assert true != [sorted({*labels}) for labels in LABELS]
