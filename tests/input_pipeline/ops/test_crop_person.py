"""The crop of a person: places by hand and by drawn dots."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from input_pipeline import batch_fields
from input_pipeline import ops as example_ops
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops.context import OpContext

CONTEXT = OpContext(keypoint_pairs=((1, 2),), num_keypoints=3)
BOX = (100.0, 200.0, 300.0, 260.0)


def build(context=CONTEXT, before=(), after=(), **options):
  specs = [dict(op='decode'), *before, dict(op='crop_person', **options)]
  return example_ops.build([*specs, *after], context)


def crop(example, *, seed=0, **options):
  ops = build(**options)
  return batch_fields.apply(ops, example, np.random.default_rng(seed))


def record(image=None, box=BOX, keypoints=((),), person=0, **more):
  """A person of an image of 480 x 640; keypoints of everyone [N, 3, 3]."""
  image = np.full((480, 640, 3), 30, np.uint8) if image is None else image
  keypoints = np.array(keypoints, np.float32).reshape(-1, 3, 3)
  boxes = np.tile(np.array(box, np.float32), (len(keypoints), 1))
  return {
    'image': image,
    'boxes': boxes,
    'keypoints': keypoints,
    'person': np.int32(person),
    'person_box': np.array(box, np.float32),
    'person_score': np.float32(1),
    **more,
  }


def inverse(to_image, place):
  """Crop coordinates of (y, x) in the image, solved in float64."""
  to_image = np.asarray(to_image, np.float64)
  return np.linalg.solve(to_image[:, :2], np.array(place) - to_image[:, 2])


def test_a_tall_box_by_hand():
  """200 high, so 200 / 353 * 257 wide; 1.25 times: 250 x 182.0113."""
  half = 125, 125 / 353 * 257
  corner = 200 - half[0], 230 - half[1]
  keypoints = [
    [(200, 230, 2), (*corner, 1), (0, 0, 0)],
    [(325, 230 + half[1], 2), (0, 0, 0), (0, 0, 0)],
  ]
  found = crop(record(keypoints=keypoints))
  assert found['image'].shape == (353, 257, 3)
  np.testing.assert_allclose(
    found['person_keypoints'],
    [(176.5, 128.5, 2), (0, 0, 1), (0, 0, 0)],
    atol=1e-3,
  )
  others = found['other_keypoints']
  assert others.shape == (30, 3, 3)
  np.testing.assert_allclose(others[0, 0], (353, 257, 2), atol=1e-3)
  assert not others[1:].any()
  pitch = 250 / 353
  np.testing.assert_allclose(
    found['crop_to_image'],
    [(pitch, 0, corner[0]), (0, pitch, corner[1])],
    rtol=1e-6, atol=1e-6,
  )  # fmt: skip
  assert found['person_box'].tolist() == list(BOX)


def test_a_wide_box_by_hand():
  """60 x 200: as wide as it is, 200 / 257 * 353 high."""
  found = crop(
    record(box=(200, 100, 260, 300), keypoints=[[(0, 0, 0)] * 3]), enlarge=1
  )
  pitch = 200 / 257
  np.testing.assert_allclose(
    found['crop_to_image'],
    [(pitch, 0, 230 - pitch * 176.5), (0, pitch, 100)],
    rtol=1e-6, atol=1e-5,
  )  # fmt: skip


def dotted(place, sigma, size=(480, 640)):
  """uint8 image, black but for a white dot about (y, x) in pixel edges."""
  y, x = np.mgrid[: size[0], : size[1]] + 0.5
  square = (y - place[0]) ** 2 + (x - place[1]) ** 2
  grey = np.rint(255 * np.exp(-square / (2 * sigma**2))).astype(np.uint8)
  return np.repeat(grey[..., None], 3, axis=2)


def centroid(image):
  """(y, x) in pixel edges of what is not black."""
  weight = image[..., 0].astype(np.float64)
  y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] + 0.5
  return np.array([(weight * y).sum(), (weight * x).sum()]) / weight.sum()


GEOMETRIES = [
  dict(),
  dict(size=(65, 65)),
  dict(size=33, enlarge=0.8),
  dict(enlarge=(1.0, 1.5)),
  dict(enlarge=(1.0, 1.5), flip=True),
  dict(rotate=40.0),
  dict(size=(65, 47), rotate=180.0, flip=True, enlarge=(1.0, 1.5)),
]


@pytest.mark.parametrize('options', GEOMETRIES)
@pytest.mark.parametrize('seed', [1, 2])
@pytest.mark.parametrize(
  'box', [BOX, (230, 180, 260, 290), (-30, 150, 420, 330)]
)
def test_a_dot_and_its_keypoint_go_and_come_back(options, seed, box):
  place = 237.3, 231.8
  keypoints = [[(*place, 2), (0, 0, 0), (0, 0, 0)]]
  sigma = 3 if box == BOX else 9  # not below a pixel of the crop
  found = crop(
    record(dotted(place, sigma), box, keypoints), seed=seed, fill=0, **options
  )
  to_image = found['crop_to_image'].astype(np.float64)
  back = to_image @ [*centroid(found['image']), 1]
  assert np.abs(back - place).max() < 0.1
  keypoint = found['person_keypoints'][0]
  assert np.abs(to_image @ [*keypoint[:2], 1] - place).max() < 1e-3
  assert keypoint[2] == 2


@pytest.mark.parametrize('options', [dict(), dict(rotate=30.0, flip=True)])
@pytest.mark.parametrize(
  'before,atol',
  [
    ([dict(op='resize', size=(240, 330))], 0.1),
    ([dict(op='resize_long', size=320, antialias=True)], 0.1),
    ([dict(op='shrink_to_fit', size=(100, 100), antialias=True)], 0.1),
  ],
)
def test_an_image_resized_before(options, before, atol):
  """Boxes and the map are in pixels of the original image all the same."""
  place = 237.3, 231.8
  keypoints = [[(*place, 2), (0, 0, 0), (0, 0, 0)]]
  example = record(dotted(place, 8), BOX, keypoints)
  found = crop(example, before=before, fill=0, **options)
  to_image = found['crop_to_image'].astype(np.float64)
  back = to_image @ [*centroid(found['image']), 1]
  assert np.abs(back - place).max() < atol
  keypoint = found['person_keypoints'][0]
  assert np.abs(to_image @ [*keypoint[:2], 1] - place).max() < 1e-3


def test_a_jpeg_decoded_at_half_its_size():
  place = 237.3, 231.8
  encoded = simplejpeg.encode_jpeg(dotted(place, 8), 95)
  keypoints = [[(*place, 2), (0, 0, 0), (0, 0, 0)]]
  specs = [dict(op='decode', min_size=200), dict(op='crop_person', fill=0)]
  ops = example_ops.build(specs, CONTEXT)
  example = record(encoded, BOX, keypoints)
  decoded = ops[0](example, np.random.default_rng(0))
  assert decoded['image'].shape[0] < 480
  found = ops[1](decoded, np.random.default_rng(0))
  to_image = found['crop_to_image'].astype(np.float64)
  back = to_image @ [*centroid(np.maximum(found['image'], 8) - 8), 1]
  assert np.abs(back - place).max() < 0.1
  keypoint = found['person_keypoints'][0]
  assert np.abs(to_image @ [*keypoint[:2], 1] - place).max() < 1e-3


def test_a_mirrored_person_has_left_on_the_left():
  keypoints = [[(150, 220, 2), (200, 210, 2), (250, 250, 1)]]
  seen = set()
  for seed in range(8):
    found = crop(record(keypoints=keypoints), seed=seed, flip=True)
    to_image, points = found['crop_to_image'], found['person_keypoints']
    flipped = np.linalg.det(to_image[:, :2]) < 0
    order = [0, 2, 1] if flipped else [0, 1, 2]
    for point, of in zip(points, order):
      back = to_image @ np.append(point[:2], 1)
      np.testing.assert_allclose(back, keypoints[0][of][:2], atol=1e-3)
      assert point[2] == keypoints[0][of][2]
    seen.add(flipped)
  assert seen == {True, False}


def test_a_mirrored_crop_is_the_crop_mirrored():
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (480, 640, 3), np.uint8)
  example = record(image, keypoints=[[(0, 0, 0)] * 3])
  plain = crop(example)['image']
  both = [crop(example, flip=True, seed=s)['image'] for s in range(8)]
  mirrored = [(b == plain[:, ::-1]).all() for b in both]
  assert any(mirrored)
  assert all(m or (b == plain).all() for m, b in zip(mirrored, both))


def test_filling_outside_the_image():
  example = record(box=(-200, -100, 300, 200), keypoints=[[(0, 0, 0)] * 3])
  image = crop(example, fill=[1, 2, 3], enlarge=1.0)['image']
  assert (image[:100, :60] == (1, 2, 3)).all()
  assert (image[-20:, -20:] == 30).all()


def test_who_is_in_the_crop():
  """Those with a labelled keypoint within 25 pixels of the crop's edge."""
  half_height, pitch = 125, 250 / 353
  edge = 200 - half_height
  inside, outside = edge - 24.9 * pitch, edge - 25.1 * pitch
  nothing = [(0, 0, 0)] * 2
  keypoints = [
    [(outside, 230, 2), *nothing],
    [(150, 230, 2), *nothing],
    [(inside, 230, 1), *nothing],
    [(0, 0, 0), *nothing],
    [(inside, 230, 0), *nothing],  # not labelled
    [(outside, 230, 2), (200, 230, 1), (0, 0, 0)],
  ]
  found = crop(record(keypoints=keypoints, person=1), max_others=2)
  others = found['other_keypoints']
  np.testing.assert_allclose(others[0, 0], (-24.9, 128.5, 1), atol=1e-2)
  np.testing.assert_allclose(others[1, 0], (-25.1, 128.5, 2), atol=1e-2)
  assert found['person_keypoints'][0, 2] == 2
  with pytest.raises(BadExample, match=r'2 other people .* max_others=1 of'):
    crop(record(keypoints=keypoints, person=1), max_others=1)
  alone = crop(record(keypoints=keypoints, person=1), max_others=1, margin=24.0)
  assert len(alone['other_keypoints']) == 1


