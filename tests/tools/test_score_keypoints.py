"""tools.score --type keypoints: figures of poses, and mistakes in files."""

import json

import pytest

from tests.input_pipeline.sources import boxes_made
from tests.peers import pycocotools_poses
from tools import score

FEW = {'keypoints': ['head', 'tail'], 'id': 5, 'name': 'fish'}
TRUTH = {
  'images': [{'id': 7}, {'id': 9}],
  'categories': [FEW],
  'annotations': [
    {
      'id': 1, 'image_id': 7, 'category_id': 5, 'bbox': [0, 0, 50, 50],
      'area': 2500, 'iscrowd': 0, 'num_keypoints': 2,
      'keypoints': [10, 10, 2, 40, 40, 1],
    },
    {
      'id': 2, 'image_id': 9, 'category_id': 5, 'bbox': [5, 5, 20, 20],
      'keypoints': [0, 0, 0, 0, 0, 0],
    },
  ],
}  # fmt: skip


def found(image, keypoints, value=0.5, category=5):
  return dict(
    image_id=image, category_id=category, keypoints=keypoints, score=value
  )


RIGHT = [found(7, [10, 10, 1, 40, 40, 0.25])]


def run(capsys, tmp_path, truth, detections, *more):
  """(code, stdout, stderr, figures); the truth may be a data set's name."""
  place = truth
  if not isinstance(truth, str):
    place = tmp_path / 'truth.json'
    place.write_text(json.dumps(truth))
  results, out = tmp_path / 'found.json', tmp_path / 'score.json'
  results.write_text(json.dumps(detections))
  code = score.main(
    [
      '--type', 'keypoints', '--truth', str(place), '--detections',
      str(results), '--output', str(out), *map(str, more),
    ]
  )  # fmt: skip
  said = capsys.readouterr()
  figures = json.loads(out.read_text()) if not code else {}
  return code, said.out, said.err, figures


def test_figures_are_those_of_pycocotools(tmp_path, capsys):
  """In files of any order, with COCO's own tolerances."""
  persons, results = pycocotools_poses.made_up(2, coarse=True)
  for category in persons['categories']:
    del category['keypoints']
  code, said, err, figures = run(capsys, tmp_path, persons, results)
  assert (code, err) == (0, '')
  expected = pycocotools_poses.figures(persons, results)
  assert len(expected) == 10
  assert {k: figures[k] for k in expected} == pytest.approx(
    expected, rel=0, abs=1e-10
  )
  assert figures['num_detections'] == len(results)
  assert said.startswith('10 images, ')


def test_own_tolerances(tmp_path, capsys):
  """A pose off by 5 px of a 50 x 50 object, by hand in the metric's tests."""
  off = [found(7, [13, 14, 1, 43, 44, 1])]
  for given in ('.05', '.05,5e-2'):
    code, said, _, figures = run(
      capsys, tmp_path, TRUTH, off, '--sigmas', given
    )
    assert code == 0 and figures['ap'] == pytest.approx(30)
    assert figures['num_people'] == 1
  assert said.endswith('no pose counts for ap_large, ar_large: left out\n')
  wide = run(capsys, tmp_path, TRUTH, off, '--sigmas', '.05,1e3')[3]
  assert wide['ap'] > 50


@pytest.mark.parametrize(
  'given, words',
  [
    ((), 'nothing says how far off its 2 keypoints may be: --sigmas with'),
    (('--sigmas', '.1,.1,.1'), '--sigmas: 2 keypoints need as many sigmas'),
    (('--sigmas', '0'), '--sigmas: sigmas must be positive'),
    (('--sigmas', 'nan'), '--sigmas: sigmas must be positive'),
    (('--sigmas', '.1;.2'), "--sigmas='.1;.2': expected numbers with commas"),
    (('--sigmas', ''), "--sigmas='': expected numbers"),
    (('--sigmas', '.1', '--inclusive'), '--inclusive is for --type voc'),
  ],
)
def test_mistakes_in_the_command(tmp_path, capsys, given, words):
  code, _, err, _ = run(capsys, tmp_path, TRUTH, RIGHT, *given)
  assert code == 2 and err.startswith('error: ') and words in err


def test_tolerances_are_of_poses(tmp_path, capsys):
  code = score.main(
    ['--type', 'boxes', '--truth', 'a', '--detections', 'b', '--sigmas', '1']
  )  # fmt: skip
  assert code == 2 and '--sigmas is for --type key' in capsys.readouterr().err


