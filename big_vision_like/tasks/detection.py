"""Object detection: Faster R-CNN on a ResNet (section 5.2; Ren et al. 2015).

Blocks 1 to 3 see the whole image. A small head on their map proposes regions;
block4, at stride 1, and two dense layers look at crops of the map and say what
is there and where exactly. Layers, sampling and losses are those of the
TensorFlow Object Detection API as it was when the paper was written.

There is one block4, that of the classification checkpoint.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from big_vision_like.config.option_types import (
  Above,
  Count,
  Fraction,
  NonEmpty,
)
from big_vision_like.losses import detection as losses
from big_vision_like.models.parts import region_heads
from big_vision_like.ops import own_images
from big_vision_like.ops.boxes import (
  anchors,
  cropping,
  detections,
  matching,
  proposals,
  targets,
)
from big_vision_like.protocols import Backbone, Prediction
from big_vision_like.tasks.parts import backbone_contract, backbone_task
from big_vision_like.tasks.parts.backbone_task import Batch
from input_pipeline.labels.space import LabelSpace

# Anchors and boxes of an image that the two losses look at. The paper's text
# and the API it used disagree (SPEC D.5); the second is half as expensive.
PRESETS = {'paper': (64, 256), 'tfod': (256, 64)}
_POSITIVES = (0.5, 0.25)  # at most this share of them
_WEIGHTS = (1.0, 2.0)  # of class and location, in both stages
_MAP, _STAGE = 'block3', 'block4'
_FILED = 'block3_map'  # field of a batch
_MARKS = ('box_crowd', 'box_difficult')


Positive = Annotated[float, Above(0)]
Sides = Annotated[Sequence[Positive], NonEmpty()]


class Task(backbone_task.BackboneTask):
  """Four losses on batch['boxes'] float32 [B, N, 4] in pixels of the canvas.

  The prediction 'detections' has boxes [B, K, 4] in pixels of the original
  image, scores and labels [B, K] and mask [B, K], best first.

  Args:
    backbone: with the endpoint 'block3' and the stage 'block4', both of stride
      16 (model.output_stride=16), or 8 with a dilated block3.
    space: the labels.
    preset: 'paper' or 'tfod', see PRESETS.
    anchors_per_image, boxes_per_image: in place of the preset's.
    anchor_base: pixels of an anchor of scale 1.
    anchor_scales: sides relative to it.
    anchor_ratios: widths over heights.
    prune_anchors: no loss for those that cross the image's border.
    num_proposals: regions of an image that the second stage looks at.
    pre_nms_top_k: of the anchors, only so many of the best are suppressed;
      None: all.
    pooled_size: features of a side of a region; its crop has twice as many,
      which pooling halves.
    crops: how they are made, one of cropping.METHODS.
    rpn_channels: of the first head's convolution.
    crowd, difficult: see `matching.truth`.
    proposal_iou, box_iou: above which the lesser box falls, in the first stage
      and among detections of a class.
    score: least probability of a detection.
    per_class, max_detections: detections of an image, at most.
    max_log_size: limit of a predicted box's logarithmic size, at inference.
    pixels: see `backbone_task.scale_pixels`.
    reads: 'image', or 'block3_map': training takes that map of the frozen part
      from files (docs/frozen-features.md).

  Raises:
    ValueError: maps from files, and a backbone that trains what makes them.
  """

  def __init__(
    self,
    backbone: Backbone,
    space: LabelSpace,
    *,
    preset: Literal['paper', 'tfod'] = 'paper',
    anchors_per_image: Count | None = None,
    boxes_per_image: Count | None = None,
    anchor_base: Positive = 256.0,
    anchor_scales: Sides = (0.25, 0.5, 1.0, 2.0),
    anchor_ratios: Sides = (0.5, 1.0, 2.0),
    prune_anchors: bool = True,
    num_proposals: Count = 300,
    pre_nms_top_k: Count | None = None,
    pooled_size: Count = 7,
    crops: Literal['auto', 'gather', 'matmul'] = 'auto',
    rpn_channels: Count = 512,
    crowd: Literal['ignore', 'as_box', 'drop'] = 'ignore',
    difficult: Literal['train', 'ignore'] = 'train',
    proposal_iou: Fraction = 0.7,
    box_iou: Fraction = 0.6,
    score: Fraction = 0.0,
    per_class: Count = 100,
    max_detections: Count = 300,
    max_log_size: Positive | None = 4.135,
    pixels: backbone_task.Pixels = 'inception',
    reads: Literal['image', 'block3_map'] = 'image',
  ):
    sides = anchors.cell(anchor_base, anchor_scales, anchor_ratios)
    stride = min(getattr(backbone, 'output_stride', 16), 16)
    rpn = region_heads.RegionProposalHead(
      num_anchors=len(sides),
      channels=rpn_channels,
      rate=16 // stride,
      dtype=getattr(backbone, 'compute_dtype', 'float32'),
    )
    super().__init__(
      backbone,
      {'rpn': rpn, 'box_head': region_heads.BoxHead(space.num_classes)},
      endpoints={'rpn': _MAP, 'box_head': _STAGE},
      space=space,
      pixels=pixels,
      taps=(_MAP,),
    )
    first, second = PRESETS[preset]
    self._samples = anchors_per_image or first, boxes_per_image or second
    self._sides, self._stride = sides, stride
    self._prune = prune_anchors
    self._propose: dict[str, Any] = dict(
      k=num_proposals, iou=proposal_iou, pre_nms_top_k=pre_nms_top_k
    )
    self._crop: dict[str, Any] = dict(
      stride=stride, size=2 * pooled_size, method=crops
    )
    self._rules: dict[str, Any] = dict(crowd=crowd, difficult=difficult)
    self._max_log_size = max_log_size
    self._detect: dict[str, Any] = dict(
      iou=box_iou,
      score=score,
      per_class=per_class,
      in_all=max_detections,
      max_log_size=max_log_size,
    )
    optional = {
      'box_crowd': crowd != 'as_box',
      'box_difficult': difficult != 'train',
    }
    self._marks = tuple(name for name, read in optional.items() if read)
    self._of_map = tuple(
      pattern.removeprefix('backbone/')
      for pattern in self.frozen_parameters
      if not pattern.startswith(f'backbone/{_STAGE}/')
    )
    if reads != 'image' and f'{_MAP}/.*' not in self._of_map:
      raise ValueError(
        f"task.reads={reads!r} needs a frozen backbone: model.freeze='conv4', "
        f'not {getattr(backbone, "freeze", None)!r}'
      )
    self.fields = (
      reads, 'image_size', 'boxes', 'box_labels', 'box_mask', *self._marks,
    )  # fmt: skip

  @property
  def needs_start(self) -> str:
    """Why it cannot begin without a checkpoint; '' if it can."""
    if getattr(self._backbone, 'bn', '') != 'frozen':
      return ''
    return (
      "model.bn='frozen': the statistics of a fresh net normalise nothing. "
      "Give a checkpoint, or model.bn='batch' (init=random in the configs)"
    )

  def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
    """(params, extra) for the shapes of a batch."""
    keys = jax.random.split(rng, 3)
    image = self._blanks(batch) if _FILED in batch else self.scaled(batch)
    variables, endpoints = backbone_contract.init(
      self._backbone,
      keys[0],
      image,
      (_MAP,),
      self._taps,
      methods=('stage',),
    )
    features = endpoints[_MAP]
    side = self._crop['size'] // 2
    crops = jnp.zeros((1, side, side, features.shape[-1]), features.dtype)
    params = {'backbone': variables.pop('params')}
    pooled, _ = self._pooled(params, variables, crops, None, False)
    heads = {'rpn': (keys[1], features), 'box_head': (keys[2], pooled)}
    for name, given in heads.items():
      params[name] = self.heads[name].init(*given)['params']
    return params, variables

  def loss(
    self,
    params: Any,
    extra: Any,
    batch: Batch,
    rng: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """(loss [B], new extra, aux): the four losses by name, weighted and summed.

    'num_degenerate' counts the boxes of an image without an area, which are
    left out.
    """
    size = _sizes(batch)
    features, codes, logits, extra = self._first(
      params, extra, batch, rng, train
    )
    grid = self._anchors(batch, features)
    truth = self._truth(batch)
    keys = jax.vmap(lambda key: jax.random.split(key))(
      jax.random.split(rng, len(size))
    )
    wanted = own_images.mapped(
      lambda *image: self._anchor_targets(grid, *image),
      keys[:, 0], size, truth,
    )  # fmt: skip
    objectness, rpn_location = jax.vmap(losses.of_anchors)(
      logits, codes, wanted
    )
    found = proposals.propose(
      codes, logits, grid, size,
      train=True, prune=self._prune, **self._propose,
    )  # fmt: skip
    chosen = own_images.mapped(self._box_targets, keys[:, 1], found, truth)
    boxes = jnp.take_along_axis(found.boxes, chosen.index[..., None], axis=1)
    box_codes, box_logits, extra = self._second(
      params, extra, features, boxes, size, rng, train
    )
    classes, box_location = jax.vmap(losses.of_proposals)(
      box_logits, box_codes, chosen
    )
    of_class, of_location = _WEIGHTS
    loss = of_class * (objectness + classes)
    loss += of_location * (rpn_location + box_location)
    aux = {
      'rpn_objectness': objectness,
      'rpn_localization': rpn_location,
      'box_classification': classes,
      'box_localization': box_location,
      'num_positive_anchors': wanted.positive.sum(1).astype(jnp.float32),
      'num_positive_boxes': chosen.positive.sum(1).astype(jnp.float32),
      'num_degenerate': truth.num_degenerate.astype(jnp.float32),
    }
    return loss, extra, aux

  @property
  def predictions(self) -> dict[str, Prediction]:
    """'detections' of images, 'map_detections' of stored maps of them."""
    sizes = 'image_size', 'original_size'
    return {
      'detections': Prediction(
        self._detections, 'boxes', reads=('image', *sizes)
      ),
      'map_detections': Prediction(
        self._detections, 'boxes', reads=(_FILED, *sizes)
      ),
    }

  def frozen_map(self, params: Any, extra: Any, batch: Batch) -> jax.Array:
    """[B, h, w, D] of batch['image']: what files keep of a frozen net."""
    return self._map(params, extra, batch, None, False)[0]

  def map_weights(self, params: Any, extra: Any) -> dict[str, Any]:
    """The arrays that frozen maps follow from, by 'params/...', 'extra/...'.

    Raises:
      ValueError: not all of them are frozen.
    """
    if f'{_MAP}/.*' not in self._of_map:
      raise ValueError(
        'maps of a net that is trained would be those of no step: set '
        "model.freeze='conv4' (argument freeze=conv4)"
      )
    trees = {'params/backbone': params['backbone']}
    trees |= {f'extra/{name}': tree for name, tree in extra.items()}
    return {
      f'{name}/{path}': value
      for name, tree in trees.items()
      for path, value in flatten_dict(tree, sep='/').items()
      if any(re.fullmatch(pattern, path) for pattern in self._of_map)
    }

  def positive_anchors(self, example: Batch) -> tuple[jax.Array, jax.Array]:
    """What the first stage learns to find in an image, before it samples.

    Args:
      example: 'image' [H, W, 3], 'image_size' [2], 'boxes' [N, 4], 'box_labels'
        [N], 'box_mask' [N] and what marks boxes, of one image.

    Returns:
      anchors float32 [A, 4] of its canvas, and the box of each, int32 [A]:
      an index of 'boxes', or less than 0.
    """
    batch = {name: jnp.asarray(value)[None] for name, value in example.items()}
    truth = jax.tree.map(lambda x: x[0], self._truth(batch))
    height, width, _ = example['image'].shape
    shape = -(-height // self._stride), -(-width // self._stride)
    grid = anchors.grid(shape, self._stride, self._sides)
    own, usable = proposals.anchors_of(
      grid, batch['image_size'][0], train=True, prune=self._prune
    )
    return own, targets.of_anchors(own, usable, truth)

  def _detections(self, state: Any, batch: Batch) -> Any:
    params, extra = state.params, state.extra
    size = _sizes(batch)
    features, codes, logits, _ = self._first(params, extra, batch, None, False)
    found = proposals.propose(
      codes, logits, self._anchors(batch, features), size,
      train=False, max_log_size=self._max_log_size, **self._propose,
    )  # fmt: skip
    box_codes, box_logits, _ = self._second(
      params, extra, features, found.boxes, size, None, False
    )
    return detections.detect(
      box_logits, box_codes, found, size, batch['original_size'], **self._detect
    )._asdict()

  def _first(
    self, params: Any, extra: Any, batch: Batch, rng: Any, train: bool
  ) -> tuple[jax.Array, jax.Array, jax.Array, Any]:
    """(map, codes, logits of its anchors, new extra)."""
    features, extra = self._map(params, extra, batch, rng, train)
    head = self.heads['rpn']
    codes, logits = head.apply({'params': params['rpn']}, features)
    return features, codes, logits, extra

  def _map(
    self, params: Any, extra: Any, batch: Batch, rng: Any, train: bool
  ) -> tuple[jax.Array, Any]:
    """(map, new extra), from a file where the batch has it."""
    if _FILED in batch:
      dtype = backbone_contract.compute_dtype(self._backbone)
      return batch[_FILED].astype(dtype), extra
    ends, extra = self.apply_backbone(
      params, extra, rng, train, self.scaled(batch), **self._taps
    )
    return ends[_MAP], extra

  def _blanks(self, batch: Batch) -> jax.Array:
    """float32 [B, H, W, 3] whose maps are as large as those in a batch."""
    num, height, width, _ = batch[_FILED].shape
    return jnp.zeros((num, height * self._stride, width * self._stride, 3))

  def _second(
    self,
    params: Any,
    extra: Any,
    features: jax.Array,
    boxes: jax.Array,
    size: jax.Array,
    rng: Any,
    train: bool,
  ) -> tuple[jax.Array, jax.Array, Any]:
    """(codes [B, R, C, 4], logits [B, R, C + 1], new extra) of boxes."""
    crops = cropping.crop_and_pool(features, boxes, size, **self._crop)
    flat = crops.reshape(-1, *crops.shape[2:])
    pooled, extra = self._pooled(params, extra, flat, rng, train)
    codes, logits = self.heads['box_head'].apply(
      {'params': params['box_head']}, pooled
    )
    lead = boxes.shape[:2]
    return (
      codes.reshape(*lead, *codes.shape[1:]),
      logits.reshape(*lead, -1),
      extra,
    )

  def _pooled(
    self, params: Any, extra: Any, crops: jax.Array, rng: Any, train: bool
  ) -> tuple[jax.Array, Any]:
    """(float32 [N, D] means of block4 over crops [N, s, s, C], new extra)."""
    out, extra = self.apply_backbone(
      params, extra, rng, train, crops, _STAGE, stride=1, rate=1, method='stage'
    )
    return out.mean((1, 2), dtype=jnp.float32), extra

  def _anchors(self, batch: Batch, features: jax.Array) -> Any:
    _, height, width, _ = features.shape
    return anchors.grid((height, width), self._stride, self._sides)

  def _truth(self, batch: Batch) -> matching.Truth:
    marks = [batch[n] if n in self._marks else None for n in _MARKS]
    given = batch['boxes'], batch['box_labels'], batch['box_mask'], *marks
    return jax.vmap(lambda *image: matching.truth(*image, **self._rules))(
      *given
    )

  def _anchor_targets(
    self, grid: Any, key: jax.Array, size: jax.Array, truth: matching.Truth
  ) -> targets.Targets:
    own, usable = proposals.anchors_of(
      grid, size, train=True, prune=self._prune
    )
    return targets.for_anchors(
      key, own, usable, truth, size=self._samples[0], fraction=_POSITIVES[0]
    )

  def _box_targets(
    self, key: jax.Array, found: proposals.Proposals, truth: matching.Truth
  ) -> targets.Targets:
    return targets.for_proposals(
      key, found.boxes, found.mask, truth,
      size=self._samples[1], fraction=_POSITIVES[1],
    )  # fmt: skip


def _sizes(batch: Batch) -> jax.Array:
  """int32 [B, 2]; 1 for blanks, whose sizes are 0 and which do not count."""
  return jnp.maximum(batch['image_size'], 1)
