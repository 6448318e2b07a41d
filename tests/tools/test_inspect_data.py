"""inspect_data: looks are those of the run; captions, drawings, mistakes."""

import base64
import importlib
import io
import pathlib
import re

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from big_vision_like.pages import annotated_picture, contact_sheet
from configs import common, quickstart
from input_pipeline import pipeline
from tests.fixtures import tiny_source
from tools import inspect_data
from tools.cli import config_feed

# ml_collections loads config files by a deprecated call of importlib.
pytestmark = pytest.mark.filterwarnings('ignore:.*load_module')

CONFIGS = sorted(
  path.stem
  for path in (pathlib.Path(__file__).parents[2] / 'configs').glob('*.py')
  if 'def get_config(' in path.read_text()
)
# fruit <- apple, pear; rock alone.
NAMES = ['apple', 'fruit', 'pear', 'rock']
WORLD = dict(
  type='tests.fixtures.tiny_source',
  names=NAMES,
  labels=[[0], [3, 0], [], [1]],
  edges=[['apple', 'fruit'], ['pear', 'fruit']],
)


class Damaged(tiny_source.Source):
  """Its second record cannot be read."""

  def __getitem__(self, index):
    from input_pipeline.examples.errors import BadExample

    if index == 1:
      raise BadExample('JPEG cut short')
    return super().__getitem__(index)


Source = Damaged  # what the config key 'type' looks for


def config_of(source, *ops):
  c = common.base()
  c.input.source = ConfigDict(source)
  c.input.ops = [dict(op='resize', size=4), *ops]
  return c


def run(config, tmp_path, **options):
  return inspect_data.run(config, output=str(tmp_path / 'x.html'), **options)


def pictures(path):
  """Images of a page, in their order."""
  data = re.findall(r'src="data:image/\w+;base64,([^"]*)"', path.read_text())
  return [
    np.array(Image.open(io.BytesIO(base64.b64decode(d))).convert('RGB'))
    for d in data
  ]


@pytest.mark.parametrize('epoch', [0, 2])
def test_training_looks_are_those_of_the_batches(tmp_path, epoch):
  config = quickstart.get_config('tiny')
  config.seed = 5
  looks = run(config, tmp_path, num=32, epoch=epoch)
  source = pipeline.open_train(config)
  ops = pipeline.build_ops(config.input.ops, source)
  batches = pipeline.train(  # 1000 records: epoch 2 begins at batch 500 of 4
    source, ops, batch_size=4, seed=5, start_step=epoch * 250
  )
  for start in range(0, 32, 4):
    batch = next(batches)
    for row, one in enumerate(looks[start : start + 4]):
      assert one.index == batch['_id'][row]
      for name in ('image', 'label_ids'):
        np.testing.assert_array_equal(one.example[name], batch[name][row])
  batches.close()


def test_evaluation_looks_are_those_of_the_batches(tmp_path):
  config = quickstart.get_config('tiny')
  looks = run(config, tmp_path, key='evals.fasteval', num=4)
  assert [one.index for one in looks] == [0, 12, 24, 36]  # of 48, spread
  node = config.evals.fasteval
  source = pipeline.open_source(node.data.to_dict())
  ops = pipeline.build_ops(node.ops, source)
  (batch,) = pipeline.evaluation(source, ops, batch_size=48)
  for one in looks:
    for name in ('image', 'label_ids'):
      np.testing.assert_array_equal(one.example[name], batch[name][one.index])


def test_repeats_are_looks_of_one_record(tmp_path):
  config = quickstart.get_config('tiny')
  looks = run(config, tmp_path, num=3, repeats=4, epoch=1)
  assert [one.epoch for one in looks] == [1, 2, 3, 4] * 3
  for i in range(0, 12, 4):
    assert len({one.index for one in looks[i : i + 4]}) == 1
    assert len({one.example['image'].tobytes() for one in looks[i : i + 4]}) > 1


def test_the_page_holds_the_pixels_of_the_batch(tmp_path):
  config = quickstart.get_config('tiny')
  looks = run(config, tmp_path, num=3, side=64)
  found = pictures(tmp_path / 'x.html')
  assert len(found) == 3
  for one in looks:
    alt = f'alt="{one.key}  epoch 0"'
    assert alt in (tmp_path / 'x.html').read_text()
  for one, picture in zip(looks, found):  # 32 pixels, each drawn as 2x2
    doubled = one.example['image'].repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(picture, doubled)


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_can_be_looked_at(name, tmp_path):
  config = importlib.import_module(f'configs.{name}').get_config('tiny')
  evals = [f'evals.{k}' for k, v in config.evals.items() if 'ops' in v]
  for key in ['input', *evals]:
    assert len(run(config, tmp_path, key=key, num=2)) == 2


