"""The synthetic source: protocol, determinism, random access, options."""

import hashlib
import io
import os
import pickle
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from big_vision_like.config import plugins
from input_pipeline import pipeline
from input_pipeline.sources.synthetic import SPLITS, Source

JFT = dict(num_classes=18_291, depth=12, broadest=2_876, num_images=3 * 10**8)
SMALL = dict(num_classes=40, num_images=1000, image_size=32)


def digest(source: Source, indices) -> str:
  hashed = hashlib.sha256()
  for i in indices:
    example = source[i]
    for name in sorted(example):
      hashed.update(np.ascontiguousarray(example[name]).tobytes())
  return hashed.hexdigest()


def test_is_a_source():
  source = plugins.get('source', 'synthetic')(split='fasteval', num_classes=30)
  assert len(source) == 4000
  assert len(source.vocabulary) == 30
  assert source.hierarchy is not None and source.hierarchy.num_labels == 30
  assert source.key(7) == 'synthetic/fasteval/000000007'
  example = source[7]
  assert set(example) == {'image', 'labels'}
  assert example['image'].dtype == np.uint8
  assert example['image'].shape == (64, 64, 3)
  assert example['image'].flags.c_contiguous
  assert example['labels'].dtype == np.int32


@pytest.mark.parametrize('split', SPLITS)
def test_labels_are_those_of_the_example(split):
  source = Source(split=split, **SMALL)
  for i in range(20):
    labels = source[i]['labels']
    assert np.array_equal(labels, source.labels(i))
    assert len(labels) >= 1
    assert (np.diff(labels) > 0).all()
    assert labels[0] >= 0 and labels[-1] < 40


def test_same_in_any_order_object_and_process():
  source = Source(annotations=True, **SMALL)
  indices = [5, 0, 999, 17]
  expected = digest(source, indices)
  source[3]
  assert digest(source, indices) == expected
  assert digest(pickle.loads(pickle.dumps(source)), indices) == expected  # noqa: S301
  assert digest(Source(annotations=True, **SMALL), indices) == expected
  program = (
    'from tests.input_pipeline.synthetic_world.test_world import *;'
    f'print(digest(Source(annotations=True, **SMALL), {indices}))'
  )
  printed = subprocess.run(
    [sys.executable, '-c', program],
    capture_output=True,
    text=True,
    check=True,
    env={**os.environ, 'PYTHONHASHSEED': '12345'},
  ).stdout
  assert printed.strip() == expected


def test_seed_changes_everything():
  a, b = Source(**SMALL), Source(seed=1, **SMALL)
  assert a.vocabulary.names != b.vocabulary.names
  assert not np.array_equal(a[0]['image'], b[0]['image'])


def test_streams_do_not_overlap():
  seen: dict[bytes, str] = {}
  for split in ('train', 'val', 'fasteval'):
    source = Source(split=split, num_images=300, num_classes=12, image_size=16)
    for i in range(300):
      image = source[i]['image'].tobytes()
      assert image not in seen, (split, i, seen[image])
      seen[image] = f'{split} {i}'


def test_clean_split_is_the_same_images():
  noisy = Source(split='train', **SMALL)
  clean = Source(split='train_clean', **SMALL)
  for i in range(10):
    assert np.array_equal(noisy[i]['image'], clean[i]['image'])


def test_smaller_set_is_a_prefix_and_label_options_keep_the_images():
  base = Source(**SMALL)
  shorter = Source(**{**SMALL, 'num_images': 10})
  other = Source(noise=0.5, neighbour_noise=0.1, recall=1.0, **SMALL)
  for i in range(10):
    assert np.array_equal(base[i]['image'], shorter[i]['image'])
    assert np.array_equal(base[i]['labels'], shorter[i]['labels'])
    assert np.array_equal(base[i]['image'], other[i]['image'])


