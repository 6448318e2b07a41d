"""Rates and times; the metrics file under kills, NaN and a dead TensorBoard."""

import io
import json
import subprocess
import sys

import pytest

from big_vision_like.runtime import clock, writers
from tests.conftest import ROOT


class FakeTime:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def test_rates_leave_pauses_out():
  time = FakeTime()
  watch = clock.Clock(total_steps=100, batch_size=32, step=0, now=time)
  time.now += 10
  assert watch.read(20) == {'images_per_s': 64.0, 'eta_s': 40.0}
  time.now += 5
  with watch.pause():
    time.now += 1000
  assert watch.read(30) == {'images_per_s': 64.0, 'eta_s': 35.0}


def test_no_progress_repeats_the_last_rate_and_never_divides_by_zero():
  time = FakeTime()
  watch = clock.Clock(total_steps=10, batch_size=1, step=0, now=time)
  assert watch.read(0) == {}
  watch.read(5)
  assert watch.read(5)['images_per_s'] > 0


@pytest.mark.parametrize(
  'seconds, text',
  [(-3, '0s'), (42, '42s'), (309, '5m09s'), (11220, '3h07m'), (93600, '1d02h')],
)
def test_duration(seconds, text):
  assert clock.duration(seconds) == text


def test_lines_are_complete_json_also_for_nan(tmp_path):
  writer = writers.MetricWriter(tmp_path)
  writer.write(1, {'train/loss': float('nan'), 'fasteval/map@100': 12.5})
  writer.write(2, {'train/loss': 1, 'x/count': 7})
  writer.close()
  lines = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line) for line in lines] == [
    {'step': 1, 'train/loss': None, 'fasteval/map@100': 12.5},
    {'step': 2, 'train/loss': 1, 'x/count': 7},
  ]
  assert list((tmp_path / 'tensorboard').iterdir())


def test_a_torn_line_swallows_nothing(tmp_path):
  (tmp_path / 'metrics.jsonl').write_text('{"step": 1, "a": 2}\n{"step": 2, "')
  writer = writers.MetricWriter(tmp_path)
  writer.write(2, {'a': 3})
  writer.close()
  assert list(writers.read_metrics(tmp_path)) == [
    {'step': 1, 'a': 2},
    {'step': 2, 'a': 3},
  ]


def test_unwritable_tensorboard_costs_a_warning_and_no_line(tmp_path):
  (tmp_path / 'tensorboard').write_text('a file where the folder should be')
  with pytest.warns(UserWarning, match='no TensorBoard'):
    writer = writers.MetricWriter(tmp_path)
  writer.write(1, {'a': 1.0})
  writer.close()
  assert list(writers.read_metrics(tmp_path)) == [{'step': 1, 'a': 1.0}]


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_console_is_live_on_a_terminal_and_plain_in_a_file():
  live, plain = Terminal(), io.StringIO()
  for stream in (live, plain):
    console = writers.Console(stream)
    console.progress('step 1 long')
    console.progress('step 2')
    console.say('done')
  assert live.getvalue() == '\rstep 1 long\rstep 2     \ndone\n'
  assert plain.getvalue() == 'step 1 long\nstep 2\ndone\n'


def test_a_full_disk_under_tensorboard_costs_a_warning_and_no_line(tmp_path):
  writer = writers.MetricWriter(tmp_path)
  many = {f'figure{i}': float(i) for i in range(300)}
  writer.write(1, many)
  with open('/dev/full', 'wb', buffering=0) as full:
    writer._board._file.close()
    writer._board._file._py_recordio_writer._writer = full
    with pytest.warns(UserWarning, match='TensorBoard is off') as said:
      writer.write(2, many)
      writer.write(3, many)
    writer.close()
  assert len(said) == 1
  expected = [{'step': step, **many} for step in (1, 2, 3)]
  assert list(writers.read_metrics(tmp_path)) == expected


def test_writing_for_tensorboard_does_not_import_torch(tmp_path):
  """It is installed here, and tensorboardX takes it wherever it is."""
  code = (
    'import sys\n'
    'from big_vision_like.runtime import writers\n'
    f'w = writers.MetricWriter({str(tmp_path)!r})\n'
    'w.write(1, {"a": 1.0})\n'
    'w.close()\n'
    'assert "torch" not in sys.modules\n'
  )
  subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=True)
  assert list(tmp_path.glob('tensorboard/*'))
