"""Maps in the place of images: the same order, flips, boxes and canvases.

The net is a mean over 8 x 8 pixels, so that a map tells the image it is of.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from big_vision_like.parallel import mesh as mesh_lib
from configs import detectors
from input_pipeline import feature_map_checks, pipeline
from input_pipeline.feature_maps import folder
from input_pipeline.sources import feature_maps, yolo
from tools.embedding import map_extraction

STRIDE = 8
READ = dict(op='feature_map', stride=STRIDE, channels=3)
OPS = detectors.ops(
  4,
  resize=[dict(op='resize_small', size=24, max_size=40)],
  canvas=[dict(op='canvas', sizes=[[24, 40], [40, 24]])],
  flip=True,
)
WEIGHTS = {'weights': {'params/backbone/conv1/kernel': 'aa'}}
BROKEN = 3


def mean_of_cells(batch):
  image = jnp.asarray(batch['image'], jnp.float32)
  b, h, w, c = image.shape
  cells = image.reshape(b, h // STRIDE, STRIDE, w // STRIDE, STRIDE, c)
  return cells.mean((2, 4))


def net(**settings):
  mesh = mesh_lib.create(dict(data=-1, model=1), jax.devices()[:1])
  given = {'checkpoint': 'runs/a/6', 'net': {'model.depth': 14}, **WEIGHTS}
  return map_extraction.Net(jax.jit(mean_of_cells), given | settings, mesh)


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Photos of two shapes with up to three boxes, one of them broken."""
  root = tmp_path_factory.mktemp('photos')
  rng = np.random.default_rng(0)
  for name in ('images/train', 'labels/train'):
    (root / name).mkdir(parents=True)
  for i in range(9):
    shape = (30, 45) if i % 3 else (50, 31)
    pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
    path = root / f'images/train/{i}.png'
    Image.fromarray(pixels).save(path)
    if i == BROKEN:
      path.write_bytes(path.read_bytes()[:200])
    rows = []
    for _ in range(i % 4):
      x, y = rng.uniform(0.3, 0.6, 2)
      rows.append(f'{rng.integers(2)} {x:.4f} {y:.4f} 0.4 0.3\n')
    (root / f'labels/train/{i}.txt').write_text(''.join(rows))
  (root / 'classes.txt').write_text('cat\ndog\n')
  return root


@pytest.fixture(scope='module')
def described(data):
  return dict(type='yolo', path=str(data), split='train')


@pytest.fixture(scope='module')
def source(described):
  options = {k: v for k, v in described.items() if k != 'type'}
  return yolo.Source(**options)


@pytest.fixture(scope='module')
def job(source, described, tmp_path_factory):
  return map_extraction.Job(
    source=source,
    config=described,
    specs=OPS,
    where='input.ops',
    path=str(tmp_path_factory.mktemp('maps') / 'train'),
    dtype='float32',
    batch_size=2,
    reading=dict(threads=1, workers=0),
  )


@pytest.fixture(scope='module')
def stored(job):
  said = []
  map_extraction.extract(job, net(), said.append)
  return job.path


def batches(source, ops, num, **options):
  found = pipeline.train(
    source, feature_map_checks.build_ops(ops, source, 'input.ops'),
    batch_size=2, seed=5, threads=1, max_bad_fraction=1.0, **options,
  )  # fmt: skip
  out = [next(found) for _ in range(num)]
  bad = found.bad.reasons
  found.close()
  return out, bad


@pytest.mark.parametrize('workers', [0, 1])
def test_training_sees_the_same(source, stored, workers):
  """Three epochs on two canvases, half of the images reflected."""
  num = 14
  images, bad = batches(source, OPS, num)
  maps, bad_of_maps = batches(
    feature_maps.Source(path=stored), [*OPS, READ], num, workers=workers
  )
  assert bad == bad_of_maps
  shapes = set()
  for image, found in zip(images, maps):
    assert found.keys() == image.keys() - {'image'} | {'block3_map'}
    for name in found.keys() - {'block3_map'}:
      np.testing.assert_array_equal(found[name], image[name], err_msg=name)
    rows = image['_mask']
    wanted = np.asarray(jax.jit(mean_of_cells)(image))
    np.testing.assert_array_equal(found['block3_map'][rows], wanted[rows])
    shapes.add(found['block3_map'].shape)
  assert shapes == {(2, 3, 5, 3), (2, 5, 3, 3)}
  of_broken = [m for b in images for i, m in zip(b['_id'], b['_mask'])
               if i == BROKEN]  # fmt: skip
  assert of_broken and not any(of_broken)


def test_half_of_the_maps_seen_are_of_reflections(source, stored):
  maps, _ = batches(feature_maps.Source(path=stored), [*OPS, READ], 30)
  seen = {}
  for batch in maps:
    for index, row in zip(batch['_id'].tolist(), batch['block3_map']):
      seen.setdefault(index, set()).add(row.tobytes())
  assert all(len(rows) == 2 for i, rows in seen.items() if i != BROKEN)


def test_records_are_those_of_the_data(source, stored):
  found = feature_maps.Source(path=stored)
  assert len(found) == len(source)
  assert found.space.names == source.vocabulary.names == ('cat', 'dog')
  np.testing.assert_array_equal(found.sizes(), source.sizes())
  for index in range(len(source)):
    assert found.key(index) == source.key(index)
    if index != BROKEN:
      for name in ('boxes', 'box_labels', 'labels'):
        np.testing.assert_array_equal(found[index][name], source[index][name])
      assert found[index]['image'].shape[:2] == tuple(source.sizes()[index])


