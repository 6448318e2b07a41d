"""Pose of one person in a crop: G-RMI (Papandreou et al. 2017; section 5.4).

Sun et al. 2017 train a ResNet of output stride 8 whose last layer says, at
every position of a crop, whether a keypoint is near and the way to it; a second
layer in the middle of block3 learns the first half of that too. In training
both are compared with discs around the keypoints, in use the positions vote for
where the keypoints are (ops/keypoints).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from big_vision_like.config.option_types import Above, AtLeast
from big_vision_like.losses import pose as losses
from big_vision_like.models.parts import position_head
from big_vision_like.ops import interpolation, own_images
from big_vision_like.ops.keypoints import discs, maps, poses, voting
from big_vision_like.protocols import Backbone, Prediction
from big_vision_like.tasks.parts import backbone_contract, backbone_task
from big_vision_like.tasks.parts.backbone_task import Batch
from input_pipeline.labels.space import LabelSpace, Skeleton

_FEATURES = 'block4'
_PERSON, _OTHERS = 'person_keypoints', 'other_keypoints'  # fields of a batch

Positive = Annotated[float, Above(0)]
Weight = Annotated[float, AtLeast(0)]


class Task(backbone_task.BackboneTask):
  """Two losses on batch['person_keypoints'] float32 [B, K, 3], and a third.

  Keypoints are y, x in pixels of the crop and visibility, 0 where nobody
  labelled them; they may lie outside. batch['other_keypoints'] [B, P, K, 3] are
  those of other people in the crop, visibility 0 where there are none; the
  third loss alone reads them. A crop has n * stride + 1 pixels a side.

  The prediction 'poses' has keypoints [B, K, 3], y, x in pixels of the original
  image and confidence, and scores [B]. It reads batch['crop_to_image'] float32
  [B, 2, 3]: (y, x) in the image is its product with (y, x, 1) in the crop.
  'heatmaps' are the logits of the discs [B, h, w, K] on the grid of features.

  Args:
    backbone: see `backbone_task.BackboneTask`; with the endpoint 'block4', of
      stride 8 in the paper.
    space: the labels; its keypoints are those that are learnt.
    radius: of the discs, pixels of the crop.
    huber_delta: pixels; above it the loss of an offset grows linearly.
    heatmap_weight, offset_weight: of the two losses.
    auxiliary: endpoint that the third loss is on, heatmaps alone, or None: no
      such loss. 'block3/unit10' is layer 50 of a ResNet-101.
    auxiliary_weight: of the third loss.
    loss_at: 'pixels': maps are interpolated to the crop's pixels; 'grid': the
      positions of the features are compared, cheaper and coarser.
    unlabelled: 'mask': keypoints without a label have no loss; 'negative': the
      heatmap is to be empty.
    reduction: losses are means over the positions, those of offsets too, or
      sums as in Papandreou et al.; learning rates differ by as much.
    voting: which positions vote, see `voting.fuse`.
    accumulate: how votes are added, see `voting.fuse`.
    pixels: see `backbone_task.scale_pixels`.

  Raises:
    ValueError: data without keypoints, or whose keypoints have no names.
  """

  def __init__(
    self,
    backbone: Backbone,
    space: LabelSpace,
    *,
    radius: Positive = 25.0,
    huber_delta: Positive = 1.0,
    heatmap_weight: Weight = 4.0,
    offset_weight: Weight = 1.0,
    auxiliary: str | None = 'block3/unit10',
    auxiliary_weight: Weight = 4.0,
    loss_at: Literal['pixels', 'grid'] = 'pixels',
    unlabelled: losses.Unlabelled = 'mask',
    reduction: losses.Reduction = 'mean',
    voting: voting.Voting = 'top',
    accumulate: voting.Method = 'auto',
    pixels: backbone_task.Pixels = 'inception',
  ):
    self.skeleton = _skeleton(space)
    num = len(self.skeleton.names)
    dtype = backbone_contract.compute_dtype(backbone)
    head = lambda outputs: position_head.PositionHead(outputs, dtype)
    heads = {'keypoints': head(maps.PER_KEYPOINT * num)}
    endpoints = {'keypoints': _FEATURES}
    if auxiliary is not None:
      heads['auxiliary'] = head(num)
      endpoints['auxiliary'] = auxiliary
    super().__init__(
      backbone,
      heads,
      endpoints=endpoints,
      space=space,
      pixels=pixels,
      taps=() if auxiliary is None else (_FEATURES, auxiliary),
    )
    self.fields = ('image', _PERSON)
    if auxiliary is not None:
      self.fields += (_OTHERS,)
    self._weights = {
      'heatmap': heatmap_weight,
      'offset': offset_weight,
      'auxiliary_heatmap': auxiliary_weight,
    }
    self._auxiliary, self._loss_at, self._radius = auxiliary, loss_at, radius
    self._of_heatmaps: dict[str, Any] = dict(
      unlabelled=unlabelled, reduction=reduction
    )
    self._of_offsets: dict[str, Any] = dict(
      delta=huber_delta, reduction=reduction
    )
    self._vote: dict[str, Any] = dict(
      radius=radius, voting=voting, method=accumulate
    )

  def init(self, rng: jax.Array, batch: Batch) -> tuple[Any, Any]:
    """(params, extra) for the shapes of a batch.

    Raises:
      ValueError: a crop whose sides are not n * stride + 1 pixels, another
        number of keypoints than the data's, a model without the endpoints.
    """
    self._check_keypoints(batch)
    try:
      return super().init(rng, batch)
    except ValueError as error:
      if self._auxiliary is None or 'taps' not in str(error):
        raise
      raise ValueError(
        f'task.auxiliary={self._auxiliary!r} (None: no such loss): {error}'
      ) from error

  def check_endpoints(
    self, image: jax.Array, endpoints: Mapping[str, jax.Array]
  ) -> None:
    """Raises ValueError where a map does not reach a crop's last pixels."""
    for name in self._endpoints.values():
      _stride_of(name, image.shape[1:3], endpoints[name].shape[1:3])

  def loss(
    self,
    params: Any,
    extra: Any,
    batch: Batch,
    rng: jax.Array,
    train: bool,
  ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
    """(loss [B], new extra, aux): the losses by name, before their weights.

    'num_labelled' counts the keypoints of a person whose place is known.
    """
    self._check_keypoints(batch)
    image, keypoints = self.scaled(batch), batch[_PERSON]
    outputs, extra = self.outputs(params, extra, image, rng, train)
    found, grid = self._compared('keypoints', outputs, image)
    logits, offsets = maps.split(found)
    targets = discs.targets(keypoints, **grid)
    aux = {
      'heatmap': losses.of_heatmaps(logits, targets, **self._of_heatmaps),
      'offset': losses.of_offsets(offsets, targets, **self._of_offsets),
    }
    if self._auxiliary is not None:
      logits, grid = self._compared('auxiliary', outputs, image)
      aux['auxiliary_heatmap'] = losses.of_heatmaps(
        logits,
        discs.targets(keypoints, **grid),
        excluded=discs.of_others(batch[_OTHERS], **grid),
        **self._of_heatmaps,
      )
    loss = jnp.zeros(len(image), jnp.float32)
    for name, value in aux.items():
      loss += self._weights[name] * value
    aux['num_labelled'] = (keypoints[..., 2] > 0).sum(-1).astype(jnp.float32)
    return loss, extra, aux

  @property
  def predictions(self) -> dict[str, Prediction]:
    """'poses'; 'heatmaps', what they are made of; 'features', pooled."""
    return {
      'poses': Prediction(
        self._poses, 'pose', reads=('image', 'crop_to_image')
      ),
      'heatmaps': Prediction(self._heatmaps, 'pose'),
      'features': super().predictions['features'],
    }

  def _poses(self, state: Any, batch: Batch) -> Any:
    _, height, width, _ = batch['image'].shape
    shape = height, width
    one = lambda *crop: poses.pose(*crop, shape=shape, **self._vote)
    found = own_images.mapped(
      one, self._maps(state, batch), batch['crop_to_image']
    )
    return found._asdict()

  def _heatmaps(self, state: Any, batch: Batch) -> Any:
    num = len(self.skeleton.names)
    return {'heatmaps': self._maps(state, batch)[..., :num]}

  def _maps(self, state: Any, batch: Batch) -> jax.Array:
    """float32 [B, h, w, 3 K]; nothing is computed for the third loss."""
    image = self.scaled(batch)
    taps = {'taps': (_FEATURES,)} if self._taps else {}
    endpoints, _ = self.apply_backbone(
      state.params, state.extra, None, False, image, **taps
    )
    found = self.heads['keypoints'].apply(
      {'params': state.params['keypoints']}, endpoints[_FEATURES]
    )
    _stride_of(_FEATURES, image.shape[1:3], found.shape[1:3])
    return found

  def _compared(
    self, head: str, outputs: Mapping[str, jax.Array], image: jax.Array
  ) -> tuple[jax.Array, dict[str, Any]]:
    """A head's maps [B, C, h, w] as losses take them, and where they lie."""
    found, shape = outputs[head], image.shape[1:3]
    small = found.shape[1:3]
    stride = _stride_of(self._endpoints[head], shape, small)
    if self._loss_at == 'grid':
      found, shape = jnp.moveaxis(found, -1, 1), small
    else:
      found, stride = interpolation.to_pixels(found, *shape), 1
    return found, dict(shape=shape, stride=stride, radius=self._radius)

  def _check_keypoints(self, batch: Batch) -> None:
    num = len(self.skeleton.names)
    for name in batch.keys() & {_PERSON, _OTHERS}:
      found = batch[name].shape[-2]
      if found != num:
        raise ValueError(
          f'the field {name!r} has {found} keypoints, the data name {num}: '
          f'{", ".join(self.skeleton.names)}'
        )


def _skeleton(space: LabelSpace) -> Skeleton:
  """The keypoints of the data, which have names."""
  if space.keypoints is None or space.keypoints.anonymous:
    missing = (
      'have no keypoints'
      if space.keypoints is None
      else ('do not name their keypoints (prepared by an older version)')
    )
    raise ValueError(
      f'the task pose: the data {missing}; the label space of a source says '
      'their names, pairs and sigmas (docs/add-a-source.md)'
    )
  return space.keypoints


def _stride_of(name: str, image: tuple[int, ...], grid: tuple[int, ...]) -> int:
  """Pixels a feature of a map whose corners are those of the crop.

  Raises:
    ValueError: the last pixels of the crop are beyond the last features.
  """
  stride = interpolation.stride_between(image, grid)
  if any((few - 1) * stride + 1 != many for few, many in zip(grid, image)):
    valid = [(n - 1) // stride * stride + 1 for n in image]
    above = [n if n == m else n + stride for n, m in zip(valid, image)]
    fits = ' or '.join(dict.fromkeys(f'{h}x{w}' for h, w in (valid, above)))
    raise ValueError(
      f'a crop of {image[0]}x{image[1]} pixels and the endpoint {name!r} of '
      f'{grid[0]}x{grid[1]} features: the sides of a crop must be n * {stride} '
      f'+ 1 pixels, here {fits}'
    )
  return stride
