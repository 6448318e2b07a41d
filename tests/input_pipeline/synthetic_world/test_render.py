"""Images of the synthetic world and what is said about them."""

import dataclasses

import numpy as np
import pytest

from input_pipeline.sources.synthetic import Source
from input_pipeline.synthetic_world import appearance
from input_pipeline.synthetic_world.scene import single


@pytest.fixture(scope='module')
def world():
  return Source(num_classes=100, seed=5).world


def test_annotations_of_the_source():
  source = Source(num_classes=30, annotations=True, num_keypoints=5)
  plain = Source(num_classes=30, num_keypoints=5)
  for i in range(20):
    example = source[i]
    n = len(example['boxes'])
    assert np.array_equal(example['image'], plain[i]['image'])
    assert example['boxes'].shape == (n, 4)
    assert example['boxes'].dtype == np.float32
    assert example['box_labels'].shape == (n,)
    assert example['box_labels'].dtype == np.int32
    assert example['instance_map'].shape == (64, 64)
    assert example['instance_map'].dtype == np.int16
    assert example['keypoints'].shape == (n, 5, 3)
    assert example['keypoints'].dtype == np.float32


@pytest.mark.parametrize('size', [32, 96])
def test_boxes_are_tight_around_what_is_seen(world, size):
  for i in range(150):
    drawn = world.render(world.scene(i), size)
    for k, (y0, x0, y1, x1) in enumerate(drawn.boxes.astype(int).tolist()):
      seen = drawn.instance_map == k + 1
      assert seen.any(), (i, k)
      assert seen[y0:y1, x0:x1].sum() == seen.sum()
      assert seen[y0].any() and seen[y1 - 1].any()
      assert seen[:, x0].any() and seen[:, x1 - 1].any()
    assert drawn.instance_map.max() <= len(drawn.boxes)


def test_masks_are_amodal(world):
  hidden = []
  for i in range(150):
    scene = world.scene(i)
    drawn = world.render(scene, 64, amodal=True)
    top = np.zeros((64, 64), int)
    for k, mask in enumerate(drawn.masks):
      seen = drawn.instance_map == k + 1
      assert not (seen & ~mask).any()
      hidden.append(1 - seen.sum() / mask.sum())
      top[mask] = k + 1
    if not scene.before:  # later objects lie on top
      assert np.array_equal(top, drawn.instance_map)
    alone = dataclasses.replace(scene, objects=scene.objects[:1])
    first = world.render(alone, 64, amodal=True)
    assert np.array_equal(first.masks[0], drawn.masks[0])
  assert max(hidden) > 0.1  # things do hide each other
  assert np.mean(np.array(hidden) > 0.6) < 0.02  # but stay recognisable


def test_keypoints(world):
  states = np.zeros(3, int)
  for i in range(150):
    drawn = world.render(world.scene(i), 128)
    for k, points in enumerate(drawn.keypoints):
      for y, x, state in points.tolist():
        states[int(state)] += 1
        if state == 0:
          assert y == x == 0
          continue
        assert 0 <= y < 128 and 0 <= x < 128
        owner = drawn.instance_map[int(y), int(x)]
        assert (owner == k + 1) == (state == 2)
  assert (states > 50).all(), states
  assert states[2] / states.sum() > 0.8


def test_what_the_source_says_of_keypoints():
  options = dict(num_classes=30, num_keypoints=5)
  found = Source(annotations=True, **options).keypoints
  assert found is not None
  assert found.names == ('eye', 'rim1', 'rim2', 'rim3', 'rim4')
  assert found.pairs == ((1, 4), (2, 3))  # i and K - i
  assert found.sigmas == (0.05,) * 5
  assert Source(**options).keypoints is None


def test_first_keypoint_is_the_eye(world):
  for label in world.taxonomy.leaves[:40].tolist():
    scene = single(label, np.random.default_rng(label))
    drawn = world.render(scene, 128)
    y, x, state = drawn.keypoints[0, 0]
    assert state == 2
    assert drawn.image[int(y), int(x)].max() < 20  # black pupil
    radius = scene.objects[0].radius * 128
    away = np.hypot(y - 64, x - 64) / radius
    assert 0.1 < away < 0.95
    angle = scene.objects[0].angle
    turn = np.arctan2(y - 64, x - 64) - angle
    assert np.cos(turn) == pytest.approx(1, abs=1e-3)


def test_keypoints_come_in_pairs_about_the_axis(world):
  scene = single(int(world.taxonomy.leaves[3]), np.random.default_rng(0))
  points = world.render(scene, 256).keypoints[0, :, :2]
  thing = scene.objects[0]
  c, s = np.cos(thing.angle), np.sin(thing.angle)
  y, x = (points - 128).T
  u, v = x * c + y * s, y * c - x * s
  for i in range(1, 9):
    assert v[i] >= 0 >= v[17 - i]
  pinwheel = appearance.FAMILIES.index('pinwheel')
  for label in world.taxonomy.leaves[:30].tolist():
    if world.appearance.family[label] == pinwheel:
      continue  # the one family that is not its own mirror image
    scene = single(label, np.random.default_rng(1))
    thing = scene.objects[0]
    points = world.render(scene, 256).keypoints[0, :, :2]
    c, s = np.cos(thing.angle), np.sin(thing.angle)
    y, x = (points - 128).T
    u, v = x * c + y * s, y * c - x * s
    assert np.allclose(u[1:], u[:0:-1], atol=2)
    assert np.allclose(v[1:], -v[:0:-1], atol=2)


