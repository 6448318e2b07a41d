"""Boxes of a checkpoint: those that the evaluator scores, as files."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from big_vision_like import experiment
from big_vision_like.inference import detector, stored_model
from configs import detectors, synthetic_detection
from evaluators.harness import building, context
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary
from tests import random_weights, saved_run, tiny
from tests.input_pipeline.sources import boxes_made
from tools import predict

NAMES = ('apple tree', 'heron', 'zebra')
SIDE = 40  # of the canvas
SIZES = {'a': (37, 40), 'b': (12, 30), 'd/a': (40, 25)}
FEW_CANVASES = [
  dict(op='decode'),
  dict(op='resize_small', size=24, max_size=40),
  dict(op='image_size'),
  dict(op='canvas', sizes=[[24, 40], [40, 24]]),
]


def picture(path, height, width, seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
  Image.fromarray(coarse).resize((width, height)).save(path)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Photos with boxes, and a run that is evaluated on them."""
  folder = tmp_path_factory.mktemp('boxes')
  photos = folder / 'photos'
  for seed, (name, size) in enumerate(SIZES.items()):
    picture(photos / f'{name}.png', *size, seed)
    text = boxes_made.xml(('zebra', 2, 2, 20, 11), size=size)
    boxes_made.write(photos, {f'{name}.xml': text})
  (photos / 'classes.txt').write_text('\n'.join(NAMES))
  config = synthetic_detection.get_config('tiny')
  config.unlock()
  config.task.num_classes = len(NAMES)
  config.evals.val.data = dict(type='detect', path=str(photos), split='all')
  config.evals.val.ops = detectors.ops(1, canvas=[dict(op='pad', size=SIDE)])
  space = LabelSpace(Vocabulary(NAMES))
  exp = experiment.build(config, space=space, devices=jax.devices()[:1])
  state = random_weights.state(exp, SIDE, seed=3)
  saved_run.save(folder / 'run', exp, state, space=space.to_json())
  return exp, state, folder / 'run', photos


def run(capsys, *arguments):
  code = predict.main([str(a) for a in arguments])
  out = capsys.readouterr()
  return code, out.out, out.err


def lines_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def stem(name):
  return name.rpartition('photos/')[2].rpartition('.')[0]


def by_image(rows, name_of):
  found = {name: [] for name in SIZES}
  for row in rows:
    found[name_of(row)].append(row)
  return found


@pytest.fixture(scope='module')
def predicted(made, tmp_path_factory):
  out = tmp_path_factory.mktemp('predicted')
  code = predict.main(
    [
      '--checkpoint', str(made[2]), '--input', str(made[3]),
      '--output', str(out), '--score', '0.2',
    ]
  )  # fmt: skip
  assert code == 0
  return out


def test_boxes_are_what_the_evaluator_scores(made, predicted, tmp_path):
  exp, state, _, _ = made
  ctx = context.EvalContext(
    mesh=exp.mesh,
    workdir=str(tmp_path),
    name='val',
    space=LabelSpace(Vocabulary(NAMES)),
  )
  entry = exp.config.evals.val.to_dict()
  (evaluator,) = building.from_config(
    {'val': entry}, exp.predict, lambda _: ctx
  ).values()
  evaluator.run(state)
  scored = json.loads((tmp_path / 'val_results.json').read_text())
  keys = sorted(SIZES)  # the order of the source: by path
  scored = by_image(scored, lambda row: keys[row['image_id'] - 1])
  written = json.loads((predicted / 'detections.json').read_text())
  written = by_image(written, lambda row: stem(row['file_name']))
  for name in SIZES:
    ours, theirs = written[name], scored[name]
    assert len(ours) == len(theirs) > 3
    labels = [row['category_id'] for row in ours]
    assert labels == [row['category_id'] for row in theirs]
    for key, tolerance in (('bbox', 1e-3), ('score', 1e-5)):
      np.testing.assert_allclose(
        [row[key] for row in ours],
        [row[key] for row in theirs],
        rtol=0,
        atol=tolerance,
      )
  ids = {row['category_id'] for rows in written.values() for row in rows}
  assert len(ids) > 1 and ids <= {1, 2, 3}


def test_lines_overlays_and_page(made, predicted):
  lines = lines_of(predicted / 'predictions.jsonl')
  assert [stem(line['image']) for line in lines] == sorted(SIZES)
  written = json.loads((predicted / 'detections.json').read_text())
  written = by_image(written, lambda row: stem(row['file_name']))
  for line in lines:
    name = stem(line['image'])
    height, width = line['size']
    assert (height, width) == SIZES[name]
    likely = [row for row in written[name] if row['score'] >= 0.2]
    assert len(line['boxes']) == len(likely)
    for box, row in zip(line['boxes'], likely):
      y0, x0, y1, x1 = box['box']
      assert 0 <= y0 <= y1 <= height and 0 <= x0 <= x1 <= width
      x, y, w, h = row['bbox']
      assert box['box'] == pytest.approx([y, x, y + h, x + w], abs=0.01)
      assert box['name'] == NAMES[box['id']]
      assert row['category_id'] == box['id'] + 1
    assert line['overlay'] == f'overlays/{name}.jpg'
    with Image.open(predicted / line['overlay']) as overlay:
      assert overlay.width / overlay.height == pytest.approx(
        width / height, rel=0.05
      )
  assert sum(len(line['boxes']) for line in lines) > 3
  page = (predicted / 'predictions.html').read_text()
  assert page.count('<figure') == len(SIZES)
  assert any(name in page for name in NAMES)