def test_a_box_that_is_not_of_the_truth():
  keypoints = [[(150, 230, 2), (0, 0, 0), (0, 0, 0)]]
  found = crop(record(keypoints=keypoints, person=-1))
  assert not found['person_keypoints'].any()
  assert found['other_keypoints'][0, 0, 2] == 2


def test_records_without_truth():
  example = record()
  del example['keypoints'], example['boxes']
  found = crop(example | {'person': np.int32(-1)})
  assert found['person_keypoints'].shape == (3, 3)
  assert not found['person_keypoints'].any()


def test_fields_of_a_batch():
  ops = build(size=(65, 47), enlarge=(1.0, 1.5), flip=True, rotate=20.0)
  spec = batch_fields.example_spec(ops)
  assert {k: (v.shape, v.dtype.name) for k, v in spec.items()} == {
    'image': ((65, 47, 3), 'uint8'),
    'person_keypoints': ((3, 3), 'float32'),
    'other_keypoints': ((30, 3, 3), 'float32'),
    'crop_to_image': ((2, 3), 'float32'),
    'person': ((), 'int32'),
    'person_box': ((4,), 'float32'),
    'person_score': ((), 'float32'),
  }
  assert spec.pop('person') == -1
  assert not any(v.any() for v in spec.values())


def test_without_chance():
  op = example_ops.find('x', 'crop_person')
  given = dict(
    op='crop_person', enlarge=(1.0, 1.5), flip=True, rotate=9, fill=3
  )
  assert op.without_chance(given) == [
    dict(op='crop_person', enlarge=1.25, fill=3)
  ]
  (spec,) = op.without_chance(given)
  assert example_ops.build([spec], CONTEXT)[0].deterministic()
  assert not example_ops.build([given], CONTEXT)[0].deterministic()
  assert op.without_chance({'op': 'crop_person'}) == [{'op': 'crop_person'}]


