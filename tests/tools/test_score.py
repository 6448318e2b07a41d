"""tools.score: figures of any program's detections, and mistakes in files."""

import json

import pytest

from tests.input_pipeline.sources import boxes_made
from tools import score

TRUTH = {
  'images': [{'id': 7}, {'id': 9}],
  'categories': [{'id': 18, 'name': 'dog'}, {'id': 3, 'name': 'cat'}],
  'annotations': [
    {'id': 1, 'image_id': 7, 'category_id': 3, 'bbox': [0, 0, 10, 20]},
    {'id': 2, 'image_id': 9, 'category_id': 18, 'bbox': [5, 5, 40, 40]},
    {
      'id': 3, 'image_id': 9, 'category_id': 3, 'bbox': [0, 0, 90, 90],
      'iscrowd': 1,
    },
  ],
}  # fmt: skip


def found(image, category, box, value):
  return dict(image_id=image, category_id=category, bbox=box, score=value)


RIGHT = [found(7, 3, [0, 0, 10, 20], 0.9), found(9, 18, [5, 5, 40, 40], 0.8)]


def run(capsys, tmp_path, truth, detections, *more, kind='boxes'):
  """(code, stdout, stderr); both files may be text already."""
  paths = []
  for name, content in (('truth.json', truth), ('found.json', detections)):
    if isinstance(content, str) and '\n' not in content and name[0] == 't':
      paths.append(content)  # a data set
      continue
    path = tmp_path / name
    text = content if isinstance(content, str) else json.dumps(content)
    path.write_text(text)
    paths.append(str(path))
  code = score.main(
    [
      '--type', kind, '--truth', paths[0], '--detections', paths[1],
      *map(str, more),
    ]
  )  # fmt: skip
  out = capsys.readouterr()
  return code, out.out, out.err


def test_figures_by_hand(tmp_path, capsys):
  """A cat is missed by nobody; of the dog's two detections one is right."""
  detections = [*RIGHT, found(9, 18, [60, 60, 10, 10], 0.95)]
  out = tmp_path / 'score.json'
  code, said, err = run(
    capsys, tmp_path, TRUTH, detections, '--output', out
  )  # fmt: skip
  assert (code, err) == (0, '')
  assert said.startswith('2 images, 2 boxes, 3 detections\n')
  figures = json.loads(out.read_text())
  # The false dog comes first: a precision of a half at every recall.
  assert figures['ap/cat'] == pytest.approx(100)
  assert figures['ap/dog'] == figures['ap50'] * 2 - 100 == pytest.approx(50)
  assert figures['ap'] == pytest.approx(75)
  assert 'ap_large' not in figures  # 200 and 1600 pixels: small and medium
  assert figures['ap_small'] == pytest.approx(100)
  assert 'ap50' in said


def test_what_is_left_out_is_said(tmp_path, capsys):
  truth = {
    **TRUTH,
    'categories': [*TRUTH['categories'], dict(id=1, name='owl')],
  }
  _, said, _ = run(capsys, tmp_path, truth, RIGHT)
  assert said.endswith(
    'no box counts for ap_large, ar_large, ap/owl: left out\n'
  )


def test_a_crowd_forgives_what_lies_in_it(tmp_path, capsys):
  inside = found(9, 3, [20, 20, 30, 30], 0.99)
  out = tmp_path / 'score.json'
  run(capsys, tmp_path, TRUTH, [*RIGHT, inside], '--output', out)
  assert json.loads(out.read_text())['ap/cat'] == pytest.approx(100)


def test_no_detections_score_nothing(tmp_path, capsys):
  out = tmp_path / 'score.json'
  assert run(capsys, tmp_path, TRUTH, [], '--output', out)[0] == 0
  figures = json.loads(out.read_text())
  assert figures['ap'] == figures['ar100'] == 0
  assert figures['num_detections'] == 0


