"""Box operations against torchvision's, and crops against torch's sampling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.ops.boxes import (
  coding,
  cropping,
  detections,
  geometry,
  matching,
  sampling,
  suppression,
)
from big_vision_like.ops.boxes.proposals import Proposals
from tests.big_vision_like.ops.boxes import plain
from tests.peers import torchvision_peer

torchvision = torchvision_peer.torchvision_or_skip()
torch = pytest.importorskip('torch')


def _crowded(seed, num, whole=False):
  """Boxes of few objects, each found many times, and scores."""
  rng = np.random.default_rng(seed)
  objects = plain.random_boxes(rng, 40, extent=500, smallest=20, largest=200)
  boxes = objects[rng.integers(0, 40, num)]
  boxes = boxes + rng.normal(0, 8, boxes.shape)
  boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 4)
  scores = rng.random(num)
  if whole:  # ties of scores and overlaps
    boxes, scores = np.round(boxes / 16) * 16, np.round(scores, 2)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 16)
  return boxes.astype(np.float32), scores.astype(np.float32)


def _theirs(boxes, scores, iou):
  kept = torchvision.ops.nms(
    torch.from_numpy(boxes), torch.from_numpy(scores), iou
  )
  return kept.tolist()


def _xyxy(boxes):
  return torch.from_numpy(np.asarray(boxes)[..., [1, 0, 3, 2]].copy())


def test_iou():
  a, b = _crowded(0, 80)[0], _crowded(1, 60)[0]
  found = geometry.iou(jnp.asarray(a)[:, None], b)
  theirs = torchvision.ops.box_iou(_xyxy(a), _xyxy(b)).numpy()
  np.testing.assert_allclose(found, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('whole', [False, True])
def test_suppression_to_equal_indices(whole):
  run = jax.jit(
    suppression.suppress, static_argnames=('iou', 'k', 'first', 'tile')
  )
  everything = jnp.ones(1500, bool)
  for seed, iou in ((0, 0.7), (1, 0.6), (2, 0.3)):
    boxes, scores = _crowded(seed, 1500, whole)
    theirs = _theirs(boxes, scores, iou)
    for k in (50, 1500):
      found = run(boxes, scores, everything, iou=iou, k=k)
      assert found.index[found.mask].tolist() == theirs[:k]
    assert 10 < len(theirs) < 1450


def test_suppression_of_a_batch_without_a_cut():
  images = [_crowded(seed, 3000) for seed in (0, 1)]
  boxes, scores = (jnp.stack(x) for x in zip(*images))
  run = functools.partial(suppression.suppress_batch, iou=0.7, k=300, first=400)
  found = jax.jit(run)(boxes, scores, jnp.ones((2, 3000), bool))
  for number, image in enumerate(images):
    theirs = _theirs(*image, 0.7)[:300]
    assert found.index[number][found.mask[number]].tolist() == theirs
    assert (
      len(_theirs(*(x[np.argsort(-image[1])[:400]] for x in image), 0.7)) < 300
    )


def test_detections_of_classes():
  """Against torchvision's suppression of each class and a sort of all."""
  classes, num = 7, 60
  rng = np.random.default_rng(3)
  boxes = np.clip(_crowded(4, num)[0], 0, 512)
  given = Proposals(
    jnp.asarray(boxes)[None], jnp.zeros((1, num)), jnp.ones((1, num), bool)
  )
  logits = rng.normal(0, 2, (1, num, classes + 1)).astype(np.float32)
  codes = rng.normal(0, 0.3, (1, num, classes, 4)).astype(np.float32)
  size = np.array([[512, 512]])
  found = jax.jit(
    functools.partial(detections.detect, per_class=20, in_all=50)
  )(logits, codes, given, size, size)
  scores = torch.softmax(torch.from_numpy(logits[0]), dim=1)
  own = np.asarray(coding.decode(codes[0], jnp.asarray(boxes)[:, None]))
  own = np.clip(own, 0, 512)
  rows = []
  for label in range(classes):
    of_class = scores[:, label + 1]
    kept = torchvision.ops.nms(
      torch.from_numpy(own[:, label].copy()), of_class, 0.6
    )
    rows += [(float(of_class[i]), label, own[i, label]) for i in kept[:20]]
  rows.sort(key=lambda row: -row[0])
  assert found.labels[0].tolist() == [row[1] for row in rows[:50]]
  np.testing.assert_allclose(
    found.boxes[0], [row[2] for row in rows[:50]], atol=1e-3
  )
  np.testing.assert_allclose(
    found.scores[0], [row[0] for row in rows[:50]], atol=1e-6
  )


