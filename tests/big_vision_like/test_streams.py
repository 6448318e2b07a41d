"""One backbone, two heads, two streams: the task of docs/streams.md at work."""

import jax
import numpy as np
import pytest

from big_vision_like import evaluate, experiment, plan, train
from big_vision_like.checkpoints import folders, reading
from big_vision_like.config import settings
from big_vision_like.inference import stored_model
from configs import common
from input_pipeline import device, pipeline, streams
from input_pipeline.labels.space import LabelSpace
from tests import tiny
from tests.big_vision_like.runtime import test_processes
from tests.big_vision_like.test_train import lines, parameter_hash
from tests.conftest import ROOT
from tools import dataset_stats, inspect_data

pytestmark = pytest.mark.usefixtures('programs_kept')

FIXTURES = ROOT / 'tests' / 'fixtures'
WORLD = dict(num_classes=7, num_images=40, image_size=32, single_label=True)
MORE = dict(ops=[dict(op='resize', size=8)], batch_size=8, num_classes=2)
SPACES = {'photos': LabelSpace.of_count(7)}


@pytest.fixture(autouse=True)
def _the_task_is_found(monkeypatch):
  monkeypatch.syspath_prepend(str(FIXTURES))


def config_of(**changes):
  """The tiny config, and a stream of 16 images of 7 classes a step."""
  label = dict(op='single_label')
  world = common.synthetic(**WORLD, seed=1)
  photos = dict(
    source=world,
    ops=common.train_ops(20, 16, label),
    batch_size=16,
  )
  evaluator = dict(
    type='classification',
    stream='photos',
    data={**world, 'split': 'fasteval', 'num_images': 20},
    ops=common.eval_ops(20, 16, label),
    batch_size=8,
    every_steps=3,
  )
  return tiny.config(
    **{
      'task': dict(type='my_package.my_streams_task', class_multiple=8),
      'input.also.photos': photos,
      'evals.photos': evaluator,
      **changes,
    }
  )


def built(**changes):
  return experiment.build(
    config_of(**changes), LabelSpace.of_count(13), spaces=SPACES
  )


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """(workdir, final state) of 6 steps."""
  workdir = tmp_path_factory.mktemp('run')
  with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(FIXTURES))
    state = train.run(config_of(), str(workdir))
  return workdir, state


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
  """Workdir of one step of the main stream without the other."""
  workdir = tmp_path_factory.mktemp('alone')
  train.run(tiny.config(total_steps=1, evals={}), str(workdir))
  return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
  'changes',
  [
    pytest.param({}, marks=pytest.mark.nightly),
    {
      'train.ema_decay': 0.9,
      'train.accum_steps': 2,
      'input.batch_size': 16,
      'schedule.lr': 1e-3,
    },
  ],
)
def test_six_steps_are_three_and_three_to_the_bit(tmp_path, changes):
  """The second half, in data workers, after a restart."""
  whole = train.run(config_of(evals={}, **changes), str(tmp_path / 'a'))
  short = config_of(evals={}, total_steps=3, **changes)
  train.run(short, str(tmp_path / 'b'))
  rest = config_of(evals={}, **changes, **{'input.workers': 2})
  resumed = train.run(rest, str(tmp_path / 'b'))
  assert parameter_hash(resumed) == parameter_hash(whole)
  for name in ('loss', 'main/loss', 'photos/loss', 'photos/accuracy'):
    found = lines(tmp_path / 'b', f'train/{name}')
    assert sorted(found) == [1, 2, 3, 4, 5, 6]
    assert found == lines(tmp_path / 'a', f'train/{name}')
  total, main, photos = (
    lines(tmp_path / 'a', f'train/{name}')
    for name in ('loss', 'main/loss', 'photos/loss')
  )
  for step in total:
    assert total[step] == pytest.approx(main[step] + photos[step], rel=1e-6)


@pytest.mark.slow
def test_the_main_stream_and_the_head_start_as_alone(alone, trained):
  """Its loss at the first step is that of the run without the other."""
  (loss,) = lines(alone, 'train/loss').values()
  assert lines(trained[0], 'train/main/loss')[1] == pytest.approx(
    loss, rel=1e-5
  )


