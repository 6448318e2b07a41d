"""Several tasks on one backbone against the same tasks alone."""

import re
import zlib

import jax
import numpy as np
import pytest

from big_vision_like.models import resnet
from big_vision_like.tasks import (
  detection,
  joint,
  multilabel,
  segmentation,
  softmax,
)
from big_vision_like.training import step
from input_pipeline.labels.space import LabelSpace
from tests.big_vision_like.tasks import test_detection
from tests.fixtures import small_net

RATES = (1, 2)
WEIGHTS = {'boxes': 0.5, 'classes': 1.0, 'masks': 3.0, 'tags': 0.25}
STREAMS = {'boxes': 'boxed', 'classes': '', 'masks': 'masked', 'tags': ''}
SPACES = {
  '': LabelSpace.of_count(7),
  'boxed': LabelSpace.of_count(test_detection.NUM_CLASSES),
  'masked': LabelSpace.of_count(4),
}
PARTS = dict(
  tags=dict(type='multilabel', weight=WEIGHTS['tags']),
  classes=dict(type='softmax', stream='main', label_smoothing=0.1),
  boxes=dict(
    type='detection',
    stream='boxed',
    weight=WEIGHTS['boxes'],
    **test_detection.OPTIONS,
  ),
  masks=dict(
    type='segmentation', stream='masked', weight=WEIGHTS['masks'], rates=RATES
  ),
)


def make(parts=PARTS, *, net=None, **options):
  others = {name: space for name, space in SPACES.items() if name}
  return joint.Task(
    net or small_net.Model(), SPACES[''], others, parts=parts, **options
  )


def alone():
  """The same tasks, each built by its own class."""
  return {
    'boxes': detection.Task(
      small_net.Model(), SPACES['boxed'], **test_detection.OPTIONS
    ),
    'classes': softmax.Task(small_net.Model(), SPACES[''], label_smoothing=0.1),
    'masks': segmentation.Task(
      small_net.Model(), SPACES['masked'], rates=RATES
    ),
    'tags': multilabel.Task(small_net.Model(), SPACES['']),
  }


def batches():
  """Stream -> a batch of it; some examples do not count."""
  rng = np.random.default_rng(1)
  image = lambda num, side: rng.integers(0, 256, (num, side, side, 3), np.uint8)
  main = {
    'image': image(6, 16),
    'label': rng.integers(0, 7, 6, np.int32),
    'label_ids': np.array([[2, 4], [1, -1], [0, 6], [3, -1]] * 2)[:6].astype(
      np.int32
    ),
    '_mask': np.array([1, 1, 1, 1, 0, 1], bool),
  }
  labels = rng.integers(0, 5, (2, 17, 17), np.uint8)
  labels[0, :5] = segmentation.VOID
  masked = {
    'image': image(2, 17), 'segmentation': labels, '_mask': np.ones(2, bool)
  }  # fmt: skip
  return {'': main, 'boxed': test_detection.batch(), 'masked': masked}


def joined():
  return {
    f'{stream}/{field}' if stream else field: value
    for stream, batch in batches().items()
    for field, value in batch.items()
  }


@pytest.fixture(scope='module')
def variables():
  return jax.jit(make().init)(jax.random.key(0), joined())


def test_gradients_are_the_weighted_sum_of_those_of_the_tasks_alone(variables):
  params, extra = variables
  rng = jax.random.key(3)
  gradients = jax.jit(step.make_gradients(make()))
  found = jax.device_get(gradients(params, extra, joined(), rng))

  wanted = jax.tree.map(lambda x: np.zeros(x.shape), params)
  total, by_stream, statistics = 0.0, dict.fromkeys(SPACES, 0.0), extra
  for name, task in alone().items():  # alphabetical
    batch = batches()[STREAMS[name]]
    key = jax.random.fold_in(rng, zlib.crc32(name.encode()))
    count = batch['_mask'].sum()

    def mean(own, statistics, task=task, batch=batch, key=key, count=count):
      losses, new, _ = task.loss(own, statistics, batch, key, True)
      return (losses * batch['_mask']).sum() / count, new

    own = {'backbone': params['backbone'], **params[name]}
    (loss, statistics), grads = jax.jit(jax.value_and_grad(mean, has_aux=True))(
      own, statistics
    )
    weight = WEIGHTS[name]
    add = lambda a, g, weight=weight: a + weight * np.asarray(g, np.float64)
    shared = grads.pop('backbone')
    wanted['backbone'] = jax.tree.map(add, wanted['backbone'], shared)
    wanted[name] = jax.tree.map(add, wanted[name], grads)
    total += weight * float(loss)
    by_stream[STREAMS[name]] += weight * float(loss)
    shown = f'{STREAMS[name] or "main"}/{name}/loss'
    assert found.aux[shown] == pytest.approx(float(loss), rel=1e-5)
  assert found.loss == pytest.approx(total, rel=1e-5)
  for stream, loss in by_stream.items():
    name = f'{stream or "main"}/loss'
    assert found.aux[name] == pytest.approx(loss, rel=1e-5)
  assert 'boxed/boxes/rpn_objectness' in found.aux
  close = lambda a, b: np.testing.assert_allclose(
    a, b, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(b).max())
  )
  jax.tree.map(close, found.grads, wanted)
  # Of each part those that the part before it left.
  jax.tree.map(close, found.extra, jax.device_get(statistics))