@pytest.mark.parametrize(
  'detections, words',
  [
    ([*RIGHT, found(8, 3, [0, 0, 1, 1], 1)], 'entry 2: image_id 8 is not in'),
    ([found(7, 1, [0, 0, 1, 1], 1)], 'entry 0: category_id 1 is not in'),
    ([found('7', 3, [0, 0, 1, 1], 1)], "entry 0: image_id '7' is not in"),
    ({'annotations': []}, 'expected a list of detections'),
    ('[{"image_id": 7,\n "cat', 'not JSON'),
    ('', 'not JSON'),
    ([RIGHT[0], 5], 'entry 1: expected an object, got 5'),
    ([found(7, 3, [0, 0, 1, float('nan')], 1)], 'entry 0: bbox: expected'),
    (
      [RIGHT[0], found(7, 3, [0, 0, 1, 1], float('nan'))],
      'entry 1: score: exp',
    ),
    ([found(7, 3, [0, 0, 1, 1], True)], 'entry 0: score: expected a finite'),
    ([found(7, 3, [5, 0, -3, 1], 1)], 'entry 0: bbox [5, 0, -3, 1] has a nega'),
    ([found(7, 3, [0, 0, 1], 1)], 'entry 0: bbox must be [x, y, width, height'),
    ([found(7, 3, {'x': 1}, 1)], 'entry 0: bbox must be'),
    ([{k: v for k, v in RIGHT[0].items() if k != 'score'}], "has no 'score'"),
    ([{k: v for k, v in RIGHT[0].items() if k != 'bbox'}], "has no 'bbox'"),
    ([{'score': 1}], "entry 0: has no 'image_id'"),
  ],
)
def test_mistakes_in_results(tmp_path, capsys, detections, words):
  code, _, err = run(capsys, tmp_path, TRUTH, detections)
  assert code == 2 and err.startswith('error: ') and err.count('\n') == 1
  assert 'found.json' in err and words in err


def changed(section, index, **values):
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
    ({}, "no list 'images'"),
    ({**TRUTH, 'annotations': [3]}, 'annotations[0] is 3'),
    (changed('annotations', 0, image_id=70), 'annotations[0]: image_id 70'),
    (changed('annotations', 1, category_id=None), "no 'category_id'"),
    (changed('annotations', 1, id=1), 'annotation id 1 occurs twice'),
    (changed('images', 1, id=7), 'image id 7 occurs twice'),
    (changed('categories', 1, name=None), "has no 'name'"),
    (changed('categories', 1, name='dog'), "two categories are called 'dog'"),
    (changed('categories', 1, name=7), 'categories[1]: name must be a text'),
    (changed('categories', 0, id='q'), 'categories[0]: its id is a text, and'),
    (changed('categories', 0, id={}), 'categories[0]: id must be a whole numb'),
    (changed('images', 1, id=[1]), 'images[1]: id must be a whole number or'),
    (changed('images', 1, id=True), 'images[1]: id must be a whole number or'),
    (changed('annotations', 0, bbox=[1, 2]), 'annotations[0]: bbox must be'),
    (changed('annotations', 0, bbox=[9, 2, -4, 1]), 'a negative width or heig'),
    (changed('annotations', 0, area=-1), 'annotations[0]: area must be at le'),
    (changed('annotations', 2, iscrowd='no'), '[2]: iscrowd must be 0 or 1, g'),
    (
      {**TRUTH, 'annotations': TRUTH['annotations'][2:]},
      'no box in it counts',
    ),
  ],
)
def test_mistakes_in_the_truth(tmp_path, capsys, truth, words):
  code, _, err = run(capsys, tmp_path, truth, [])
  assert code == 2 and err.startswith('error: ') and err.count('\n') == 1
  assert 'truth.json' in err and words in err


@pytest.fixture
def folder(tmp_path):
  """XML of a zebra and a difficult apple tree in a, a zebra in c."""
  files = {}
  for name, objects in boxes_made.OBJECTS.items():
    files[f'{name}.jpg'] = boxes_made.jpeg(ord(name))
    files[f'{name}.xml'] = boxes_made.xml(*objects)
  boxes_made.write(tmp_path / 'own', files)
  return tmp_path / 'own'


def of_name(file_name, category, box, value):
  return dict(file_name=file_name, category=category, bbox=box, score=value)