@pytest.mark.slow
def test_a_run_of_one_stream_is_stored_as_ever(alone):
  meta = reading.read_meta(folders.find(alone))
  assert meta['data'] == pipeline.open_train(tiny.config()).fingerprint()
  assert meta['also'] == {}


@pytest.mark.slow
def test_each_stream_is_whole_in_the_checkpoint(trained):
  path = folders.find(trained[0])
  found = reading.label_spaces(reading.read_meta(path), path)
  wanted = streams.spaces(streams.open_all(settings.complete(config_of())))
  assert found.keys() == wanted.keys() == {'', 'photos'}
  for name in found:
    assert found[name].digest() == wanted[name].digest()
  model = stored_model.load(trained[0], '--checkpoint', trusted=True)
  assert model.space.num_classes == 13
  assert model.spaces['photos'].names == wanted['photos'].names
  assert 'photos/logits' in model.task.predictions


@pytest.mark.slow
def test_evaluators_score_the_labels_of_their_stream(trained):
  workdir, state = trained
  scored = evaluate.run(config_of(), str(workdir))
  for name in ('fasteval/map@100', 'photos/top1', 'photos/loss'):
    assert scored[name] == pytest.approx(lines(workdir, name)[6], abs=1e-9)
  # By hand: every image of the set through the head for photos.
  exp = built()
  options = config_of().evals.photos
  source = pipeline.open_source(options.data)
  ops = pipeline.build_ops(options.ops, source)
  right = 0
  for batch in pipeline.evaluation(source, ops, batch_size=20):
    logits = exp.predict['photos/logits'](state, batch)['logits']
    assert logits.shape == (20, 7)
    right += int((np.argmax(logits, axis=1) == batch['label']).sum())
  assert scored['photos/top1'] == pytest.approx(5 * right)


@pytest.mark.slow
def test_other_data_of_a_stream_are_refused_by_its_name(trained):
  workdir = str(trained[0])
  other = config_of(total_steps=7, evals={})
  other.resume.accept_config_change = True
  other.input.also.photos['source'] = common.synthetic(**WORLD, seed=2)
  with pytest.raises(ValueError, match='is not the one that') as error:
    train.run(other, workdir)
  said = str(error.value)
  assert 'input.also.photos.source: ' in said and 'input.source' not in said
  other.input.also.photos['source'] = common.synthetic(
    **{**WORLD, 'num_classes': 8}
  )
  other.resume.accept_data_change = True
  with pytest.raises(
    ValueError,
    match=r'has 7 classes, the config 8 \(input\.also\.photos\.num_classes',
  ):
    train.run(other, workdir)
  other = config_of(total_steps=7, evals={})
  other.input.also.photos['batch_size'] = 8
  with pytest.raises(ValueError, match=r'also\.photos\.batch_size: 16 -> 8'):
    train.run(other, workdir)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_names_the_records_of_all(tmp_path):
  config = config_of(evals={}, **tiny.SIMPLE, **{'schedule.lr': 1e38})
  with pytest.raises(
    FloatingPointError, match=r'at step 1 \(.*norm\);'
  ) as error:
    train.run(config, str(tmp_path))
  said = str(error.value)
  assert '(_id): [' in said and '; (photos/_id): [' in said
  assert '\n  synthetic/train/' in said
  assert '\n  [photos] synthetic/train/' in said


