"""Weights of files -> checkpoints, where no torch is needed."""

import jax
import numpy as np
import pytest

from big_vision_like import experiment
from big_vision_like.checkpoints import safetensors_files
from big_vision_like.inference import stored_model
from configs import common
from input_pipeline.labels.space import LabelSpace
from tests import random_weights, saved_run, tiny
from tools import convert_torch, export

IMAGES = np.random.default_rng(5).integers(0, 256, (3, 16, 16, 3), np.uint8)


def single_label(**changes):
  """A softmax over 13 classes of crops of 16 pixels."""
  ops = common.train_ops(20, 16, dict(op='single_label'))
  return tiny.config(
    task=dict(type='softmax', num_classes=13), evals={},
    **{'input.ops': ops, **changes},
  )  # fmt: skip


# What convert_torch knew nothing of: another net, task and preprocessing.
DENSE = common.resnet(
  depth=26, width=4, output_stride=8, bn_epsilon=1e-3,
  stride_in='first_unit_1x1', pool_padding='symmetric',
)  # fmt: skip
NETS = {
  'slim': single_label(),
  'several labels': tiny.config(**{'task.class_multiple': 1}),
  'dense': single_label(model=DENSE),
}


def checkpoint_of(config, folder, spoil=lambda params: params):
  exp = experiment.build(
    config, space=LabelSpace.of_count(13), devices=jax.devices()[:1]
  )
  state = random_weights.state(exp, 16)
  return saved_run.save(folder, exp, state.replace(params=spoil(state.params)))


def logits(folder) -> np.ndarray:
  model = stored_model.load(folder, 'folder')
  state = model.state(jax.sharding.SingleDeviceSharding(jax.devices()[0]))
  run = jax.jit(model.task.predictions['logits'])
  return np.asarray(run(state, {'image': IMAGES})['logits'])


@pytest.mark.parametrize('name', NETS)
def test_exported_weights_come_back_as_the_net_they_were(
  name, tmp_path, capsys
):
  run = checkpoint_of(NETS[name], tmp_path / 'run')
  assert export.main([
    '--checkpoint', str(run), '--format', 'safetensors', '--output',
    str(tmp_path / 'out'),
  ]) == 0  # fmt: skip
  source = str(tmp_path / 'out' / 'model.safetensors')
  back = tmp_path / 'back'
  assert convert_torch.main(['--input', source, '--output', str(back)]) == 0
  np.testing.assert_array_equal(logits(back), logits(run))

  before, after = (stored_model.load(x, 'x') for x in (run, back))
  assert after.scores == before.scores
  kept = [op['op'] for op in after.config.input.ops][:-1]
  assert kept == ['decode', 'resize', 'center_crop']
  for key in ('stride_in', 'pool_padding', 'output_stride', 'depth', 'width'):
    assert after.config.model.get(key) == before.config.model.get(
      key, after.config.model.get(key)
    )
  said = capsys.readouterr().out
  assert f'model.stride_in={before.config.model.stride_in}' in said


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """{tensor: array} of an exported net, and its notes."""
  folder = tmp_path_factory.mktemp('weights')
  run = checkpoint_of(NETS['slim'], folder / 'run')
  export.export(str(run), str(folder), 'safetensors')
  file = str(folder / 'model.safetensors')
  return safetensors_files.read(file), safetensors_files.metadata(file)


def convert(folder, tensors, notes, *more) -> int:
  source = str(folder / 'w.safetensors')
  safetensors_files.write(source, tensors, notes)
  arguments = ['--input', source, '--output', str(folder / 'back'), *more]
  return convert_torch.main(arguments)


def test_without_a_header_the_layout_is_that_of_torch(weights, tmp_path):
  assert convert(tmp_path, weights[0], {}, '--pixels', 'inception') == 0
  config = stored_model.load(tmp_path / 'back', 'back').config
  assert config.model.stride_in == 'first_unit_3x3'
  assert config.model.pool_padding == 'symmetric'
  assert config.task.pixels == 'inception'
  assert (config.model.depth, config.model.width) == (14, 4)


