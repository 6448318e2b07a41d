"""Real photographs in ImageNet's packings, WordNet's edges, real tars."""

import csv
import json
import pathlib
import tarfile

import numpy as np
import pytest

from input_pipeline.files import archives
from input_pipeline.sources import webdataset
from input_pipeline.sources.records import Source
from tests.input_pipeline.files.archives_made import tar_bytes
from tools import prepare_imagenet, prepare_imagenet21k

pytestmark = pytest.mark.real_data


@pytest.fixture(scope='module')
def slice_(real_data):
  return real_data / 'tiny_imagenet_slice'


@pytest.fixture(scope='module')
def rows(slice_):
  with (slice_ / 'labels.csv').open() as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope='module')
def published(slice_, rows, tmp_path_factory):
  """The slice as the tars of image-net.org, val without classes."""
  folder = tmp_path_factory.mktemp('published')
  tars: dict[str, dict[str, bytes]] = {}
  val, labels = {}, []
  for row in rows:
    data = (slice_ / row['file']).read_bytes()
    if row['split'] == 'train':
      name = pathlib.PurePath(row['file']).name
      tars.setdefault(f'{row["wnid"]}.tar', {})[name] = data
    else:
      labels.append(row['wnid'])
      val[f'ILSVRC2012_val_{len(labels):08}.JPEG'] = data
  (folder / 'ILSVRC2012_img_train.tar').write_bytes(tar_bytes(tars))
  (folder / 'ILSVRC2012_img_val.tar').write_bytes(tar_bytes(val))
  labels_file = folder / 'imagenet_2012_validation_synset_labels.txt'
  labels_file.write_text('\n'.join(labels) + '\n')
  return folder


def contents(output, split) -> dict[str, tuple[bytes, str]]:
  """key -> (image, class)."""
  source = Source(path=str(output), split=split)
  found = {}
  for i in range(len(source)):
    example = source[i]
    (label,) = example['labels'].tolist()
    found[example['key']] = example['image'], source.vocabulary.names[label]
  return found


def run(tool, output, **options) -> int:
  argv = ['--output', output, '--workers', 1]
  for name, value in options.items():
    argv += [f'--{name}', value]
  return tool.main(list(map(str, argv)))


def test_imagenet_tars_are_the_table(slice_, rows, published, tmp_path):
  out = tmp_path / 'out'
  names = slice_.parent / 'hierarchy' / 'wordnet_noun_is_a.tsv.gz'
  assert run(prepare_imagenet, out, input=published, hierarchy=names) == 0
  expected = {
    f'{row["wnid"]}/{pathlib.PurePath(row["file"]).name}': (
      (slice_ / row['file']).read_bytes(),
      row['wnid'],
    )
    for row in rows
    if row['split'] == 'train'
  }
  assert contents(out, 'train') == expected and len(expected) == 4000
  val = contents(out, 'val')
  expected = [
    ((slice_ / row['file']).read_bytes(), row['wnid'])
    for row in rows
    if row['split'] == 'val'
  ]
  by_number = sorted(val, key=lambda key: key.rpartition('/')[2])
  assert [val[key] for key in by_number] == expected
  folder = tmp_path / 'from the folder'
  assert (
    run(prepare_imagenet, folder, train=slice_ / 'train', splits='train') == 0
  )
  assert contents(folder, 'train') == contents(out, 'train')


def test_imagenet21k_with_its_hierarchy(slice_, published, tmp_path):
  """Ancestors against the closure of the edges, walked here."""
  files = slice_.parent / 'hierarchy'
  edges = files / 'imagenet22k_is_a.tsv'
  out = tmp_path / 'out'
  code = run(
    prepare_imagenet21k, out, input=published / 'ILSVRC2012_img_train.tar',
    holdout_percent=10, hierarchy=edges,
    ilsvrc_synsets=files / 'imagenet_synsets.txt',
  )  # fmt: skip
  assert code == 0
  parents: dict[str, set[str]] = {}
  for line in edges.read_text().splitlines():
    if not line.startswith('#') and '\t' in line:
      child, parent = line.split('\t')
      parents.setdefault(child, set()).add(parent)

  def above(name: str) -> set[str]:
    direct = parents.get(name, set())
    return direct.union(*map(above, direct))

  source = Source(path=str(out))
  names = source.vocabulary.names
  leaves = [name for name, n in zip(names, source.vocabulary.counts) if n]
  assert len(leaves) == 40 and list(names[:40]) == sorted(leaves)
  assert set(names[40:]) == set().union(*map(above, leaves)) - set(leaves)
  for i in range(40):
    closed = source.hierarchy.close(np.int32([i]))
    assert {names[j] for j in closed} == {names[i]} | above(names[i])
  ilsvrc = (files / 'imagenet_synsets.txt').read_text().split()
  for name, wnid in zip(names, source.vocabulary.imagenet_ids):
    assert wnid == (name if name in ilsvrc else None)
  train, val = contents(out, 'train'), contents(out, 'val')
  assert len(train) + len(val) == 4000 and 300 < len(val) < 500
  assert not train.keys() & val.keys()


def test_a_real_tar_is_what_tarfile_reads(real_data):
  for name in ('train', 'test'):
    path = real_data / 'cifar10_noisy' / f'{name}.tar'
    files = archives.open_files(path)
    with tarfile.open(path) as archive:
      members = [m for m in archive.getmembers() if m.isfile()]
      assert sorted(m.name for m in members) == list(files.names)
      for member in members:
        reader = archive.extractfile(member)
        assert reader is not None and files.read(member.name) == reader.read()


def test_noisy_labels_as_webdataset(real_data, tmp_path):
  """CIFAR-10N's worst labels as .cls beside the images, in shards."""
  folder = real_data / 'cifar10_noisy'
  with (folder / 'labels.csv').open() as file:
    rows = [row for row in csv.DictReader(file) if row['split'] == 'train']
  images = archives.open_files(folder / 'train.tar')
  for k in range(4):
    content = {}
    for row in rows[k::4]:
      name = row['file'].removesuffix('.jpg')
      content[f'{name}.jpg'] = images.read(row['file'])
      content[f'{name}.json'] = json.dumps(
        {'worse': int(row['worse'])}
      ).encode()
    (tmp_path / f'cifar10n-train-{k:03}.tar').write_bytes(tar_bytes(content))
  source = webdataset.Source(
    path=str(tmp_path), label_suffix='json', label_key='worse'
  )
  assert source.vocabulary.names == tuple('0123456789')
  found = {
    source.key(i).rpartition('/')[2]: (
      source[i]['image'],
      int(source.labels(i)[0]),
    )
    for i in range(len(source))
  }
  assert found == {
    row['file'].removesuffix('.jpg'): (
      images.read(row['file']),
      int(row['worse']),
    )
    for row in rows
  }