@pytest.mark.slow
def test_records_that_cannot_be_used_are_told_by_stream(tmp_path, capsys):
  source = dict(
    type='tests.input_pipeline.test_streams', num=16, classes=7, bad=(5,)
  )
  ops = [dict(op='resize', size=16), dict(op='single_label')]
  photos = dict(source=source, ops=ops, batch_size=16, max_bad_fraction=1.0)
  also = {'input.also.photos': photos}
  config = config_of(evals={}, total_steps=2, **tiny.SIMPLE, **also)
  train.run(config, str(tmp_path))
  # One of each batch; that of the next step is there when a step is logged.
  assert lines(tmp_path, 'train/photos/bad_records') == {1: 2, 2: 2}
  assert lines(tmp_path, 'train/bad_records') == {1: 0, 2: 0}
  # Of 16 images 15 count: a step's accuracy is a multiple of 1 / 15.
  for accuracy in lines(tmp_path, 'train/photos/accuracy').values():
    assert 15 * accuracy == pytest.approx(round(15 * accuracy), abs=1e-5)
  said = capsys.readouterr().out
  assert 'records of input.also.photos could not be used' in said
  assert '[photos] record 5: damaged' in said


def steps(num, **changes):
  """(losses, params) of steps on the first devices of a mesh."""
  config = settings.complete(
    config_of(**{'schedule.lr': 1e-3, 'evals': {}, **changes})
  )
  devices = config.mesh.data * config.mesh.model
  opened = streams.open_all(config)
  spaces = streams.spaces(opened)
  exp = experiment.build(
    config, spaces[''], spaces=spaces, devices=jax.devices()[:devices]
  )
  data, state = streams.train(opened, config, start_step=0), exp.init(0)
  losses = []
  for _ in range(num):
    batch = device.to_global(next(data), exp.batch_sharding)
    state, metrics = exp.train_step(state, batch)
    losses.append([float(metrics[f'{n}loss']) for n in ('', 'photos/')])
  data.close()
  return losses, jax.device_get(state.params)


@pytest.mark.slow
def test_meshes_agree():
  alone, params = steps(3, **tiny.SIMPLE, **{'mesh.data': 1, 'mesh.model': 1})
  losses, same = steps(3, **tiny.SIMPLE, **{'mesh.data': 4, 'mesh.model': 2})
  np.testing.assert_allclose(losses, alone, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6),
    same,
    params,
  )


def test_asynchronous_workers_take_every_stream():
  exp = built(
    **{
      'train.mode': 'downpour',
      'train.downpour.head_shards': 8,
      'train.downpour.workers': 3,
    }
  )
  with jax.set_mesh(exp.mesh):
    state, metrics = jax.eval_shape(
      exp.jitted_train_step, exp.abstract_state, exp.batch_spec
    )
  assert {'staleness', 'main/loss', 'photos/loss'} < metrics.keys()
  heads = state.workers.params['photos_head']['kernel']
  assert heads.shape == (3, 128, 7)


@pytest.mark.slow
@pytest.mark.nightly
def test_two_processes_train_as_one_does(tmp_path, trainers):
  config = f'{FIXTURES / "my_streams_config.py"}:tiny'
  worlds = []
  for num in (1, 2):
    folder = tmp_path / str(num)
    folder.mkdir()
    world = test_processes.World(
      trainers,
      num,
      8 // num,
      folder,
      config=config,
      inject=[('importable', str(FIXTURES))],
    )
    with world:
      codes = world.wait()
    assert set(codes.values()) == {0}, ''.join(map(world.output, codes))
    worlds.append(world)
  one, two = worlds
  np.testing.assert_array_equal(two.ids(), one.ids())
  names = ('loss', 'main/loss', 'photos/loss', 'photos/accuracy')
  for name in (*(f'train/{n}' for n in names), 'photos/top1'):
    ours, expected = two.figures(name), one.figures(name)
    assert ours.keys() == expected.keys() and ours
    np.testing.assert_allclose(
      list(ours.values()), list(expected.values()), rtol=1e-5
    )
  assert set(two.figures('photos/num_images').values()) == {48}


def test_the_plan_counts_every_stream(capsys):
  exp = built()
  made = plan.make(exp, count_flops=False)
  images = (8 + 16) * 16 * 16 * 3
  labels = 8 * 32 * 4 + 16 * 4
  assert made.batch_bytes == (images + labels + (8 + 16) * (4 + 1)) // 8
  assert made.total_examples == 6 * (8 + 16)
  alone = experiment.build(tiny.config(), LabelSpace.of_count(13))
  activations = plan.make(alone, count_flops=False).activation_bytes
  # Both streams pass the backbone: 3 times the images of the main one alone.
  assert made.activation_bytes == pytest.approx(3 * activations, rel=0.05)
  said = plan.describe(exp, made)
  assert '  photos              16 (2 a device), 7 classes, 96 examples' in said
  assert 'images decoded a step 24' in said