def changed(made, folder, ops):
  """The run with other ops in its evaluation; the weights stay."""
  exp, state, _, _ = made
  config = exp.config.copy_and_resolve_references()
  config.unlock()
  config.evals.val.ops = ops
  again = experiment.build(
    config, space=LabelSpace(Vocabulary(NAMES)), devices=jax.devices()[:1]
  )
  space = LabelSpace(Vocabulary(NAMES))
  return saved_run.save(folder / 'run', again, state, space=space.to_json())


@pytest.fixture(scope='module')
def reader(made, tmp_path_factory):
  """Detectors of a run with several canvases, and of the one with `pad`."""
  folder = tmp_path_factory.mktemp('canvases')
  few = changed(made, folder, FEW_CANVASES)
  return {
    'canvas': detector.Detector(stored_model.load(few, '')),
    'pad': detector.Detector(stored_model.load(made[2], '')),
  }


def detect(reader, *images):
  found = list(reader.detections(Photos(images)))
  assert not reader.bad
  return found


class Photos:
  """Arrays as a source; their sizes are not known before they are read."""

  hierarchy = None
  vocabulary = Vocabulary(NAMES)

  def __init__(self, images):
    self._images = images

  def __len__(self):
    return len(self._images)

  def __getitem__(self, index):
    return {'image': self._images[index]}

  def key(self, index):
    return f'image {index}'


def coarse(height, width, times=1):
  rng = np.random.default_rng(5)
  image = rng.integers(0, 256, (height, width, 3), np.uint8)
  return image.repeat(times, 0).repeat(times, 1)


@pytest.mark.parametrize('kind', ['pad', 'canvas'])
def test_a_photo_larger_than_the_canvas_is_seen_whole(reader, kind):
  """Shrunk, it is the photo whose every pixel it has nine times."""
  large, small = detect(
    reader[kind], coarse(24, 40, 3), coarse(24, 40)
  )  # fmt: skip
  assert (large.size, small.size) == ((72, 120), (24, 40))
  assert len(large.boxes) == len(small.boxes) > 3
  np.testing.assert_array_equal(large.labels, small.labels)
  np.testing.assert_allclose(large.boxes, 3 * small.boxes, atol=0.5)
  assert large.boxes[:, 2].max() > 40  # beyond what the canvas holds


@pytest.mark.parametrize('kind', ['pad', 'canvas'])
@pytest.mark.parametrize('size', [(9, 14), (1, 1), (300, 7), (40, 40)])
def test_photos_of_any_size(reader, kind, size):
  (found,) = detect(reader[kind], coarse(*size))
  assert found.size == size
  assert (found.boxes >= 0).all()
  assert (found.boxes <= np.array([*size, *size]) + 1e-3).all()


def test_ops_put_photos_of_all_sizes_on_one_canvas():
  config = synthetic_detection.get_config('tiny')
  config.unlock()
  config.evals.val.ops = FEW_CANVASES
  around = dict(size=(40, 40))
  assert detector.default_ops(config) == [
    *FEW_CANVASES[:2], dict(op='shrink_to_fit', **around),
    dict(op='image_size'), dict(op='pad', **around),
  ]  # fmt: skip
  config.evals.val.ops = [*FEW_CANVASES[:3], dict(FEW_CANVASES[3], fill=7)]
  assert detector.default_ops(config)[-1] == dict(op='pad', fill=7, **around)
  config.evals.val.ops = [
    dict(op='decode'), dict(op='center_crop', size=30), FEW_CANVASES[3],
  ]  # fmt: skip
  with pytest.raises(ValueError, match='boxes are not known'):
    detector.default_ops(config)


def test_bad_images_are_listed(made, tmp_path, capsys):
  photos = tmp_path / 'in'
  picture(photos / 'good.png', 20, 20)
  (photos / 'cut.png').write_bytes((photos / 'good.png').read_bytes()[:50])
  out = tmp_path / 'out'
  code, said, _ = run(
    capsys, '--checkpoint', made[2], '--input', photos, '--output', out,
    '--no_overlays', '--sheet', 0,
  )  # fmt: skip
  assert code == 0 and '1 images, boxes of 3 classes' in said
  (bad,) = lines_of(out / 'bad_images.jsonl')
  assert bad['image'] == str(photos / 'cut.png')
  (line,) = lines_of(out / 'predictions.jsonl')
  assert 'overlay' not in line and not (out / 'overlays').exists()
  assert not (out / 'predictions.html').exists()


def test_mistakes(made, tmp_path, capsys):
  _, _, workdir, photos = made
  base = ('--input', photos, '--output', tmp_path / 'out')
  for arguments, words in (
    (('--top', 3), "--top: the task 'detection' gives boxes, no labels"),
    (('--score', 1.5), '--score=1.5 must be in [0, 1]'),
    (('--batch_size', 0), 'batch_size=0 must be at least 1'),
  ):
    code, _, err = run(capsys, '--checkpoint', workdir, *base, *arguments)
    assert code == 2 and err.startswith('error: ') and words in err
  assert not (tmp_path / 'out').exists()
  exp = experiment.build(
    tiny.config(), space=LabelSpace.of_count(13), devices=jax.devices()[:1]
  )
  other = saved_run.save(tmp_path / 'run', exp, exp.init(0))
  code, _, err = run(capsys, '--checkpoint', other, *base, '--score', 0.5)
  assert (
    code == 2 and "--score: the task 'multilabel' gives labels, no boxes" in err
  )
