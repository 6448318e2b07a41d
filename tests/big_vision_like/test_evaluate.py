"""evaluate.py: what the console says of an evaluation."""

import types

from big_vision_like import evaluate

MANY = {f'ap/{name}': float(value) for value, name in enumerate('bcdefghijk')}


def said(figures):
  evaluator = types.SimpleNamespace(run=lambda state: figures)
  scheduled = evaluate.Scheduled('val', evaluator, 1, True, True, 9, 'raise')
  state = types.SimpleNamespace(for_evaluation=lambda: None)
  writer = types.SimpleNamespace(write=lambda step, figures: None)
  lines: list[str] = []
  evaluate.run_one(
    scheduled, 7, state, writer, types.SimpleNamespace(say=lines.append)
  )
  (line,) = lines
  return line


def test_the_mean_of_a_large_group_is_shown_beside_its_range():
  text = said({'ap': 41.25, **MANY, 'ap50': 80.0})
  assert 'val/ap 41.25  val/ap/* 0 to 9 (10 figures)  val/ap50 80 ' in text


def test_a_small_group_is_shown_figure_by_figure():
  text = said({'ap': 1.5, 'ap/a': 1.0, 'ap/b': 2.0})
  assert 'val/ap 1.5  val/ap/a 1  val/ap/b 2 ' in text
