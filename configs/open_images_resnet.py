"""Open Images V7 pretraining: 9M images, some 20,000 labels, three states.

The public data set most like JFT-300M: labels by machine, with confidences, of
which a part was verified by people, as present or as absent. The model, loss,
optimizer and images are those of Sun et al. 2017, section 4, with two choices:
`unknown`, what a label is that is neither given nor verified as absent
(negative, as in the paper, or ignored), and `confidence`, what that of a label
does (docs/label-states.md). Labels that only machines gave have no verified
negatives: with unknown=ignore prepare --labels human, or such a class is never
told where it is absent.

  python -m tools.prepare_open_images --input DOWNLOADS --scratch TMP \\
      --output data/open_images --long_side 640
  python -m tools.make_fasteval --input data/open_images:validation,test \\
      --output data/open_images_fasteval --min_confidence 1
  python -m main --config configs/open_images_resnet.py --workdir ...
  arguments: path, fasteval (the two data sets), unknown=negative|ignore,
  confidence=target|weight|ignore, depth=101|50|152, epochs=20, batch=1024,
  model_axis=1

Figures: fasteval/map@100, where what is not labelled is absent, and
known/map, the mean AP of the classes over the images in which they were
verified, as Open Images is evaluated. Which values to expect is not known yet.
Hardware: 8 accelerators; `--mode=plan` tells what each of them holds.
"""

import math
from typing import Any

from configs import common

# Widths of a batch: an image with more is a bad one, never cut short. A
# negative stands for all labels below it: at most the 600 of the hierarchy.
MAX_LABELS, MAX_NEGATIVES = 128, 768


def get_config(arg=None):
  """Arguments: path, fasteval, unknown, confidence, depth, epochs, batch,
  model_axis, tiny."""
  arg = common.parse(
    arg,
    path='data/open_images',
    fasteval='data/open_images_fasteval',
    unknown=('negative', 'ignore'),
    confidence=('target', 'weight', 'ignore'),
    depth=(101, 50, 152),
    epochs=20.0,
    batch=1024,
    model_axis=1,
    tiny=False,
  )
  common.at_least_one(batch=arg.batch, model_axis=arg.model_axis)
  negatives: dict[str, Any] = dict(
    max_negatives=MAX_NEGATIVES, fill_in_negatives=True
  )
  label = common.multilabel(
    MAX_LABELS,
    confidence=arg.confidence != 'ignore',
    **(negatives if arg.unknown == 'ignore' else {}),
  )
  eval_label = common.multilabel(MAX_LABELS)
  known_label = common.multilabel(MAX_LABELS, **negatives)

  c = common.base()
  c.total_epochs = arg.epochs
  c.device = 'accelerator'
  c.mesh.model = arg.model_axis

  c.input.source = dict(type='records', path=arg.path, split='train')
  c.input.ops = common.train_ops(340, 299, label)
  c.input.batch_size = arg.batch
  c.input.workers = 16

  c.model = common.resnet(
    depth=arg.depth, compute_dtype='bfloat16', bn='ghost', bn_group=32
  )
  c.task.class_multiple = 64
  c.task.unknown = arg.unknown
  c.task.confidence = arg.confidence

  # The rate follows the batch by the square root, from 1e-3 for 32.
  c.optim = dict(
    type='rmsprop', decay=0.9, momentum=0.9, epsilon=1.0, weight_decay=1e-4
  )
  c.schedule = dict(
    type='cosine', lr=1e-3 * math.sqrt(arg.batch / 32), warmup_percent=2
  )

  c.ckpt.every_steps = 1000
  evaluation = dict(
    type='multilabel_map',
    data=dict(type='records', path=arg.fasteval, split='fasteval'),
    annotated=f'{arg.fasteval}/classes.txt',
    batch_size=256,
    every_percent=5,
  )
  c.evals.fasteval = dict(
    evaluation,
    ops=common.eval_ops(340, 299, eval_label),
    weights=f'{arg.fasteval}/weights.csv',
  )
  c.evals.known = dict(
    evaluation,
    ops=common.eval_ops(340, 299, known_label),
    unknown='ignore',
    cut='none',
    weights='uniform',
  )

  if arg.tiny:
    shrink(c, label, eval_label, known_label)
  c.lock()
  return c


def shrink(c, label, eval_label, known_label):
  """`:tiny`: the synthetic world, which knows all label states too."""
  common.shrink(c, num_classes=101, label=label)
  states = dict(confidences=True, negatives=8)
  c.input.source.update(states)
  for name, op in (('fasteval', eval_label), ('known', known_label)):
    evaluator = c.evals[name]
    evaluator.data.update(states)
    evaluator.ops = common.eval_ops(40, 32, op)
    del evaluator['annotated']  # files of the real data set
  c.evals.fasteval.weights = 'gt_frequency'
  c.task.class_multiple = 8
  c.model.bn_group = 2
  c.input.workers = 0
  c.mesh.model = 1
