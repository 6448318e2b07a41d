"""own_detection.py: folders of photos and boxes in every form, as they are."""

import json

import jax
import numpy as np
import pytest

from big_vision_like import experiment
from configs import own_data, own_detection, voc_detection
from input_pipeline import pipeline, streams
from input_pipeline.labels.space import LabelSpace
from tests.input_pipeline.sources import boxes_made

SIZE = 64


def xml_folder(root):
  for split in ('train', 'val'):
    for name, objects in boxes_made.OBJECTS.items():
      boxes_made.write(
        root / split,
        {
          f'{name}.jpg': boxes_made.jpeg(ord(name)),
          f'{name}.xml': boxes_made.xml(*objects),
        },
      )


def yolo_folder(root):
  for split in ('train', 'val'):
    for name, lines in boxes_made.LINES.items():
      boxes_made.write(
        root,
        {
          f'images/{split}/{name}.jpg': boxes_made.jpeg(ord(name)),
          f'labels/{split}/{name}.txt': lines,
        },
      )
  (root / 'classes.txt').write_text('\n'.join(boxes_made.NAMES))


def coco_folder(root):
  for split in ('train', 'val'):
    images, annotations = [], []
    for number, (name, boxes) in enumerate(boxes_made.BOXES.items()):
      path = f'{split}/{name}.jpg'
      boxes_made.write(root, {path: boxes_made.jpeg(ord(name))})
      images.append(
        dict(
          id=number, file_name=f'{name}.jpg', height=boxes_made.HEIGHT,
          width=boxes_made.WIDTH,
        )
      )  # fmt: skip
      for (y0, x0, y1, x1), label in zip(boxes, boxes_made.LABELS[name]):
        annotations.append(
          dict(
            id=len(annotations) + 1, image_id=number, category_id=label + 1,
            bbox=[x0, y0, x1 - x0, y1 - y0],
          )
        )  # fmt: skip
    categories = [
      dict(id=i + 1, name=name) for i, name in enumerate(boxes_made.NAMES)
    ]
    content = dict(
      images=images, annotations=annotations, categories=categories
    )
    (root / split / '_annotations.coco.json').write_text(json.dumps(content))


FOLDERS = {'xml': xml_folder, 'yolo': yolo_folder, 'coco': coco_folder}


@pytest.mark.parametrize('form', FOLDERS)
def test_one_flag_reads_a_folder_of_any_form(form, tmp_path):
  FOLDERS[form](tmp_path)
  config = own_detection.get_config(
    f'path={tmp_path},size={SIZE},depth=14,width=4,batch=3'
  )
  source = streams.open_source(config, '')
  assert source.vocabulary.names == boxes_made.NAMES
  ops = pipeline.build_ops(config.input.ops, source)
  batches = pipeline.train(source, ops, batch_size=3, seed=0)
  batch = next(batches)
  batches.close()
  # 20 x 40 pixels become 32 x 64 of the canvas.
  assert batch['image'].shape == (3, SIZE, SIZE, 3)
  np.testing.assert_array_equal(batch['image_size'], [[32, SIZE]] * 3)
  assert sorted(batch['box_mask'].sum(1)) == [0, 1, 2]
  whole = batch['boxes'][batch['box_labels'] == 1]
  assert {tuple(box) for box in whole} >= {(0, 0, 32, SIZE)}
  node = config.evals.val
  data = pipeline.open_source(node.data.to_dict())
  (seen,) = pipeline.evaluation(
    data, pipeline.build_ops(node.ops, data), batch_size=3
  )
  assert seen['image'].shape == (3, SIZE, SIZE, 3)
  np.testing.assert_array_equal(seen['original_size'], [[20, 40]] * 3)


def test_own_data_takes_a_detection_folder_by_its_task():
  rest = 'path=/a,b/c,size=128,metric=voc'
  for arguments in (f'task=detection,{rest}', f'{rest},task=detection'):
    config = own_data.get_config(arguments)
    assert config.to_dict() == own_detection.get_config(rest).to_dict()
  with pytest.raises(ValueError, match=r'valid: .*eval_split'):
    own_data.get_config('task=detection,path=x,crop=resized')


def test_a_development_kit_is_read_for_its_boxes(tmp_path):
  """Though it has masks too."""
  year = 'VOC2007'
  boxes_made.write(
    tmp_path,
    {
      f'{year}/JPEGImages/1.jpg': boxes_made.jpeg(1),
      f'{year}/Annotations/1.xml': boxes_made.xml(('dog', 1, 1, 20, 10)),
      f'{year}/ImageSets/Main/trainval.txt': '1\n',
      f'{year}/ImageSets/Segmentation/trainval.txt': '1\n',
      f'{year}/SegmentationClass/1.png': b'',
    },
  )
  for module in (own_detection, voc_detection):
    config = module.get_config(f'path={tmp_path},split=trainval')
    source = streams.open_source(config, '')
    np.testing.assert_array_equal(source[0]['boxes'], [[0, 0, 10, 20]])


def test_starts():
  scratch = own_detection.get_config('path=x')
  assert (scratch.model.bn, scratch.init_from.path) == ('batch', None)
  tuned = own_detection.get_config(
    'path=x,init=weights/r50,layout=torch,freeze=conv4'
  )
  assert tuned.model.bn == 'frozen' and tuned.init_from.path == 'weights/r50'
  assert tuned.model.freeze == 'conv4' and tuned.task.pixels == 'imagenet'
  exp = experiment.build(
    tuned,
    num_examples=100,
    space=LabelSpace.of_count(5),
    devices=jax.devices()[:1],
  )
  assert exp.total_steps == 375  # 30 epochs in batches of 8


def test_anchors_follow_the_size():
  config = own_detection.get_config('path=x,size=128,metric=voc,holdout=10')
  assert config.task.anchor_base == 64.0  # sides of 16, 32, 64 and 128
  assert config.evals.val.type == 'voc_detection'
  assert 'num_proposals' not in config.task
  few = own_detection.get_config('path=x,regions=few').task
  assert (few.boxes_per_image, few.num_proposals, few.pooled_size) == (
    16,
    64,
    4,
  )
  for data in (config.input.source, config.evals.val.data):
    assert data.holdout_percent == 10


@pytest.mark.parametrize(
  'arguments, words',
  [
    ('size=128', 'needs the path of your photos and boxes'),
    ('path=x,size=0', 'size=0 must be at least 1'),
    ('path=x,freeze=conv3', 'freeze=conv3 needs init=PATH'),
    ('path=x,metric=map', "metric='map'; valid: coco, voc"),
  ],
)
def test_mistakes(arguments, words):
  with pytest.raises(ValueError, match=words):
    own_detection.get_config(arguments)