def test_each_part_may_have_statistics_of_its_own(variables):
  parts = {name: PARTS[name] for name in ('classes', 'masks')}
  params, extra = variables
  apart = {'classes': extra, 'masks': extra}
  rng, batch = jax.random.key(3), joined()
  task = make(parts, statistics='own')
  losses, found, _ = jax.jit(task.loss, static_argnums=4)(
    params, apart, batch, rng, True
  )
  for name in parts:
    key = jax.random.fold_in(rng, zlib.crc32(name.encode()))
    own = {'backbone': params['backbone'], **params[name]}
    loss, wanted, _ = jax.jit(alone()[name].loss, static_argnums=4)(
      own, extra, batches()[STREAMS[name]], key, True
    )
    stream = STREAMS[name] or 'main'
    np.testing.assert_allclose(losses[stream], WEIGHTS[name] * loss, rtol=1e-5)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
      found[name],
      wanted,
    )
  shapes = jax.eval_shape(task.init, rng, batch)[1]
  assert jax.tree.structure(shapes) == jax.tree.structure(apart)
  assert task.of_part('masks', params, apart)[1] is apart['masks']


def test_parameters_are_the_backbone_and_heads_by_part(variables):
  params, _ = variables
  assert params.keys() == {'backbone', *PARTS}
  assert params['boxes'].keys() == {'rpn', 'box_head'}
  assert params['masks']['head'].keys() == {'rate1', 'rate2'}
  assert params['tags']['head']['kernel'].shape == (16, 7)
  again = jax.eval_shape(make(dict(tags=PARTS['tags'])).init, *variables_of())
  jax.tree.map(
    lambda a, b: a.shape == b.shape or pytest.fail('another shape'),
    again[0]['backbone'],
    params['backbone'],
  )


def variables_of():
  return jax.random.key(0), joined()


def test_a_part_starts_the_same_whatever_others_there_are(variables):
  few = make({name: PARTS[name] for name in ('boxes', 'tags')})
  params, _ = jax.jit(few.init)(*variables_of())
  for name in ('backbone', 'boxes', 'tags'):
    jax.tree.map(
      np.testing.assert_array_equal, params[name], variables[0][name]
    )


def test_what_it_reads_predicts_and_freezes():
  net = resnet.Model(depth=14, width=4, freeze='conv1')
  task = make(net=net)
  assert {'label', 'label_ids', 'masked/segmentation', 'boxed/boxes'} < {
    *task.fields
  }
  assert {
    name: prediction.kind for name, prediction in task.predictions.items()
  } == {
    'boxes/detections': 'boxes',
    'boxes/map_detections': 'boxes',
    'classes/logits': 'classes',
    'classes/features': 'vectors',
    'masks/logits': 'mask',
    'masks/features': 'vectors',
    'tags/logits': 'classes',
    'tags/features': 'vectors',
  }
  assert task.predictions['tags/logits'].scores == 'sigmoid'
  assert task.predictions['boxes/detections'].reads == (
    'image', 'image_size', 'original_size',
  )  # fmt: skip
  wanted = tuple(f'backbone/{name}' for name in net.frozen_parameters())
  assert task.frozen_parameters == wanted
  assert task.needs_start == ''
  frozen = make(net=small_net.Model(bn='frozen'))
  assert frozen.needs_start.startswith("task.parts.boxes: model.bn='frozen'")


