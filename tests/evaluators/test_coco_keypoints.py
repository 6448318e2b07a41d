"""Poses scored: against pycocotools, by hand, and what runs leave behind."""

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from big_vision_like.protocols import Kind, Prediction
from evaluators.harness import building
from input_pipeline.labels.space import LabelSpace, Skeleton
from input_pipeline.labels.vocabulary import Vocabulary
from tests.big_vision_like.metrics import test_oks
from tests.evaluators import harness
from tests.peers import pycocotools_poses
from tools import score

POINTS = ['nose', 'left ear', 'right ear', 'tail']
SIGMAS = [0.05, 0.04, 0.04, 0.1]
NAMES, IDS = ['dog', 'person'], [18, 1]
PERSON = 1
OPS = [
  dict(op='decode'),
  dict(op='resize', size=[30, 40]),
  dict(op='keep', fields=['image', 'person', 'person_box']),
]


def truth(seed=0, num=9):
  """People of images: some crowds, some without keypoints, and dogs."""
  rng = np.random.default_rng(seed)
  found = []
  for index in range(num):
    rows = []
    for _ in range(0 if index == 4 else rng.integers(1, 4)):
      y, x = rng.integers(0, 60), rng.integers(0, 90)
      h, w = rng.integers(20, 60, 2)
      place = [y, x] + rng.integers(0, 20, (len(POINTS), 2)) / 20 * [h, w]
      seen = rng.integers(0, 3, len(POINTS)) * (rng.random() > 0.15)
      label = PERSON if index == 0 or rng.random() < 0.9 else 0
      seen = seen * (label == PERSON)
      points = np.column_stack([place * (seen > 0)[:, None], seen])
      rows.append(
        dict(
          box=[float(n) for n in (y, x, y + h, x + w)],
          keypoints=points.round(2).tolist(), label=label,
          crowd=bool(rng.random() < 0.1), area=float(h * w // 2),
        )
      )  # fmt: skip
    found.append(rows)
  return found


def looked_at(people, extra=2):
  """(image, person, box): all of the truth, and boxes that are not of it."""
  rows = [
    (i, j, row['box']) for i, there in enumerate(people)
    for j, row in enumerate(there)
  ]  # fmt: skip
  rng = np.random.default_rng(5)
  for i in range(len(people)):
    for _ in range(extra):
      y, x = rng.integers(0, 60, 2).tolist()
      rows.append((i, -1, [y, x, y + 40, x + 30]))
  return rows


def guesses(people, records, seed=1):
  """State of the stand-in: a pose of each record, all multiples of 1/4."""
  rng = np.random.default_rng(seed)
  keypoints = np.zeros((len(records), len(POINTS), 3), np.float32)
  for row, (image, person, box) in enumerate(records):
    y0, x0, y1, x1 = box
    there = people[image]
    near = there[max(person, 0)] if there else None
    place = rng.uniform([y0, x0], [y1, x1], (len(POINTS), 2))
    if near is not None and rng.random() < 0.8:
      known = np.array(near['keypoints'])
      place = np.where(known[:, 2:] > 0, known[:, :2], place)
    shake = rng.normal(0, rng.choice([0.5, 3]), place.shape)
    keypoints[row, :, :2] = np.round((place + shake) * 4) / 4
    keypoints[row, :, 2] = rng.random(len(POINTS))
  scores = rng.integers(1, 9, len(records)) / 8  # many equal ones
  return {'keypoints': keypoints, 'scores': scores.astype(np.float32)}


def prediction(records, kind: Kind = 'pose'):
  """Looks poses up by the image, which its pixels tell, and the box."""
  images = np.array([row[0] for row in records])
  boxes = np.array([row[2] for row in records], np.float32)

  def look_up(state, batch):
    image = batch['image'][:, 0, 0, 0].astype(jnp.int32)
    same = (batch['person_box'][:, None] == boxes).all(axis=-1)
    record = jnp.argmax(same & (image[:, None] == images), axis=1)
    return {name: value[record] for name, value in state.items()}

  return Prediction(look_up, kind, reads=('image', 'person_box'))


def build(
  people, records, *, trained=None, workdir=None, mesh=None, process_index=0,
  of=None, data=None, kind: Kind = 'pose', **options,
):  # fmt: skip
  """The evaluator of a set, of a model with the skeleton `trained`."""
  ctx = harness.context(
    2, name='val', workdir=workdir, mesh=mesh, process_index=process_index
  )
  space = LabelSpace(Vocabulary(tuple(NAMES)), keypoints=trained)
  ctx = type(ctx)(**{**vars(ctx), 'space': space})
  known = {'keypoint_names': POINTS, 'sigmas': SIGMAS, **(of or {})}
  images = dict(
    type='tests.fixtures.pose_source', people=people, names=NAMES,
    external_ids=IDS, **known,
  )  # fmt: skip
  own = dict(type='tests.fixtures.people_of', of=images, people=records)
  entry = dict(
    type='coco_keypoints', data=data or own,
    **{'ops': OPS, 'batch_size': 5, **options},
  )  # fmt: skip
  return building.from_config(
    {'val': entry}, {'poses': prediction(records, kind)}, lambda name: ctx
  )['val']


def as_json(people) -> dict[str, Any]:
  """The truth as a person_keypoints_*.json."""
  annotations: list[dict[str, Any]] = []
  for i, rows in enumerate(people):
    for row in rows:
      y0, x0, y1, x1 = row['box']
      points = np.array(row['keypoints'], np.float32).astype(float)
      annotations.append(
        dict(
          id=len(annotations) + 1, image_id=(len(people) - 1 - i) * 7 + 3,
          category_id=IDS[row['label']], bbox=[x0, y0, x1 - x0, y1 - y0],
          area=row['area'], iscrowd=int(row['crowd']),
          keypoints=points[:, [1, 0, 2]].ravel().tolist(),
          num_keypoints=int((points[:, 2] > 0).sum()),
        )
      )  # fmt: skip
  return dict(
    images=[dict(id=i * 7 + 3) for i in range(len(people))],
    annotations=annotations,
    categories=[dict(id=i, name=n) for i, n in zip(IDS, NAMES)],
  )


def kept(records, state, threshold=0.5):
  """Records whose poses stay, one after the other."""
  boxes = np.array([row[2] for row in records])
  return test_oks.greedy(
    [row[0] for row in records], state['keypoints'].astype(float),
    state['scores'].tolist(), np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
    SIGMAS, threshold,
  )  # fmt: skip


def test_figures_are_those_of_pycocotools(tmp_path):
  """Of the file that is left, which holds the poses that stay."""
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  found = dict(build(people, records, workdir=str(tmp_path)).run(state))
  results = json.loads((tmp_path / 'val_results.json').read_text())
  stays = kept(records, state)
  assert len(records) // 3 < stays.sum() < len(records)
  assert found.pop('num_detections') == len(results) == stays.sum()
  expected = {
    (6 * 7 - (row[0] - 2) * 7 + 3, *pose[:, 1::-1].ravel().tolist())
    for row, pose in zip(
      [r for r, s in zip(records, stays) if s], state['keypoints'][stays]
    )
  }
  assert expected == {
    (
      entry['image_id'],
      *np.reshape(entry['keypoints'], (-1, 3))[:, :2].ravel().tolist(),
    )
    for entry in results
  }
  assert {entry['category_id'] for entry in results} == {1}
  assert {v for entry in results for v in entry['keypoints'][2::3]} == {1}
  instances = as_json(people)
  figures = pycocotools_poses.figures(instances, results, SIGMAS)
  assert 5 < figures['ap'] < 95
  assert {k: found[k] for k in figures} == pytest.approx(figures, abs=1e-10)
  assert found['num_images'] == 9
  assert found['num_people'] == sum(
    a['num_keypoints'] > 0 and not a['iscrowd']
    for a in instances['annotations']
  )
  # The same from files.
  truth_file, out = tmp_path / 'truth.json', tmp_path / 'score.json'
  truth_file.write_text(json.dumps(as_json(people)))
  code = score.main(
    [
      '--type', 'keypoints', '--truth', str(truth_file), '--detections',
      str(tmp_path / 'val_results.json'), '--output', str(out),
      '--sigmas', ','.join(map(str, SIGMAS)),
    ]
  )  # fmt: skip
  assert code == 0
  scored = json.loads(out.read_text())
  assert {k: scored[k] for k in figures} == pytest.approx(figures, abs=1e-10)


def test_people_of_a_detector(tmp_path):
  """The source of people itself; boxes of a file that are near people."""
  people = truth()
  records = looked_at(people)
  last = len(people) - 1
  rows = [
    dict(
      image_id=(last - image) * 7 + 3, category_id=IDS[PERSON], score=0.5,
      bbox=[box[1], box[0], box[3] - box[1], box[2] - box[0]],
    )
    for image, _, box in records
  ]  # fmt: skip
  file = tmp_path / 'boxes.json'
  file.write_text(json.dumps(rows))
  images = dict(
    type='tests.fixtures.pose_source', people=people, names=NAMES,
    external_ids=IDS, keypoint_names=POINTS,
  )  # fmt: skip
  data = dict(
    type='people', of=images, boxes=str(file), unmatched='keep', sigmas=SIGMAS
  )
  state = guesses(people, records)
  found = build(people, records, data=data).run(state)
  usual = build(people, records).run(state)
  for name in ('ap', 'ar50', 'num_people', 'num_detections'):
    assert found[name] == pytest.approx(usual[name], abs=1e-12)
  of_truth = dict(type='people', of=images, sigmas=SIGMAS)
  alone = build(people, records, data=of_truth, oks_nms=None).run(state)
  assert alone['num_detections'] == alone['num_people'] == usual['num_people']
  assert alone['pck@0.2'] == pytest.approx(usual['pck@0.2'], abs=1e-12)


def test_kinds_that_no_record_is_of_are_named(capsys):
  people = truth()
  people[2][0]['label'] = 0
  assert people[2][0]['keypoints'][1][2] > 0
  dogs = [
    (i, j) for i, rows in enumerate(people)
    for j, row in enumerate(rows) if row['label'] == 0
  ]  # fmt: skip
  records = [row for row in looked_at(people) if row[:2] not in dogs]
  build(people, records).run(guesses(people, records))
  assert 'dog: no record is of one, but they count' in capsys.readouterr().out


def test_images_that_were_stored_smaller():
  """Records are in their own pixels, poses in those of the original image."""
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  usual = build(people, records).run(state)
  half = [
    [
      row | dict(
        box=[n / 2 for n in row['box']], area=row['area'] / 4,
        keypoints=[[y / 2, x / 2, v] for y, x, v in row['keypoints']],
      )
      for row in rows
    ]
    for rows in people
  ]  # fmt: skip
  found = build(half, records, of=dict(stored_at_half=True)).run(state)
  assert found == pytest.approx(usual, abs=1e-4)


def test_pck_of_people_of_the_truth():
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  found = build(people, records, per_keypoint=True, pck=0.1).run(state)
  right, total = np.zeros(len(POINTS)), np.zeros(len(POINTS))
  for (image, person, _), pose in zip(records, state['keypoints']):
    row = people[image][person] if person >= 0 else None
    if row is None or row['crowd']:
      continue
    y0, x0, y1, x1 = row['box']
    for k, (y, x, seen) in enumerate(row['keypoints']):
      total[k] += seen > 0
      distance = np.hypot(pose[k, 0] - y, pose[k, 1] - x)
      right[k] += seen > 0 and distance < 0.1 * max(y1 - y0, x1 - x0)
  assert 0 < right.sum() < total.sum()
  assert found['pck@0.1'] == pytest.approx(100 * right.sum() / total.sum())
  for k, name in enumerate(['nose', 'left_ear', 'right_ear', 'tail']):
    assert found[f'pck@0.1/{name}'] == pytest.approx(100 * right[k] / total[k])


@pytest.mark.parametrize(
  'batch_size, mesh', [(1, None), (8, (4, 2)), (64, None)]
)
def test_every_person_counts_once(batch_size, mesh):
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  usual = build(people, records).run(state)
  other = build(
    people, records, batch_size=batch_size,
    mesh=mesh and harness.mesh(*mesh),
  ).run(state)  # fmt: skip
  assert other == pytest.approx(usual, abs=1e-12)


def test_suppression_and_the_number_of_poses_are_options(tmp_path):
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  every = build(people, records, oks_nms=None).run(state)
  assert every['num_detections'] == len(records)
  one = build(
    people, records, max_detections=1, workdir=str(tmp_path), num_worst=0
  ).run(state)
  assert one['num_detections'] == len(people)
  results = json.loads((tmp_path / 'val_results.json').read_text())
  best = [
    max(s for s, r in zip(state['scores'].tolist(), records) if r[0] == i)
    for i in range(len(people))
  ]
  assert [entry['score'] for entry in results] == best
  assert not (tmp_path / 'val_worst.html').exists()


def test_excluded_images_are_left_out_of_dedup_figures():
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  ids = ['images/record-1.png', 'images/record-3.png']
  found = build(people, records, exclude_ids=ids).run(state)
  assert found['num_images'] == 9 and found['num_images/dedup'] == 7
  blank = [[] if i in (1, 3) else rows for i, rows in enumerate(people)]
  rest = [i for i, row in enumerate(records) if row[0] not in (1, 3)]
  alone = build(blank, [records[i] for i in rest]).run(
    {name: value[rest] for name, value in state.items()}
  )
  for name in ('ap', 'ar50', 'pck@0.2', 'num_people', 'num_detections'):
    assert found[f'{name}/dedup'] == pytest.approx(alone[name], abs=1e-12)
  assert found['ap'] != pytest.approx(alone['ap'], abs=1e-3)


def test_sets_without_truth_leave_results(tmp_path, capsys):
  people = truth()
  records = [(i, -1, box) for i, _, box in looked_at(people)]
  state = guesses(people, records)
  found = build(
    people, records, workdir=str(tmp_path), of=dict(has_truth=False)
  ).run(state)
  assert found.keys() == {'num_images', 'num_detections'}
  assert 'no truth' in capsys.readouterr().out
  results = json.loads((tmp_path / 'val_results.json').read_text())
  assert len(results) == found['num_detections'] == kept(records, state).sum()
  assert {entry['category_id'] for entry in results} == {1}


def test_the_page_of_the_worst(tmp_path):
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  build(people, records, workdir=str(tmp_path), num_worst=2).run(state)
  page = (tmp_path / 'val_worst.html').read_text()
  assert page.count('images/record-') == 2 and 'missed' in page
  other = build(
    people, records, workdir=str(tmp_path / 'no'), process_index=1
  )  # fmt: skip
  other.run(state)
  assert not (tmp_path / 'no').exists()


def test_skeletons_must_agree():
  people = truth()
  records = looked_at(people)
  known = Skeleton(tuple(POINTS), sigmas=(0.3,) * 4)
  found = build(people, records, trained=known)
  assert 'ap' in found.run(guesses(people, records))
  for names in (POINTS[:3], POINTS[::-1]):
    with pytest.raises(
      ValueError, match=r'evals\.val\.data and the model have different keyp.*'
      '4, nose, left ear',
    ):  # fmt: skip
      build(people, records, trained=Skeleton(tuple(names)))


def test_tolerances_come_from_the_data_or_the_model():
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  usual = build(people, records).run(state)
  model = Skeleton(tuple(POINTS), sigmas=tuple(SIGMAS))
  for of in (dict(sigmas=None), dict(keypoint_names=None)):
    assert build(people, records, of=of, trained=model).run(state) == usual
  with pytest.raises(
    ValueError, match=r'set evals\.val\.data\.sigmas to a list of 4 numbers'
  ):
    build(people, records, of=dict(sigmas=None))
  with pytest.raises(ValueError, match=r'set evals\.val\.data\.keypoint_names'):
    build(people, records, of=dict(keypoint_names=None))


def test_what_cannot_be_scored():
  people = truth()
  records = looked_at(people)
  state = guesses(people, records)
  images = dict(type='tests.fixtures.pose_source', people=people, names=NAMES)
  with pytest.raises(ValueError, match=r"not of people; dict\(type='people'"):
    build(people, records, data=images)
  with pytest.raises(ValueError, match=r"no op makes the field 'person_box'"):
    build(people, records, ops=OPS[:2])
  with pytest.raises(ValueError, match=r"scores 'pose'"):
    build(people, records, kind='boxes')
  broken = {name: value.copy() for name, value in state.items()}
  broken['keypoints'][3, 1, 0] = np.inf
  with pytest.raises(ValueError, match=r'not finite in 1 .*record-1'):
    build(people, records).run(broken)
  fewer = {**state, 'keypoints': state['keypoints'][:, :3]}
  with pytest.raises(ValueError, match=r'poses of shape \(3, 3\), the 4 keyp'):
    build(people, records).run(fewer)
  other = Skeleton((*POINTS, 'fin'), sigmas=(0.1,) * 5)
  more = {**state, 'keypoints': state['keypoints'].repeat(2, axis=1)[:, :5]}
  with pytest.raises(ValueError, match=r'4 keypoints, but there are 5 names'):
    build(
      people, records, of=dict(keypoint_names=None), trained=other
    ).run(more)  # fmt: skip
  beyond = [(0, 9, records[0][2])]
  with pytest.raises(ValueError, match=r'is of box 9 of image 0, which has'):
    build(people, beyond).run({k: v[:1] for k, v in state.items()})
  crowds = [[{**row, 'crowd': True} for row in rows] for rows in people]
  with pytest.raises(ValueError, match='no person of the set counts'):
    build(crowds, records).run(state)
  bare = np.zeros((len(POINTS), 3)).tolist()
  blank = [[{**row, 'keypoints': bare} for row in rows] for rows in people]
  with pytest.raises(ValueError, match='no keypoint is labelled in any image'):
    build(blank, records).run(state)
