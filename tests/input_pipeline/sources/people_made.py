"""Apes with four keypoints, in COCO's form, and people sources of them."""

import json

from input_pipeline import pipeline
from tests.input_pipeline.sources.boxes_made import jpeg, write

HEIGHT, WIDTH = 60, 80
NAMES = ['head', 'left_hand', 'right_hand', 'tail']
CATEGORIES = [
  {'id': 4, 'name': 'ape', 'keypoints': NAMES},
  {'id': 9, 'name': 'tree'},
]
# Of image 'a': a whole ape, one without a keypoint, a crowd, one without an
# area, a small one; of 'b': nothing but a tree; of 'c': an ape.
POINTS = [10, 12, 2, 14, 20, 1, 0, 0, 0, 30, 25, 2]
NONE = [0] * 12


def annotation(number, image, box, keypoints, **more):
  return {
    'id': number, 'image_id': image, 'category_id': 4, 'bbox': box,
    'area': 77.0, 'iscrowd': 0, 'keypoints': keypoints, **more,
  }  # fmt: skip


ANNOTATIONS = [
  annotation(1, 11, [8, 10, 30, 20], POINTS),
  annotation(2, 11, [40, 10, 30, 20], NONE),
  annotation(3, 11, [0, 0, 80, 60], NONE, iscrowd=1),
  annotation(4, 11, [20, 20, 0, 9], POINTS),
  annotation(5, 11, [50, 40, 3, 9], POINTS),
  annotation(6, 12, [1, 1, 9, 9], NONE, category_id=9),
  annotation(7, 10, [8, 10, 30, 20], [*POINTS[:9], 0, 0, 0]),
]


def content(**changed):
  images = [
    {'id': i, 'file_name': f'{n}.jpg', 'height': HEIGHT, 'width': WIDTH}
    for i, n in ((11, 'a'), (12, 'b'), (10, 'c'))
  ]
  whole = dict(images=images, annotations=ANNOTATIONS, categories=CATEGORIES)
  return json.dumps(whole | changed)


def made(root, **changed):
  text = content(**changed)
  write(root, {'annotations/person_keypoints_train.json': text})
  files = {f'train/{n}.jpg': jpeg(ord(n), HEIGHT, WIDTH) for n in 'abc'}
  write(root, files)
  return root


def opened(root, *, of=(), **options):
  config = dict(type='detect', path=str(root)) | dict(of)
  return pipeline.open_source(dict(type='people', of=config, **options))


def results(path, *rows):
  """Rows are image_id, bbox, score and more."""
  path.write_text(
    json.dumps(
      [
        {'image_id': i, 'category_id': 4, 'bbox': b, 'score': s, **dict(more)}
        for i, b, s, *more in (
          (*row[:3], *(row[3].items() if len(row) > 3 else ())) for row in rows
        )
      ]
    )
  )
  return str(path)