@pytest.mark.parametrize(
  'box,reason',
  [
    ((100, 200, 100, 260), 'has no area'),
    ((100, 260, 200, 200), 'has no area'),
    ((100, np.nan, 200, 200), 'has no area'),
    ((480, 0, 500, 20), 'outside its image of 480x640'),
    ((-20, 0, 0, 20), 'outside its image of 480x640'),
    ((-1e6, -1e6, 1e6, 1e6), 'the box is far larger'),
  ],
)
def test_boxes_that_show_nothing(box, reason):
  with pytest.raises(BadExample, match=reason):
    crop(record(box=box, keypoints=[[(0, 0, 0)] * 3]))


@pytest.mark.parametrize(
  'options,message',
  [
    (dict(enlarge=(1.5, 1.0)), r'enlarge=\(1.5, 1.0\) must be \(low, high\)'),
    (dict(enlarge=0), 'enlarge=0 must be'),
    (dict(enlarge=float('nan')), 'enlarge=nan must be'),
    (dict(enlarge=(1.0, 1.2, 1.5)), 'enlarge='),
    (dict(size=(0, 257)), 'size='),
    (dict(size=-3), 'size=-3'),
    (dict(rotate=-1), 'rotate=-1 must be'),
    (dict(rotate=181), 'rotate=181 must be'),
    (dict(max_others=-1), 'max_others=-1 must be'),
    (dict(margin=-1.0), 'margin=-1.0 must be'),
    (dict(fill=256), 'fill=256'),
    (dict(fill=[1, 2]), 'fill='),
    (dict(flip=0.5), 'flip=0.5 must be'),
    (dict(num_keypoints=0), 'num_keypoints=0'),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(ValueError, match=message) as error:
    build(**options)
  assert str(error.value).startswith('input.ops[1] (crop_person): ')
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('op', ['random_crop', 'center_crop', 'pad'])
def test_what_cuts_may_not_come_before(op):
  with pytest.raises(ValueError, match=r'crop_person\) takes .* whole image'):
    build(before=[dict(op=op, size=100)])


def test_mirrors_may_not_come_before():
  with pytest.raises(ValueError, match=r'\[1\] \(random_flip\) cuts, mirrors'):
    build(before=[dict(op='random_flip')])


def test_nothing_moves_the_image_afterwards():
  with pytest.raises(ValueError, match=r'\(resize\) would move the image away'):
    build(after=[dict(op='resize', size=100)])
  with pytest.raises(ValueError, match='takes its part of the whole image'):
    build(after=[dict(op='crop_person')])


def test_ops_that_say_nothing_are_told_at_the_record():
  crop_op = build()[1]
  found = crop_op(
    record(keypoints=[[(0, 0, 0)] * 3])
    | {'original_size': np.array([480, 640])},
    np.random.default_rng(0),
  )
  (flip,) = example_ops.build([dict(op='random_flip', probability=1)], CONTEXT)
  with pytest.raises(ValueError, match='may come after it'):
    flip(found, np.random.default_rng(0))


@pytest.mark.parametrize(
  'change,message',
  [
    ({'person': np.int32(1)}, 'person 1 of a record of 1 boxes'),
    ({'keypoints': np.zeros((1, 4, 3), np.float32)}, 'the record has 4'),
  ],
)
def test_records_that_contradict_themselves(change, message):
  with pytest.raises(ValueError, match=message):
    crop(record(keypoints=[[(0, 0, 0)] * 3]) | change)


def test_records_of_no_person():
  example = record(keypoints=[[(0, 0, 0)] * 3])
  del example['person_box']
  with pytest.raises(ValueError, match="type='people'"):
    crop(example)


def test_pairs_that_are_not_known():
  context = OpContext(num_keypoints=3)
  with pytest.raises(ValueError, match="say it by the source's keypoint_pairs"):
    crop(record(keypoints=[[(0, 0, 0)] * 3]), context=context, flip=True)
  context = OpContext(num_keypoints=3, keypoint_pairs=((1, 3),))
  with pytest.raises(ValueError, match=r'the pair \(1, 3\) of 3 keypoints'):
    crop(record(keypoints=[[(0, 0, 0)] * 3]), context=context, flip=True)


def test_a_number_of_keypoints_that_is_not_known():
  with pytest.raises(ValueError, match='set num_keypoints'):
    batch_fields.example_spec(build(context=OpContext()))
  found = batch_fields.example_spec(build(OpContext(), num_keypoints=4))
  assert found['person_keypoints'].shape == (4, 3)


def test_exif_turns_no_people():
  file = io.BytesIO()
  Image.new('RGB', (64, 48)).save(file, 'JPEG')
  specs = [dict(op='decode', apply_exif=True), dict(op='crop_person')]
  ops = example_ops.build(specs, CONTEXT)
  example = {
    'image': file.getvalue(), 'person': np.int32(-1),
    'person_box': np.array([1, 2, 30, 40], np.float32),
    'person_score': np.float32(0.5),
  }  # fmt: skip
  with pytest.raises(ValueError, match=r'apply_exif=True .* person_box'):
    batch_fields.apply(ops, example, np.random.default_rng(0))
