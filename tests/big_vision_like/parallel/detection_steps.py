"""Steps of a small detector; as a module PORT INDEX, one of two processes."""

import json
import sys
from typing import Any

import jax
import numpy as np
from absl import flags

from big_vision_like import experiment
from configs import synthetic_detection
from input_pipeline import device, pipeline
from input_pipeline.labels.space import LabelSpace

LOSSES = (
  'loss', 'rpn_objectness', 'rpn_localization', 'box_classification',
  'box_localization',
)  # fmt: skip
SELECTED = 'num_positive_anchors', 'num_positive_boxes'


def opened(
  num_data: int, num_model: int, steps: int, config: Any = None
) -> tuple[Any, list[Any]]:
  """(experiment on so many devices, the batches of its first steps)."""
  config = config or synthetic_detection.get_config('tiny')
  config.unlock()
  config.input.source.num_images = 24
  config.mesh.update(dict(data=num_data, model=num_model))
  source = pipeline.open_source(config.input.source.to_dict())
  exp = experiment.build(
    config,
    LabelSpace.of_source(source),
    devices=jax.devices()[: num_data * num_model],
  )
  part, parts = device.process_part(exp.batch_sharding, exp.batch_size)
  data = pipeline.train(
    source,
    pipeline.build_ops(config.input.ops, source),
    batch_size=exp.batch_size,
    seed=0,
    process_index=part,
    process_count=parts,
  )
  batches = [
    device.to_global(next(data), exp.batch_sharding) for _ in range(steps)
  ]
  data.close()
  return exp, batches


def figures(metrics: Any) -> dict[str, float]:
  """Those of a step that tests compare."""
  return {name: float(np.asarray(metrics[name])) for name in LOSSES + SELECTED}


def first(num_data: int, num_model: int) -> dict[str, float]:
  """Figures of the first step."""
  exp, (batch,) = opened(num_data, num_model, 1)
  return figures(exp.train_step(exp.init(0), batch)[1])


def main() -> None:
  port, index = sys.argv[1], int(sys.argv[2])
  flags.FLAGS.mark_as_parsed()
  jax.distributed.initialize(f'localhost:{port}', 2, index)
  assert (jax.process_count(), jax.device_count()) == (2, 8)
  print(json.dumps(first(4, 2)))


if __name__ == '__main__':
  main()
