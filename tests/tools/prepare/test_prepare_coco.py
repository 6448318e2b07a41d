"""prepare_coco on a tiny data set in the publisher's form."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image
from pycocotools.cocoeval import Params

from input_pipeline import pipeline
from input_pipeline.labels.space import LabelSpace
from input_pipeline.prepared import manifest as manifests
from input_pipeline.publishers.coco.skeletons import PERSON
from input_pipeline.sources.records import Source
from tools import prepare_coco

CATEGORIES = [
  {'supercategory': 'animal', 'id': 17, 'name': 'cat'},
  {
    'supercategory': 'person', 'id': 1, 'name': 'person',
    'keypoints': [*PERSON.names], 'skeleton': [[1, 2]],
  },
  {'supercategory': 'vehicle', 'id': 90, 'name': 'car'},
]  # fmt: skip
POLYGON = [2.5, 3.25, 8.0, 3.25, 8.0, 9.5]
RLE = {'counts': [10, 5, 497], 'size': [16, 32]}
KEYPOINTS = [3 * k + i if i < 2 else k % 3 for k in range(17) for i in range(3)]


def annotation(number, image, category, box, **more):
  return {
    'id': number, 'image_id': image, 'category_id': category, 'bbox': box,
    'area': 12.5, 'iscrowd': 0, 'segmentation': [POLYGON], **more,
  }  # fmt: skip


# Of each split: image ids, annotations. Annotations of images are mixed.
IMAGES = {'train2017': [9, 25], 'val2017': [139, 285, 632]}
ANNOTATIONS = {
  'train2017': [
    annotation(101, 9, 17, [1.5, 2.25, 10, 4.5]),
    annotation(102, 25, 1, [0, 0, 32, 16], iscrowd=1, segmentation=RLE),
    annotation(103, 9, 1, [3, 4, 0, 5]),  # no area
    annotation(104, 9, 17, [2, 2, 2, 2]),
  ],
  'val2017': [
    annotation(201, 139, 90, [0, 1, 2, 3]),
    annotation(202, 632, 1, [5, 6, 7, 8]),
  ],
}
PERSONS = {
  'train2017': [{**ANNOTATIONS['train2017'][2], 'num_keypoints': 11,
                 'keypoints': KEYPOINTS}],
  'val2017': [{**ANNOTATIONS['val2017'][1], 'num_keypoints': 0,
               'keypoints': [0] * 51}],
}  # fmt: skip


def content(split, annotations):
  images = [
    {
      'license': 1, 'file_name': f'{i:012d}.jpg', 'height': 16, 'width': 32,
      'id': i,
    }
    for i in IMAGES[split]
  ]  # fmt: skip
  return {
    'info': {'year': 2017}, 'licenses': [], 'images': images,
    'annotations': annotations, 'categories': CATEGORIES,
  }  # fmt: skip


def jpeg(seed: int) -> bytes:
  rng = np.random.default_rng(seed)
  file = io.BytesIO()
  pixels = rng.integers(0, 256, (16, 32, 3), np.uint8)
  Image.fromarray(pixels).save(file, 'JPEG')
  return file.getvalue()


@pytest.fixture
def coco(tmp_path):
  root = tmp_path / 'coco'
  (root / 'annotations').mkdir(parents=True)
  for split, ids in IMAGES.items():
    (root / split).mkdir()
    for number in ids:
      (root / split / f'{number:012d}.jpg').write_bytes(jpeg(number))
    for name, given in (
      ('instances', ANNOTATIONS), ('person_keypoints', PERSONS),
    ):  # fmt: skip
      path = root / 'annotations' / f'{name}_{split}.json'
      path.write_text(json.dumps(content(split, given[split])))
  return root


def prepare(root, out, *args) -> int:
  argv = ['--input', root, '--output', out, '--workers', 1, *args]
  return prepare_coco.main([str(arg) for arg in argv])


def by_key(out, split):
  source = Source(path=str(out), split=split)
  return {source[i]['key']: source[i] for i in range(len(source))}


def test_boxes_and_outlines(coco, tmp_path, capsys):
  out = tmp_path / 'out'
  assert prepare(coco, out) == 0
  train = by_key(out, 'train')
  assert set(train) == {
    'train2017/000000000009.jpg', 'train2017/000000000025.jpg',
  }  # fmt: skip
  names = Source(path=str(out)).vocabulary.names
  assert names == ('person', 'cat', 'car')  # by category id
  first = train['train2017/000000000009.jpg']
  assert first['image'] == jpeg(9)
  assert first['labels'].tolist() == [0, 1]
  assert first['boxes'].tolist() == [
    [2.25, 1.5, 6.75, 11.5], [4, 3, 9, 3], [2, 2, 4, 4],
  ]  # fmt: skip
  assert first['box_labels'].tolist() == [1, 0, 1]
  assert first['box_ids'].tolist() == [101, 103, 104]
  assert first['box_area'].tolist() == [12.5] * 3
  assert not first['box_crowd'].any()
  assert first['box_outlines'] == [[POLYGON]] * 3
  assert 'keypoints' not in first
  crowd = train['train2017/000000000025.jpg']
  assert crowd['labels'].tolist() == [0]  # crowds count
  assert crowd['box_crowd'].tolist() == [True]
  assert crowd['box_outlines'] == [RLE]
  empty = by_key(out, 'val')['val2017/000000000285.jpg']
  assert empty['boxes'].shape == (0, 4) and empty['labels'].tolist() == []
  text = capsys.readouterr().out
  assert (
    'train2017: 4 boxes, 1 of crowds, 1 without an area (kept): '
    '000000000009.jpg annotation 103, 0 outside their images (left out), 0 '
    'reach beyond the image (kept), 0 images without a box (kept)\n'
  ) in text
  assert 'val2017: 2 boxes, 0 of crowds, 0 without an area (kept), 0 ou' in text
  assert '1 images without a box' in text


def test_keypoints_of_persons_among_all_instances(coco, tmp_path):
  out = tmp_path / 'out'
  assert prepare(coco, out, '--task', 'both') == 0
  found = by_key(out, 'train')['train2017/000000000009.jpg']
  assert found['keypoints'].shape == (3, 17, 3)
  assert not found['keypoints'][[0, 2]].any()
  expected = np.array(KEYPOINTS, float).reshape(17, 3)
  np.testing.assert_array_equal(found['keypoints'][1, :, 0], expected[:, 1])
  np.testing.assert_array_equal(found['keypoints'][1, :, 1], expected[:, 0])
  np.testing.assert_array_equal(found['keypoints'][1, :, 2], expected[:, 2])


def test_what_is_known_of_keypoints_comes_with_the_data(coco, tmp_path, capsys):
  out = tmp_path / 'out'
  assert prepare(coco, out, '--task', 'both') == 0
  space = LabelSpace.of_source(Source(path=str(out)))
  assert space.keypoints == PERSON
  spec = [dict(op='random_flip')]
  (flip,) = pipeline.build_ops(spec, Source(path=str(out)))
  assert flip.pairs == list(PERSON.pairs)
  assert prepare(coco, out, '--task', 'both') == 0
  assert 'finished already' in capsys.readouterr().out
  # As before names and sigmas were stored.
  manifest = out / 'manifest.json'
  content = json.loads(manifest.read_text())
  del content['options']['keypoints']
  manifest.write_text(json.dumps(content))
  old = LabelSpace.of_source(Source(path=str(out))).keypoints
  assert old is not None and old.anonymous and old.pairs == PERSON.pairs
  (flip,) = pipeline.build_ops(spec, Source(path=str(out)))
  assert flip.pairs == list(PERSON.pairs)
  assert prepare(coco, out, '--task', 'both') == 0


def test_other_keypoints_are_not_taken_for_those_of_persons(coco, tmp_path):
  for split in IMAGES:
    path = coco / 'annotations' / f'person_keypoints_{split}.json'
    found = json.loads(path.read_text())
    for entry in found['annotations']:
      entry['keypoints'] = entry['keypoints'][: 3 * 5]
    path.write_text(json.dumps(found))
  out = tmp_path / 'out'
  assert prepare(coco, out, '--task', 'both') == 0
  found = by_key(out, 'train')['train2017/000000000009.jpg']
  assert found['keypoints'].shape == (3, 5, 3)
  assert LabelSpace.of_source(Source(path=str(out))).keypoints is None


def test_keypoints_of_persons_are_those_of_coco():
  """Tolerances as in pycocotools; names say left and right."""
  expected = Params('keypoints').kpt_oks_sigmas
  np.testing.assert_allclose(PERSON.sigmas, expected, rtol=1e-12)
  assert len(PERSON.names) == 17
  paired = {PERSON.names[a]: PERSON.names[b] for a, b in PERSON.pairs}
  assert paired == {
    name: name.replace('left', 'right')
    for name in PERSON.names
    if name.startswith('left')
  }
  assert [n for n in PERSON.names if '_' not in n] == ['nose']


def test_persons_alone(coco, tmp_path):
  for split in IMAGES:  # the publisher's file has one category
    path = coco / 'annotations' / f'person_keypoints_{split}.json'
    text = json.loads(path.read_text()) | {'categories': CATEGORIES[1:2]}
    path.write_text(json.dumps(text))
  out = tmp_path / 'out'
  assert prepare(coco, out, '--task', 'keypoints') == 0
  assert Source(path=str(out)).vocabulary.names == ('person',)
  found = by_key(out, 'val')
  assert [len(e['boxes']) for _, e in sorted(found.items())] == [0, 0, 1]
  assert found['val2017/000000000139.jpg'].get('keypoints') is not None


def test_minival(coco, tmp_path, capsys):
  ids = tmp_path / 'ids.txt'
  ids.write_text('632\n139\n')
  out = tmp_path / 'out'
  assert prepare(coco, out, '--minival_ids', ids) == 0
  assert set(by_key(out, 'trainval_minus_minival')) == {
    'train2017/000000000009.jpg', 'train2017/000000000025.jpg',
    'val2017/000000000285.jpg',
  }  # fmt: skip
  minival = by_key(out, 'minival')
  assert set(minival) == {
    'val2017/000000000139.jpg', 'val2017/000000000632.jpg',
  }  # fmt: skip
  assert minival['val2017/000000000632.jpg']['box_ids'].tolist() == [202]
  ids.write_text('632\n7\n8\n')
  assert prepare(coco, tmp_path / 'x', '--minival_ids', ids) == 2
  assert '2 of 3 ids are not in' in capsys.readouterr().err
  ids.write_text('632\n\n0632\n')
  assert prepare(coco, tmp_path / 'x', '--minival_ids', ids) == 2
  assert 'ids.txt:3: id 0632 is already at line 1' in capsys.readouterr().err


@pytest.mark.parametrize('inside', ['train2017/', ''])
def test_zips_as_downloaded(coco, tmp_path, inside):
  """The same records from the published archives."""
  plain, zipped = tmp_path / 'plain', tmp_path / 'zipped'
  assert prepare(coco, plain, '--task', 'both') == 0
  archive = coco / 'annotations_trainval2017.zip'
  with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
    for path in sorted((coco / 'annotations').iterdir()):
      file.write(path, f'annotations/{path.name}')
  with zipfile.ZipFile(coco / 'train2017.zip', 'w') as file:
    for path in sorted((coco / 'train2017').iterdir()):
      file.write(path, f'{inside}{path.name}')
  shutil.rmtree(coco / 'annotations')
  shutil.rmtree(coco / 'train2017')
  assert prepare(coco, zipped, '--task', 'both') == 0
  before, after = (manifests.load(str(out)).splits for out in (plain, zipped))
  for split in ('train', 'val'):
    assert [s.sha256 for s in before[split]] == [s.sha256 for s in after[split]]


def test_a_missing_image_is_listed(coco, tmp_path):
  (coco / 'val2017' / '000000000285.jpg').unlink()
  out = tmp_path / 'out'
  assert prepare(coco, out) == 1
  assert prepare(coco, out, '--max_bad_fraction', 0.5) == 0
  (bad,) = map(json.loads, (out / 'bad_images.jsonl').read_text().splitlines())
  assert bad['key'] == 'val2017/000000000285.jpg' and 'not in' in bad['reason']


def edited(change):
  """A change of the train instances, made on the JSON object."""

  def apply(root):
    path = root / 'annotations' / 'instances_train2017.json'
    parsed = json.loads(path.read_text())
    change(parsed)
    path.write_text(json.dumps(parsed, indent=1))

  return apply


def set_first(**values):
  return edited(lambda c: c['annotations'][0].update(values))


def cut_short(root):
  path = root / 'annotations' / 'instances_train2017.json'
  path.write_text(path.read_text()[:-40])


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda root: shutil.rmtree(root / 'annotations'),
     'instances_train2017.json: no such file, nor'),
    (lambda root: shutil.rmtree(root / 'val2017'),
     'none of val2017, images/val2017, val2017.zip'),
    (lambda root: shutil.rmtree(root), 'no such folder'),
    (cut_short, 'instances_train2017.json:1 column'),
    (edited(lambda c: c.pop('images')), "no 'images' in it"),
    (set_first(bbox=[1, 2, 3]), 'bbox [x, y, width, height] must be 4 finite'),
    (set_first(bbox=[1, 2, -3, 4]), 'negative width or height'),
    (set_first(bbox=[1, 2, 1e300, 4]), 'must be 4 finite numbers'),
    (set_first(area=float('nan')), 'NaN is not a JSON number'),
    (set_first(area=10**400), 'area must be 1 finite numbers'),
    (set_first(iscrowd=2), 'iscrowd must be 0 or 1'),
    (set_first(image_id=77), 'image_id 77 is not in the file'),
    (set_first(category_id=2), 'category_id 2 is not in the file'),
    (set_first(id=102), 'annotation id 102 occurs twice'),
    (set_first(id='1'), "id must be a whole number >= 0, got '1'"),
    (set_first(segmentation=[[1, 2, 3]]), 'lists of x0, y0, x1, y1'),
    (set_first(segmentation={'size': [1, 2]}), 'an RLE needs "counts"'),
    (edited(lambda c: c['annotations'][1].pop('bbox')), "has no 'bbox'"),
    (edited(lambda c: c['images'].append(c['images'][0])),
     'image id 9 occurs twice'),
    (edited(lambda c: c['categories'].append({'id': 5, 'name': 'cat'})),
     "category 5 ('cat') occurs twice"),
    (edited(lambda c: c['categories'][0].update(name='dog')),
     "only in {0}val2017.json: 'cat'; only in {0}train2017.json: 'dog'"),
    (edited(lambda c: c['annotations'].insert(0, [1])),
     'annotations: expected an object'),
  ],
)  # fmt: skip
def test_mistakes_are_one_line(coco, tmp_path, capsys, change, message):
  change(coco)
  ids = tmp_path / 'ids.txt'
  ids.write_text('139\n')
  out = tmp_path / 'out'
  assert prepare(coco, out, '--minival_ids', ids) == 2
  errors = capsys.readouterr().err
  message = message.replace('{0}', f'{coco}/annotations/instances_')
  assert errors.startswith('error: ') and message in errors, errors
  assert 'Traceback' not in errors and errors.count('\n') == 1


def test_the_place_of_a_mistake_is_named(coco, tmp_path, capsys):
  path = coco / 'annotations' / 'instances_train2017.json'
  text = json.dumps(json.loads(path.read_text()), indent=1)
  lines = text.replace('12.5', '"=1+1"').splitlines()
  path.write_text('\n'.join(lines))
  entry = next(i for i, line in enumerate(lines, 1) if '"annotations"' in line)
  assert prepare(coco, tmp_path / 'out') == 2
  errors = capsys.readouterr().err
  assert f'{path}:{entry + 1} column 3: annotations: area must be' in errors


def test_keypoints_of_another_release(coco, tmp_path, capsys):
  path = coco / 'annotations' / 'person_keypoints_train2017.json'
  path.write_text(path.read_text().replace('"id": 103', '"id": 555'))
  assert prepare(coco, tmp_path / 'out', '--task', 'both') == 2
  assert '1 of 1 annotations are not in' in capsys.readouterr().err


@pytest.mark.parametrize('nesting', ['[' * 100_000, '{"a":' * 100_000])
def test_json_nested_without_end(coco, tmp_path, capsys, nesting):
  path = coco / 'annotations' / 'instances_train2017.json'
  path.write_text('{"info": ' + nesting)
  assert prepare(coco, tmp_path / 'out') == 2
  assert 'JSON nested too deeply' in capsys.readouterr().err
