"""Exported files compute what the model does, without our code."""

import json

import jax
import numpy as np
import pytest
from jax import export as jax_export

from big_vision_like import experiment
from big_vision_like.checkpoints import safetensors_files, torch_weights
from input_pipeline.labels.space import LabelSpace
from tests import documented_code, saved_run, tiny
from tools import export
from tools.weights import export_check


@pytest.fixture(scope='module')
def exp():
  return experiment.build(
    tiny.config(), space=LabelSpace.of_count(13), devices=jax.devices()[:1]
  )


@pytest.fixture(scope='module')
def state(exp):
  """With a head whose columns differ, its padding too."""
  state = exp.init(3)
  head = state.params['head']
  bias = np.linspace(-1, 1, 16, dtype=np.float32)
  params = {**state.params, 'head': {**head, 'bias': jax.numpy.asarray(bias)}}
  return state.replace(params=params)


@pytest.fixture(scope='module')
def workdir(exp, state, tmp_path_factory):
  return saved_run.save(tmp_path_factory.mktemp('run'), exp, state)


@pytest.fixture(scope='module')
def stablehlo(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('stablehlo')
  export.export(str(workdir), str(folder), 'stablehlo')
  return folder


def run(capsys, *arguments) -> tuple[int, str, str]:
  code = export.main([str(a) for a in arguments])
  out = capsys.readouterr()
  return code, out.out, out.err


def test_documented_code_runs_the_program(exp, state, stablehlo):
  code = documented_code.snippet('weights.md', 'export.deserialize')
  code = code.replace(
    'np.zeros((5, height, width, 3), np.uint8)', "np.load('images.npy')"
  )
  assert 'images.npy' in code
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (7, 16, 16, 3), np.uint8)
  np.save(stablehlo / 'images.npy', images)
  code += "np.savez('outputs.npz', **outputs)\n"
  assert documented_code.run(code, stablehlo) == '(7, 13) (7, 128)\n'
  found = np.load(stablehlo / 'outputs.npz')
  for name, width in (('logits', 13), ('features', 128)):
    wanted = jax.jit(exp.predict[name])(state, {'image': images})[name]
    np.testing.assert_allclose(
      found[name], np.asarray(wanted)[:, :width], rtol=1e-4, atol=1e-5
    )


def test_one_forward_pass_gives_both_outputs(stablehlo):
  program = jax_export.deserialize(
    bytearray((stablehlo / 'model.stablehlo').read_bytes())
  )
  assert set(program.platforms) == {'cpu', 'cuda', 'tpu'}
  images = np.zeros((2, 16, 16, 3), np.uint8)
  text = jax.jit(program.call).lower(images).compile().as_text()
  # 14 layers less the head, and a shortcut for each of the four blocks.
  assert text.count(' convolution(') + text.count(' dot(') <= 13 + 4 + 1


def test_json_beside_it_says_what_it_is(stablehlo, workdir):
  said = json.loads((stablehlo / 'model.stablehlo.json').read_text())
  assert said['input']['images'] == {
    'dtype': 'uint8', 'shape': ['b', 16, 16, 3],
  }  # fmt: skip
  assert said['outputs']['logits']['shape'] == ['b', 13]
  assert (said['scores'], said['step']) == ('sigmoid', 0)
  assert [op['op'] for op in said['preprocessing']] == [
    'decode', 'resize', 'center_crop',
  ]  # fmt: skip
  names = (stablehlo / 'vocabulary.jsonl').read_text().splitlines()
  assert len(names) == 13


def test_safetensors_have_the_arrays_to_the_bit(
  workdir, state, tmp_path, capsys
):
  code, out, _ = run(
    capsys, '--checkpoint', workdir, '--format', 'safetensors', '--output',
    tmp_path,
  )  # fmt: skip
  assert code == 0
  assert 'logits differ by at most 0,' in out
  assert 'timm cannot express this net' in out
  assert "model.stride_in is 'last_unit_3x3' here, 'first_unit_3x3'" in out
  path = str(tmp_path / 'model.safetensors')
  notes = safetensors_files.metadata(path)
  assert notes['model.stride_in'] == 'last_unit_3x3'
  assert (notes['timm_model'], notes['num_classes']) == ('', '13')
  tree = torch_weights.from_tensors(safetensors_files.read(path))
  head = tree['params']['head']
  np.testing.assert_array_equal(
    head['bias'], np.linspace(-1, 1, 16, dtype=np.float32)[:13]
  )
  wanted = {'params': {'backbone': state.params['backbone']}, **state.extra}
  found = {
    'params': {'backbone': tree['params']['backbone']},
    'batch_stats': tree['batch_stats'],
  }
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_a_file_that_is_not_the_model_is_not_left(
  workdir, tmp_path, capsys, monkeypatch
):
  read = safetensors_files.read

  def spoiled(path):
    tensors = read(path)
    return {**tensors, 'fc.bias': tensors['fc.bias'] + np.float32(0.1)}

  monkeypatch.setattr(safetensors_files, 'read', spoiled)
  code, _, err = run(
    capsys, '--checkpoint', workdir, '--format', 'safetensors', '--output',
    tmp_path,
  )  # fmt: skip
  assert code == 2
  assert err.startswith('error: logits of the file differ by 0.1')
  assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda out: {**out, 'a': out['a'] * np.nan}, 'differ by nan'),
    (lambda out: {**out, 'a': out['a'][:, :2]}, r'gives \(1, 2\)'),
    (lambda out: {'b': out['a']}, 'the file gives'),
    (lambda out: {**out, 'a': out['a'] + 2e-4}, 'differ by 0.0002'),
  ],
)
def test_comparison_finds(change, words):
  live = lambda images: {'a': np.ones((len(images), 3))}
  good = lambda images: {'a': np.ones((len(images), 3)) + 5e-5}
  found = export_check.compare(live, good, (2, 2, 3), 'float32')
  assert found['a']['difference'] == pytest.approx(5e-5)
  with pytest.raises(ValueError, match=words):
    changed = lambda images: change(live(images))
    export_check.compare(live, changed, (2, 2, 3), 'float32')


def test_mistakes(workdir, tmp_path, capsys):
  names = tmp_path / 'names.txt'
  names.write_text('a\nb\n')
  arguments = ('--format', 'stablehlo', '--output', tmp_path / 'out')
  code, _, err = run(capsys, '--checkpoint', tmp_path, *arguments)
  assert code == 2 and err.startswith('error: --checkpoint=')
  code, _, err = run(
    capsys, '--checkpoint', workdir, *arguments, '--vocabulary', names
  )
  assert code == 2 and 'has 2 names, the model 13 classes' in err
  assert not (tmp_path / 'out').exists()
