"""`type='detect'` on folders with boxes: which source, and that it reads."""

import json

import pytest
from PIL import Image

from configs import own_detection
from input_pipeline import pipeline
from input_pipeline.sources import detect
from tests.input_pipeline.publishers import voc_made
from tests.input_pipeline.sources import test_coco, test_own_xml, test_yolo
from tests.input_pipeline.sources.boxes_made import jpeg, write, xml
from tools import prepare_images


def opened(path, **options):
  options = dict(type='detect', path=str(path), **options)
  return pipeline.open_source(options)


@pytest.mark.parametrize('layout', test_coco.LAYOUTS)
def test_coco_data(tmp_path, layout):
  test_coco.made(tmp_path, layout)
  assert detect.kind_of(str(tmp_path)) == 'coco'
  assert opened(tmp_path, split='val').external_ids == (5, 24)


@pytest.mark.parametrize('layout', test_own_xml.LAYOUTS)
def test_own_xml_folders(tmp_path, layout):
  test_own_xml.made(tmp_path, layout)
  assert detect.kind_of(str(tmp_path)) == 'voc'
  assert len(opened(tmp_path)[0]['boxes']) == 2


@pytest.mark.parametrize('names', test_yolo.NAMES)
@pytest.mark.parametrize('layout', test_yolo.LAYOUTS)
def test_yolo_folders(tmp_path, layout, names):
  test_yolo.made(tmp_path, layout, names)
  assert detect.kind_of(str(tmp_path)) == 'yolo'
  assert len(opened(tmp_path)[0]['boxes']) == 2


def test_without_splits(tmp_path):
  test_yolo.made(tmp_path / 'y', splits={'.': 'abc'})
  assert len(opened(tmp_path / 'y', split='all')) == 3
  write(tmp_path / 'x', {'a.jpg': jpeg(1), 'a.xml': xml(('dog', 1, 1, 3, 3))})
  assert len(opened(tmp_path / 'x', holdout_percent=1)) == 1
  files = {'result.json': test_coco.content('abc')}
  write(tmp_path / 'c', files | test_coco.images('images', 'abc'))
  assert len(opened(tmp_path / 'c', split='all')) == 3


def test_a_kit_with_boxes_and_masks(tmp_path):
  voc_made.write(tmp_path, voc_made.files())
  assert 'segmentation' in opened(tmp_path, split='val')[0]
  assert 'boxes' in opened(tmp_path, split='test', task='detection')[0]


def test_a_kit_with_boxes_alone(tmp_path):
  files = {
    name: data
    for name, data in voc_made.files().items()
    if name.startswith('VOC2007')
  }
  voc_made.write(tmp_path, files)
  assert detect.kind_of(str(tmp_path)) == 'voc'
  assert 'boxes' in opened(tmp_path, split='test')[0]


def test_what_only_looks_alike(tmp_path):
  """Class folders with notes beside the images are no boxes."""
  for name in ('cat', 'dog'):
    folder = tmp_path / 'train' / name
    folder.mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(folder / 'a.png')
    (folder / 'a.txt').write_text('1 2 3 4 5\n')
    (folder / 'a.xml').write_text('<photo/>\n')
  (tmp_path / 'train.json').write_text(json.dumps({'note': 'no lists'}))
  assert detect.kind_of(str(tmp_path)) == 'folder'


@pytest.mark.parametrize('text', ['', '{}', '[]', '[' * 99_999, '{"images": ['])
@pytest.mark.parametrize(
  'name', ['annotations/instances_train.json', 'train/_annotations.coco.json']
)
def test_a_damaged_json_of_cocos_name_is_named(tmp_path, name, text):
  write(tmp_path, {name: text, 'train/a.jpg': jpeg(1)})
  with pytest.raises(ValueError, match=name) as error:
    opened(tmp_path)
  assert '\n' not in str(error.value)


def test_labels_of_yolo_without_names_ask_for_them(tmp_path):
  write(
    tmp_path,
    {'images/train/a.jpg': jpeg(1), 'labels/train/a.txt': '0 .5 .5 .5 .5\n'},
  )
  with pytest.raises(FileNotFoundError, match=r'no data\.yaml with names, and'):
    opened(tmp_path)


def test_an_option_that_does_not_fit(tmp_path):
  test_yolo.made(tmp_path)
  with pytest.raises(ValueError, match=r"task='segmentation', but .* \(yolo\)"):
    opened(tmp_path, task='segmentation')
  with pytest.raises(ValueError, match=r"unknown option 'backg"):
    opened(tmp_path, background=False)


def test_data_without_boxes_are_no_training_data_of_a_detector(tmp_path):
  for name in ('cat', 'dog'):
    write(tmp_path, {f'train/{name}/a.jpg': jpeg(1)})
  config = own_detection.get_config(f'path={tmp_path}')
  with pytest.raises(
    ValueError, match=r'^input\.source: cat/a\.jpg has no boxes; it must be a d'
  ):
    pipeline.open_train(config)


def train_on(path, **options):
  """Reads a batch of two, at most two boxes an image."""
  source = opened(path, **options)
  ops = [
    dict(op='decode'), dict(op='resize', size=8), dict(op='image_size'),
    dict(op='boxes', max_boxes=2),
  ]  # fmt: skip
  data = pipeline.train(
    source, pipeline.build_ops(ops, source), batch_size=2, seed=0
  )
  try:
    return next(data)
  finally:
    data.close()


THREE = {
  'coco': lambda root: test_coco.made(
    root,
    train=test_coco.content(
      'ab', annotations=test_coco.changed_boxes(*[[1, 1, 4, 4]] * 3)
    ),
  ),
  'voc': lambda root: test_own_xml.made(
    root, 'lists', a=xml(*[('zebra', 1, 1, 4, 4)] * 3)
  ),
  'yolo': lambda root: test_yolo.made(root, a='0 .5 .5 .5 .5\n' * 3),
}
FOLDERS = {'coco': 'train2017', 'voc': 'JPEGImages', 'yolo': 'train/images'}


@pytest.mark.parametrize('form', THREE)
def test_images_that_cannot_be_used_are_named(tmp_path, form):
  """More boxes than there is room for, a damaged file, none at all."""
  THREE[form](tmp_path)
  name = f'{FOLDERS[form]}/a.jpg'
  with pytest.raises(
    ValueError, match=rf'{name}: 3 boxes do not fit into max_boxes=2 of input'
  ):
    train_on(tmp_path)
  (tmp_path / name).write_bytes(b'?')
  with pytest.raises(ValueError, match=rf'{name}: .*(no size|not an image)'):
    train_on(tmp_path)
  (tmp_path / name).unlink()
  if form == 'yolo':  # whose images say what the records are
    lines = opened(tmp_path).report_lines()
    assert 'labels/a.txt: passed over' in lines[0]
    return
  with pytest.raises(
    ValueError, match=r'a\.\w+: (the image is missing|not in)'
  ):
    train_on(tmp_path)


def test_prepared_by_what_lies_there(tmp_path):
  for name, module in (
    ('coco', test_coco), ('voc', test_own_xml), ('yolo', test_yolo),
  ):  # fmt: skip
    layout = next(iter(module.LAYOUTS))
    module.made(tmp_path / name, layout)
    argv = ['--input', tmp_path / name, '--output', tmp_path / f'{name}_out']
    assert prepare_images.main([*map(str, argv), '--workers', '1']) == 0
    stored = opened(tmp_path / f'{name}_out')
    assert stored.vocabulary.names == ('apple tree', 'zebra')
    assert sorted(len(stored[i]['boxes']) for i in range(2)) == [0, 2]