def test_world_does_not_depend_on_frequencies_or_noise():
  a, b = Source(**SMALL), Source(zipf=0.3, noise=0.0, max_objects=1, **SMALL)
  assert a.vocabulary.names == b.vocabulary.names
  assert np.array_equal(
    a.hierarchy.ancestors.values, b.hierarchy.ancestors.values
  )
  assert np.array_equal(a.world.appearance.latent, b.world.appearance.latent)


def test_jft_size_is_built_fast_and_small():
  Source(**SMALL)
  started = time.process_time()
  source = Source(**JFT)
  assert time.process_time() - started < 2
  assert len(source) == 300_000_000
  tracemalloc.start()
  other = Source(**{**JFT, 'num_images': 10**11})
  held, _ = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert held < 30e6, f'{held / 1e6:.1f} MB'
  assert len(other) == 10**11


def test_last_image_costs_as_much_as_the_first():
  source = Source(**JFT)

  def cost(start: int) -> float:
    times = []
    for i in range(start, start + 60):
      started = time.perf_counter()
      source[i]
      times.append(time.perf_counter() - started)
    return float(np.median(times))

  cost(0)
  assert cost(len(source) - 60) < 2 * cost(0)
  assert not np.array_equal(
    source[len(source) - 1]['image'], source[0]['image']
  )


@pytest.mark.parametrize('index', [-1, 1000, 10**12])
def test_index_outside_is_refused(index):
  source = Source(**SMALL)
  for read in (source.__getitem__, source.labels, source.key):
    with pytest.raises(IndexError, match=r'outside 0\.\.999'):
      read(index)


def test_fingerprint_changes_with_the_examples_only():
  base = Source(**SMALL).fingerprint()
  assert base == Source(**SMALL).fingerprint()
  assert base == Source(zipf=1, **SMALL).fingerprint()
  assert base == Source(tail=0, **SMALL).fingerprint()
  changes = dict(
    seed=1, tail=1, noise=0.1, zipf=0.5, split='train_clean', clutter=2
  )
  prints = {Source(**SMALL, **{k: v}).fingerprint() for k, v in changes.items()}
  prints |= {Source(**{**SMALL, 'image_size': 48}).fingerprint()}
  prints |= {Source(**{**SMALL, 'num_images': 999}).fingerprint()}
  assert len(prints | {base}) == 9


# What the options' types say, then what relates several of them.
RANGES = [
  (
    dict(split='test'),
    "split='test'; valid: train, train_clean, val, fasteval",
  ),
  (dict(num_images=0), r'num_images=0 must be int in \[1, 2\*\*40\] or None'),
  (dict(num_images=1e5), 'num_images=100000.0 must be int in'),
  (dict(image_size=8), r'image_size=8 must be int in \[16, 1024\]'),
  (dict(image_size='64'), "image_size='64' must be int in"),
  (dict(annotations=1), 'annotations=1 must be bool'),
  (dict(negatives=-1), r'negatives=-1 must be int in \[0, 1000\]'),
  (dict(num_classes=1), r'num_classes=1 must be int in \[2, 50000\]'),
  (dict(num_classes=True), 'num_classes=True must be int'),
  (dict(depth=13), r'depth=13 must be int in \[0, 12\] or None'),
  (dict(groups=1), r'groups=1 must be int in \[2, 50000\] or None'),
  (dict(fan_out=1), r'fan_out=1 must be float in \[2, 50000\] or None'),
  (dict(traits=10), r'traits=10 must be int in \[0, 9\]'),
  (dict(spread=-1), r'spread=-1 must be float in \[0, 4\]'),
  (dict(zipf=float('nan')), 'zipf=nan must be float'),
  (dict(zipf='1'), "zipf='1' must be float"),
  (dict(tail=9), r'tail=9 must be float in \[0, 8\]'),
  (dict(theme=1.1), r'theme=1\.1 must be float in \[0, 1\]'),
  (dict(max_objects=0), r'max_objects=0 must be int in \[1, 16\]'),
  (dict(clutter=5), r'clutter=5 must be float in \[0, 4\]'),
  (dict(noise=1.2), r'noise=1\.2 must be float in \[0, 1\]'),
  (dict(neighbour_noise=-0.1), r'neighbour_noise=-0\.1 must be float in'),
  (dict(coarse=2), r'coarse=2 must be float in \[0, 1\]'),
  (dict(labels_per_image=0.5), r'=0\.5 must be float in \[1, 16\] or None'),
  (dict(num_keypoints=0), r'num_keypoints=0 must be int in \[1, 64\]'),
  (dict(seed=-1), r'seed=-1 must be int in \[0, 2\*\*63\)'),
]
BAD = [
  (dict(num_classes=25, depth=12), 'too few for depth=12: at least 26'),
  (dict(num_classes=9, groups=8), 'depth=1, groups=8: at least 10'),
  (dict(broadest=99), 'depth=2, broadest=99: at least 106'),
  (dict(traits=1, depth=0), 'traits=1 needs a hierarchy, but depth=0'),
  (dict(groups=5, depth=0), 'groups=5 needs a hierarchy'),
  (dict(num_classes=24, traits=9), 'traits=9, but only'),
  (dict(labels_per_image=5), 'labels_per_image=5.0, but .* at most'),
  (dict(labels_per_image=1.2, max_objects=1), 'images show 1.000 different'),
  (dict(recall=0.1), r'recall=0.1 leaves images without a label.*or more'),
  (dict(recall=0.9, labels_per_image=1.3), 'give one of them'),
]


