"""What of an example the anchors of a config's detector stand for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from . import config_feed

_MARKS = ('box_crowd', 'box_difficult')


class Found(NamedTuple):
  """The positive anchors of an example.

  Attributes:
    anchors: float32 [n, 4] y0, x0, y1, x1 in pixels of the image.
    owners: int32 [n] the box that each stands for.
    num_boxes: of the example.
  """

  anchors: np.ndarray
  owners: np.ndarray
  num_boxes: int

  def line(self) -> tuple[str, str]:
    """Text and tone of a line below the picture."""
    served = len(np.unique(self.owners))
    text = f'{len(self.owners)} positive anchors of {served} boxes'
    if served == self.num_boxes:
      return text, 'muted'
    return f'{text}; {self.num_boxes - served} boxes have none', 'bad'


class PositiveAnchors:
  """Example -> its positive anchors, by the rules of the config's task.

  The task's arithmetic alone runs, on shapes and boxes; the net does not.

  Args:
    config: of the run.
    feed: the place of the config where the examples come from.

  Raises:
    ValueError: the task has no anchors.
  """

  def __init__(self, config: Any, feed: config_feed.Feed):
    import jax

    from big_vision_like import experiment
    from big_vision_like.config import settings, stream_names
    from big_vision_like.protocols import WithAnchors
    from input_pipeline.labels.space import LabelSpace

    space = LabelSpace.of_source(feed.source)
    config = settings.complete(config)
    # Anchors need no labels: those of other streams are not asked for.
    spaces = dict.fromkeys(stream_names.sections(config), space)
    task = _of_feed(experiment.build_task(config, spaces), config, feed.key)
    if not isinstance(task, WithAnchors):
      raise ValueError(f'--anchors: the task {config.task.type!r} has none')
    self._find = jax.jit(task.positive_anchors)

  def __call__(self, example: Mapping[str, Any]) -> Found:
    """The positive anchors of what the ops made of a record."""
    boxes = np.asarray(example.get('boxes', ()), np.float32).reshape(-1, 4)
    num = len(boxes)
    mask = np.asarray(example.get('box_mask', np.ones(num, bool)))
    given = {
      'image': example['image'],
      'image_size': example.get('image_size', example['image'].shape[:2]),
      'boxes': boxes,
      'box_labels': example.get('box_labels', np.zeros(num, np.int32)),
      'box_mask': mask,
      **{name: example.get(name, np.zeros(num, bool)) for name in _MARKS},
    }
    anchors, owners = map(
      np.asarray, self._find({k: np.asarray(v) for k, v in given.items()})
    )
    kept = owners >= 0
    return Found(anchors[kept], owners[kept], int(mask.sum()))


def _of_feed(task: Any, config: Any, key: str) -> Any:
  """Of a joint task the part with anchors that sees these examples.

  Args:
    task: of the config.
    config: complete.
    key: of the place where the examples come from.
  """
  from big_vision_like.config import stream_names
  from big_vision_like.protocols import WithAnchors, WithParts

  if not isinstance(task, WithParts):
    return task
  place, _, name = key.rpartition('.')
  scored = config.evals[name].get('part') if place == 'evals' else None
  for part, found in task.parts.items():
    sees = stream_names.config_key(found.stream) == key or part == scored
    if sees and isinstance(found.task, WithAnchors):
      return found.task
  return task