@pytest.mark.parametrize(
  'detections, words',
  [
    ([*RIGHT, found(8, [0] * 6)], 'entry 1: image_id 8 is not in'),
    ([found(7, [0] * 6, category=1)], 'entry 0: category_id 1 is not in'),
    (
      [found(7, [0] * 5)],
      'entry 0: keypoints must be 6 numbers x, y, v of 2 k',
    ),
    ([found(7, [0] * 9)], '2 keypoints, got 9 numbers'),
    ([found(7, [])], '2 keypoints, got 0 numbers'),
    ([found(7, [[0, 0, 1]] * 2)], '2 keypoints, got 2 numbers'),
    (
      [found(7, 'no')],
      "entry 0: keypoints must be a list of numbers, got 'no'",
    ),
    ([found(7, [0, float('nan'), 1, 0, 0, 1])], 'keypoints: expected a finite'),
    (
      [found(7, [0, True, 1, 0, 0, 1])],
      'entry 0: keypoints: expected a finite',
    ),
    ([found(7, [0, 10**400, 1, 0, 0, 1])], 'entry 0: keypoints: expected a f'),
    ([found(7, [0] * 6, float('inf'))], 'entry 0: score: expected a finite'),
    ([{**RIGHT[0], 'score': '1'}], 'entry 0: score: expected a finite'),
    ([dict(image_id=7, category_id=5, score=1)], "entry 0: has no 'keypoints'"),
    ({'annotations': []}, 'expected a list of detections'),
  ],
)
def test_mistakes_in_results(tmp_path, capsys, detections, words):
  code, _, err, _ = run(capsys, tmp_path, TRUTH, detections, '--sigmas', 0.1)
  assert code == 2 and err.startswith('error: ') and err.count('\n') == 1
  assert 'found.json' in err and words in err


def changed(index=0, section='annotations', **values):
  truth = json.loads(json.dumps(TRUTH))
  entry = truth[section][index]
  for key, value in values.items():
    if value is None:
      del entry[key]
    else:
      entry[key] = value
  return truth


@pytest.mark.parametrize(
  'truth, words',
  [
    (changed(keypoints=None), "[0]: has no 'keypoints'; is it a person_keyp"),
    (changed(keypoints=[1, 1, 3, 1, 1, 1]), 'visibility must be 0, 1 or 2, g'),
    (changed(keypoints=[1, 1, -1, 1, 1, 1]), 'must be 0, 1 or 2, got -1'),
    (changed(keypoints=[1, 1, 0.5, 1, 1, 1]), 'must be 0, 1 or 2, got 0.5'),
    (changed(keypoints=[1, 1, 1]), 'keypoints must be 6 numbers x, y, v of 2'),
    (changed(1, keypoints=[1, 1]), '[1]: keypoints must be 6 numbers'),
    (changed(num_keypoints=0), 'num_keypoints is 0, but 2 of its keypoints'),
    (changed(1, num_keypoints=3), 'num_keypoints is 3, but 0 of its keypoints'),
    (changed(bbox=[1, 1, -1, 1]), 'a negative width or height'),
    (changed(bbox=None), "has no 'bbox'"),
    (changed(section='categories', keypoints=['a', 'a']), 'names that differ'),
    (changed(section='categories', keypoints='a'), 'categories[0]: keypoints'),
    (changed(section='categories', keypoints=['a']), '3 numbers x, y, v of 1'),
    (
      {**TRUTH, 'categories': [
        FEW, {**FEW, 'id': 2, 'name': 'eel', 'keypoints': ['head']}
      ]},
      'categories[0] and',
    ),
    ({**TRUTH, 'annotations': []}, 'no annotation, so no keypoints; is it a p'),
    ({**TRUTH, 'annotations': TRUTH['annotations'][1:]}, 'no pose in it c'),
  ],
)  # fmt: skip
def test_mistakes_in_the_truth(tmp_path, capsys, truth, words):
  code, _, err, _ = run(capsys, tmp_path, truth, [], '--sigmas', '.1')
  assert code == 2 and err.startswith('error: ') and err.count('\n') == 1
  assert 'truth.json' in err and words in err


def test_animals_of_seventeen_keypoints_are_no_persons(tmp_path, capsys):
  persons, results = pycocotools_poses.made_up(2)  # 'k0', 'k1', ...
  code, _, err, _ = run(capsys, tmp_path, persons, results)
  assert code == 2 and 'how far off its 17 keypoints may be' in err


@pytest.mark.parametrize('kind', ['coco', 'detect'])
def test_a_data_set_is_known_by_names(tmp_path, capsys, kind):
  """COCO's own form: 17 keypoints of persons, so its tolerances are known."""
  points = [n for i in range(17) for n in (20 + i, 20 + 2 * i, 2)]
  size = {'height': 80, 'width': 80}
  persons = {
    'images': [
      {'id': 4, 'file_name': 'b.jpg', **size},
      {'id': 3, 'file_name': 'a.jpg', **size},
    ],
    'categories': [{'id': 1, 'name': 'person'}],
    'annotations': [
      {
        'id': 8, 'image_id': 3, 'category_id': 1, 'bbox': [20, 20, 40, 40],
        'area': 1600, 'iscrowd': 0, 'keypoints': points, 'num_keypoints': 17,
      }
    ],
  }  # fmt: skip
  boxes_made.write(
    tmp_path / 'own',
    {
      'annotations/person_keypoints_val.json': json.dumps(persons),
      'val/a.jpg': boxes_made.jpeg(1, 80, 80),
      'val/b.jpg': boxes_made.jpeg(2, 80, 80),
    },
  )
  place = f'{kind}:{tmp_path / "own"}:val'
  entry = dict(file_name='a.jpg', category='person', keypoints=points, score=1)
  code, _, err, figures = run(capsys, tmp_path, place, [entry])
  assert (code, err) == (0, '')
  assert figures['ap'] == figures['ap_medium'] == pytest.approx(100)
  assert (figures['num_images'], figures['num_people']) == (2, 1)
  unknown = {**entry, 'file_name': 'c.jpg'}
  code, _, err, _ = run(capsys, tmp_path, place, [unknown])
  assert code == 2 and "entry 0: image_id 'c' is not in" in err