@pytest.mark.parametrize('force', [False, True])
def test_matching(force):
  """torchvision leaves a forced anchor with the box it overlaps most."""
  from torchvision.models.detection._utils import Matcher

  rng = np.random.default_rng(5)
  anchors, boxes = _crowded(6, 2000)[0], _crowded(7, 12)[0]
  boxes[:6] = anchors[:6] + rng.normal(0, 1, (6, 4))
  table = torchvision.ops.box_iou(_xyxy(boxes), _xyxy(anchors))
  theirs = Matcher(0.7, 0.3, allow_low_quality_matches=force)(table).numpy()
  truth = matching.truth(
    jnp.asarray(boxes), jnp.zeros(12, jnp.int32), jnp.ones(12, bool)
  )
  ours = np.asarray(
    matching.match(
      jnp.asarray(anchors), truth, positive_iou=0.7, negative_iou=0.3,
      force=force,
    )
  )  # fmt: skip
  assert {-1, -2} < set(theirs.tolist())
  if force:
    np.testing.assert_array_equal(ours >= 0, theirs >= 0)
  else:
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(('positives', 'negatives'), [(300, 900), (9, 80)])
def test_numbers_sampled(positives, negatives):
  from torchvision.models.detection._utils import (
    BalancedPositiveNegativeSampler,
  )

  labels = np.concatenate(
    [np.ones(positives), np.zeros(negatives), -np.ones(30)]
  )
  theirs = BalancedPositiveNegativeSampler(256, 0.5)([torch.from_numpy(labels)])
  found = sampling.sample(
    jax.random.key(0), jnp.asarray(labels == 1), jnp.asarray(labels == 0),
    256, 0.5,
  )  # fmt: skip
  assert int(found.positive.sum()) == int(theirs[0][0].sum())
  assert int((found.mask & ~found.positive).sum()) == int(theirs[1][0].sum())


def test_codes():
  from torchvision.models.detection._utils import BoxCoder

  boxes, anchors = _crowded(8, 50)[0], _crowded(9, 50)[0]
  coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
  theirs = coder.encode_single(_xyxy(boxes), _xyxy(anchors))
  ours = coding.encode(jnp.asarray(boxes), jnp.asarray(anchors))
  np.testing.assert_allclose(
    np.asarray(ours)[:, [1, 0, 3, 2]], theirs, rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize('method', ['gather', 'matmul'])
def test_crops_against_a_grid_with_aligned_corners(method):
  """Forward and backward; nothing is excluded, since both clamp."""
  rng = np.random.default_rng(10)
  features = rng.normal(size=(1, 13, 17, 6)).astype(np.float32)
  size = np.array([[13 * 16, 17 * 16]], np.int32)
  boxes = np.clip(
    plain.random_boxes(rng, 9, extent=200, largest=150), 0, np.tile(size, 2)
  ).astype(np.float32)

  share = np.linspace(0, 1, 14)
  normal = boxes.astype(np.float64) / np.tile(size, 2)
  along = lambda a, b: normal[:, [a]] * (1 - share) + normal[:, [b]] * share
  y, x = along(0, 2), along(1, 3)  # in 0..1, corners aligned
  grid = np.stack(
    [np.broadcast_to(x[:, None], (9, 14, 14)),
     np.broadcast_to(y[:, :, None], (9, 14, 14))], -1
  ) * 2 - 1  # fmt: skip
  maps = torch.from_numpy(features.transpose(0, 3, 1, 2).copy()).double()
  maps.requires_grad_(True)
  crops = torch.nn.functional.grid_sample(
    maps.expand(9, -1, -1, -1), torch.from_numpy(grid), mode='bilinear',
    padding_mode='border', align_corners=True,
  )  # fmt: skip
  pooled = torch.nn.functional.max_pool2d(crops, 2)
  weight = rng.normal(size=(9, 7, 7, 6)).astype(np.float32)
  (pooled.permute(0, 2, 3, 1) * torch.from_numpy(weight)).sum().backward()

  def loss(features):
    found = cropping.crop_and_pool(
      features, boxes[None], size, stride=16, method=method
    )
    return (found[0] * weight).sum(), found[0]

  (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    jnp.asarray(features)
  )
  np.testing.assert_allclose(
    found, pooled.detach().permute(0, 2, 3, 1), atol=2e-5
  )
  np.testing.assert_allclose(gradient, maps.grad.permute(0, 2, 3, 1), atol=2e-4)
