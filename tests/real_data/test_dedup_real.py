"""Real photographs: planted copies by kind, and what the sets really hold."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from tools import dedup

pytestmark = pytest.mark.real_data

_EVERY = 10  # photographs that copies are made of


def _crop(picture, share, rng):
  width, height = (round(n * share) for n in picture.size)
  x = int(rng.integers(0, picture.width - width + 1))
  y = int(rng.integers(0, picture.height - height + 1))
  return picture.crop((x, y, x + width, y + height))


KINDS = {
  'resized': lambda p, r: p.resize((p.width * 2 // 3, p.height * 2 // 3)),
  'squashed': lambda p, r: p.resize((min(p.size), min(p.size))),
  'recompressed': lambda p, r: p,
  'cropped95': lambda p, r: _crop(p, 0.95, r),
  'cropped90': lambda p, r: _crop(p, 0.9, r),
  'cropped80': lambda p, r: _crop(p, 0.8, r),
  'flipped': lambda p, r: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


@pytest.fixture(scope='module')
def photos(real_data, tmp_path_factory):
  """train: 150 photographs; val: copies of every tenth, by kind."""
  root = tmp_path_factory.mktemp('photos')
  folders = (real_data / 'coco_tiny', real_data / 'voc2012_slice')
  paths = [p for f in folders for p in sorted(f.rglob('*.jpg'))]
  assert len(paths) == 150
  rng = np.random.default_rng(0)
  for kind in ('train', 'exact', *KINDS):
    folder = root / ('train/all' if kind == 'train' else f'val/{kind}')
    folder.mkdir(parents=True)
    if kind != 'train':
      (root / 'train' / kind).mkdir()
    for path in paths[:: 1 if kind == 'train' else _EVERY]:
      data = path.read_bytes()
      if kind in KINDS:
        with Image.open(path) as picture:
          changed = KINDS[kind](picture.convert('RGB'), rng)
        buffer = io.BytesIO()
        quality = 30 if kind == 'recompressed' else 85
        changed.save(buffer, 'jpeg', quality=quality)
        data = buffer.getvalue()
      (folder / path.name).write_bytes(data)
  return root


@pytest.mark.slow
def test_planted_copies_and_nothing_else(photos, tmp_path):
  """All but few crops: in docs/near-duplicates.md 99% and 92% are found."""
  argv = [
    '--train', f'{photos}:train', '--eval', f'{photos}:val', '--mirrored',
    '--output', str(tmp_path), '--workers', '1',
  ]  # fmt: skip
  assert dedup.main(argv) == 0
  dropped = (tmp_path / 'drop_ids.txt').read_text().splitlines()
  planted = [
    p.relative_to(photos / 'val').as_posix()
    for p in sorted((photos / 'val').rglob('*.jpg'))
  ]
  assert len(planted) == 8 * 15
  lost = sorted(set(planted) - set(dropped))
  assert set(dropped) <= set(planted)
  assert all(key.startswith('cropped') for key in lost), lost
  large = [key for key in lost if key.startswith('cropped80/')]
  assert len(large) <= 3, lost  # of 15
  assert len(lost) - len(large) <= 1, lost  # of 30
  for line in (tmp_path / 'pairs.jsonl').read_text().splitlines():
    pair = json.loads(line)
    same = pair['train'].split('/')[-1] == pair['eval'].split('/')[-1]
    assert pair['accepted'] == same, pair


@pytest.mark.slow
def test_small_real_images_have_no_false_alarm(real_data, tmp_path):
  """Every fifth 64x64 image, and one of them as a stronger JPEG."""
  folder = real_data / 'tiny_imagenet_slice'
  with (folder / 'labels.csv').open() as file:
    rows = [r for r in csv.DictReader(file) if r['split'] == 'train'][::5]
  images = tmp_path / 'images/train/all'
  images.mkdir(parents=True)
  for row in rows:
    path = folder / row['file']
    (images / path.name).write_bytes(path.read_bytes())
  with Image.open(folder / rows[40]['file']) as picture:
    picture.convert('RGB').save(images / 'zz_copy.jpg', quality=40)
  out = tmp_path / 'out'
  argv = ['--within', f'{tmp_path}/images:train']
  argv += ['--output', str(out), '--workers', '1']
  assert dedup.main(argv) == 0
  dropped = (out / 'drop_ids.txt').read_text().splitlines()
  assert dropped == ['all/zz_copy.jpg']