class TestRefused:
  """Files that do not fit are refused by name."""

  def test_other_ops(self, stored):
    ops = detectors.ops(
      4,
      resize=[dict(op='resize_small', size=32, max_size=40)],
      canvas=OPS[-2:-1],
      flip=True,
    )
    found = feature_maps.Source(path=stored)
    with pytest.raises(ValueError, match=r"evals.v.ops: .*other ops: .*'size'"):
      feature_map_checks.build_ops([*ops, READ], found, 'evals.v.ops')
    # Boxes and chance are the run's own.
    fine = [*(op for op in OPS if op['op'] != 'random_flip'), READ]
    fine[-2] = dict(op='boxes', max_boxes=9)
    feature_map_checks.build_ops(fine, found, 'input.ops')

  def test_images_are_wanted(self, stored):
    found = feature_maps.Source(path=stored)
    with pytest.raises(ValueError, match="whose images are blanks; the op 'fe"):
      feature_map_checks.build_ops(OPS, found, 'input.ops')

  def test_maps_are_wanted_of_images(self, source):
    found = pipeline.train(
      source, pipeline.build_ops([*OPS, READ], source),
      batch_size=4, seed=0, threads=1, max_bad_fraction=1.0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="source type 'feature_maps'"):
      next(found)
    found.close()

  def test_another_stride(self, stored):
    found = feature_maps.Source(path=stored)
    ops = [*OPS, dict(op='feature_map', stride=16, channels=3)]
    wanted = r'stored map is \[\d, \d, 3\], but stride=16'
    with pytest.raises(ValueError, match=wanted):
      batches(found, ops, 1)

  def test_another_type(self, stored):
    with pytest.raises(ValueError, match=r"dtype='float16', but .*'float32'"):
      feature_maps.Source(path=stored, dtype='float16')

  def test_other_data(self, stored, described):
    feature_maps.Source(path=stored, data=described)
    wanted = r"other data:\n  split: 'train' there"
    with pytest.raises(ValueError, match=wanted):
      feature_maps.Source(path=stored, data={**described, 'split': 'val'})

  def test_another_net_and_other_weights(self, stored, monkeypatch):
    found = feature_maps.Source(path=stored)
    monkeypatch.setattr(
      feature_map_checks, 'net', lambda config: {'model.depth': 50}
    )
    wanted = 'another net:\n  model.depth: 14 there, 50 here'
    with pytest.raises(ValueError, match=wanted):
      feature_map_checks.check_net(found, None, 'input.source')
    params = {'backbone': {'conv1': {'kernel': np.zeros(3, np.float32)}}}
    wanted = "checkpoint, 'runs/a/6': params/backbone/conv1/kernel differs"
    with pytest.raises(ValueError, match=wanted):
      feature_map_checks.check_weights(found, params, {}, 'input.source')
    with pytest.raises(ValueError, match='kernel is not in this net'):
      feature_map_checks.check_weights(found, {}, {}, 'input.source')

  def test_no_folder_and_damaged_files(self, job, stored, tmp_path):
    with pytest.raises(FileNotFoundError, match='no such folder'):
      feature_maps.Source(path=str(tmp_path / 'none'))
    copy = dataclasses.replace(job, path=str(tmp_path / 'copy'))
    map_extraction.extract(copy, net(), lambda line: None)
    file = tmp_path / 'copy' / folder.names(0, 1)[1]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r'maps-00000.*bytes, should be'):
      feature_maps.Source(path=copy.path)

  def test_work_begun_otherwise(self, job, stored):
    for changed, words in (
      (dict(checkpoint='runs/b/6'), "checkpoint: 'runs/a/6' before"),
      (dict(weights={'params/x': 'bb'}), 'weights: '),
    ):
      with pytest.raises(ValueError, match=words):
        map_extraction.extract(job, net(**changed), lambda line: None)
    with pytest.raises(ValueError, match="dtype: 'float32' before, 'float16'"):
      other = dataclasses.replace(job, dtype='float16')
      map_extraction.extract(other, net(), lambda line: None)

  def test_an_op_of_chance(self, job):
    specs = [OPS[0], dict(op='random_crop', size=16), READ]
    with pytest.raises(ValueError, match='RandomCrop makes another image each'):
      dataclasses.replace(job, specs=specs).variants()


def test_work_goes_on_where_it_stopped(job, stored, tmp_path, monkeypatch):
  """To the same bytes, without computing finished shards again."""
  size = 5 * 5 * 3 * 4 * 2  # more than two maps of a record
  monkeypatch.setattr(map_extraction, '_SHARD_BYTES', 4 * size)
  other = dataclasses.replace(job, path=str(tmp_path / 'train'))
  calls = []

  def failing(batch):
    calls.append(1)
    if len(calls) == 4:
      raise KeyboardInterrupt
    return mean_of_cells(batch)

  broken = net()._replace(maps=failing)
  with pytest.raises(KeyboardInterrupt):
    map_extraction.extract(other, broken, lambda line: None)
  with pytest.raises(FileNotFoundError, match='not finished'):
    feature_maps.Source(path=other.path)
  said = []
  map_extraction.extract(other, net(), said.append)
  assert len(said) < 1 + 3
  found, whole = (feature_maps.Source(path=p) for p in (other.path, stored))
  assert len(folder.load(other.path).shards) > 1
  for index in set(range(len(whole))) - {BROKEN}:
    for of in (lambda m: m, lambda m: m.mirrored()):
      pair = [of(s[index]['block3_map']).read() for s in (found, whole)]
      np.testing.assert_array_equal(*pair)