def test_the_plan_needs_no_data_of_a_stream_whose_classes_are_counted():
  away = dict(type='folder', path='/none', split='train')
  photos = config_of().input.also.photos.to_dict() | dict(source=away)
  known = {**tiny.SIMPLE, 'task.num_classes': 13, 'input.also.photos': photos}
  photos['num_classes'] = 7
  assert plan.run(config_of(**known)).total_steps == 6
  del photos['num_classes']
  with pytest.raises(FileNotFoundError, match=r'input\.also\.photos\.source'):
    plan.run(config_of(**known))


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    (
      {'input.also.more': MORE},
      r"input\.also\.more: task 'my_package.*' reads nothing of it",
    ),
    (
      {'input.also': {}},
      r"reads the stream 'photos', which input\.also does not have; it has: n",
    ),
    (
      {'input.also.photos.ops': [dict(op='decode'), dict(op='resize', size=8)]},
      r"'photos/label', which input\.also\.photos\.ops do not make \(the op 's",
    ),
    ({'input.also.photos.batch_size': 4}, r'also\.photos\.batch_size=4 must'),
    (
      {'train.accum_steps': 4, 'input.batch_size': 32},
      r'input\.also\.photos\.batch_size=16 / train\.accum_steps=4 is not a',
    ),
    (
      {'input.also.photos.num_classes': 8},
      r'photos\.num_classes=8, but input\.also\.photos\.source has 7 classes',
    ),
    ({'task.class_multiple': 0}, 'class_multiple must be at least 1'),
  ],
)
def test_what_cannot_be_built_names_the_stream(changes, words):
  with pytest.raises(ValueError, match=words):
    built(**changes)


def test_labels_of_a_stream_must_come_from_somewhere():
  with pytest.raises(ValueError, match=r'also\.photos\.num_classes is not set'):
    experiment.build(config_of(), LabelSpace.of_count(13))


def test_a_task_of_one_stream_leaves_no_other_unread():
  with pytest.raises(
    ValueError, match=r"also\.photos: task 'multilabel' reads"
  ):
    built(task=dict(type='multilabel'))


def test_an_evaluator_of_no_stream_is_refused(tmp_path):
  exp = built(**{'evals.photos.stream': 'photo'})
  with pytest.raises(
    ValueError, match=r"evals\.photos\.stream='photo'; valid: photos"
  ):
    evaluate.from_config(exp, str(tmp_path), lambda name: None)


def test_looks_at_a_stream_are_those_of_its_batches(tmp_path):
  config = config_of(seed=5)
  looks = inspect_data.run(
    config, key='input.also.photos', num=32, output=str(tmp_path / 'x.png')
  )
  opened = streams.open_all(settings.complete(config))
  data = streams.train(opened, settings.complete(config), start_step=0)
  for start in (0, 16):
    batch = next(data)
    for row, one in enumerate(looks[start : start + 16]):
      assert one.index == batch['photos/_id'][row]
      for name in ('image', 'label'):
        np.testing.assert_array_equal(
          one.example[name], batch[f'photos/{name}'][row]
        )
  data.close()
  with pytest.raises(
    ValueError, match=r'valid here: input, input\.also\.photo'
  ):
    inspect_data.run(config, key='input.also.photo', output='x.png')


def test_statistics_of_a_stream_take_its_fraction(tmp_path, capsys):
  config = config_of(**{'input.also.photos.fraction': 0.5})
  path = tmp_path / 'config.json'
  path.write_text(settings.to_json(settings.complete(config)))
  argv = ['x', '--config', str(path), '--key', 'input.also.photos.source']
  argv.append('--trust')
  dataset_stats.main(argv)
  assert '20' in capsys.readouterr().out
