"""Masks of a checkpoint: the pixels that the evaluator scores, as files."""

import csv
import json

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import experiment
from big_vision_like.inference import segmenter, stored_model
from big_vision_like.pages import mask_pictures
from configs import voc_segmentation
from evaluators.harness import building, context
from input_pipeline import ops
from input_pipeline.labels.space import LabelSpace
from input_pipeline.ops.context import OpContext
from tests import random_weights, saved_run
from tools import predict
from tools.predictions import image_list
from tools.predictions import masks as predict_masks

NUM = 11  # names; masks have a background too
SIZES = {
  'warp': [(37, 50), (41, 41), (300, 270), (256, 600), (9, 4)],
  'pad': [(37, 40), (41, 41), (5, 33), (40, 12)],
}


def make(folder, resize, background=True):
  """Images with masks, and a run with them as its evaluation."""
  photos = folder / 'photos'
  photos.mkdir()
  rng = np.random.default_rng(0)
  num_outputs = NUM + background
  for i, (height, width) in enumerate(SIZES[resize]):
    coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
    image = Image.fromarray(coarse).resize((width, height))
    image.save(photos / f'{i}.png')
    ids = rng.integers(0, num_outputs, (height, width)).astype(np.uint8)
    ids[0] = 255
    with open(photos / f'{i}.mask', 'wb') as file:
      Image.fromarray(ids).save(file, 'PNG')
  config = voc_segmentation.get_config(f'tiny,resize={resize},max_size=600')
  config.unlock()
  config.task.background = background
  data = dict(
    type='tests.fixtures.mask_files', path=str(photos), num_classes=NUM
  )
  config.evals.val.data = data
  config.input.source = data
  for op in config.evals.val.ops:
    if op['op'] == 'full_segmentation':
      op['max_size'] = 600
    if op['op'] == 'decode_segmentation':
      op['num_classes'] = num_outputs
  exp = experiment.build(
    config, space=LabelSpace.of_count(NUM), devices=jax.devices()[:1]
  )
  state = varied(exp, random_weights.state(exp, 41), rng)
  saved_run.save(folder / 'run', exp, state)
  return exp, state, folder / 'run', photos


def varied(exp, state, rng):
  """The state with a bias that makes logits 0 on average.

  So one class wins here and another one there.
  """
  coarse = rng.integers(0, 256, (4, 4, 4, 3), np.uint8)
  images = coarse.repeat(11, 1).repeat(11, 2)[:, :41, :41]
  logits = jax.jit(exp.predict['logits'])(state, {'image': images})['logits']
  state.params['head']['rate6']['bias'] -= np.asarray(logits).mean((0, 1, 2))
  return state


def ids_of(path):
  with Image.open(path) as picture:
    return np.array(picture)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """(experiment, state, workdir, photos) of a kind of run, made once."""
  made = {}

  def of(resize, background=True):
    key = resize, background
    if key not in made:
      made[key] = make(tmp_path_factory.mktemp(resize), *key)
    return made[key]

  return of


@pytest.fixture(scope='module')
def warp(runs):
  return runs('warp')[2:]


def run(capsys, *arguments):
  code = predict.main([str(a) for a in arguments])
  out = capsys.readouterr()
  return code, out.out, out.err


def lines_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
  'resize, background', [('warp', True), ('pad', True), ('warp', False)]
)
def test_masks_are_what_the_evaluator_scores(
  runs, resize, background, tmp_path, capsys
):
  exp, state, workdir, photos = runs(resize, background)
  num_outputs = NUM + background
  ctx = context.EvalContext(
    mesh=exp.mesh,
    workdir=str(tmp_path),
    name='val',
    space=LabelSpace.of_count(NUM),
  )
  entry = exp.config.evals.val.to_dict()
  evaluators = building.from_config({'val': entry}, exp.predict, lambda _: ctx)
  evaluators['val'].run(state)
  with open(tmp_path / 'val_confusion.csv', newline='') as file:
    rows = list(csv.reader(file))
  scored = np.array([row[1:] for row in rows[1:]], int)

  out = tmp_path / 'out'
  code, _, err = run(
    capsys, '--checkpoint', workdir, '--input', photos, '--output', out,
    '--trust',  # its data, which name the classes, are of a source of the tests
  )  # fmt: skip
  assert (code, err) == (0, '')
  names = [f'c{i:02d}' for i in range(NUM)]
  if background:
    names = ['background', *names]
  counts = np.zeros((num_outputs, num_outputs), int)
  lines = lines_of(out / 'predictions.jsonl')
  assert len(lines) == len(list(photos.glob('*.png')))
  for line in lines:
    with Image.open(out / line['mask']) as picture:
      assert picture.mode == 'P'
      ids = np.array(picture)
    image = photos / f'{(out / line["mask"]).stem}.png'
    assert line['image'] == str(image)
    assert list(ids.shape) == line['size']
    assert ids_of(image).shape == (*ids.shape, 3)
    true = ids_of(image.with_suffix('.mask'))
    known = true != 255
    np.add.at(counts, (true[known], ids[known]), 1)
    share = [(entry['id'], entry['share']) for entry in line['classes']]
    assert [s for _, s in share] == sorted((s for _, s in share), reverse=True)
    assert {i for i, _ in share} == {*np.unique(ids).tolist()}
    for entry in line['classes']:
      assert entry['name'] == names[entry['id']]
      exact = np.mean(ids == entry['id'])
      assert entry['share'] == pytest.approx(exact, rel=1e-5)
    over = ids_of(out / line['overlay'])
    assert over.shape == (*ids.shape, 3)
  np.testing.assert_array_equal(counts, scored)
  assert (counts.sum(axis=0) > 0).sum() > 5  # many classes are predicted


