"""Boxes scored: against pycocotools, by hand, and what runs leave behind."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.protocols import Prediction
from evaluators.harness import building
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary
from tests.evaluators import harness
from tests.fixtures import box_source
from tests.peers import pycocotools_peer
from tools import score

NAMES = ['cat', 'dog', 'emu']
IDS = [3, 18, 90]
OPS = [
  dict(op='decode'),
  dict(op='resize', size=[60, 80]),
  dict(op='image_size'),
]
HALF = 0.5  # of the size that the net sees


def truth(seed=0, num=12):
  """Boxes of images, some without, some crowds, some difficult."""
  rng = np.random.default_rng(seed)
  found = []
  for index in range(num):
    rows = []
    for _ in range(0 if index == 4 else rng.integers(1, 5)):
      y, x = rng.integers(0, 80), rng.integers(0, 110)
      h, w = rng.integers(4, 40, 2)
      flags = rng.random(2) < 0.15
      rows.append([y, x, y + h, x + w, rng.integers(0, 3), *flags])
    found.append([[float(v) for v in row] for row in rows])
  return found


def guesses(boxes, seed=1, num=8):
  """Shaken true boxes and wrong ones, [I, num, ...] each, in original pixels.

  Everything is a multiple of a quarter, so nothing is lost in float32.
  """
  rng = np.random.default_rng(seed)
  out = {
    'boxes': np.zeros((len(boxes), num, 4), np.float32),
    'scores': np.zeros((len(boxes), num), np.float32),
    'labels': np.full((len(boxes), num), -1, np.int32),
    'mask': np.zeros((len(boxes), num), bool),
  }
  for i, rows in enumerate(boxes):
    for j in range(min(num, len(rows) + 2)):
      row = rows[j] if j < len(rows) else [20, 20, 40, 60, rng.integers(0, 3)]
      shake = rng.integers(-8, 9, 4) / 4
      out['boxes'][i, j] = np.array(row[:4]) + shake
      out['scores'][i, j] = rng.integers(1, 256) / 256
      wrong = rng.random() < 0.2
      out['labels'][i, j] = (row[4] + wrong) % 3
      out['mask'][i, j] = True
  return out


def look_up(state, batch):
  record = batch['image'][:, 0, 0, 0].astype(jnp.int32)
  return {name: value[record] for name, value in state.items()}


PREDICT = {
  'detections': Prediction(
    look_up, 'boxes', reads=('image', 'image_size', 'original_size')
  )
}


def build(
  kind, boxes, *, names=NAMES, trained=NAMES, workdir=None, mesh=None,
  process_index=0, **options,
):  # fmt: skip
  """The evaluator of a set, of a model of classes `trained`."""
  ctx = harness.context(
    3, name='val', workdir=workdir, mesh=mesh, process_index=process_index
  )
  ctx = type(ctx)(
    **{**vars(ctx), 'space': LabelSpace(Vocabulary(tuple(trained)))}
  )
  data = dict(
    type='tests.fixtures.box_source', boxes=boxes, names=names,
    external_ids=IDS, **options.pop('data', {}),
  )  # fmt: skip
  entry = dict(type=kind, data=data, ops=OPS, **{'batch_size': 5, **options})
  return building.from_config({'val': entry}, PREDICT, lambda name: ctx)['val']


def as_json(boxes, first_id=1):
  """The truth as an instances_*.json."""
  annotations = []
  for i, rows in enumerate(boxes):
    for y0, x0, y1, x1, label, crowd, _ in rows:
      box = [x0, y0, x1 - x0, y1 - y0]
      annotations.append(
        dict(
          id=len(annotations) + 1, image_id=i * 7 + first_id, bbox=box,
          category_id=IDS[int(label)], iscrowd=int(crowd),
          area=box[2] * box[3],
        )
      )  # fmt: skip
  height, width = box_source.SIZE
  return dict(
    images=[
      dict(id=i * 7 + first_id, height=height, width=width)
      for i in range(len(boxes))
    ],
    annotations=annotations,
    categories=[dict(id=i, name=n) for i, n in zip(IDS, NAMES)],
  )


@pytest.mark.parametrize('kind', ['coco_detection', 'voc_detection'])
def test_images_that_were_stored_smaller(kind, tmp_path):
  """Records are in their own pixels, detections in those of the originals."""
  boxes = truth()
  usual = build(kind, boxes).run(guesses(boxes))
  small = build(
    kind, boxes, data=dict(stored_at_half=True), workdir=str(tmp_path)
  )
  assert small.run(guesses(boxes)) == usual
  assert usual['num_boxes'] > 10


def test_figures_are_those_of_pycocotools(tmp_path):
  """Also of the file that is left, and by tools.score from files."""
  boxes = truth()
  evaluator = build('coco_detection', boxes, workdir=str(tmp_path))
  found = evaluator.run(guesses(boxes))
  results = json.loads((tmp_path / 'val_results.json').read_text())
  instances = as_json(boxes)
  expected = pycocotools_peer.figures(instances, results)
  assert 10 < expected['ap'] < 90
  assert found.pop('num_images') == 12
  assert found.pop('num_detections') == len(results)
  assert found.pop('num_boxes') == sum(
    not a['iscrowd'] for a in instances['annotations']
  )
  assert found == pytest.approx(expected, abs=1e-10)
  truth_file = tmp_path / 'instances.json'
  truth_file.write_text(json.dumps(as_json(boxes)))
  arguments = ['--type', 'boxes', '--truth', str(truth_file), '--detections']
  out = tmp_path / 'score.json'
  left = str(tmp_path / 'val_results.json')
  assert score.main([*arguments, left, '--output', str(out)]) == 0
  scored = json.loads(out.read_text())
  assert {k: scored[k] for k in expected} == pytest.approx(expected, abs=1e-10)
  page = (tmp_path / 'val_worst.html').read_text()
  assert 'missed' in page and 'images/record-' in page


def test_equal_scores_count_by_the_number_of_the_image(tmp_path):
  """As COCO's program walks images, whatever the order of the records."""
  boxes = truth()
  found = guesses(boxes)
  found['scores'] = np.ceil(found['scores'] * 2) / 2
  data = {'falling': True}
  evaluator = build('coco_detection', boxes, workdir=str(tmp_path), data=data)
  figures = evaluator.run(found)
  results = json.loads((tmp_path / 'val_results.json').read_text())
  instances = as_json(boxes)
  last = 1 + 7 * (len(boxes) - 1)
  for entry in instances['annotations']:
    entry['image_id'] = last + 1 - entry['image_id']
  expected = pycocotools_peer.figures(instances, results)
  assert {k: figures[k] for k in expected} == pytest.approx(expected, abs=1e-10)
  rising = build('coco_detection', boxes).run(found)
  assert rising['ap'] != pytest.approx(figures['ap'], abs=0.1)  # it matters