class Strange(softmax.Task):
  """A head of which a part is frozen, and a net of its own."""

  def __init__(self, backbone, space):
    super().__init__(backbone, space)
    self.frozen_parameters = ('head/bias|head/scale',)

  def init(self, rng, batch):
    params, extra = super().init(rng, batch)
    del params['backbone']['bn3']
    return params, extra


class Task(Strange):
  """What a config finds here."""


def test_patterns_of_heads_are_below_the_part():
  task = make(dict(odd=dict(type=__name__)))
  (pattern,) = task.frozen_parameters
  assert re.fullmatch(pattern, 'odd/head/scale')
  assert not re.fullmatch(pattern, 'head/scale')


def test_a_part_that_makes_another_net_is_refused():
  task = make(dict(classes=PARTS['classes'], odd=dict(type=__name__)))
  with pytest.raises(
    ValueError, match=r'parts\.odd: makes other parameters.*parts\.classes'
  ):
    jax.eval_shape(task.init, *variables_of())


def changed(name, **options):
  return {**PARTS, name: {**PARTS[name], **options}}


@pytest.mark.parametrize(
  ('parts', 'words'),
  [
    (changed('masks', weight=0), r'parts\.masks\.weight=0 must be .*above 0'),
    (changed('masks', weight='1'), r"parts\.masks\.weight='1'"),
    (changed('masks', weight=float('nan')), r'parts\.masks\.weight=nan'),
    (changed('masks', weight=True), r'parts\.masks\.weight=True'),
    (
      changed('masks', stream='mask'),
      r"parts\.masks\.stream='mask'; valid: main, boxed, masked",
    ),
    (changed('masks', stream=['main']), r'parts\.masks\.stream=\[.*valid'),
    (
      changed('classes', rates=(1,)),
      r"parts\.classes: unknown option 'rates'.*label_smoothing",
    ),
    (changed('boxes', wieght=1.0), r"unknown option 'wieght'"),
    (changed('masks', rates=()), r'parts\.masks\.rates=\(\) must be'),
    (
      changed('masks', pixels='msra'),
      r"parts\.masks\.pixels='msra': set task\.pixels, which holds for all",
    ),
    (
      changed('tags', class_multiple=4),
      r'parts\.tags\.class_multiple=4: set task\.class_multiple',
    ),
    (
      changed('masks', num_classes=4),
      r'num_classes=4: set input\.also\.masked\.num_classes',
    ),
    (changed('tags', num_classes=4), r'num_classes=4: set task\.num_classes'),
    (
      changed('boxes', reads='block3_map'),
      r"parts\.boxes: task\.reads='block3_map' needs a frozen backbone",
    ),
    (
      changed('boxes', type='detektion'),
      r"unknown task 'detektion' \(did you mean 'detection'",
    ),
    (
      {**PARTS, 'deep': dict(type='joint', parts=PARTS)},
      r"parts\.deep\.type='joint': a part reads one stream",
    ),
    ({**PARTS, 'x': dict(stream='main')}, r'parts\.x\.type is not set; valid'),
    ({**PARTS, 'x': 'softmax'}, r"parts\.x='softmax' must be dict"),
    ({**PARTS, 'backbone': PARTS['tags']}, "'backbone' is what all parts"),
    ({**PARTS, 'a/b': PARTS['tags']}, "'a/b' cannot name a part"),
    ({**PARTS, 3: PARTS['tags']}, '3 cannot name a part'),
    (dict(boxes=PARTS['boxes']), r'none reads config\.input, the main stream'),
  ],
)
def test_refused(parts, words):
  with pytest.raises(ValueError, match=words):
    make(parts)


def test_statistics_of_their_own_need_training():
  with pytest.raises(ValueError, match=r"task\.statistics='own': with .*froz"):
    make(net=small_net.Model(bn='frozen'), statistics='own')


def test_masks_whose_data_have_another_background_are_refused(monkeypatch):
  space = LabelSpace(LabelSpace.of_count(4).vocabulary, background=False)
  monkeypatch.setitem(SPACES, 'masked', space)
  assert make().parts['masks'].task.background is False
  with pytest.raises(
    ValueError, match=r'parts\.masks\.background=True, but the masks of its'
  ):
    make(changed('masks', background=True))
