"""Subsets of real photographs with WordNet labels, against the files alone."""

import csv
import hashlib
import json

import pytest

from input_pipeline import pipeline

pytestmark = pytest.mark.real_data

ANIMAL, VEHICLE = 'n00015388', 'n04524313'


def test_labels_and_chance_on_tiny_imagenet(real_data):
  networkx = pytest.importorskip('networkx')
  root = real_data / 'tiny_imagenet_slice'
  with open(root / 'labels.csv', newline='') as file:
    rows = [r for r in csv.DictReader(file) if r['split'] == 'train']
  edges = json.loads((root / 'hierarchy.json').read_text())['is_a']
  graph = networkx.DiGraph((parent, child) for child, parent in edges)
  inner = [ANIMAL, VEHICLE]
  below = {n: networkx.descendants(graph, n) for n in inner}
  expected = {
    row['file']: {n for n in inner if row['wnid'] in below[n]} for row in rows
  }
  expected = {file: kept for file, kept in expected.items() if kept}
  config = dict(
    type='table',
    path=str(root / 'labels.csv'),
    image_column='file',
    labels_column='wnid',
    hierarchy=str(root / 'hierarchy.json'),
    hierarchy_unlisted='add',
    subset=dict(labels=inner, fill_in=True),
  )
  part = pipeline.open_source(config)
  names = part.vocabulary.names
  assert set(names) == set(inner)
  found = {
    part.key(i): {names[j] for j in part.labels(i)} for i in range(len(part))
  }
  assert found == expected
  assert part.vocabulary.counts.tolist() == [
    sum(name in kept for kept in expected.values()) for name in names
  ]
  num = len(expected) // 3
  config['subset']['num_images'] = num
  part = pipeline.open_source(config)
  by_hash = sorted(
    expected,
    key=lambda file: hashlib.blake2b(
      f'0\n{file}'.encode(), digest_size=8
    ).hexdigest(),
  )
  assert [part.key(i) for i in range(len(part))] == by_hash[:num]
  assert part[0]['image'][:2] == b'\xff\xd8'