def captions(config, **options):
  feed = config_feed.open_feed(config, 'input', None)
  looks = [config_feed.look(feed, 0, i) for i in range(len(feed.source))]
  return [inspect_data.caption(one, feed)[1:] for one in looks]


def test_labels_by_hand():
  label = dict(op='labels', max_labels=4, fill_in=True)
  assert captions(config_of(WORLD, label)) == [
    [[('apple', 'plain')], [('+ fruit', 'good')]],
    [[('apple', 'plain')], [('rock', 'plain')], [('+ fruit', 'good')]],
    [[('no labels', 'muted')]],
    [[('fruit', 'plain')]],
  ]


def test_confidences_and_negatives_by_hand():
  states = dict(
    label_conf=[[0.5], [1.0, 0.25], [], [0.75]],
    negatives=[[3], [], [0, 2], []],
  )
  label = dict(
    op='labels', max_labels=4, fill_in=True, confidence=True,
    min_confidence=0.4, max_negatives=2,
  )  # fmt: skip
  assert captions(config_of(WORLD | states, label)) == [
    [[('apple 0.50', 'plain')], [('+ fruit 0.50', 'good')],
     [('not: rock', 'muted')]],
    [[('rock 1.00', 'plain')], [('! apple 0.25, not in the batch', 'bad')],
     [('not: none known', 'muted')]],
    [[('no labels', 'muted')], [('not: apple, pear', 'muted')]],
    [[('fruit 0.75', 'plain')], [('not: none known', 'muted')]],
  ]  # fmt: skip
  plain = dict(op='labels', max_labels=4)
  found = captions(config_of(WORLD | states, plain))
  assert found[0] == [
    [('apple 0.50', 'plain')], [('not: rock (not in the batch)', 'muted')],
  ]  # fmt: skip


def test_records_that_cannot_be_used_are_shown_with_the_reason(tmp_path):
  config = config_of(WORLD | dict(type=__name__), dict(op='single_label'))
  looks = run(config, tmp_path, num=4)
  reasons = {one.key: one.reason for one in looks}
  assert reasons['record-0'] == reasons['record-3'] == ''
  assert reasons['record-1'] == 'JPEG cut short'
  assert reasons['record-2'].startswith('0 labels where input.ops[1]')
  page = (tmp_path / 'x.html').read_text()
  assert '_mask False: JPEG cut short' in page
  assert '2 that cannot be used' in page
  blank = pictures(tmp_path / 'x.html')[
    next(i for i, one in enumerate(looks) if one.key == 'record-1')
  ]
  assert not blank.any()  # as in the batch


def test_targets_that_the_run_leaves_behind(tmp_path):
  # There is no keypoint 5, but no op of this run reads the keypoints.
  world = dict(type='synthetic', annotations=True, num_keypoints=5)
  world |= dict(num_images=9, num_classes=9)
  flip = dict(op='random_flip')
  for pairs, drawn in ((dict(keypoint_pairs=[[1, 5]]), False), ({}, True)):
    looks = run(config_of(world, flip | pairs), tmp_path, num=3)
    assert not any(one.reason for one in looks)
    assert all(('boxes' in one.example) == drawn for one in looks)
    page = (tmp_path / 'x.html').read_text()
    assert ('drawn, not in the batch' in page) == drawn


def test_classes_are_found_through_the_hierarchy(tmp_path):
  config = config_of(WORLD, dict(op='labels', max_labels=4))
  for classes, expected in [
    ('fruit', {0, 1, 3}), ('apple', {0, 1}), ('rock,fruit', {0, 1, 3}),
    ('rock, apple', {0, 1}),
  ]:  # fmt: skip
    looks = run(config, tmp_path, classes=classes)
    assert {one.index for one in looks} == expected
  with pytest.raises(ValueError, match='none of the first 4 records'):
    run(config, tmp_path, classes='pear')
  with pytest.raises(ValueError, match=r"'aple' is not among .* 'apple'"):
    run(config, tmp_path, classes='rock,aple')


def test_classes_by_description():
  from input_pipeline.labels.vocabulary import Vocabulary

  vocabulary = Vocabulary(
    ('n1', 'n2', 'a, b'), descriptions=('tench', 'great, white', None)
  )
  for text, ids in [
    ('tench', {0}), ('n1,n2', {0, 1}), ('great, white', {1}), ('a, b', {2}),
  ]:  # fmt: skip
    assert config_feed.find_classes(text, vocabulary) == ids


