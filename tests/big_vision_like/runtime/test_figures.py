"""Which lines of metrics.jsonl count, after steps were trained anew."""

import json

import pytest

from big_vision_like.pages import metrics_plot
from big_vision_like.runtime import figures, writers

# Trained to step 6, then on from step 3 at another rate, to step 5 so far.
LINES = [
  {'step': 0, **figures.note('one')},
  *({'step': i, 'train/loss': 7.0, 'val/map': float(i)} for i in range(7)),
  {'step': 3, **figures.note('one', anew_from=4)},
  {'step': 4, 'train/loss': 12.0, 'val/map': 40.0},
  {'step': 5, 'train/loss': 13.0},
]


def write(folder, lines):
  text = ''.join(json.dumps(line) + '\n' for line in lines)
  (folder / 'metrics.jsonl').write_text(text)


def test_older_figures_of_steps_trained_anew_do_not_count(tmp_path):
  write(tmp_path, LINES)
  counted = list(writers.read_metrics(tmp_path))
  assert [line['step'] for line in counted] == [0, 1, 2, 3, 4, 5]
  assert [line['train/loss'] for line in counted] == [7, 7, 7, 7, 12, 13]
  assert figures.evaluated(LINES) == {
    'train': {0, 1, 2, 3, 4, 5},
    'val': {0, 1, 2, 3, 4},
    'step': {0, 1, 2, 3, 4, 5},
  }


def test_they_are_not_drawn_either(tmp_path):
  write(tmp_path, LINES)
  curves = metrics_plot.read(tmp_path)
  assert set(curves) == {'train/loss', 'val/map'}
  steps, values = curves['val/map']
  assert steps.tolist() == [0, 1, 2, 3, 4]
  assert values.tolist() == [0, 1, 2, 3, 40]
  assert curves['train/loss'][0].tolist() == [0, 1, 2, 3, 4, 5]


def test_an_ordinary_resume_leaves_all_that_stands():
  lines = [line for line in LINES if not figures.is_note(line)]
  assert figures.counting(lines) == lines
  assert figures.evaluated(lines)['val'] == {0, 1, 2, 3, 4, 5, 6}


def test_several_changes():
  value = lambda step, x: {'step': step, 'a/b': x}
  lines = [
    value(1, 1), value(2, 1), value(3, 1),
    {'step': 2, **figures.note('x', anew_from=3)},
    value(3, 2), value(4, 2),
    {'step': 0, **figures.note('x', anew_from=1)},  # a checkpoint was gone
    value(1, 3),
    {'step': 1, **figures.note('y', anew_from=2)},
    value(2, 4),
  ]  # fmt: skip
  assert figures.counting(lines) == [value(1, 3), value(2, 4)]
  assert figures.last(lines, figures.DATA) == figures.data_number('y')
  assert figures.last(lines, figures.ANEW_FROM) == 2
  assert figures.last(lines[:2], figures.DATA) is None


def test_an_evaluator_with_other_options_has_evaluated_nothing_yet():
  lines = [
    {'step': 1, 'val/a': 1, 'test/a': 1},
    {'step': 1, **figures.note('x', evaluators=['val'])},
    {'step': 2, 'val/a': 2},
  ]
  assert figures.evaluated(lines)['val'] == {2}
  assert figures.evaluated(lines)['test'] == {1}
  assert len(figures.counting(lines)) == 2  # still shown


def test_notes_are_numbers_that_no_figure_is_taken_for(tmp_path):
  writer = writers.MetricWriter(tmp_path, anew_from=4)
  writer.write(3, {'train/loss': 1.0})
  writer.write_note(3, figures.note('one', 4, ['val']))
  writer.close()
  lines = list(figures.read(tmp_path))
  assert lines[1] == {
    'step': 3,
    'data_id': figures.data_number('one'),
    'anew_from': 4,
    'anew:val': 1,
  }
  assert 0 <= lines[1]['data_id'] < 2**53
  assert list(writers.read_metrics(tmp_path)) == lines[:1]


def test_tensorboard_is_told(tmp_path):
  pytest.importorskip('tensorboardX')
  from tensorboardX.proto.event_pb2 import Event

  writer = writers.MetricWriter(tmp_path, anew_from=4)
  writer.write(4, {'train/loss': 1.0})
  writer.close()
  (file,) = (tmp_path / 'tensorboard').iterdir()
  data, events = file.read_bytes(), []
  while data:  # length, its checksum, the event, its checksum
    size = int.from_bytes(data[:8], 'little')
    events.append(Event.FromString(data[12 : 12 + size]))
    data = data[16 + size :]
  starts = [e.step for e in events if e.HasField('session_log')]
  assert starts == [4]
