"""Operations on boxes against torchvision's.

  python -m benchmarks.detection_ops [--out benchmarks/results/detection_ops.md]

Suppression of 6,000 boxes and of all 29,184 anchors of 600x1024 pixels to 300,
and of 80 classes of 300 boxes to 100 each; crops of 14x14 with 2x2 max-pool,
against roi_align with one sample a cell; assignment and sampling of 22,800
anchors (600x800 pixels) with 100 places for boxes of which 12 are taken.

Contestants take turns in one process, a round each, after one to warm up; what
they give is compared first. torchvision's wheel is for CUDA;
tests/peers/torchvision_peer.py loads its operators beside a torch for CPUs.
"""

import argparse
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import train_step
from benchmarks.contests import Runs, contest, ready, table
from big_vision_like.ops.boxes import anchors as grids
from big_vision_like.ops.boxes import cropping, matching, suppression, targets
from big_vision_like.runtime import cpu_tuning
from tests.peers import torchvision_peer


def crowded(rng: np.random.Generator, num: int, clustered: bool):
  """Boxes float32 [num, 4] on 600 pixels, of 40 objects if so, and scores."""
  centre = rng.uniform(0, 600, (num, 2))
  if clustered:
    objects = rng.uniform(0, 600, (40, 2))
    centre = objects[rng.integers(0, 40, num)] + rng.normal(0, 15, (num, 2))
  side = np.exp(rng.uniform(np.log(20), np.log(200), (num, 2)))
  boxes = np.concatenate([centre - side / 2, centre + side / 2], axis=1)
  return boxes.astype(np.float32), rng.random(num).astype(np.float32)


def equal(kept: suppression.Kept, theirs: torch.Tensor) -> bool:
  """Whether the survivors of one image are the same boxes in the same order."""
  return np.asarray(kept.index)[np.asarray(kept.mask)].tolist() == (
    theirs.tolist()
  )


def suppressors(num: int, clustered: bool, k: int = 300) -> Runs:
  """Of one image; without a cut where there are more than 6,000 boxes."""
  import torchvision

  boxes, scores = crowded(np.random.default_rng(0), num, clustered)
  mask = np.ones(num, bool)
  tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
  of = functools.partial(suppression.suppress, iou=0.7, k=k)
  runs: Runs = {'ours': ready(of, boxes, scores, mask)}
  if num > 6000:
    batch = functools.partial(suppression.suppress_batch, iou=0.7, k=k)
    runs = {
      'ours': ready(
        lambda *image: jax.tree.map(
          lambda x: x[0], batch(*(x[None] for x in image))
        ),
        boxes, scores, mask,
      ),
      'ours, all boxes sorted': runs['ours'],
      'ours, cut at 6,000': ready(
        functools.partial(of, first=6000), boxes, scores, mask
      ),
    }  # fmt: skip
  theirs = torchvision.ops.nms(*tensors, 0.7)[:k]
  for run in runs.values():
    assert equal(run(), theirs)
  return {
    **runs, 'torchvision nms': lambda: torchvision.ops.nms(*tensors, 0.7)[:k]
  }  # fmt: skip


def suppressors_of_classes(
  clustered: bool, classes: int = 80, num: int = 300, k: int = 100
) -> Runs:
  import torchvision

  rng = np.random.default_rng(1)
  images = [crowded(rng, num, clustered) for _ in range(classes)]
  boxes, scores = (np.stack(x) for x in zip(*images))
  mask = np.ones(scores.shape, bool)
  of = functools.partial(suppression.suppress, iou=0.6, k=k)
  # As detections.detect has it.
  batch = functools.partial(
    suppression.suppress_batch, iou=0.6, k=k, first=2 * k
  )
  ours = ready(batch, boxes, scores, mask)
  tensors = [tuple(torch.from_numpy(x) for x in image) for image in images]
  loop = lambda: [torchvision.ops.nms(*pair, 0.6)[:k] for pair in tensors]
  flat = (
    torch.from_numpy(boxes.reshape(-1, 4)),
    torch.from_numpy(scores.ravel()),
  )
  label = torch.arange(classes).repeat_interleave(num)
  for number, theirs in enumerate(loop()):
    assert equal(jax.tree.map(lambda x, n=number: x[n], ours()), theirs)
  return {
    'ours': ours,
    'ours, all boxes sorted': ready(jax.vmap(of), boxes, scores, mask),
    'torchvision nms, a loop over classes': loop,
    'torchvision batched_nms': lambda: torchvision.ops.batched_nms(
      *flat, label, 0.6
    ),
  }


def croppers(num: int, backward: bool, channels: int = 1024) -> Runs:
  """Crops of one map of 38 x 50 features (600x800 pixels)."""
  import torchvision

  rng = np.random.default_rng(2)
  height, width = 38, 50
  features = rng.standard_normal((1, height, width, channels), np.float32)
  size = np.array([[600, 800]], np.int32)
  boxes, _ = crowded(rng, num, False)
  boxes = np.clip(boxes, 0, [599, 799, 600, 800]).astype(np.float32)
  weight = rng.standard_normal((1, num, 7, 7, channels), np.float32)

  def program(method: str) -> Callable[..., Any]:
    crop = functools.partial(cropping.crop_and_pool, stride=16, method=method)
    if not backward:
      return lambda features, boxes, weight: crop(features, boxes, size)
    loss = lambda features, boxes, weight: (
      crop(features, boxes, size) * weight
    ).sum()
    return jax.grad(loss)

  runs: Runs = {
    name: ready(program(method), features, boxes[None], weight)
    for name, method in (('ours', 'gather'), ('ours, products', 'matmul'))
  }
  a, b = (run() for run in runs.values())
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-3)

  maps = torch.from_numpy(features.transpose(0, 3, 1, 2).copy())
  given = [torch.from_numpy(boxes[:, [1, 0, 3, 2]].copy())]
  downstream = torch.from_numpy(weight[0].transpose(0, 3, 1, 2).copy())

  def theirs() -> torch.Tensor:
    source = maps.detach().requires_grad_(backward)
    crops = torchvision.ops.roi_align(source, given, 14, 1 / 16, 1)
    pooled = torch.nn.functional.max_pool2d(crops, 2)
    if backward:
      pooled.backward(downstream)
    return pooled

  return {**runs, 'torchvision roi_align': theirs}


