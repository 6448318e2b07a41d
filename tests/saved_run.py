"""A workdir with a checkpoint, made without training."""

import json
import pathlib
from typing import Any

import jax

from big_vision_like import experiment
from big_vision_like.checkpoints import manager
from big_vision_like.config import settings
from input_pipeline.labels.space import LabelSpace
from tests import tiny


def with_averages() -> Any:
  """A tiny experiment of 13 classes on one device that keeps averages."""
  return experiment.build(
    tiny.config(**{'train.ema_decay': 0.9}),
    space=LabelSpace.of_count(13),
    devices=jax.devices()[:1],
  )


def save(
  folder: pathlib.Path, exp: Any, state: Any, **more: Any
) -> pathlib.Path:
  """Writes step 0 of an experiment as the trainer does; returns the folder.

  Args:
    folder: the workdir.
    exp: the experiment.
    state: what to save.
    **more: of the meta item, such as `classes`.
  """
  meta = {
    'step': 0,
    'num_classes': exp.task.num_classes,
    'config': json.loads(settings.to_json(exp.config)),
    **more,
  }
  ckpt = manager.Checkpointer(str(folder))
  ckpt.save(0, state, meta)
  ckpt.wait()
  ckpt.close()
  return folder
