"""The publisher's hierarchy of Open Images, against a plain recursive walk."""

import json

import pytest

from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.publishers.open_images import classes

pytestmark = pytest.mark.real_data


def walk(node, keys):
  """(child, parent) of everything below a node."""
  for key in keys:
    for child in node.get(key, ()):
      yield child['LabelName'], node['LabelName']
      yield from walk(child, keys)


@pytest.mark.parametrize('parts', [False, True])
def test_hierarchy_of_600_labels(real_data, parts):
  folder = real_data / 'hierarchy'
  path = folder / 'openimages_bbox_labels_600_hierarchy.json'
  keys = ('Subcategory', 'Part') if parts else ('Subcategory',)
  expected = set(walk(json.loads(path.read_text()), keys))
  found = classes.read_hierarchy(str(path), parts=parts)
  assert set(found) == expected and len(found) == len(expected)

  names = classes.read_descriptions(
    str(folder / 'openimages_dict_mid_to_name.csv')  # no header, all quoted
  )
  assert len(names) == 7881 and names['/m/01yrx'] == 'cat'
  closed = Hierarchy.from_edges(list(names), found, unlisted='traverse')
  ids = {name: i for i, name in enumerate(names)}
  above = {list(names)[i] for i in closed.ancestors[ids['/m/01yrx']]}
  assert '/m/0jbk' in above  # a cat is an animal
