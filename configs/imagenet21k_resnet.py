"""ImageNet-21k pretraining with its label DAG, as JFT in the paper.

13M images in some 19,000 WordNet classes, one label each; the hierarchy makes
several of it (Sun et al. 2017, section 3.1: fill-in), inner nodes included,
and the loss is the paper's, a logistic one per label, section 4. Images, model
and optimizer as in configs/jft_resnet.py, in large batches.

  python -m tools.prepare_imagenet21k --input winter21_whole.tar.gz \\
      --scratch TMP --hierarchy wordnet.is_a.txt --output data/imagenet21k \\
      --resize 340
  python -m main --config configs/imagenet21k_resnet.py --workdir ...
  arguments: path, depth=101|50|152, epochs=20, batch=1024, model_axis=1,
  fasteval=DIR (made by tools/make_fasteval.py of another pool with the same
  labels; evaluated besides)

Figure: val/map@100 on the part held out, ancestors filled in; which value to
expect is not known yet. A picture has one label there and may show more: the
figure compares runs, it does not say how good they are.
Hardware: 8 accelerators; `--mode=plan` tells what each of them holds.
"""

import math

from configs import common


def get_config(arg=None):
  """Arguments: path, fasteval, depth, epochs, batch, model_axis, tiny."""
  arg = common.parse(
    arg,
    path='data/imagenet21k',
    fasteval='',
    depth=(101, 50, 152),
    epochs=20.0,
    batch=1024,
    model_axis=1,
    tiny=False,
  )
  common.at_least_one(batch=arg.batch, model_axis=arg.model_axis)
  label = common.multilabel(max_labels=64)

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
    ops=common.eval_ops(340, 299, label),
    batch_size=256,
    every_percent=5,
  )
  c.evals.val = dict(
    evaluation, data=dict(type='records', path=arg.path, split='val')
  )
  if arg.fasteval:
    c.evals.fasteval = dict(
      evaluation,
      data=dict(type='records', path=arg.fasteval, split='fasteval'),
      annotated=f'{arg.fasteval}/classes.txt',
      weights=f'{arg.fasteval}/weights.csv',
    )

  if arg.tiny:
    common.shrink(c, num_classes=101, label=label)
    for data in (c.input.source, c.evals.val.data):
      data.single_label = True  # one leaf an image
    if arg.fasteval:
      c.evals.fasteval.weights = 'gt_frequency'
      del c.evals.fasteval['annotated']  # files of the real data set
    c.task.class_multiple = 8
    c.model.bn_group = 2
    c.input.workers = 0
    c.mesh.model = 1
  c.lock()
  return c
