"""Real photographs: table -> shards -> batch-ready examples."""

import collections
import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from input_pipeline import ops as example_ops
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops.context import OpContext
from input_pipeline.sources.records import Source
from tools import prepare_images

pytestmark = pytest.mark.real_data


@pytest.fixture(scope='module')
def folder(real_data):
  return real_data / 'tiny_imagenet_slice'


@pytest.fixture(scope='module')
def prepared(folder, tmp_path_factory):
  tmp = tmp_path_factory.mktemp('real')
  tree = json.loads((folder / 'hierarchy.json').read_text())
  edges = tmp / 'is_a.tsv'
  edges.write_text(''.join(f'{c}\t{p}\n' for c, p in edge_list(tree['is_a'])))
  out = tmp / 'tiny'
  argv = [
    '--input', folder / 'labels.csv', '--output', out, '--image_column', 'file',
    '--labels_column', 'wnid', '--hierarchy', edges,
    '--hierarchy_unlisted', 'add', '--num_shards', 4, '--workers', 2,
  ]  # fmt: skip
  assert prepare_images.main(list(map(str, argv))) == 0
  assert prepare_images.main(['--output', str(out), '--verify']) == 0
  return out


def edge_list(is_a) -> list[tuple[str, str]]:
  """(child, parent) of a map child -> parent(s) or a list of pairs."""
  if isinstance(is_a, dict):
    return [
      (child, parent)
      for child, parents in is_a.items()
      for parent in ([parents] if isinstance(parents, str) else parents)
    ]
  return [(child, parent) for child, parent in is_a]


def test_counts_are_those_of_the_table(folder, prepared):
  with (folder / 'labels.csv').open() as file:
    rows = list(csv.DictReader(file))
  for split, num in (('train', 4000), ('val', 1000)):
    source = Source(path=str(prepared), split=split)
    expected = collections.Counter(
      r['wnid'] for r in rows if r['split'] == split
    )
    found = collections.Counter()
    for i in range(len(source)):
      found.update(source.vocabulary.names[k] for k in source.labels(i))
    assert len(source) == num and found == expected
  counts = Source(path=str(prepared)).vocabulary.counts
  assert sorted(counts[counts > 0]) == [100] * 40


def test_every_image_decodes_to_pillows_pixels(prepared):
  specs = [
    dict(op='decode'),
    dict(op='resize', size=72),
    dict(op='random_crop', size=64),
    dict(op='random_flip'),
    dict(op='labels', max_labels=32, fill_in=True),
  ]
  grey = 0
  for split in ('train', 'val'):
    source = Source(path=str(prepared), split=split)
    ops = example_ops.build(
      specs, OpContext(source.vocabulary, source.hierarchy)
    )
    rng = np.random.default_rng(0)
    for i in range(len(source)):
      example = source[i]
      with Image.open(io.BytesIO(example['image'])) as picture:
        grey += picture.mode == 'L'
        pixels = np.asarray(picture.convert('RGB'))
      decoded = ops[0](example, rng)
      np.testing.assert_array_equal(decoded['image'], pixels)
      for op in ops[1:]:
        decoded = op(decoded, rng)
      assert decoded['image'].shape == (64, 64, 3)
      ids = decoded['label_ids']
      assert example['labels'][0] in ids
      assert (ids >= 0).sum() > 1  # the leaf and its ancestors
  assert grey > 0


def test_photographs_pass_whole_and_cut_ones_do_not(real_data):
  """COCO's photographs as they are; each refused once a tenth is missing."""
  paths = sorted((real_data / 'coco_tiny').rglob('*.jpg'))
  assert len(paths) == 100
  (decode,) = example_ops.build([dict(op='decode')], OpContext())
  for path in paths:
    data = path.read_bytes()
    with Image.open(path) as picture:
      pixels = np.asarray(picture.convert('RGB'))
    np.testing.assert_array_equal(decode.decode(data), pixels)
    with pytest.raises(BadExample, match='JPEG cannot be decoded'):
      decode.decode(data[: len(data) * 9 // 10])
