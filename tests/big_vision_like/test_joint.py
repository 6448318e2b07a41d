"""One backbone, three parts, two streams: runs, evaluations and checkpoints."""

import dataclasses

import jax
import numpy as np
import pytest

from big_vision_like import evaluate, experiment, opening, train
from big_vision_like.checkpoints import folders, reading
from big_vision_like.config import settings
from big_vision_like.inference import stored_model
from big_vision_like.runtime import writers
from configs import common
from input_pipeline import streams
from input_pipeline.labels.space import LabelSpace
from tests import saved_run, tiny
from tests.big_vision_like.test_train import lines, parameter_hash
from tools import export

WORLD = dict(image_size=40, depth=0)
CLASSES = dict(WORLD, num_classes=5, num_images=60, single_label=True)
MASKS = dict(WORLD, num_classes=3, num_images=40, annotations=True, seed=1)
LABEL = dict(op='single_label')
SIDE = 17
SPACES = {'masked': LabelSpace.of_count(3)}
PARTS = dict(
  classes=dict(type='softmax'),
  masks=dict(type='segmentation', stream='masked', weight=0.5, rates=(1, 2)),
  other=dict(type='softmax', label_smoothing=0.2, weight=2.0),
)


def config_of(**changes):
  """Two streams of 16 images a step, in two halves; 6 steps."""
  masked = dict(
    source=common.synthetic(**MASKS),
    ops=common.segmentation_ops('warp', SIDE),
    batch_size=16,
  )
  evals = dict(
    classes=dict(
      type='classification',
      part='classes',
      data=common.synthetic('fasteval', **{**CLASSES, 'num_images': 12}),
      ops=common.eval_ops(20, 16, LABEL),
      batch_size=8,
    ),
    masks=dict(
      type='semantic_segmentation',
      part='masks',
      data=common.synthetic('fasteval', **{**MASKS, 'num_images': 12}),
      ops=common.segmentation_ops('warp', SIDE, 40),
      batch_size=8,
    ),
  )
  return tiny.config(
    **{
      'input.source': common.synthetic(**CLASSES),
      'input.ops': common.train_ops(20, 16, LABEL),
      'input.batch_size': 16,
      'input.also.masked': masked,
      'model': dict(type='tests.fixtures.small_net'),
      'task': dict(type='joint', parts=PARTS),
      'train.accum_steps': 2,
      'train.ema_decay': 0.9,
      'schedule.lr': 1e-3,
      'evals': evals,
      **changes,
    }
  )


def built(**changes):
  return experiment.build(
    config_of(**changes), LabelSpace.of_count(5), spaces=SPACES
  )


