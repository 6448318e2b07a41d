"""ImageNet in small, packed as its publishers pack it.

The brightness of an image says which class it is of, so that a test can tell
right labels from wrong ones without the code under test.
"""

import gzip
import io

import numpy as np
import scipy.io
import simplejpeg

from tests.input_pipeline.files.archives_made import tar_bytes

# Not in the order of the numbers that the development kit gives them.
WNIDS = ('n02123045', 'n01440764', 'n04285008', 'n07739125')
WORDS = {
  'n01440764': 'tench, Tinca tinca',
  'n02123045': 'tabby, tabby cat',
  'n04285008': 'sports car, sport car',
  'n07739125': 'apple',
  'n02512053': 'fish',
  'n00015388': 'animal, animate being, beast, brute, creature, fauna',
  'n00001740': 'entity',
}
# 'parent child', as in wordnet.is_a.txt
IS_A = (
  'n00001740 n00015388\nn00015388 n02512053\nn02512053 n01440764\n'
  'n00015388 n02123045\nn00001740 n04285008\nn00001740 n07739125\n'
)
_STEP = 32


def jpeg(wnid: str, number: int) -> bytes:
  """Grey of about 32 * class + 16, each image another one."""
  value = _STEP * sorted(WORDS).index(wnid) + _STEP // 2
  pixels = np.full((12, 16, 3), value, np.uint8)
  pixels[0, :3] = [(value + number * k) % 5 + value for k in (1, 2, 3)]
  return simplejpeg.encode_jpeg(pixels, 98)


def wnid_of(image: bytes) -> str:
  """The class of an image made here, from its pixels."""
  value = int(simplejpeg.decode_jpeg(image)[6, 8].mean())
  (found,) = [
    wnid
    for i, wnid in enumerate(sorted(WORDS))
    if abs(_STEP * i + _STEP // 2 - value) < 10
  ]
  return found


def train(num: int = 6, wnids=WNIDS) -> dict[str, dict[str, bytes]]:
  """wnid -> file name -> image."""
  return {
    wnid: {f'{wnid}_{i * 7}.JPEG': jpeg(wnid, i) for i in range(num)}
    for wnid in wnids
  }


def class_tars(images) -> dict[str, dict[str, bytes]]:
  return {f'{wnid}.tar': files for wnid, files in images.items()}


def val(num: int = 9) -> tuple[dict[str, bytes], list[str]]:
  """(file name -> image, wnids in their order)."""
  wnids = [WNIDS[(3 * i + 1) % len(WNIDS)] for i in range(num)]
  names = [f'ILSVRC2012_val_{i + 1:08}.JPEG' for i in range(num)]
  return {
    name: jpeg(wnid, i + 100)
    for i, (name, wnid) in enumerate(zip(names, wnids))
  }, wnids


def meta(*, compressed: bool = True) -> bytes:
  """meta.mat: the classes as 1 to 4, the inner nodes behind them."""
  columns = (
    'ILSVRC2012_ID', 'WNID', 'words', 'gloss', 'num_children', 'children',
    'wordnet_height', 'num_train_images',
  )  # fmt: skip
  wnids = [*WNIDS, *(wnid for wnid in WORDS if wnid not in WNIDS)]
  rows = np.zeros((len(wnids), 1), [(name, object) for name in columns])
  for i, wnid in enumerate(wnids):
    inner = wnid not in WNIDS
    children = np.arange(2.0 * inner).reshape(1, -1)
    rows[i, 0] = (
      float(i + 1), wnid, WORDS[wnid], f'a {WORDS[wnid]}', 2.0 * inner,
      children, float(inner), 0.0 if inner else 6.0,
    )  # fmt: skip
  out = io.BytesIO()
  scipy.io.savemat(out, {'synsets': rows}, do_compression=compressed)
  return out.getvalue()


def devkit(wnids: list[str], **changed: bytes) -> bytes:
  """ILSVRC2012_devkit_t12.tar.gz; `changed`: 'meta' or 'truth' instead."""
  truth = ''.join(f'{WNIDS.index(wnid) + 1}\n' for wnid in wnids).encode()
  root = 'ILSVRC2012_devkit_t12'
  content = {
    f'{root}/readme.txt': b'ILSVRC2012 Development Kit',
    f'{root}/data/meta.mat': changed.get('meta', meta()),
    f'{root}/data/ILSVRC2012_validation_ground_truth.txt': changed.get(
      'truth', truth
    ),
  }
  return gzip.compress(tar_bytes(content))
