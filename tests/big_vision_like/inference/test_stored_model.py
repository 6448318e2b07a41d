"""What tools ask of the task of a stored model."""

import pathlib
import types

import pytest

from big_vision_like.config.stream_names import MAIN
from big_vision_like.inference.stored_model import StoredModel
from input_pipeline.labels.space import LabelSpace


def model_with(**attributes) -> StoredModel:
  return StoredModel(
    path=pathlib.Path('run'),
    config=types.SimpleNamespace(task=types.SimpleNamespace(type='my.task')),
    spaces={MAIN: LabelSpace.of_count(3)},
    task=types.SimpleNamespace(**attributes),  # type: ignore[arg-type]
    step=0,
    meta={},
  )


@pytest.mark.parametrize('background', [True, False])
def test_the_task_says_whether_masks_have_a_background(background):
  assert model_with(background=background).background is background


@pytest.mark.parametrize('attributes', [{}, {'background': None}])
def test_a_task_that_does_not_say_it_is_named(attributes):
  with pytest.raises(ValueError, match=r"'my.task' predicts masks, but has no"):
    _ = model_with(**attributes).background