@pytest.fixture(scope='module')
def experiment_():
  return built()


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(workdir, final state) of 6 steps on 8 devices."""
  workdir = tmp_path_factory.mktemp('run')
  return workdir, train.run(config_of(), str(workdir))


@pytest.mark.slow
def test_six_steps_are_three_and_three_to_the_bit(tmp_path, trained):
  short = config_of(evals={}, total_steps=3)
  train.run(short, str(tmp_path))
  resumed = train.run(config_of(evals={}), str(tmp_path))
  assert parameter_hash(resumed) == parameter_hash(trained[1])
  found = {
    name: lines(trained[0], f'train/{name}')
    for name in (
      'loss', 'main/loss', 'masked/loss', 'main/classes/loss',
      'main/other/loss', 'masked/masks/loss',
    )
  }  # fmt: skip
  for name, values in found.items():
    assert sorted(values) == [1, 2, 3, 4, 5, 6]
    assert values == lines(tmp_path, f'train/{name}')
  for step in range(1, 7):
    at = {name: values[step] for name, values in found.items()}
    main = at['main/classes/loss'] + 2 * at['main/other/loss']
    assert at['main/loss'] == pytest.approx(main, rel=1e-5)
    assert at['masked/loss'] == pytest.approx(0.5 * at['masked/masks/loss'])
    both = at['main/loss'] + at['masked/loss']
    assert at['loss'] == pytest.approx(both, rel=1e-5)


@pytest.mark.slow
def test_evaluators_score_their_parts(trained):
  workdir, _ = trained
  scored = evaluate.run(config_of(), str(workdir))
  assert {'classes/top1', 'classes/loss', 'masks/miou'} < scored.keys()
  for name in ('classes/loss', 'masks/miou', 'masks/pixel_accuracy'):
    assert scored[name] == pytest.approx(lines(workdir, name)[6], abs=1e-9)


@pytest.mark.slow
def test_a_part_of_a_checkpoint_is_a_task_of_its_own(trained, tmp_path):
  workdir, state = trained
  path = folders.find(workdir)
  spaces = reading.label_spaces(reading.read_meta(path), path)
  wanted = streams.spaces(streams.open_all(settings.complete(config_of())))
  assert {k: s.digest() for k, s in spaces.items()} == {
    k: s.digest() for k, s in wanted.items()
  }
  model = stored_model.load(workdir, '--checkpoint', part='masks', trusted=True)
  assert model.vocabulary is not None
  assert model.vocabulary.names == wanted['masked'].names
  assert model.background is True and model.scores == 'softmax'
  assert model.config.task.to_dict() == dict(
    type='segmentation', num_classes=None, pixels='inception', rates=[1, 2]
  )
  assert [*model.config.evals] == ['masks']
  assert model.config.input.ops == config_of().input.also.masked.ops
  assert {'head', 'backbone'} == model.state(None).params.keys()
  # Its logits are those of the joint task at the averages of the run.
  image = np.random.default_rng(0).integers(0, 256, (2, 17, 17, 3), np.uint8)
  own = model.task.predictions['logits'](model.state(None), {'image': image})
  joint = built().predict['masks/logits']
  last = jax.device_get(state.for_evaluation())
  logits = joint(last, {'image': image})['logits']
  np.testing.assert_allclose(own['logits'], logits, rtol=1e-6, atol=1e-6)
  content = export.export(
    str(workdir), str(tmp_path), 'stablehlo', trusted=True, part='other'
  )
  assert (content['part'], content['num_classes']) == ('other', 5)


@pytest.mark.slow
@pytest.mark.parametrize('part', [None, 'mask'])
def test_a_part_is_named_among_those_there_are(trained, part):
  given = r'--part is not set' if part is None else "--part='mask'"
  with pytest.raises(
    ValueError,
    match=rf'{given}.*classes \(softmax\), masks \(segm.*other \(softmax\); ch',
  ):
    stored_model.load(trained[0], '--checkpoint', part=part, trusted=True)


def start(path, config, **built_for):
  exp = experiment.build(config, **built_for)
  console = writers.Console(silent=True)
  return jax.device_get(opening.start_state(exp, path, console))


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.slow
def test_warm_starts_both_ways(tmp_path):
  five, one = LabelSpace.of_count(5), jax.devices()[:1]
  init = {'init_from.reinit': common.ALL_BUT_BACKBONE, 'evals': {}}
  single = config_of(
    **init, **{'task': dict(type='softmax'), 'input.also': {}, 'seed': 7}
  )
  exp = experiment.build(single, five, devices=one)
  states = {'single': exp.init(7)}
  saved_run.save(tmp_path / 'single', exp, states['single'])
  joint = config_of(**init)
  known = dict(space=five, spaces=SPACES, devices=one)
  exp = experiment.build(joint, **known)
  exp.task.num_classes = 5  # what saved_run stores
  states['joint'] = exp.init(3)
  saved_run.save(tmp_path / 'joint', exp, states['joint'])
  at = {name: folders.find(tmp_path / name) for name in states}
  states = jax.device_get(states)

  found = start(at['single'], joint, **known)
  same(found.params['backbone'], states['single'].params['backbone'])
  same(found.extra, states['single'].extra)
  fresh = jax.device_get(exp.init(joint.seed))
  same(found.params['masks'], fresh.params['masks'])

  alone = dict(space=five, devices=one)
  found = start(at['joint'], single, **alone)
  same(found.params['backbone'], states['joint'].params['backbone'])
  single.init_from.update(dict(part='other', reinit=()))
  found = start(at['joint'], single, **alone)
  same(found.params['head'], states['joint'].params['other']['head'])
  same(found.params['backbone'], states['joint'].params['backbone'])
  same(found.extra, states['joint'].extra)
  single.init_from.part = 'others'
  with pytest.raises(
    ValueError, match=r"init_from\.part='others'.*classes, masks, other"
  ):
    start(at['joint'], single, **alone)
  with pytest.raises(ValueError, match=r"--part='x': the task 'softmax' of"):
    stored_model.load(
      tmp_path / 'single', '--checkpoint', part='x', trusted=True
    )


@pytest.mark.slow
def test_own_statistics_go_with_their_part(tmp_path):
  one = jax.devices()[:1]
  joint = config_of(
    evals={}, **{'task.statistics': 'own', 'train.ema_decay': None}
  )
  exp = experiment.build(
    joint, LabelSpace.of_count(5), spaces=SPACES, devices=one
  )
  exp.task.num_classes = 5
  state = exp.init(3)
  moved = jax.tree.map(lambda x: x + 1, state.extra['masks'])
  state = state.replace(extra={**state.extra, 'masks': moved})
  saved_run.save(tmp_path, exp, state)
  single = config_of(
    evals={},
    **{
      'task': dict(type='segmentation', rates=(1, 2)),
      'input.source': common.synthetic(**MASKS),
      'input.ops': common.segmentation_ops('warp', SIDE),
      'input.also': {},
      'init_from.part': 'masks',
      'init_from.reinit': (),
    },
  )
  found = start(
    folders.find(tmp_path), single, space=SPACES['masked'], devices=one
  )
  same(found.extra, jax.device_get(moved))


def test_the_head_of_a_part_is_split_by_class():
  changes = {'mesh.model': 2, 'task.class_multiple': 2}
  exp = built(**changes)
  head = exp.abstract_state.params['classes']['head']['kernel']
  assert head.shape == (16, 6)
  assert head.sharding.spec == jax.sharding.PartitionSpec(None, 'model')
  with pytest.raises(
    ValueError, match=r'parts\.classes: .*\(16, 5\).*class_mult'
  ):
    built(**{'mesh.model': 2})


def evals(name, **entry):
  given = config_of().evals[name].to_dict()
  return {name: {k: v for k, v in {**given, **entry}.items() if v is not None}}


@pytest.mark.parametrize(
  ('entry', 'words'),
  [
    (
      dict(part=None),
      r"evals\.masks\.part is not set.*'logits' .*valid: classes, masks, other",
    ),
    (
      dict(part='mask'),
      r"evals\.masks\.part='mask'; valid: classes, masks, other",
    ),
    (dict(part=['masks']), r"part=\['masks'\]; valid"),
    (
      dict(stream=''),
      r"evals\.masks\.stream='', but its part 'masks' reads 'masked'",
    ),
    (
      dict(part='other'),
      r"predict_fn='logits' gives 'classes', but the evaluator scores 'mask'",
    ),
    (
      dict(predict_fn='masks/logits'),
      r"the part 'masks' of the task has no prediction 'masks/logits'.*valid",
    ),
  ],
)
def test_an_evaluator_of_no_part_is_refused(
  entry, words, tmp_path, experiment_
):
  config = settings.complete(config_of(evals=evals('masks', **entry)))
  exp = dataclasses.replace(experiment_, config=config)
  with pytest.raises(ValueError, match=words):
    evaluate.from_config(exp, str(tmp_path), lambda name: None)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (
      {'input.also.more': {**config_of().input.also.masked, 'num_classes': 3}},
      r"input\.also\.more: task 'joint' reads nothing of it",
    ),
    (
      {
        'task': dict(type='joint', parts={**PARTS, 'z': dict(type='detection')})
      },
      r"task\.parts\.z \('detection'\) needs the field 'image_size', which "
      r'input\.ops do not make',
    ),
    ({'task': dict(type='joint')}, "task: missing option 'parts'"),
    ({'task': dict(type='joint', parts={})}, r'task\.parts=.* must be'),
    ({'task': dict(type='joint', parts=[PARTS])}, r'task\.parts=.* must be'),
    (
      {'task': dict(type='joint', parts=PARTS, weight=1.0)},
      "task: unknown option 'weight'",
    ),
  ],
)
def test_refused(changes, words):
  with pytest.raises(ValueError, match=words):
    built(**changes)


def test_a_part_of_a_task_without_parts_is_refused(tmp_path):
  config = config_of(task=dict(type='softmax'), **{'input.also': {}})
  exp = experiment.build(config, LabelSpace.of_count(5))
  with pytest.raises(
    ValueError, match=r"evals\.classes\.part='classes'; valid: none"
  ):
    evaluate.from_config(exp, str(tmp_path), lambda name: None)
