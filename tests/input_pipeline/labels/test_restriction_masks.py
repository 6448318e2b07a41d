"""Fewer labels of data with masks: what the pixels of each label become.

Expectations are worked out by hand, or pixel by pixel from names.
"""

import io
import os

import numpy as np
import pytest
from PIL import Image

from big_vision_like.config import loading
from evaluators.harness.evaluation_set import EvalData
from input_pipeline import batch_fields, pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import subset
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from tests.evaluators import harness
from tools import prepare_images
from tools.cli import config_feed

NAMES = ('ant', 'bee', 'cow', 'dog')
VOID = 255
DECODE = [dict(op='decode'), dict(op='decode_segmentation')]


class Source:
  """One record: an image whose mask has one row of the given ids."""

  def __init__(self, mask, background=True, edges=None, names=NAMES, width=6):
    self._mask, self._width = mask, width
    self.background = background
    self.vocabulary = Vocabulary(tuple(names))
    self.hierarchy = edges and Hierarchy.from_edges(names, edges)

  def __len__(self):
    return 1

  def __getitem__(self, index):
    image = np.zeros((1, self._width, 3), np.uint8)
    labels = np.arange(len(self.vocabulary), dtype=np.int32)
    return {'image': image, 'labels': labels, 'segmentation': self._mask}

  def key(self, index):
    return 'a.jpg'

  def fingerprint(self):
    return 'x'


def png(ids, mode='L'):
  picture = Image.fromarray(np.array([ids], np.uint8))
  if mode == 'P':
    picture = Image.frombytes('P', picture.size, picture.tobytes())
    picture.putpalette([n for i in range(256) for n in (i, 255 - i, 7)])
  file = io.BytesIO()
  picture.save(file, 'PNG')
  return file.getvalue()


def decoded(source, index=0):
  """The mask as training gets it, where the ids of the vocabulary are legal."""
  ops = pipeline.build_ops(DECODE, source)
  rng = np.random.default_rng(0)
  return batch_fields.apply(ops, source[index], rng)['segmentation']


def ids_after(source, **options):
  return decoded(subset.select(source, options, 'x.subset'))[0].tolist()


ALL = [0, 1, 2, 3, 4, VOID]  # background, ant, bee, cow, dog, void


@pytest.mark.parametrize('mode', ['L', 'P', None])
@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    ({}, [0, VOID, 1, VOID, 2, VOID]),
    ({'other_pixels': 'void'}, [0, VOID, 1, VOID, 2, VOID]),
    ({'other_pixels': 'background'}, [0, 0, 1, 0, 2, VOID]),
    ({'keep_ids': True}, [0, VOID, 2, VOID, 4, VOID]),
    (
      {'keep_ids': True, 'other_pixels': 'background'},
      [0, 0, 2, 0, 4, VOID],
    ),
  ],
)
def test_ids_by_hand(options, expected, mode):
  mask = np.array([ALL], np.uint8) if mode is None else png(ALL, mode)
  for background in (True, None):  # None counts as True everywhere
    source = Source(mask, background)
    assert ids_after(source, labels=['dog', 'bee'], **options) == expected


def test_without_a_background_label_0_is_id_0():
  source = Source(png([0, 1, 2, 3, VOID]), background=False, width=5)
  ids = ids_after(source, labels=['bee', 'dog'])
  assert ids == [VOID, 0, VOID, 1, VOID]
  part = subset.select(source, {'labels': ['bee']}, 'x.subset')
  assert part.background is False


def test_what_cannot_be_is_refused():
  source = Source(png([0, 1]), background=False)
  with pytest.raises(ValueError, match=r"x\.subset\.other_pixels='background'"):
    ids_after(source, labels=['bee'], other_pixels='background')
  source = Source(png([0, 1]))
  with pytest.raises(
    ValueError, match="other_pixels='0'; valid: void, background"
  ):
    ids_after(source, labels=['bee'], other_pixels='0')
  with pytest.raises(
    ValueError, match=r'x\.subset\.other_pixels: needs labels'
  ):
    ids_after(source, other_pixels='void')
  for mask in (png([0, 5]), png([0, 5], 'P'), np.array([[0, 5]], np.uint8)):
    with pytest.raises(BadExample, match='class 5 in the segmentation'):
      ids_after(Source(mask), labels=['bee'])
  with pytest.raises(BadExample, match='cannot be decoded: no PNG'):
    ids_after(Source(b'no mask'), labels=['bee'])


def test_a_dropped_label_counts_as_its_lowest_kept_ancestor():
  names = ('animal', 'cat', 'mammal', 'rock', 'tabby')
  edges = [('tabby', 'cat'), ('cat', 'mammal'), ('mammal', 'animal')]
  mask = png([0, 1, 2, 3, 4, 5, VOID])
  source = Source(mask, edges=edges, names=names, width=7)
  for labels, expected in (
    # animal 1, mammal 2: cat and tabby are mammals; a rock is neither.
    (['mammal', 'animal'], [0, 1, 2, 2, VOID, 2, VOID]),
    # cat 1, rock 2: what is above cat may or may not be a cat.
    (['cat', 'rock'], [0, VOID, 1, VOID, 2, 1, VOID]),
  ):
    assert ids_after(source, labels=labels, fill_in=True) == expected
  ids = ids_after(
    source, labels=['mammal'], fill_in=True, other_pixels='background'
  )
  assert ids == [0, 0, 1, 1, 0, 1, VOID]


