"""Small data sets with boxes in other people's forms, written to a folder."""

import io

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 20, 40


def jpeg(seed: int, height: int = HEIGHT, width: int = WIDTH) -> bytes:
  pixels = np.random.default_rng(seed).integers(
    0, 256, (height, width, 3), np.uint8
  )
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG')
  return file.getvalue()


def write(root, files):
  for name, data in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def xml(*objects, size=(HEIGHT, WIDTH)) -> str:
  """Objects are (name, xmin, ymin, xmax, ymax[, difficult])."""
  parts = []
  for name, x0, y0, x1, y1, *difficult in objects:
    flag = f'<difficult>{difficult[0]}</difficult>' if difficult else ''
    parts.append(
      f'<object><name>{name}</name>{flag}<bndbox><xmin>{x0}</xmin>'
      f'<ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>\n'
    )
  stated = ''
  if size is not None:
    stated = (
      f'<size><width>{size[1]}</width><height>{size[0]}</height></size>\n'
    )
  return f'<annotation>\n{stated}{"".join(parts)}</annotation>\n'


# Common name -> objects of its XML.
OBJECTS = {
  'a': [('zebra', 1, 1, 40, 20), ('apple tree', 3, 2, 10, 6, 1)],
  'b': [],
  'c': [('zebra', 11, 5, 20, 10, 0)],
}
# The same as lines of YOLO: 0 apple tree, 1 zebra.
LINES = {
  'a': '1 0.5 0.5 1 1\n0 0.15 0.175 0.2 0.25\n',
  'b': '',
  'c': '1 0.375 0.35 0.25 0.3\n',
}
BOXES = {
  'a': [[0, 0, 20, 40], [1, 2, 6, 10]],
  'b': [],
  'c': [[4, 10, 10, 20]],
}
LABELS = {'a': [1, 0], 'b': [], 'c': [1]}
NAMES = ('apple tree', 'zebra')


def check(source, keys):
  """The images of `keys` ({'a': key}) with the boxes above, and no others."""
  assert source.vocabulary.names == NAMES
  by_key = {source.key(i): i for i in range(len(source))}
  assert {*by_key} == {*keys.values()}
  for name, key in keys.items():
    example = source[by_key[key]]
    np.testing.assert_allclose(
      example['boxes'], np.reshape(BOXES[name], (-1, 4)), atol=1e-5
    )
    assert example['boxes'].dtype == np.float32
    assert example['box_labels'].tolist() == LABELS[name]
    assert example['labels'].tolist() == sorted(LABELS[name])
    assert example['image'] == jpeg(ord(name))
  np.testing.assert_array_equal(source.sizes(), [[HEIGHT, WIDTH]] * len(source))