def test_the_same_scene_at_other_sizes(world):
  """A small image is the large one averaged over blocks."""
  for i in range(20):
    scene = dataclasses.replace(world.scene(i), grain=0.0)
    large, small = world.render(scene, 256), world.render(scene, 32)
    blocks = large.image.reshape(32, 8, 32, 8, 3).mean((1, 3))
    difference = np.abs(blocks - small.image)
    assert difference.mean() < 8
    assert np.median(difference) < 4
    assert np.allclose(small.boxes * 8, large.boxes, atol=24)
    assert (
      np.allclose(
        small.keypoints[..., :2] * 8, large.keypoints[..., :2], atol=1e-2
      )
      or not (small.keypoints[..., 2] == large.keypoints[..., 2]).all()
    )


@pytest.mark.parametrize('size', [16, 32, 299, 512, 1024])
def test_any_size(size):
  drawn = Source(image_size=size, annotations=True)[3]
  assert drawn['image'].shape == (size, size, 3)
  assert drawn['image'].std() > 5


def test_scenes_stay_inside_and_apart(world):
  numbers = []
  for i in range(500):
    things = world.scene(i).objects
    numbers.append(len(things))
    assert [t.radius for t in things] == sorted(
      (t.radius for t in things), reverse=True
    )
    for k, a in enumerate(things):
      assert 0 < a.y < 1 and 0 < a.x < 1 and 0.04 < a.radius <= 0.4
      for b in things[:k]:
        apart = np.hypot(a.y - b.y, a.x - b.x)
        assert apart > 0.54 * (a.radius + b.radius)
  assert set(numbers) == {1, 2, 3, 4}


def test_clutter_is_graded():
  """More clutter, more of the image that has nothing to do with its class."""
  spreads = []
  for clutter in (0.0, 0.5, 1.0, 2.0):
    world = Source(clutter=clutter).world
    images = [world.render(world.scene(i), 32) for i in range(150)]
    ground = [d.image[d.instance_map == 0].std(0).mean() for d in images]
    spreads.append(np.mean(ground))
  assert spreads == sorted(spreads)
  assert spreads[0] < 0.6 * spreads[2]


def histogram(world, label: int, count: int = 6) -> np.ndarray:
  """Mean colour histogram (4 x 4 x 4) of the object's pixels."""
  total = np.zeros(64)
  for i in range(count):
    scene = single(label, np.random.default_rng(i))
    drawn = world.render(scene, 48)
    pixels = drawn.image[drawn.instance_map == 1] // 64
    bins = pixels @ np.array([16, 4, 1])
    total += np.bincount(bins, minlength=64) / len(bins)
  return total / count


@pytest.mark.parametrize('seed', [0, 1])
def test_near_classes_look_alike(seed):
  world = Source(num_classes=150, depth=3, seed=seed).world
  tree = world.taxonomy
  leaves = tree.leaves[tree.level[tree.leaves] == 3].tolist()
  looks = {c: histogram(world, c) for c in leaves}
  by_relation: dict[str, list[float]] = {'sibling': [], 'cousin': [], 'far': []}
  for a in leaves:
    for b in leaves:
      if a < b:
        if tree.parent[a] == tree.parent[b]:
          relation = 'sibling'
        elif tree.group[a] == tree.group[b]:
          relation = 'cousin'
        else:
          relation = 'far'
        distance = np.abs(looks[a] - looks[b]).sum() / 2
        by_relation[relation].append(distance)
  means = {k: np.mean(v) for k, v in by_relation.items()}
  assert means['sibling'] < means['cousin'] < means['far'], means
  assert means['sibling'] < 0.85 * means['far'], means


def test_siblings_share_the_outline_family(world):
  tree, family = world.taxonomy, world.appearance.family
  below = np.flatnonzero(tree.parent >= 0)
  assert np.array_equal(family[below], family[tree.parent[below]])
  groups = family[tree.group_label]
  assert len(set(groups.tolist())) == min(len(groups), 10)


@pytest.mark.parametrize('family', appearance.FAMILIES)
@pytest.mark.parametrize('k', [3, 6, 9])
@pytest.mark.parametrize('d', [0.25, 0.5, 0.75])
def test_outlines(family, k, d):
  r = appearance.outline(family, k, d)
  assert r.shape == (appearance.BINS,)
  assert r.dtype == np.float32
  assert r.max() == 1
  assert r.min() > 0.05


def test_textures_all_draw(world):
  label = int(world.taxonomy.leaves[0])
  scene = single(label, np.random.default_rng(0))
  images = []
  from input_pipeline.synthetic_world.render import draw_image

  for kind in range(len(appearance.TEXTURES)):
    look = dataclasses.replace(world.appearance.look(label), texture=kind)
    images.append(draw_image(scene, [look], 64)[0].astype(float))
  for i, a in enumerate(images):
    for b in images[:i]:
      assert np.abs(a - b).mean() > 2