def test_of_two_lowest_ancestors_none_is_chosen():
  names = ('black', 'cat', 'dark', 'panther')
  edges = [('panther', 'black'), ('panther', 'cat'), ('black', 'dark')]
  source = Source(png([0, 1, 2, 3, 4]), edges=edges, names=names, width=5)
  for other in ('void', 'background'):
    ids = ids_after(
      source,
      labels=['black', 'cat', 'dark'],
      fill_in=True,
      other_pixels=other,
    )
    # A panther is black and a cat, which are kept: never background.
    assert ids == [0, 1, 2, 3, VOID]


def test_another_choice_is_another_data_set():
  masks = Source(png(ALL))
  chosen = {
    subset.select(masks, {'labels': ['bee'], **options}, 'x').fingerprint()
    for options in ({}, {'other_pixels': 'background'}, {'keep_ids': True})
  }
  assert len(chosen) == 3
  plain = {'labels': ['bee'], 'other_pixels': 'void'}
  assert (
    subset.select(masks, plain, 'x').fingerprint()
    == subset.select(masks, {'labels': ['bee']}, 'x').fingerprint()
  )


WORLD = dict(
  type='synthetic', num_classes=9, num_images=20, image_size=32,
  annotations=True, split='train_clean',
)  # fmt: skip


def names_of_pixels(source, index):
  """[H, W] name of each pixel's class, '' for background, None for void."""
  names = ['', *source.vocabulary.names]
  lookup = np.array([*names, *[None] * (256 - len(names))], object)
  return lookup[decoded(source, index)]


@pytest.mark.parametrize('other_pixels', ['void', 'background'])
def test_pixels_boxes_and_instances_of_the_synthetic_world_agree(other_pixels):
  whole = pipeline.open_source(WORLD)
  seen = {n for i in range(20) for n in names_of_pixels(whole, i).ravel()}
  kept = sorted(seen - {''})[::2]  # so that ids move
  part = pipeline.open_source(
    {**WORLD, 'subset': dict(labels=kept, other_pixels=other_pixels)}
  )
  whole_index = {whole.key(i): i for i in range(len(whole))}
  other = None if other_pixels == 'void' else ''
  met = set()
  for i in range(len(part)):
    before = names_of_pixels(whole, whole_index[part.key(i)])
    after = names_of_pixels(part, i)
    expected = before.copy()
    for name in seen - {'', *kept}:
      expected[before == name] = other
    np.testing.assert_array_equal(after, expected)
    example = part[i]
    for box, label in enumerate(example['box_labels'].tolist()):
      inside = example['instance_map'] == box + 1
      name = part.vocabulary.names[label]
      assert set(after[inside].tolist()) <= {name}
      met.add(name)
  assert len(met) > 1


def make_pairs(folder):
  for name in ('images', 'masks'):
    os.makedirs(folder / name)
  (folder / 'classes.txt').write_text('\n'.join(NAMES))
  for stem, ids in (
    ('p', [0, 1, 2, 3, 4, VOID, 2]),
    ('q', [0, 1, 3] * 2 + [0]),
  ):
    Image.new('RGB', (7, 1)).save(folder / 'images' / f'{stem}.png')
    (folder / 'masks' / f'{stem}.png').write_bytes(png(ids, 'P'))
  return dict(type='masks', path=str(folder), split='all')


@pytest.mark.parametrize('prepared', [False, True])
def test_masks_in_files_and_in_prepared_records(prepared, tmp_path):
  config = make_pairs(tmp_path / 'in')
  if prepared:
    out = str(tmp_path / 'out')
    assert not prepare_images.main(
      ['--type=masks', f'--input={tmp_path}/in', '--splits=all',
       f'--output={out}'],
    )  # fmt: skip
    config = dict(type='records', path=out, split='all')
  config['subset'] = dict(labels=['bee', 'dog'])
  source = pipeline.open_source(config)
  assert len(source) == 1  # q has neither
  assert decoded(source).tolist() == [[0, VOID, 1, VOID, 2, VOID, 1]]
  # The labels of an image are the classes of its mask, before and after.
  assert source[0]['labels'].tolist() == [0, 1]
  config['subset'] = dict(labels=['cow'], unlabelled='keep')
  source = pipeline.open_source(config)
  rows = {tuple(decoded(source, i)[0].tolist()) for i in range(2)}
  assert rows == {
    (0, VOID, VOID, 1, VOID, VOID, VOID),
    (0, VOID, 1, 0, VOID, 1, 0),
  }


OPS = [
  *DECODE,
  dict(op='full_segmentation', max_size=40),
  dict(op='pad', size=40),
]


def test_evaluators_get_them_so(tmp_path):
  config = make_pairs(tmp_path / 'in')
  config['subset'] = dict(labels=['bee', 'dog'], other_pixels='background')
  data = EvalData(harness.context(2), config, OPS, 1, fields=('segmentation',))
  (batch,) = data.batches()
  for field in ('segmentation', 'full_segmentation'):
    assert batch[field][0, 0, :8].tolist() == [0, 0, 1, 0, 2, VOID, 1, VOID]


def test_inspect_data_shows_them_so(tmp_path):
  make_pairs(tmp_path / 'in')
  config = loading.load('configs/synthetic_segmentation.py:tiny', '--config')
  with config.unlocked():
    config.input.source = dict(
      type='masks', path=f'{tmp_path}/in', split='all',
      subset=dict(labels=['bee', 'dog']),
    )  # fmt: skip
    config.input.ops = OPS
  feed = config_feed.open_feed(config, 'input', None)
  shown = config_feed.look(feed, 0, 0)
  assert shown.reason == ''
  assert feed.source.vocabulary.names == ('bee', 'dog')
  row = shown.example['segmentation'][0, :8].tolist()
  assert row == [0, VOID, 1, VOID, 2, VOID, 1, VOID]