@pytest.mark.parametrize('options, message', RANGES, ids=str)
def test_option_out_of_range_is_named(options, message):
  with pytest.raises(ValueError, match=rf'^data\..*{message}'):
    pipeline.open_source(dict(type='synthetic', **options), 'data')


@pytest.mark.parametrize('options, message', BAD, ids=str)
def test_bad_option_is_named(options, message):
  with pytest.raises(ValueError, match=message):
    Source(**options)


def test_unknown_option_is_named():
  message = r"'num_class' \(did you mean 'num_classes'"
  with pytest.raises(ValueError, match=message):
    plugins.check_kwargs('data', Source, dict(num_class=10))


def test_contact_sheet(tmp_path, capsys):
  from tools.synthetic_preview import main

  for extra in ([], ['--by_class'], ['--truth']):
    out = tmp_path / 'sheet.png'
    size = ['--rows', '2', '--columns', '3', 'image_size=32']
    main(['--out', str(out), *size, 'num_classes=20', *extra])
    with Image.open(out) as image:
      assert image.size == (3 * 36, 2 * (32 + 44 + 4))
    assert str(out) in capsys.readouterr().out
  with pytest.raises(SystemExit):
    main(['--out', str(tmp_path / 'x.png'), 'num_clases=20'])
  assert "did you mean 'num_classes'" in capsys.readouterr().err


@pytest.mark.parametrize('size', [32, 64])
def test_single_label_is_the_class_with_most_pixels_in_the_mask(size):
  options = dict(split='val', num_images=300, image_size=size)
  source = Source(single_label=True, **options)
  clean = Source(annotations=True, **options)
  other_than_the_first = 0
  for index in range(300):
    example = clean[index]
    mask = Image.open(io.BytesIO(example['segmentation']))
    pixels = np.bincount(np.asarray(mask).ravel(), minlength=101)[1:]
    (label,) = source.labels(index)
    assert pixels[label] == pixels.max()
    assert label in example['labels']
    first = source.world.scene(index, 'val').objects[0].label
    other_than_the_first += label != first
  assert 20 < other_than_the_first < 70  # larger by radius, not to the eye
  for index in range(3):
    np.testing.assert_array_equal(source[index]['labels'], source.labels(index))
    np.testing.assert_array_equal(source[index]['image'], clean[index]['image'])
  assert source.fingerprint() != clean.fingerprint()
