"""The config of a part of a joint task, as of a run of its own.

What a checkpoint's model is asked for is one part at a time, and so tools find
in its config what they find in that of any run: one stream, one task, the
evaluators of it (docs/joint-training.md).
"""

import copy

from ml_collections import ConfigDict

from big_vision_like.config import stream_names
from big_vision_like.config.settings import Config
from big_vision_like.protocols import Part


def alone(config: Config, name: str, part: Part) -> Config:
  """A config that is of one part only.

  Args:
    config: complete, of a joint task.
    name: of the part.
    part: what the task tells of it.

  Returns:
    a copy, unlocked: input, task and evaluators are the part's.
  """
  found = copy.deepcopy(config)
  found.unlock()
  if part.stream:
    section = stream_names.sections(config)[part.stream]
    num_classes = section.num_classes
    for key in section:
      if key in found.input and section[key] is not None:
        found.input[key] = section[key]
  else:
    num_classes = config.task.get('num_classes')
  found.input.also = ConfigDict()
  found.task = ConfigDict(dict(part.options, num_classes=num_classes))
  found.evals = ConfigDict(
    {
      key: {k: v for k, v in entry.items() if k not in ('part', 'stream')}
      for key, entry in config.evals.items()
      if entry.get('part') == name
    }
  )
  found.expected = ConfigDict()
  if found.ckpt.best is not None:
    found.ckpt.update(dict(best=None, patience=None))
  return found