def reference(maps, shape, seen, stride):
  """Argmax and margin of bilinear logits, pixel by pixel, in float64."""
  maps = maps.astype(np.float64)
  sampled = maps
  for axis in (0, 1):
    size, num = maps.shape[axis], shape[axis]
    place = ((np.arange(num) + 0.5) * seen[axis] / num - 0.5) / stride
    place = place.clip(0, size - 1)
    low = np.floor(place).astype(int).clip(0, max(size - 2, 0))
    high = np.minimum(low + 1, size - 1)
    share = (place - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
    sampled = (1 - share) * sampled.take(low, axis) + share * sampled.take(
      high, axis
    )
  ordered = np.sort(sampled, axis=-1)
  return sampled.argmax(-1), ordered[..., -1] - ordered[..., -2]


@pytest.mark.parametrize('shape', [(300, 513), (20, 30), (256, 256), (1, 700)])
def test_tiles_against_one_interpolation_in_float64(warp, shape):
  reader = segmenter.Segmenter(stored_model.load(warp[0], ''))
  rng = np.random.default_rng(1)
  maps = rng.normal(size=(6, 6, NUM + 1)).astype(np.float32)
  seen = np.array([41, 30], np.int32)
  found = reader._ids(maps, seen, np.array(shape, np.int32))
  wanted, margin = reference(maps, shape, seen, 8)
  assert found.dtype == np.uint8 and found.shape == shape
  sure = margin > 1e-4
  assert sure.mean() > 0.99
  np.testing.assert_array_equal(found[sure], wanted[sure])


def test_an_image_larger_than_the_canvas_is_shrunk_for_the_net(
  runs, tmp_path, capsys
):
  _, _, workdir, photos = runs('pad')
  image = np.random.default_rng(0).integers(0, 256, (123, 82, 3), np.uint8)
  Image.fromarray(image).save(tmp_path / 'large.png')
  (resize,) = ops.build([dict(op='resize', size=(41, 27))], OpContext())
  small = resize({'image': image}, np.random.default_rng(0))['image']
  Image.fromarray(small).save(tmp_path / 'small.png')
  out = tmp_path / 'out'
  code, said, _ = run(
    capsys, '--checkpoint', workdir, '--output', out, '--input',
    tmp_path / 'large.png', tmp_path / 'small.png', photos / '0.png',
  )  # fmt: skip
  assert code == 0
  assert "1 are larger than the net's 41x41 pixels and were shrunk" in said
  large, small = lines_of(out / 'predictions.jsonl')[:2]
  assert (large['size'], large['seen_size']) == ([123, 82], [41, 27])
  assert (small['size'], small['seen_size']) == ([41, 27], [41, 27])
  # The net saw the same pixels; every third pixel's centre is one of them.
  wide = ids_of(out / large['mask'])[1::3]
  narrow = ids_of(out / small['mask'])
  same = (wide[:, np.arange(27) * 82 // 27 + 1] == narrow).mean()
  assert same > 0.9


def test_page_names_and_what_cannot_be_used(warp, tmp_path, capsys):
  workdir, photos = warp
  names = tmp_path / 'names.txt'
  names.write_text('\n'.join(f'<thing {i}>' for i in range(NUM)))
  folder = tmp_path / 'in'
  (folder / 'b').mkdir(parents=True)
  picture = (photos / '0.png').read_bytes()
  for name in ('a.png', 'A.PNG', 'b/a.png', 'b/c.png'):
    (folder / name).write_bytes(picture)
  (folder / 'cut.png').write_bytes(picture[:60])
  out = tmp_path / 'out'
  code, said, _ = run(
    capsys, '--checkpoint', workdir, '--output', out, '--no_overlays',
    '--input', folder, photos / '0.png', folder / 'a.png',
    '--vocabulary', names,
  )  # fmt: skip
  assert code == 0
  assert '6 images, masks of 12 classes' in said and '1 cannot be used' in said
  lines = lines_of(out / 'predictions.jsonl')
  assert [line['mask'] for line in lines] == [
    'masks/A.png', 'masks/a_2.png', 'masks/b/a.png', 'masks/b/c.png',
    'masks/0.png', 'masks/a_3.png',
  ]  # fmt: skip
  masks = {ids_of(out / n['mask']).tobytes() for n in lines}
  assert len(masks) == 1
  assert not (out / 'overlays').exists() and 'overlay' not in lines[0]
  bad = lines_of(out / 'bad_images.jsonl')
  assert [entry['image'] for entry in bad] == [str(folder / 'cut.png')]
  page = (out / 'predictions.html').read_text()
  assert page.count('<figure') == 6 and page.count('<img') == 12
  assert '&lt;thing 3&gt;' in page and '<thing' not in page
  assert 'rgb(128,0,0)' in page and 'background' in page


def test_mistakes(warp, tmp_path, capsys):
  workdir, photos = warp
  base = ('--checkpoint', workdir, '--input', photos, '--output', tmp_path)
  for arguments, words in (
    (('--top', 3), "--top: the task 'segmentation' gives masks"),
    (('--batch_size', 0), 'batch_size=0 must be at least 1'),
  ):
    code, _, err = run(capsys, *base, *arguments)
    assert code == 2 and err.startswith('error: ') and words in err


def test_names_of_files_below_what_was_given(tmp_path, monkeypatch):
  for name in ('x/a.png', 'x/y/a.png', 'x/y/b.tar.png', 'z/a.jpg'):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b'')
  monkeypatch.chdir(tmp_path)

  def names(*places):
    return predict_masks.output_names(image_list.find([*map(str, places)]))

  whole = ['a', 'y/a', 'y/b.tar']
  assert names('x') == names('x/') == names('./x') == whole
  assert names(tmp_path / 'x') == whole
  assert names('x', 'z', 'x/y/a.png') == [*whole, 'a_2', 'a_3']
  assert names('.') == ['x/a', 'x/y/a', 'x/y/b.tar', 'z/a']
  monkeypatch.chdir(tmp_path / 'z')
  assert names('a.jpg', '../x/a.png') == ['a', 'a_2']


def test_ops_show_the_whole_image():
  config = voc_segmentation.get_config('tiny,resize=pad')
  config.unlock()
  canvas, noted = dict(size=41), dict(op='image_size')
  whole = [
    dict(op='decode'), dict(op='shrink_to_fit', **canvas), noted,
    dict(op='pad', **canvas),
  ]  # fmt: skip
  assert segmenter.whole_image_ops(config) == whole
  resized = [dict(op='decode'), dict(op='resize_long', size=40)]
  config.evals.val.ops = [*resized, *whole[2:]]
  assert segmenter.whole_image_ops(config) == [*resized, *whole[1:]]
  # Without an evaluator of masks: training without chance.
  config.evals = {}
  config.input.ops = [
    dict(op='decode'), dict(op='resize', size=40), dict(op='random_flip'),
  ]  # fmt: skip
  assert segmenter.whole_image_ops(config) == [*config.input.ops[:2], noted]
  config.input.ops = [*config.input.ops, dict(op='random_crop', size=30)]
  with pytest.raises(ValueError, match=r"input.ops.*'center_crop'.*whole"):
    segmenter.whole_image_ops(config)


def test_colours_are_those_of_voc():
  # VOCdevkit's masks: background, aeroplane, bicycle, bird, ..., tvmonitor.
  colours = mask_pictures.colour_map()
  for label, colour in {
    0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0),
    4: (0, 0, 128), 7: (128, 128, 128), 8: (64, 0, 0), 15: (192, 128, 128),
    16: (0, 64, 0), 20: (0, 64, 128), 255: (224, 224, 192),
  }.items():  # fmt: skip
    assert tuple(colours[label].tolist()) == colour
  assert len(np.unique(colours, axis=0)) == 256


def test_overlay_by_hand():
  image = np.full((4, 6, 3), 100, np.uint8)
  ids = np.zeros((4, 6), np.uint8)
  ids[:, 3:] = 1
  found = mask_pictures.overlay(image, ids, background=True)
  line, mixed = [255] * 3, [int(55 + 0.45 * 128), 55, 55]
  assert (found[:, :2] == 100).all() and (found[:, 2] == line).all()
  assert (found[:, 3:] == mixed).all()
  found = mask_pictures.overlay(image, ids, background=False)
  assert (found[:, :2] == 55).all()
  assert (image == 100).all()
