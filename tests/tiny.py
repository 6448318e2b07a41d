"""A training experiment of a second, shared by the tests of the trainer."""

from typing import Any

from configs import common

SIMPLE = {'model': dict(type='tests.fixtures.colour_model')}


def config(**changes: Any) -> Any:
  """13 classes (odd), 8 images of 16 pixels a step, 6 steps.

  Args:
    **changes: values by dotted key, such as {'mesh.model': 2}.
  """
  c = common.base()
  label = common.multilabel(max_labels=32)
  world = dict(num_classes=13, num_images=60, image_size=32)
  c.total_steps = 6
  c.log_every_steps = 1
  c.input.source = common.synthetic(**world)
  c.input.ops = common.train_ops(20, 16, label)
  c.input.batch_size = 8
  c.model = common.resnet(depth=14, width=4)
  c.task.class_multiple = 8
  c.optim = dict(type='rmsprop', weight_decay=1e-4)
  c.schedule = dict(type='constant', lr=0.01)
  c.ckpt.every_steps = 3
  c.evals.fasteval = dict(
    type='multilabel_map',
    data=common.synthetic('fasteval', **{**world, 'num_images': 20}),
    ops=common.eval_ops(20, 16, label),
    batch_size=8,
    every_steps=3,
  )
  for name, value in changes.items():
    section = c
    *parents, key = name.split('.')
    for parent in parents:
      section = section[parent]
    section[key] = value
  return c


def simple(**changes: Any) -> Any:
  """As `config`, of a net of one layer: a second or two less for each run."""
  return config(**SIMPLE, **changes)
