"""Label spaces: whole through JSON, and mistakes in them."""

import dataclasses
import json

import numpy as np
import pytest

from input_pipeline.labels import subset
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.space import LabelSpace, Skeleton
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops.context import OpContext

NAMES = ('thing', 'fruit', 'apple', 'car')
SKELETON = Skeleton(('nose', 'left', 'right'), ((1, 2),), (0.1, 0.2, 0.2))


def space(**changes) -> LabelSpace:
  vocabulary = Vocabulary(
    NAMES,
    counts=[1, 2, 3, 4],
    descriptions=[None, 'sweet', None, None],
    imagenet_ids=[None, None, 'n07739125', None],
  )
  edges = [('fruit', 'thing'), ('apple', 'fruit'), ('car', 'thing')]
  return LabelSpace(
    vocabulary,
    Hierarchy.from_edges(NAMES, edges),
    background=True,
    keypoints=SKELETON,
    external_ids=(1, 5, 53, 3),
    **changes,
  )


def through_json(given: LabelSpace) -> LabelSpace:
  return LabelSpace.from_json(json.loads(json.dumps(given.to_json())), 'here')


def test_everything_comes_back():
  read = through_json(space())
  assert read.names == NAMES and read.num_classes == 4
  assert read.vocabulary.readable_name(1) == 'sweet'
  assert read.vocabulary.imagenet_ids == (None, None, 'n07739125', None)
  assert read.hierarchy is not None
  assert read.hierarchy.close(np.array([2])).tolist() == [0, 1, 2]
  assert (read.background, read.keypoints) == (True, SKELETON)
  assert read.external_ids == (1, 5, 53, 3)
  assert read.digest() == space().digest()
  assert read.fingerprint() == space().vocabulary.fingerprint()


def test_ancestors_beyond_nodes_without_a_label_come_back():
  edges = [('apple', 'plant'), ('plant', 'thing'), ('fruit', 'thing')]
  given = LabelSpace(
    Vocabulary(NAMES), Hierarchy.from_edges(NAMES, edges, unlisted='traverse')
  )
  assert given.hierarchy is not None
  read = through_json(given).hierarchy
  assert read is not None
  for label in range(4):
    wanted = given.hierarchy.close(np.array([label])).tolist()
    assert read.close(np.array([label])).tolist() == wanted
  assert read.close(np.array([2])).tolist() == [0, 2]


def test_a_bare_count():
  read = through_json(LabelSpace.of_count(3))
  assert read.anonymous and read.num_classes == 3
  assert read.background is None and read.keypoints is None
  assert read.hierarchy is not None
  assert read.hierarchy.close(np.array([2])).tolist() == [2]


def test_of_a_source():
  class Source:
    vocabulary = Vocabulary(NAMES)
    hierarchy = None
    background = False

  found = LabelSpace.of_source(Source())
  assert found.names == NAMES and found.background is False
  assert found.keypoints is None
  Source.keypoints = SKELETON
  assert LabelSpace.of_source(Source()).keypoints is SKELETON
  Source.space = None  # as good as none
  assert LabelSpace.of_source(Source()).keypoints is SKELETON
  Source.space = space()
  assert LabelSpace.of_source(Source()) is Source.space


def test_keypoints_of_which_only_the_pairs_are_known():
  pairs_only = Skeleton.of_pairs([[1, 2], [4, 3]])
  assert pairs_only.anonymous and pairs_only.pairs == ((1, 2), (4, 3))
  given = dataclasses.replace(space(), keypoints=pairs_only)
  assert through_json(given).keypoints == pairs_only
  assert Skeleton.of_pairs([]).pairs == ()
  with pytest.raises(ValueError, match='0 to 2 at most once'):
    Skeleton.of_pairs([[1, 2], [2, 0]])


def test_ops_learn_of_pairs_from_the_space():
  context = OpContext.of_space(space(), 'here')
  assert context.keypoint_pairs == SKELETON.pairs
  none = dataclasses.replace(space(), keypoints=None)
  assert OpContext.of_space(none, 'here').keypoint_pairs is None
  no_pairs = dataclasses.replace(space(), keypoints=Skeleton(('tip',)))
  assert OpContext.of_space(no_pairs, 'here').keypoint_pairs == ()


class Spaced:
  """Three records with the labels of a space."""

  space = space()
  vocabulary, hierarchy = space.vocabulary, space.hierarchy

  def __len__(self):
    return 3

  def __getitem__(self, index):
    return {'labels': np.array([[2], [3], [2, 3]][index], np.int32)}

  def key(self, index):
    return str(index)

  def fingerprint(self):
    return 'spaced'


@pytest.mark.parametrize(
  'options, names, external',
  [
    (dict(num_images=2), NAMES, (1, 5, 53, 3)),
    (dict(labels=['apple', 'thing']), ('thing', 'apple'), (1, 53)),
    (dict(labels=['apple'], keep_ids=True), NAMES, (1, 5, 53, 3)),
  ],
)
def test_of_a_subset(options, names, external):
  part = subset.select(Spaced(), options, 'here')
  found = LabelSpace.of_source(part)
  assert found.names == part.vocabulary.names == names
  assert found.external_ids == external
  assert (found.background, found.keypoints) == (True, SKELETON)


@pytest.mark.parametrize(
  'data, words',
  [
    ([], 'neither names nor count'),
    ({}, 'neither names nor count'),
    ({'count': 0}, 'at least 1'),
    ({'count': 'many'}, 'here: label space'),
    ({'names': ['a', 'a']}, "'a' is already at"),
    ({'names': ['a'], 'parent': []}, "unknown key 'parent'"),
    ({'names': ['a'], 'parents': [[0]]}, 'here: label space'),
    ({'names': ['a'], 'parents': []}, '0 rows of parents for 1 names'),
    ({'names': ['a'], 'parents': [[7]]}, 'here: label space'),
    ({'names': ['a'], 'external_ids': [1, 2]}, '2 external ids for 1 labels'),
    ({'names': ['a'], 'keypoints': {'names': ['x']}}, 'here: label space'),
  ],
)
def test_mistakes_are_named(data, words):
  with pytest.raises(ValueError, match=words):
    LabelSpace.from_json(data, 'here')


@pytest.mark.parametrize(
  'options, words',
  [
    (dict(names=()), 'unique'),
    (dict(names=('a', 'a')), 'unique'),
    (dict(names=('a', 'b'), pairs=((0, 2),)), '0 to 1 at most once'),
    (dict(names=('a', 'b'), pairs=((0, 0),)), 'at most once'),
    (dict(names=('a', 'b'), sigmas=(0.1,)), '2 keypoints need'),
    (dict(names=('a',), sigmas=(0.0,)), 'positive sigmas'),
  ],
)
def test_skeletons_that_cannot_be(options, words):
  with pytest.raises(ValueError, match=words):
    Skeleton(**options)
