"""Reading of metrics.jsonl, and the picture made of it."""

import json

import numpy as np
import pytest
from PIL import Image

from big_vision_like.pages import metrics_plot
from tools import plot_metrics


def _write(folder, lines, tail=''):
  folder.mkdir(parents=True, exist_ok=True)
  text = ''.join(json.dumps(line) + '\n' for line in lines) + tail
  (folder / 'metrics.jsonl').write_text(text)
  return folder


def _run(folder, seed=0):
  rng = np.random.default_rng(seed)
  lines = [{'step': 0, 'fasteval/map@100': 2.0, 'fasteval/num_images': 50}]
  for step in range(10, 1010, 10):
    lines.append(
      {
        'step': step,
        'train/loss': 8 * np.exp(-step / 400) + 0.4 * rng.standard_normal(),
        'train/lr': 1e-3,
        'train/examples': step * 32,
        'train/images_per_s': 320.0,
      }
    )
    if step % 250 == 0:
      lines.append(
        {
          'step': step,
          'fasteval/map@100': 40 * (1 - np.exp(-step / 500)) + seed,
          'fasteval/num_images': 50,
        }
      )
  return _write(folder, lines)


def test_a_later_line_replaces_an_earlier_one(tmp_path):
  folder = _write(
    tmp_path,
    [
      {'step': 1, 'a': 1.0, 'b': 5},
      {'step': 2, 'a': 2.0},
      {'step': 3, 'a': 3.0},
      {'step': 2, 'a': 20.0},
      {'step': 1, 'b': None},
    ],
  )
  curves = metrics_plot.read(folder)
  np.testing.assert_array_equal(curves['a'][0], [1, 2, 3])
  np.testing.assert_array_equal(curves['a'][1], [1, 20, 3])
  np.testing.assert_array_equal(curves['b'][1], [np.nan])


@pytest.mark.parametrize(
  'tail', ['{"step": 2, "a": 2', '{"st', '7\n', '{"a": 1}\n', '\x00\x00']
)
def test_torn_lines_are_reported_and_left_out(tmp_path, tail, capsys):
  folder = _write(tmp_path, [{'step': 1, 'a': 1.0}], tail)
  curves = metrics_plot.read(folder)
  np.testing.assert_array_equal(curves['a'], [[1], [1]])
  assert 'metrics.jsonl:2: torn line left out' in capsys.readouterr().err


def test_a_multibyte_character_may_be_torn(tmp_path, capsys):
  folder = _write(tmp_path, [{'step': 1, 'a': 1.0}])
  with (folder / 'metrics.jsonl').open('ab') as file:
    file.write(b'{"step": 2, "\xc3')
  assert list(metrics_plot.read(folder)) == ['a']
  assert 'torn' in capsys.readouterr().err


def test_smooth_is_a_running_mean():
  values = np.arange(100.0)
  np.testing.assert_allclose(metrics_plot.smooth(values)[5:-5], values[5:-5])
  assert metrics_plot.smooth(values)[0] == pytest.approx(2.5)
  values[50] = np.nan
  smoothed = metrics_plot.smooth(values)
  assert np.isfinite(smoothed).all()
  assert smoothed[50] == pytest.approx(50)
  np.testing.assert_array_equal(metrics_plot.smooth(np.ones(1)), [1])


def test_x_axes(tmp_path):
  run = metrics_plot.read(_run(tmp_path / 'a'))
  steps = np.array([0, 500, 1000])
  hours = metrics_plot._positions(run, steps, 'hours')
  np.testing.assert_allclose(hours, [0, 50 / 3600, 100 / 3600], rtol=1e-12)
  examples = metrics_plot._positions(run, steps, 'examples')
  np.testing.assert_allclose(examples, [0, 16_000, 32_000])


def _colours(path):
  """Number of clearly coloured (not grey) pixels of the picture, its size."""
  image = np.asarray(Image.open(path).convert('RGB')).astype(int)
  coloured = np.ptp(image, axis=2) > 60
  return int(coloured.sum()), image.shape


@pytest.mark.parametrize('x', metrics_plot.X_AXES)
def test_plot_of_two_runs(tmp_path, x):
  runs = [_run(tmp_path / 'a'), _run(tmp_path / 'b', seed=5)]
  path = metrics_plot.plot(runs, out=tmp_path / 'out.png', x=x)
  coloured, shape = _colours(path)
  assert coloured > 2000
  assert shape == (340, 1000, 3)  # two panels: train/loss and map@100
  alone = metrics_plot.plot(runs[:1], ['fasteval/map@100'], x=x)
  assert alone == tmp_path / 'a' / 'metrics.png'
  assert _colours(alone)[1] == (340, 500, 3)
  assert [p.name for p in tmp_path.glob('**/*.tmp')] == []


def test_mistakes(tmp_path, capsys):
  with pytest.raises(FileNotFoundError, match=r'is .* a workdir'):
    metrics_plot.plot([tmp_path])
  run = _run(tmp_path / 'a')
  with pytest.raises(ValueError, match="no metric 'loss'; valid: fasteval/"):
    metrics_plot.plot([run], ['loss'])
  with pytest.raises(ValueError, match="x='epoch'; valid: step, examples"):
    metrics_plot.plot([run], x='epoch')
  with pytest.raises(ValueError, match='the same workdir twice'):
    metrics_plot.plot([run, run])
  with pytest.raises(ValueError, match='no workdir'):
    metrics_plot.plot([])
  empty = _write(tmp_path / 'empty', [])
  with pytest.raises(ValueError, match='no figures yet'):
    metrics_plot.plot([empty])
  few = _write(tmp_path / 'few', [{'step': 1, 'a': 1.0}])
  with pytest.raises(ValueError, match='needs train/examples'):
    metrics_plot.plot([few], x='hours')
  with pytest.raises(SystemExit, match='error: no metric'):
    plot_metrics.main([str(run), '--keys', 'x'])


def test_command(tmp_path, capsys):
  run = _run(tmp_path / 'a')
  out = tmp_path / 'x.png'
  plot_metrics.main([str(run), '--keys', 'train/loss', '--out', str(out)])
  assert capsys.readouterr().out.strip() == str(out)
  assert out.exists()