@pytest.mark.parametrize(
  'notes, message',
  [
    (
      {'model.stride_in': 'nowhere'},
      "model.stride_in='nowhere'; valid: last_unit_3x3",
    ),
    ({'model.output_stride': 'x'}, "header, model.output_stride='x': no int"),
    ({'scores': 'ranks'}, "header, scores='ranks': valid: softmax, sigmoid"),
    ({'preprocessing': '[{"op": "os.mkdir"}]'}, "'os.mkdir' is without chance"),
    ({'preprocessing': '[{"op": "random_flip"}]'}, 'ops with chance'),
    ({'preprocessing': '[7]'}, "header, preprocessing='[7]'"),
  ],
)
def test_headers_are_checked(weights, tmp_path, capsys, notes, message):
  assert convert(tmp_path, weights[0], {**weights[1], **notes}) == 2
  said = capsys.readouterr().err
  assert said.startswith('error: ') and message in said
  assert not (tmp_path / 'back').exists()


def test_pixels_other_than_those_of_the_header(weights, tmp_path, capsys):
  assert convert(tmp_path, *weights, '--pixels', 'imagenet') == 2
  said = capsys.readouterr().err
  assert '--pixels=imagenet, but the header' in said
  assert 'says task.pixels=inception' in said


def test_numbers_that_are_not_finite_are_refused(weights, tmp_path, capsys):
  tensors = {k: v.copy() for k, v in weights[0].items()}
  tensors['bn1.weight'][2] = np.nan
  tensors['fc.weight'][1, :3] = [np.inf, -np.inf, np.nan]
  assert convert(tmp_path, tensors, weights[1]) == 2
  said = capsys.readouterr().err
  assert '2 arrays are not finite: ' in said
  assert 'bn1.weight: 1 of 4 numbers' in said
  assert 'fc.weight: 3 of 1,664 numbers' in said
  assert not (tmp_path / 'back').exists()


@pytest.mark.parametrize('kind', export.FORMATS)
def test_export_refuses_weights_that_are_not_finite(tmp_path, capsys, kind):
  def spoil(params):
    # A unit that is dead afterwards: the program's max with 0 may hide it.
    params['backbone']['bn1']['bias'][1] = np.nan
    return params

  run = checkpoint_of(NETS['slim'], tmp_path / 'run', spoil)
  assert export.main([
    '--checkpoint', str(run), '--format', kind, '--output',
    str(tmp_path / 'out'),
  ]) == 2  # fmt: skip
  said = capsys.readouterr().err
  assert 'arrays are not finite: backbone/bn1/bias: 1 of 4 numbers' in said
  assert not (tmp_path / 'out').exists()


def test_ctrl_c_leaves_nothing_behind(weights, tmp_path, capsys, monkeypatch):
  def interrupted(config, tree, num_classes, folder):
    (folder / 'checkpoints' / '0.tmp').mkdir(parents=True)
    (folder / 'half').touch()
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(convert_torch, '_save', interrupted)
    assert convert(tmp_path, *weights) == 130
  assert capsys.readouterr().err == '\ninterrupted\n'
  assert convert(tmp_path, *weights) == 0


@pytest.mark.parametrize(
  'name, shape, words',
  [
    ('conv1.0.weight', (4, 3, 3, 3), 'a stem of several convolutions'),
    ('layer1.0.downsample.1.weight', (16, 4, 1, 1), 'average pooling'),
    ('layer1.0.conv2.weight', (8, 2, 3, 3), 'grouped convolutions'),
    ('layer1.0.conv2.weight', (8, 8, 3, 3), 'another width than its stem'),
    ('layer1.0.se.fc1.weight', (1, 16, 1, 1), 'squeeze and excitation'),
  ],
)
def test_variants_are_called_by_their_name(
  weights, tmp_path, capsys, name, shape, words
):
  tensors = {**weights[0], name: np.zeros(shape, np.float32)}
  assert convert(tmp_path, tensors, {}) == 2
  said = capsys.readouterr().err
  assert 'a variant of ResNet that is not supported' in said and words in said
