"""Pascal VOC in small, in the publisher's form: lists, boxes, masks."""

import io
import tarfile

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 20, 30


def jpeg(seed: int) -> bytes:
  rng = np.random.default_rng(seed)
  file = io.BytesIO()
  pixels = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
  Image.fromarray(pixels).save(file, 'JPEG')
  return file.getvalue()


def entry(name, box, difficult=0, more=''):
  xmin, ymin, xmax, ymax = box
  return (
    f'\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Left</pose>\n'
    f'\t\t<truncated>1</truncated>\n\t\t<difficult>{difficult}</difficult>\n'
    f'{more}\t\t<bndbox>\n\t\t\t<xmin>{xmin}</xmin>\n\t\t\t<ymin>{ymin}</ymin>'
    f'\n\t\t\t<xmax>{xmax}</xmax>\n\t\t\t<ymax>{ymax}</ymax>\n\t\t</bndbox>\n'
    '\t</object>\n'
  )


def xml(*objects) -> str:
  return (
    '<annotation>\n\t<folder>VOC</folder>\n\t<filename>x.jpg</filename>\n'
    f'\t<size>\n\t\t<width>{WIDTH}</width>\n\t\t<height>{HEIGHT}</height>\n'
    f'\t\t<depth>3</depth>\n\t</size>\n{"".join(objects)}</annotation>\n'
  )


def mask_png(ids: np.ndarray, mode: str = 'P', bits: int = 8) -> bytes:
  """As VOC's: a palette of colours that mean nothing here."""
  picture = Image.fromarray(ids.astype(np.uint8), 'L')
  if mode == 'P':
    picture = Image.fromarray(ids.astype(np.uint8), 'P')
    picture.putpalette(list(np.random.default_rng(0).bytes(768)))
  elif mode != 'L':
    picture = picture.convert(mode)
  file = io.BytesIO()
  picture.save(file, 'PNG', bits=bits)
  return file.getvalue()


def class_ids(*present, void=True) -> np.ndarray:
  ids = np.zeros((HEIGHT, WIDTH), np.uint8)
  for row, number in enumerate(present):
    ids[2 * row : 2 * row + 2, 5:9] = number
  if void:
    ids[:, 10] = 255
  return ids


PART = (
  '\t\t<part>\n\t\t\t<name>head</name>\n\t\t\t<bndbox>\n\t\t\t\t<xmin>1</xmin>'
  '<ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>\n\t\t\t</bndbox>\n\t\t</part>\n'
)
XMLS = {
  ('VOC2007', '000005'): xml(
    entry('chair', (6, 3, 10, 9)), entry('person', (1, 1, 30, 20), 1, PART),
    entry('chair', (2, 2, 2, 2)),
  ),
  ('VOC2007', '000007'): xml(entry('car', (1, 2, 31, 4))),
  ('VOC2007', '000001'): xml(entry('dog', (8, 12, 20, 20))),
  ('VOC2012', '2008_000002'): xml(
    entry('tvmonitor', ('4.70000076293945', 5, 9, 10))
  ),
}  # fmt: skip
LISTS = {
  'VOC2007/ImageSets/Main/trainval.txt': '000005\n000007\n',
  'VOC2007/ImageSets/Main/chair_trainval.txt': '000005  1\n000007 -1\n',
  'VOC2007/ImageSets/Main/test.txt': '000001\n',
  'VOC2012/ImageSets/Main/trainval.txt': '2008_000002\n',
  'VOC2012/ImageSets/Segmentation/train.txt': '2007_000032\n',
  'VOC2012/ImageSets/Segmentation/val.txt': '2007_000033\n',
}
MASKS = {
  'VOC2012/SegmentationClass/2007_000032.png': class_ids(1, 15),
  'VOC2012/SegmentationClass/2007_000033.png': class_ids(20),
}


def files() -> dict[str, bytes]:
  """Path below VOCdevkit -> content."""
  found = {name: text.encode() for name, text in LISTS.items()}
  for (year, name), text in XMLS.items():
    found[f'{year}/Annotations/{name}.xml'] = text.encode()
    found[f'{year}/JPEGImages/{name}.jpg'] = jpeg(int(name[-6:]))
  for path, ids in MASKS.items():
    found[path] = mask_png(ids)
    name = path.split('/')[-1].removesuffix('.png')
    found[f'VOC2012/JPEGImages/{name}.jpg'] = jpeg(int(name[-6:]))
  return found


def write(root, given):
  for name, data in given.items():
    path = root / 'VOCdevkit' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_tar(path, given):
  with tarfile.open(path, 'w') as tar:
    for name, data in given.items():
      member = tarfile.TarInfo(f'VOCdevkit/{name}')
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))
