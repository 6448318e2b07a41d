"""One of two processes that evaluate together: module PORT INDEX."""

import json
import sys

import jax
import numpy as np
from absl import flags

from tests.evaluators import harness
from tests.evaluators import test_box_evaluators as boxes
from tests.evaluators import test_coco_keypoints as poses


def figures(mesh, process_index: int) -> dict[str, float]:
  """mAP@3 of 21 images, average precisions of the boxes of 13, poses of 9."""
  rng = np.random.default_rng(0)
  scores = rng.standard_normal((21, 9)).astype(np.float32)
  labels = [rng.choice(9, 2, replace=False).tolist() for _ in range(21)]
  entry = dict(
    type='multilabel_map',
    data=dict(
      type=harness.SOURCE, labels=labels, names=[str(i) for i in range(9)]
    ),
    ops=[*harness.IMAGE_OPS, dict(op='labels', max_labels=4)],
    batch_size=8,
    k=3,
  )
  ctx = harness.context(9, mesh=mesh, process_index=process_index)
  found = harness.build(entry, ctx).run(harness.pad_classes(scores, 4))
  truth = boxes.truth(num=13)
  detected = boxes.build(
    'coco_detection', truth, mesh=mesh, process_index=process_index,
    batch_size=8,
  ).run(boxes.guesses(truth))  # fmt: skip
  people = poses.truth()
  records = poses.looked_at(people)
  posed = poses.build(
    people, records, mesh=mesh, process_index=process_index, batch_size=8
  ).run(poses.guesses(people, records))
  return (
    dict(found)
    | {f'boxes/{name}': value for name, value in detected.items()}
    | {f'poses/{name}': value for name, value in posed.items()}
  )


def main() -> None:
  port, index = sys.argv[1], int(sys.argv[2])
  flags.FLAGS.mark_as_parsed()
  jax.distributed.initialize(f'localhost:{port}', 2, index)
  assert (jax.process_count(), jax.device_count()) == (2, 4)
  print(json.dumps(figures(harness.mesh(2, 2), index)))


if __name__ == '__main__':
  main()
