"""Targets follow the pixels: pictures of them go through the same ops."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from input_pipeline import ops as example_ops
from input_pipeline import pipeline
from input_pipeline.examples import outlines
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops.context import OpContext
from input_pipeline.publishers.coco.skeletons import PERSON
from input_pipeline.sources.synthetic import Source

CHAINS = {
  'enlarge': [dict(op='resize', size=(150, 190))],
  'reduce': [dict(op='resize', size=(50, 70))],
  'antialias': [dict(op='resize', size=(50, 70), antialias=True)],
  'small': [dict(op='resize_small', size=120)],
  'small, limited': [dict(op='resize_small', size=150, max_size=160)],
  'long': [dict(op='resize_long', size=170)],
  'crop': [dict(op='random_crop', size=(60, 81))],
  'center': [dict(op='center_crop', size=(60, 81))],
  'central': [dict(op='central_crop', fraction=0.7)],
  'flip': [dict(op='random_flip', probability=1.0)],
  'all': [
    dict(op='resize', size=(120, 110)),
    dict(op='random_crop', size=(90, 85)),
    dict(op='random_flip'),
    dict(op='pad', size=100, fill=0),
  ],
}


def build(specs):
  return example_ops.build(specs, OpContext(keypoint_pairs=PERSON.pairs))


def run(specs, example, seed=0):
  rng = np.random.default_rng(seed)
  for op in build(specs):
    example = op(example, rng)
  return example


def blank(height, width):
  return np.zeros((height, width, 3), np.uint8)


def annotated(rng, num=5, height=80, width=100):
  """Whole-numbered boxes, points and masks of one another."""
  y = np.sort(rng.integers(0, height + 1, (num, 2)), 1)
  x = np.sort(rng.integers(0, width + 1, (num, 2)), 1)
  y[:, 1] += y[:, 0] == y[:, 1]
  x[:, 1] += x[:, 0] == x[:, 1]
  boxes = np.stack([y[:, 0], x[:, 0], y[:, 1], x[:, 1]], 1).astype(np.float32)
  ids = np.zeros((height, width), np.uint8)
  for i, (y0, x0, y1, x1) in enumerate(boxes.astype(int)):
    ids[y0:y1, x0:x1] = i + 1
  points = rng.integers(1, [height, width], (num, 17, 2))
  seen = rng.integers(0, 3, (num, 17, 1))
  keypoints = np.concatenate([points * (seen > 0), seen], -1)
  return {
    'image': blank(height, width),
    'boxes': boxes,
    'box_labels': np.arange(num, dtype=np.int32),
    'box_ids': np.arange(num, dtype=np.int64) + 100,
    'box_crowd': np.arange(num) % 2 == 1,
    'box_area': (boxes[:, 2:] - boxes[:, :2]).prod(1),
    'keypoints': keypoints.astype(np.float32),
    'box_outlines': [
      [[x0, y0, x1, y0, x1, y1, x0, y1]] for y0, x0, y1, x1 in boxes.tolist()
    ],
    'segmentation': ids,
  }


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('name', CHAINS)
def test_boxes_and_outlines_lie_where_the_pixels_went(name, seed):
  specs = CHAINS[name]
  example = annotated(np.random.default_rng(seed))
  out = run(specs, example, seed)
  height, width = example['image'].shape[:2]
  left = dict(zip(out['box_ids'].tolist(), range(len(out['boxes']))))
  for i, (y0, x0, y1, x1) in enumerate(example['boxes'].astype(int)):
    picture = blank(height, width)
    picture[y0:y1, x0:x1] = 255
    moved = run(specs, {'image': picture}, seed)['image'][..., 0] > 127
    if not moved.any():
      continue  # thinner than a pixel now, or cut away
    place = left[100 + i]
    rows, columns = np.flatnonzero(moved.any(1)), np.flatnonzero(moved.any(0))
    tight = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    assert np.abs(out['boxes'][place] - tight).max() <= 1, (i, tight)
    drawn = outlines.mask(out['box_outlines'][place], *moved.shape)
    rim = moved.shape[0] + moved.shape[1]  # bilinear: half a pixel all around
    assert (drawn ^ moved).sum() <= rim
    assert abs(out['box_area'][place] - moved.sum()) <= rim
    assert out['box_labels'][place] == i


@pytest.mark.parametrize('name', CHAINS)
def test_keypoints_lie_where_the_pixels_went(name):
  specs = CHAINS[name]
  rng = np.random.default_rng(4)
  order = np.arange(17)
  for a, b in PERSON.pairs:
    order[[a, b]] = b, a
  for seed in range(6):
    y, x = rng.integers(3, 77), rng.integers(3, 97)
    k = int(rng.integers(17))
    picture = blank(80, 100)
    picture[y - 2 : y + 2, x - 2 : x + 2] = 255  # its middle is (y, x)
    keypoints = np.zeros((1, 17, 3), np.float32)
    keypoints[0, k] = y, x, 2
    example = {
      'image': picture,
      'boxes': np.float32([[0, 0, 80, 100]]),
      'keypoints': keypoints,
    }
    out = run(specs, example, seed)
    flipped = run(  # does this seed's chance mirror? A ramp shows it
      specs,
      {'image': np.tile(np.arange(100, dtype=np.uint8)[:, None], (80, 1, 3))},
      seed,
    )['image'][5, :, 0]
    place = order[k] if int(flipped[20]) > int(flipped[60]) else k
    moved = np.argwhere(out['image'][..., 0] > 127)
    found = out['keypoints'][0]
    others = np.delete(found, place, axis=0)
    np.testing.assert_array_equal(others, 0)
    if found[place, 2] == 2:
      assert np.abs(found[place, :2] - (moved.mean(0) + 0.5)).max() <= 1.1
    else:
      assert len(moved) <= 12  # at most a part of the spot is left
      np.testing.assert_array_equal(found[place], 0)


@pytest.mark.parametrize('name', CHAINS)
def test_segmentation_has_the_classes_of_the_pixels(name):
  specs = CHAINS[name]
  example = annotated(np.random.default_rng(1))
  out = run(specs, example, 3)
  assert out['segmentation'].dtype == np.uint8
  assert out['segmentation'].shape == out['image'].shape[:2]
  picture = np.repeat((example['segmentation'] == 5)[..., None], 3, 2)
  moved = run(specs, {'image': picture.astype(np.uint8) * 255}, 3)['image']
  wrong = (out['segmentation'] == 5) ^ (moved[..., 0] > 127)
  assert wrong.sum() <= sum(wrong.shape)  # one pixel along the rim
  known = out['segmentation'] != 255
  padded = (known.shape[0] - 90) * 100 + 90 * 15 if name == 'all' else 0
  assert (~known).sum() == padded


@pytest.mark.parametrize('crop', ['random_crop', 'center_crop', None])
@pytest.mark.parametrize('flip', [True, False])
def test_fused_ops_equal_the_single_ones_bit_by_bit(crop, flip):
  specs = [dict(op='resize', size=(71, 93))]
  specs += [dict(op=crop, size=(47, 51), min_box_overlap=0.2)] if crop else []
  specs += [dict(op='random_flip')] if flip else []
  fused = build(specs)
  singles = [op for spec in specs for op in build([spec])]
  assert len(fused) == 1 and len(singles) == len(specs)
  for seed in range(8):
    example = annotated(np.random.default_rng(seed))
    example['box_outlines'][0] = {'size': [2, 2], 'counts': [1, 2, 1]}
    one, two = np.random.default_rng(seed), np.random.default_rng(seed)
    a, b = fused[0](example, one), example
    for op in singles:
      b = op(b, two)
    assert a.keys() == b.keys()
    assert a.pop('box_outlines') == b.pop('box_outlines')
    for name in a:
      np.testing.assert_array_equal(a[name], b[name], name)
      assert a[name].dtype == b[name].dtype == example[name].dtype
    assert one.bit_generator.state == two.bit_generator.state


def test_resize_maps_edges_to_edges():
  example = {'image': blank(375, 500), 'boxes': np.float32([[0, 0, 375, 500]])}
  out = run([dict(op='resize', size=(340, 299))], example)
  assert out['boxes'].tolist() == [[0, 0, 340, 299]]


def test_crop_by_hand():
  example = {
    'image': blank(10, 10),
    'boxes': np.float32(
      [[0, 0, 4, 4], [4, 4, 6, 6], [8, 8, 10, 10], [1, 5, 5, 9], [5, 5, 5, 5]]
    ),
    'box_labels': np.int32([0, 1, 2, 3, 4]),
    'box_difficult': np.array([True, False, True, False, False]),
    'box_area': np.float32([8, 4, 4, 16, 0]),
    'keypoints': np.float32(
      [[[3, 3, 2]], [[5, 5, 1]], [[9, 9, 2]], [[1, 5, 2]], [[5, 5, 2]]]
    ),
  }
  crop = dict(op='center_crop', size=6)  # rows and columns 2 to 8
  out = run([crop], example)
  assert out['boxes'].tolist() == [
    [0, 0, 2, 2], [2, 2, 4, 4], [0, 3, 3, 6], [3, 3, 3, 3],
  ]  # fmt: skip
  assert out['box_labels'].tolist() == [0, 1, 3, 4]
  assert out['box_difficult'].tolist() == [True, False, False, False]
  # a quarter of the first, 9 of 16 pixels of the fourth
  assert out['box_area'].tolist() == [2, 4, 9, 0]
  assert out['keypoints'].tolist() == [
    [[1, 1, 2]], [[3, 3, 1]], [[0, 0, 0]], [[3, 3, 2]],
  ]  # fmt: skip
  kept = run([crop | dict(min_box_overlap=0.5)], example)
  assert kept['box_labels'].tolist() == [1, 3, 4]


def test_area_after_a_crop_is_that_of_the_outline():
  triangle = [[0.0, 0.0, 10.0, 0.0, 0.0, 10.0]]  # the half at the top left
  runs = outlines._to_runs(outlines.mask([[0, 0, 4, 0, 4, 2, 0, 2]], 10, 10))
  example = {
    'image': blank(10, 10),
    'boxes': np.float32([[0, 0, 10, 10], [0, 0, 2, 4]]),
    'box_area': np.float32([50, 8]),
    'box_outlines': [triangle, runs],
  }
  out = run([dict(op='center_crop', size=(10, 4))], example)  # columns 3 to 7
  # The triangle's columns are 10 - x high: the integral from 3 to 7 is 20.
  np.testing.assert_allclose(out['box_area'], [20, 2])
  assert outlines.area(out['box_outlines'][0]) == 20
  assert outlines.area(out['box_outlines'][1]) == 2


def test_flip_swaps_left_and_right_by_hand():
  keypoints = np.zeros((1, 17, 3), np.float32)
  keypoints[0, 5] = 4, 1, 2  # left shoulder
  keypoints[0, 0] = 2, 3, 1  # nose
  example = {
    'image': blank(10, 10),
    'boxes': np.float32([[0, 1, 5, 4]]),
    'keypoints': keypoints,
  }
  flip = dict(op='random_flip', probability=1.0)
  out = run([flip], example)
  assert out['boxes'].tolist() == [[0, 6, 5, 9]]
  assert out['keypoints'][0, 6].tolist() == [4, 9, 2]  # the right one now
  assert out['keypoints'][0, 0].tolist() == [2, 7, 1]
  assert out['keypoints'][0, 5].tolist() == [0, 0, 0]
  none = run([flip | dict(keypoint_pairs=[])], example)
  assert none['keypoints'][0, 5].tolist() == [4, 9, 2]
  other = run([flip | dict(keypoint_pairs=[[0, 5]])], example)
  assert other['keypoints'][0, 0].tolist() == [4, 9, 2]


COORDINATES = st.integers(0, 400).map(lambda n: n / 4)


@hypothesis.given(
  boxes=st.lists(st.tuples(*[COORDINATES] * 4), max_size=6), seed=st.integers(0)
)
def test_two_flips_are_none(boxes, seed):
  boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in boxes]
  rng = np.random.default_rng(seed)
  example = annotated(rng, num=len(boxes), height=100, width=100)
  example['boxes'] = np.array(boxes, np.float32).reshape(-1, 4)
  flip = dict(op='random_flip', probability=1.0)
  out = run([flip, flip], example)
  assert out.keys() == example.keys()
  assert out.pop('box_outlines') == example.pop('box_outlines')
  for name in out:
    np.testing.assert_array_equal(out[name], example[name], name)


@hypothesis.settings(deadline=None)
@hypothesis.given(
  seed=st.integers(0, 2**32),
  num=st.integers(0, 8),
  size=st.tuples(st.integers(1, 150), st.integers(1, 150)),
  share=st.floats(0, 1),
  overlap=st.floats(0, 1),
)
def test_what_is_left_lies_in_the_image(seed, num, size, share, overlap):
  crop = tuple(max(1, int(n * share)) for n in size)
  example = annotated(np.random.default_rng(seed), num)
  specs = [
    dict(op='resize', size=size),
    dict(op='random_crop', size=crop, min_box_overlap=overlap),
    dict(op='random_flip'),
  ]
  out = run(specs, example, seed)
  limit = np.float32([*crop, *crop])
  assert (out['boxes'] >= 0).all() and (out['boxes'] <= limit).all()
  assert (out['boxes'][:, 2:] >= out['boxes'][:, :2]).all()
  points = out['keypoints'][..., :2]
  assert (points >= 0).all() and (points <= limit[:2]).all()
  assert out['segmentation'].shape == crop
  for name in ('box_labels', 'box_ids', 'box_crowd', 'box_area', 'keypoints'):
    assert len(out[name]) == len(out['boxes'])
  assert len(out['box_outlines']) == len(out['boxes'])
  whole = dict(zip(out['box_ids'].tolist(), out['box_area'].tolist()))
  ratio = size[0] * size[1] / (80 * 100)
  for i, area in enumerate(example['box_area'].tolist()):
    assert whole.get(100 + i, 0) <= area * ratio * (1 + 1e-5)
    assert whole.get(100 + i, np.inf) >= overlap * area * ratio * 0.9999 - 1e-5


def test_a_crop_of_everything_changes_nothing():
  example = annotated(np.random.default_rng(0))
  out = run([dict(op='center_crop', size=(80, 100))], example)
  assert out.pop('box_outlines') == example.pop('box_outlines')
  for name in out:
    np.testing.assert_array_equal(out[name], example[name], name)


@pytest.mark.parametrize('probability', [0.0, 1.0])
def test_mistakes_do_not_wait_for_a_flip(probability):
  flip = dict(op='random_flip', probability=probability)
  example = {
    'image': blank(4, 4),
    'boxes': np.float32([[0, 0, 1, 1]]),
    'keypoints': np.zeros((1, 5, 3), np.float32),
  }
  with pytest.raises(ValueError, match=r'has \(5, 6\), the example 5'):
    run([flip], example)
  assert 'keypoints' in run([flip | dict(keypoint_pairs=[[1, 4]])], example)
  with pytest.raises(ValueError, match=r'has \(1, 5\), the example 5'):
    run([flip | dict(keypoint_pairs=[[1, 5]])], example)
  with pytest.raises(ValueError, match=r"'boxes' .* must come after all"):
    run([flip], {'image': blank(4, 4), 'box_mask': [], 'boxes': []})


@pytest.mark.parametrize('probability', [0.0, 1.0])
def test_keypoints_of_unknown_pairs_are_not_flipped(probability):
  specs = [dict(op='random_flip', probability=probability)]
  (op,) = example_ops.build(specs, OpContext())
  example = {
    'image': blank(4, 4),
    'boxes': np.float32([[0, 0, 1, 1]]),
    'keypoints': np.zeros((1, 17, 3), np.float32),
  }
  with pytest.raises(ValueError, match='which of the 17 keypoints are left'):
    op(example, np.random.default_rng(0))
  op(example | {'keypoints': np.zeros((1, 0, 3))}, np.random.default_rng(0))


@pytest.mark.parametrize('num', [5, 6, 17])
def test_keypoints_of_the_synthetic_world_lie_where_the_flipped_scene_has_them(
  num,
):
  size = 48
  source = Source(
    num_images=5, image_size=size, annotations=True, num_keypoints=num
  )
  flip = dict(op='random_flip', probability=1.0)
  (op,) = pipeline.build_ops([flip], source)
  swapped = 0
  for index in range(5):
    example = source[index]
    scene = source.world.scene(index)
    out = op(example, np.random.default_rng(0))['keypoints']
    things = [
      t for t, box in zip(scene.objects, source.world.render(scene, size).boxes)
      if box[2] > box[0]
    ]  # fmt: skip
    for thing, before, after in zip(things, example['keypoints'], out):
      for i in range(num):
        # Keypoint i lies at this angle from the object's front, of which the
        # direction a becomes pi - a in the mirror.
        if not after[i, 2]:
          continue
        turn = 0 if i == 0 else 2 * np.pi * (i - 0.5) / (num - 1)
        y, x = after[i, :2] / size - (thing.y, 1 - thing.x)
        front = np.pi - thing.angle
        c, s = np.cos(front), np.sin(front)
        u, v = x * c + y * s, y * c - x * s
        look = source.world.appearance.look(thing.label)
        found = np.arctan2(v / look.aspect, u)
        # Bins of the outline are 2 pi / 512 wide.
        assert abs(np.angle(np.exp(1j * (found - turn)))) < 0.02
        swapped += not np.array_equal(before[i], after[i])
  assert swapped > 20


@pytest.mark.parametrize('name', CHAINS)
def test_a_segmentation_that_no_longer_fits_is_not_decoded(name):
  decode = dict(op='decode_segmentation')
  example = {'image': blank(80, 100), 'segmentation': b'\x89PNG'}
  with pytest.raises(BadExample, match='resizes, crops or flips comes before'):
    run([*CHAINS[name], decode], example)


@pytest.mark.parametrize(
  'spec,message',
  [
    (
      dict(op='random_crop', size=3, min_box_overlap=2),
      r'min_box_overlap=2 must be float in \[0, 1\]',
    ),
    (
      dict(op='random_flip', keypoint_pairs=[[1]]),
      r'keypoint_pairs=\[\[1\]\] must be list of list of 2 int of at least 0',
    ),
    (
      dict(op='random_flip', keypoint_pairs=[1, 2]),
      r'keypoint_pairs=\[1, 2\] must be list of list of 2 int',
    ),
    (
      dict(op='random_flip', keypoint_pairs=[[-1, 2]]),
      r'keypoint_pairs=\[\[-1, 2\]\] must be list of list of 2 int of at least',
    ),
    (
      dict(op='random_flip', keypoint_pairs=[[1, 2], [2, 3]]),
      r'keypoint_pairs=\[\[1, 2\], \[2, 3\]\] must name each keypoint once',
    ),
    (dict(op='resize_small', size=9, max_size=8), 'at least size=9'),
    (
      dict(op='resize_small', size=9, max_size=0),
      'max_size=0 must be int of at',
    ),
    (dict(op='resize_long', size=0), 'size=0 must be int of at least 1'),
  ],
)
def test_mistakes_in_options(spec, message):
  with pytest.raises(ValueError, match=message):
    build([spec])


def test_detections_sizes():
  # shorter side 600, unless the longer would pass 1024 (Huang et al. 2017)
  spec = dict(op='resize_small', size=600, max_size=1024)
  for shape, expected in [
    ((480, 640), (600, 800)),
    ((640, 480), (800, 600)),
    ((375, 500), (600, 800)),
    ((300, 600), (512, 1024)),
    ((1000, 250), (1024, 256)),
  ]:
    assert run([spec], {'image': blank(*shape)})['image'].shape[:2] == expected
  long = run([dict(op='resize_long', size=513)], {'image': blank(375, 500)})
  assert long['image'].shape[:2] == (385, 513)
