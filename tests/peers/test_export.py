"""Exported weights in timm, and back."""

import jax
import numpy as np
import pytest

from big_vision_like.checkpoints import safetensors_files
from configs import common
from tests import documented_code
from tests.peers import test_torch_weights as known
from tests.peers import timm_peer
from tools import convert_torch, export

torch = pytest.importorskip('torch')
SIZE = 96
CONFIG_OF = convert_torch._config


@pytest.mark.slow
@pytest.mark.nightly
def test_a_converted_net_comes_out_as_it_went_in_and_runs_in_timm(
  tmp_path, capsys, monkeypatch
):
  source = known.save(tmp_path / 'w.safetensors', 50)
  monkeypatch.setattr(convert_torch, '_config', small_images)
  convert_torch.convert(source, str(tmp_path / 'run'), 'imagenet')
  out = tmp_path / 'out'
  arguments = ['--checkpoint', str(tmp_path / 'run'), '--output', str(out)]
  code = export.main([*arguments, '--format', 'safetensors'])
  said = capsys.readouterr()
  assert code == 0, said.err
  assert "load into timm.create_model('resnet50', num_classes=7)" in said.out
  path = str(out / 'model.safetensors')
  notes = safetensors_files.metadata(path)
  assert (notes['timm_model'], notes['unlike_timm']) == ('resnet50', '')

  tensors, wanted = safetensors_files.read(path), known.arrays(50)
  assert tensors.keys() == {
    k for k in wanted if not k.endswith('num_batches_tracked')
  }
  for name, tensor in tensors.items():
    assert tensor.tobytes() == wanted[name].tobytes(), name

  # As documented: strict loading, and timm's own logits.
  timm_peer.import_timm()
  monkeypatch.chdir(out)
  code = documented_code.snippet('weights.md', 'timm.create_model')
  model = timm_peer.build(50, num_classes=known.CLASSES)
  assert 'model.load_state_dict(tensors)' in code
  model.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
  config = model.default_cfg
  mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ('mean', 'std'))
  pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).double() / 255
  with torch.no_grad():
    scaled = (pixels - mean.double()) / std.double()
    exact = model.double().eval()(scaled).numpy()

  assert export.main([*arguments, '--format', 'stablehlo']) == 0
  program = jax.export.deserialize(
    bytearray((out / 'model.stablehlo').read_bytes())
  )
  logits = np.asarray(program.call(images)['logits'])
  assert np.abs(exact).max() > 1
  np.testing.assert_allclose(
    logits, exact, rtol=0, atol=1e-5 * np.abs(exact).max()
  )


def small_images(*args):
  """The config of convert_torch, for images of SIZE: quick."""
  config = CONFIG_OF(*args)
  with config.unlocked():
    config.input.ops = common.train_ops(SIZE, SIZE, dict(op='single_label'))
  return config