def test_header(tmp_path):
  config = quickstart.get_config('tiny')
  run(config, tmp_path, num=2, seed=9)
  page = (tmp_path / 'x.html').read_text()
  for text in (
    'random_crop(size=32); random_flip()', 'num_images=1000', '1,000',
    pipeline.open_train(config).fingerprint(), 'image uint8[32, 32, 3]',
    'seed of order and chance</td><td>9',
    '2 records, epoch 0; 0 that cannot be used',
  ):  # fmt: skip
    assert text in page, text


def test_boxes_are_drawn_where_they_are():
  image = np.full((20, 30, 3), 100, np.uint8)
  example = {
    'image': image,
    'boxes': np.float32([[4, 6, 14, 26], [0, 0, 0, 0]]),
    'box_labels': np.int32([3, -1]),
    'box_mask': np.array([True, False]),
  }
  drawn = annotated_picture.draw(example, lambda i: '', 150)
  assert drawn.shape == (100, 150, 3)
  tone = annotated_picture.colour(3)
  marked = (drawn == tone).all(-1)
  rows, columns = np.flatnonzero(marked.any(1)), np.flatnonzero(marked.any(0))
  assert (columns[0], columns[-1]) == (30, 129) and rows[-1] == 69
  for row, column in [(20, 80), (69, 80), (40, 30), (40, 129)]:
    assert marked[row, column]
  assert (drawn[24:66, 34:126] == 100).all()  # inside
  assert (drawn[75:] == 100).all()
  named = annotated_picture.draw(example, lambda i: f'name {i}', 150)
  assert ((named == tone).all(-1) & ~marked).sum() > 100  # behind the text


def test_masks_and_keypoints_are_drawn_where_they_are():
  image = np.zeros((20, 20, 3), np.uint8)
  ids = np.zeros((20, 20), np.uint8)
  ids[2:5, 3:9], ids[10:] = 2, 255
  drawn = annotated_picture.draw({'image': image, 'segmentation': ids}, str, 20)
  expected = (0.45 * np.array(annotated_picture.colour(1))).astype(int)
  np.testing.assert_array_equal(
    drawn[2:5, 3:9], np.broadcast_to(expected, (3, 6, 3))
  )
  assert (drawn[10:] == int(0.45 * 255)).all()
  assert not drawn[:2].any() and not drawn[5:10].any()
  drawn = annotated_picture.draw(
    {'image': image, 'segmentation': ids}, str, 20, background=False
  )
  for rows, label in ((slice(2), 0), (slice(2, 5), 2)):
    tone = (0.45 * np.array(annotated_picture.colour(label))).astype(int)
    assert (drawn[rows, 3:9] == tone).all()
  keypoints = np.zeros((1, 17, 3), np.float32)
  keypoints[0, 5], keypoints[0, 6] = (5, 4, 2), (5, 16, 2)  # shoulders
  drawn = annotated_picture.draw(
    {
      'image': image, 'boxes': np.float32([[0, 0, 20, 20]]),
      'keypoints': keypoints,
    },
    str,
    200,
  )  # fmt: skip
  assert drawn[50, 40].tolist() == [0, 220, 0]  # left
  assert drawn[50, 160].tolist() == [255, 140, 0]  # right
  assert drawn[50, 100].tolist() == [255, 255, 255]  # the limb between them


def test_outlines_are_drawn_over_classifiers_images():
  example = {
    'image': np.zeros((20, 20, 3), np.uint8),
    'boxes': np.float32([[5, 5, 10, 15]]),
    'box_labels': np.int32([0]),
    'box_outlines': [[[5, 5, 15, 5, 15, 10, 5, 10]]],
  }
  drawn = annotated_picture.draw(example, lambda i: '', 40)
  expected = (0.45 * np.array(annotated_picture.colour(0))).astype(int)
  np.testing.assert_array_equal(
    drawn[13:17, 13:27], np.broadcast_to(expected, (4, 14, 3))
  )
  assert not drawn[22:].any()


def test_lines_of_a_caption_fit_their_width():
  font = annotated_picture.font()
  long = 'short words and onewordthatismuchlongerthanalinemayeverbe ' * 3
  line = [('plain ', 'plain'), (long, 'good')]
  lines = contact_sheet._wrapped(line, 150)
  assert len(lines) > 5
  for part in lines:
    text = ''.join(piece for piece, _ in part).rstrip()
    assert font.getlength(text) <= 150
  assert ''.join(t for part in lines for t, _ in part) == 'plain ' + long


