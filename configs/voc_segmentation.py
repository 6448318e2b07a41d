"""Semantic segmentation by DeepLab-ASPP-L (Sun et al. 2017, section 5.3).

A pretrained ResNet-101 at output stride 8 with four parallel atrous branches
(rates 6, 12, 18, 24), summed; trained on VOC 2012 trainaug, scored by the mean
IoU on val at the original size of the images. The recipe: images warped to
513x513, no augmentation, batches of 6, 30,000 steps of momentum 0.9, rate 1e-3
times (1 - t/T)^0.9, weight decay 5e-4 on all that is trained, batch norm as the
checkpoint has it.

  python -m main --config configs/voc_segmentation.py:path=DIR --workdir ...

  path=DIR            prepared records, a VOCdevkit folder, or image and mask
      pairs (docs/targets.md); split=trainaug, the images to train on
  trainaug_list=FILE, trainaug_masks=PLACE    of a VOCdevkit without that list
  num_classes=20      without the background; 0 takes those of the data
  background=true|false   whether id 0 of the masks is the background
  size=513            of a side of the net's input; 8 n + 1 aligns features best
  max_size=500        of a side of the evaluation's images, at least
  init=jft|imagenet|random|PATH   workdirs/jft_resnet, workdirs/imagenet_resnet,
      none, or any workdir, checkpoint or converted weights (PATH has a slash)
  layout=slim|torch   'torch' for weights of torchvision or timm
  freeze=none|conv1|conv2|conv3|conv4|backbone   what is not trained
  depth=101|50|152

What the paper leaves open, the default first:
  output_stride=8|16  16 halves the rates
  loss_at=grid|pixels labels at the features' centres, or logits at all pixels
  resize=warp|pad     to 513x513, or as they are on a canvas of 513x513
  bn=auto|frozen|batch    auto: frozen (statistics and parameters), but trained
      for init=random, which has no statistics (frozen there trains none of it)
  head_rate=1         factor on the rate of the new branches, twice it for their
      biases; DeepLab v2 took 10
  decay_on=all|kernels

Hardware: one accelerator of 16 GiB; the paper does not name its own.
"""

from ml_collections import config_dict

from configs import common


def get_config(arg=None):
  """Arguments: see the module docstring, and tiny."""
  arg = common.parse(
    arg,
    path='data/voc12_seg',
    split='trainaug',
    trainaug_list='',
    trainaug_masks='',
    num_classes=20,
    background=True,
    size=513,
    max_size=500,
    init='jft',
    layout=('slim', 'torch'),
    freeze=common.FREEZE,
    depth=(101, 50, 152),
    output_stride=(8, 16),
    loss_at=('grid', 'pixels'),
    resize=('warp', 'pad'),
    bn=('auto', 'frozen', 'batch'),
    head_rate=1.0,
    decay_on=('all', 'kernels'),
    tiny=False,
  )
  common.at_least_one(size=arg.size, max_size=arg.max_size)
  data = dict(type='detect', path=arg.path)
  if not arg.background:
    data = {**data, 'background': False}
  if arg.trainaug_list:
    data = dict(type='voc', path=arg.path, trainaug_list=arg.trainaug_list)
    if arg.trainaug_masks:
      data['trainaug_masks'] = arg.trainaug_masks
  elif arg.trainaug_masks:
    raise ValueError(
      'config argument trainaug_masks needs trainaug_list, the images it is for'
    )

  c = common.base()
  c.total_steps = 30_000
  c.device = 'accelerator'

  c.input.source = dict(data, split=arg.split)
  c.input.ops = common.segmentation_ops(arg.resize, arg.size)
  c.input.batch_size = 6
  c.input.workers = 4

  c.model = common.resnet(
    depth=arg.depth, output_stride=arg.output_stride, freeze=arg.freeze
  )
  c.task = dict(
    type='segmentation',
    num_classes=arg.num_classes or None,
    background=arg.background,
    rates=tuple(r * 8 // arg.output_stride for r in (6, 12, 18, 24)),
    loss_at=arg.loss_at,
  )
  if arg.layout == 'torch':
    common.torch_layout(c)
  common.start_from(c, arg.init)

  c.optim = dict(
    type='momentum',
    momentum=0.9,
    weight_decay=5e-4,
    weight_decay_on=arg.decay_on,
  )
  if arg.head_rate != 1:
    c.optim.lr_multipliers = [
      (r'head/.*/kernel', arg.head_rate),
      (r'head/.*/bias', 2 * arg.head_rate),
    ]
  c.schedule = dict(type='poly', lr=1e-3, power=0.9)
  frozen = arg.bn == 'frozen' or (arg.bn == 'auto' and arg.init != 'random')
  if frozen:
    common.freeze_batch_norm(c)

  c.ckpt.every_steps = 1000
  c.evals.val = dict(
    type='semantic_segmentation',
    data=dict(data, split='val'),
    ops=common.segmentation_ops(arg.resize, arg.size, arg.max_size),
    batch_size=8,
    every_steps=5000,
    size='original',
    exclude_ids=config_dict.placeholder(str),
  )

  if arg.tiny:
    common.shrink_segmentation(c)
    c.task.background = True  # as in the masks of the synthetic world
    if arg.init in common.WORKDIRS:
      c.init_from.path = None  # there is nothing to start from
  c.lock()
  return c