def test_a_folder_of_voc_and_its_difficult_boxes(folder, tmp_path, capsys):
  """x, y, width and height of boxes_made.BOXES; one zebra of two is found."""
  place = f'detect:{folder}:all'
  detections = [
    of_name('a.jpg', 'zebra', [0, 0, 40, 20], 0.9),
    # Difficult: neither right nor wrong, found or not.
    of_name('a.jpg', 'apple tree', [2, 1, 8, 5], 0.8),
  ]
  out = tmp_path / 'score.json'
  code, _, err = run(
    capsys, tmp_path, place, detections, '--output', out, kind='voc'
  )
  assert (code, err) == (0, '')
  figures = json.loads(out.read_text())
  assert figures['ap50/zebra'] == figures['ap50'] == pytest.approx(50)
  assert figures['ap50_11point'] == pytest.approx(100 * 6 / 11)
  assert 'ap50/apple_tree' not in figures
  assert 'ap50/apple tree' not in figures
  assert figures['num_boxes'] == 2
  # Numbers of classes count from 1 in the order of the names.
  numbered = [
    dict(image_id='a', category_id=2, bbox=[0, 0, 40, 20], score=0.9),
    dict(image_id='c', category_id=2, bbox=[10, 4, 10, 6], score=0.7),
  ]
  run(capsys, tmp_path, place, numbered, '--output', out, kind='voc')
  assert json.loads(out.read_text())['ap50'] == pytest.approx(100)
  code, _, err = run(
    capsys, tmp_path, place, [of_name('d.jpg', 'zebra', [0, 0, 1, 1], 1)],
    kind='voc',
  )  # fmt: skip
  assert code == 2 and "entry 0: image_id 'd' is not in" in err
  code, _, err = run(
    capsys, tmp_path, place, [of_name('a.jpg', 'zebu', [0, 0, 1, 1], 1)],
    kind='voc',
  )  # fmt: skip
  assert code == 2 and "entry 0: category_id 'zebu' is not in" in err


def test_a_development_kit_is_read_for_its_boxes(tmp_path, capsys):
  """Though it has masks as well, which come first for training."""
  year = 'VOCdevkit/VOC2007'
  boxes_made.write(
    tmp_path,
    {
      f'{year}/JPEGImages/1.jpg': boxes_made.jpeg(1),
      f'{year}/Annotations/1.xml': boxes_made.xml(('dog', 1, 1, 20, 10)),
      f'{year}/ImageSets/Main/test.txt': '1\n',
      f'{year}/ImageSets/Segmentation/test.txt': '1\n',
      f'{year}/SegmentationClass/1.png': b'',
    },
  )
  out = tmp_path / 'score.json'
  code, _, err = run(
    capsys, tmp_path, f'detect:{tmp_path / "VOCdevkit"}:test',
    [of_name('1.jpg', 'dog', [0, 0, 20, 10], 0.5)], '--output', out, kind='voc',
  )  # fmt: skip
  assert (code, err) == (0, '')
  assert json.loads(out.read_text())['ap50/dog'] == pytest.approx(100)


def test_two_images_of_one_name(tmp_path, capsys):
  files = {}
  for folder in ('x', 'y'):
    files[f'{folder}/a.jpg'] = boxes_made.jpeg(1)
    files[f'{folder}/a.xml'] = boxes_made.xml(('dog', 1, 1, 3, 3))
  boxes_made.write(tmp_path / 'own', files)
  place = f'detect:{tmp_path / "own"}:all'
  code, _, err = run(capsys, tmp_path, place, [], kind='voc')
  assert code == 2 and "two images are called 'a'" in err


def test_mistakes_in_the_command(tmp_path, capsys):
  for truth, words in (
    (str(tmp_path / 'no.json'), 'no.json'),
    (str(tmp_path), f'detect:{tmp_path}:SPLIT'),
  ):
    code, _, err = run(capsys, tmp_path, truth, [])
    assert code == 2 and err.startswith('error: ') and words in err
  code, _, err = run(capsys, tmp_path, TRUTH, [], '--inclusive')
  assert code == 2 and '--inclusive is for --type voc' in err