def test_png_sheet(tmp_path, capsys):
  out = tmp_path / 'sheet.png'
  inspect_data.main(
    ['x', '--config=configs/quickstart.py:tiny', '--num=6', f'--output={out}']
  )
  assert '6 examples, 0 cannot be used' in capsys.readouterr().out
  sheet = np.array(Image.open(out))
  assert sheet.shape[1] == 1350
  source = pipeline.open_train(quickstart.get_config('tiny'))
  feed = config_feed.open_feed(quickstart.get_config('tiny'), 'input', None)
  assert feed.source.fingerprint() == source.fingerprint()
  _, first = next(config_feed.positions(feed, 0, 6))
  image = config_feed.look(feed, 0, first).example['image']
  tile = image.repeat(8, 0).repeat(8, 1)
  rows = [
    y
    for y in range(sheet.shape[0] - 256)
    if np.array_equal(sheet[y : y + 256, 10:266], tile)
  ]
  assert len(rows) == 1  # the whole picture, once


@pytest.mark.parametrize(
  'args,message',
  [
    (['--key=eval'], 'valid here: input, evals.fasteval'),
    (['--num=0'], '--num=0 must be at least 1'),
    (['--side=2049'], '--side=2049 must be in 16 to 2048'),
    (['--side=15'], '--side=15 must be in 16 to 2048'),
    (['--epoch=-1'], '--epoch=-1 must be at least 0'),
    (['--output=sheet.jpg'], 'must end in .html or .png'),
    (['--output=no/such/sheet.png'], "no folder 'no/such'"),
    (['--key=evals.fasteval', '--repeats=2'], 'in one way'),
    (['--key=evals.fasteval', '--seed=2'], 'no chance'),
    (['--classes=plumbus'], "'plumbus' is not among the 23 names"),
    (['--config.input.batchsize=3'], 'batchsize'),
    (['stray'], "unknown argument 'stray'"),
  ],
)
def test_mistakes_end_the_command_with_one_message(args, message, capsys):
  config = '--config=configs/quickstart.py:tiny'
  with pytest.raises(SystemExit) as ended:
    inspect_data.main(['x', config, *args])
  assert ended.value.code == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and message in error


@pytest.mark.parametrize(
  'args,message',
  [
    ([], '--config is missing, such as configs/quickstart.py'),
    (['--config=configs/quickstart.py:foo'], '.*:foo: unknown config argument'),
    (
      ['--config=configs/no.py'],
      "--config=configs/no.py: no config file 'configs/no.py'",
    ),
    (['--config=configs/own_data.py:path=/no'], 'input.source.path=./no.'),
  ],
)
def test_mistakes_in_the_config(args, message, capsys):
  with pytest.raises(SystemExit) as ended:
    inspect_data.main(['x', *args])
  assert ended.value.code == 2
  assert re.match(f'error: {message}.*\n$', capsys.readouterr().err)


def test_crops_of_people_have_discs_and_crosses():
  """Own keypoints and discs in the tones of their side; others magenta."""
  own = np.zeros((3, 3), np.float32)
  own[0], own[1] = (50, 20, 2), (50, 60, 2)
  others = np.zeros((4, 3, 3), np.float32)
  others[2, 0] = 80, 30, 1
  picture = annotated_picture.draw(
    {
      'image': np.zeros((100, 80, 3), np.uint8),
      'person_keypoints': own,
      'other_keypoints': others,
    },
    str,
    200,
    pairs=[(0, 1)],
    radius=10.0,
  )
  assert picture.shape == (200, 160, 3)
  green, orange, magenta = (0, 220, 0), (255, 140, 0), (255, 0, 200)
  assert tuple(picture[100, 40]) == green
  assert tuple(picture[100, 20]) == tuple(picture[80, 40]) == green
  assert tuple(picture[100, 120]) == tuple(picture[120, 120]) == orange
  assert tuple(picture[160, 60]) == magenta
  marked = np.argwhere((picture == magenta).all(-1))
  assert np.abs(marked - (160, 60)).max() <= 6  # those absent are not drawn


@pytest.mark.parametrize('suffix', ['html', 'png'])
def test_people_of_the_synthetic_world(tmp_path, suffix):
  world = dict(
    type='synthetic', annotations=True, num_images=8, num_classes=9,
    num_keypoints=5,
  )  # fmt: skip
  config = common.base()
  config.input.source = ConfigDict(dict(type='people', of=world))
  config.input.ops = [dict(op='decode'), dict(op='crop_person', size=(65, 47))]
  output = tmp_path / f'x.{suffix}'
  looks = inspect_data.run(config, num=3, side=65, output=str(output))
  assert output.exists() and not any(one.reason for one in looks)
  feed = config_feed.open_feed(config, 'input', None)
  text = str(inspect_data.caption(looks[0], feed))
  assert 'score 1.00; ' in text and 'keypoints, ' in text