def test_classes_in_another_order_are_matched_by_name(tmp_path):
  boxes = truth()
  usual = build('coco_detection', boxes).run(guesses(boxes))
  # The model's labels are those of its own list.
  own = ['emu', 'cat', 'dog']
  shuffled = guesses(boxes)
  place = np.array([own.index(n) for n in NAMES] + [-1])
  shuffled['labels'] = place[shuffled['labels']].astype(np.int32)
  evaluator = build('coco_detection', boxes, trained=own, workdir=str(tmp_path))
  assert evaluator.run(shuffled) == pytest.approx(usual, abs=1e-12)
  results = json.loads((tmp_path / 'val_results.json').read_text())
  assert pycocotools_peer.figures(as_json(boxes), results)[
    'ap'
  ] == pytest.approx(usual['ap'], abs=1e-10)


def test_a_misspelt_class_stops_with_both_lists():
  with pytest.raises(
    ValueError, match=r"evals.val.data.*'dog' \(near: 'dgo'\).*'dgo'"
  ):
    build('coco_detection', truth(), trained=['cat', 'dgo', 'emu'])


def test_voc_by_hand():
  """A hit, a miss, one found twice, and a difficult one that is no mistake."""
  boxes = [
    [[10, 10, 50, 50, 0, 0, 0], [60, 60, 100, 100, 0, 0, 1]],
    [[20, 20, 60, 60, 0, 0, 0]],
  ]
  out = guesses([[], []], num=4)
  for i, j, box, value in (
    (0, 0, (10, 10, 50, 50), 0.75),  # found
    (0, 1, (10, 10, 50, 48), 0.5),  # again: wrong
    (0, 2, (60, 60, 100, 100), 0.875),  # difficult: counts nowhere
    (1, 0, (70, 70, 90, 90), 0.25),  # nothing there
  ):
    out['boxes'][i, j], out['scores'][i, j] = box, value
    out['labels'][i, j], out['mask'][i, j] = 0, True
  out['mask'][0, 3] = out['mask'][1, 1:] = False
  found = build('voc_detection', boxes).run(out)
  # Recall .5 at precision 1, then no more: half the area, 6 of 11 points.
  assert found['ap50'] == pytest.approx(50)
  assert found['ap50_11point'] == pytest.approx(100 * 6 / 11)
  assert found['ap50/cat'] == pytest.approx(50)
  assert 'ap50/dog' not in found


def test_excluded_images_are_left_out_of_dedup_figures():
  boxes = truth()
  state = guesses(boxes)
  ids = ['images/record-0.png', 'images/record-3.png']
  found = build('coco_detection', boxes, exclude_ids=ids).run(state)
  assert found['num_images'] == 12 and found['num_images/dedup'] == 10
  kept = [rows for i, rows in enumerate(boxes) if i not in (0, 3)]
  rest = {k: np.delete(v, [0, 3], axis=0) for k, v in state.items()}
  alone = build('coco_detection', kept).run(rest)
  assert found['ap/dedup'] == pytest.approx(alone['ap'], abs=1e-12)
  assert found['ap'] != pytest.approx(alone['ap'], abs=1e-3)


def test_sets_without_truth_leave_results(tmp_path, capsys):
  boxes = truth()
  evaluator = build(
    'coco_detection', [[] for _ in boxes],
    data=dict(has_truth=False), workdir=str(tmp_path),
  )  # fmt: skip
  found = evaluator.run(guesses(boxes))
  assert found.keys() == {'num_images', 'num_detections'}
  assert 'no truth' in capsys.readouterr().out
  results = json.loads((tmp_path / 'val_results.json').read_text())
  assert len(results) == found['num_detections'] > 20


def test_what_cannot_be_scored():
  boxes = truth()
  broken = guesses(boxes)
  broken['scores'][3, 0] = np.nan
  with pytest.raises(ValueError, match=r'not finite in 1 images.*record-3'):
    build('coco_detection', boxes).run(broken)
  crowds = [[[1, 1, 9, 9, 0, 1, 0]]]
  with pytest.raises(ValueError, match='no box of the set counts'):
    build('coco_detection', crowds).run(guesses(crowds))