def assigners(num_boxes: int = 12, places: int = 100) -> Runs:
  """Anchors that are positives and negatives of an image, 256 of them taken."""
  from torchvision.models.detection import _utils
  from torchvision.ops import box_iou

  rng = np.random.default_rng(3)
  sides = grids.cell(256, [0.25, 0.5, 1, 2], [0.5, 1, 2])
  anchors = grids.grid((38, 50), 16, sides)
  # Near anchors: no box overlaps two equally, of which torchvision takes both.
  near = anchors[rng.choice(len(anchors), places, replace=False)]
  boxes = (near + rng.normal(0, 5, near.shape)).astype(np.float32)

  def assign(key, boxes, mask):
    labels = jnp.zeros(places, jnp.int32)
    truth = matching.truth(boxes, labels, mask)
    usable = jnp.ones(len(anchors), bool)
    return targets.for_anchors(key, jnp.asarray(anchors), usable, truth)

  matcher = _utils.Matcher(0.7, 0.3, allow_low_quality_matches=True)
  sampler = _utils.BalancedPositiveNegativeSampler(256, 0.5)
  coder = _utils.BoxCoder((10.0, 10.0, 5.0, 5.0))
  swap = lambda boxes: torch.from_numpy(boxes[:, [1, 0, 3, 2]].copy())
  theirs, all_boxes = swap(anchors), swap(boxes)

  def peer(num: int) -> Any:
    own = all_boxes[:num]
    found = matcher(box_iou(own, theirs))
    labels = (found >= 0).float()
    labels[found == -2] = -1
    positive, negative = sampler([labels])
    where = positive[0].nonzero()[:, 0]
    codes = coder.encode_single(own[found[where]], theirs[where])
    return positive[0], negative[0], codes

  ours = ready(assign, jax.random.key(0), boxes, np.arange(places) < num_boxes)
  found, (positive, negative, _) = ours(), peer(num_boxes)
  assert int(found.positive.sum()) == int(positive.sum())
  assert int(found.mask.sum()) == int(positive.sum() + negative.sum())
  full = ready(assign, jax.random.key(0), boxes, np.ones(places, bool))
  return {
    'ours': ours,
    f'torchvision, {num_boxes} boxes': lambda: peer(num_boxes),
    f'ours, {places} boxes': full,
    f'torchvision, {places} boxes': lambda: peer(places),
  }


# What is contested -> its contestants.
CONTESTS: dict[str, Callable[[], Runs]] = {
  '6,000 boxes to 300, clustered': lambda: suppressors(6000, True),
  '6,000 boxes to 300, uniform': lambda: suppressors(6000, False),
  '29,184 boxes to 300, clustered': lambda: suppressors(29184, True),
  '29,184 boxes to 300, uniform': lambda: suppressors(29184, False),
  '80 classes of 300 boxes to 100, clustered': (
    lambda: suppressors_of_classes(True)
  ),
  '80 classes of 300 boxes to 100, uniform': (
    lambda: suppressors_of_classes(False)
  ),
  '64 crops of 38x50x1024, forward and backward': lambda: croppers(64, True),
  '64 crops of 38x50x1024, forward': lambda: croppers(64, False),
  '300 crops of 38x50x1024, forward': lambda: croppers(300, False),
  'assignment and sampling, 22,800 anchors': assigners,
}


def report(args: argparse.Namespace) -> str:
  """Runs the contests asked for and returns the results as Markdown."""
  machine = train_step.describe_machine(args).partition('; ')[0]
  tables = [
    table(name, contest(make(), args.rounds, args.seconds))
    for name, make in CONTESTS.items()
    if args.only in name
  ]
  return '\n\n'.join(
    [
      '# Operations on boxes',
      f'`python -m benchmarks.detection_ops {" ".join(sys.argv[1:])}`',
      f'{machine}; at most {args.rounds} rounds. Suppression gives equal '
      'indices.',
      *tables,
    ]
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description="Operations on boxes against torchvision's."
  )
  parser.add_argument('--rounds', type=int, default=15)
  parser.add_argument('--seconds', type=float, default=15, help='a contest')
  parser.add_argument('--only', default='', help='contests with this in a name')
  parser.add_argument('--out', help='Markdown file to write as well')
  args = parser.parse_args()
  args.device, args.steps = jax.default_backend(), 1
  if not torchvision_peer.compiled_operators():
    sys.exit("torchvision's compiled operators do not load here")
  text = report(args)
  print(text)
  if args.out:
    pathlib.Path(args.out).write_text(f'{text}\n', encoding='utf-8')


if __name__ == '__main__':
  cpu_tuning.reexec()
  main()
