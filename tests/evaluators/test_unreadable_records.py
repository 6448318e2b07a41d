"""Records that cannot be read where no pipeline counts them: one line, the key.

Evaluators and tools read labels and pictures by themselves too.
"""

import numpy as np
import pytest
from PIL import Image

from big_vision_like.pages import prediction_sheet
from evaluators.harness.evaluation_set import EvalData
from input_pipeline import pipeline
from input_pipeline.examples import mask_files
from input_pipeline.examples.errors import BadExample, record_named
from tests.evaluators import harness
from tests.fixtures import tiny_source
from tools import noise_audit
from tools.embedding import feature_shards

NAMES = ['cat', 'dog', 'cow']
LABELS = [dict(op='labels', max_labels=2)]


@pytest.fixture
def pairs(tmp_path):
  """Images with masks; the mask of 'c.png' is cut short."""
  for folder in ('images', 'masks'):
    (tmp_path / folder).mkdir()
  (tmp_path / 'classes.txt').write_text('\n'.join(NAMES))
  for number, name in enumerate('abcd'):
    Image.new('RGB', (8, 8)).save(tmp_path / 'images' / f'{name}.png')
    mask = np.full((8, 8), number % 4, np.uint8)
    (tmp_path / 'masks' / f'{name}.png').write_bytes(mask_files.png(mask))
  broken = tmp_path / 'masks' / 'c.png'
  broken.write_bytes(broken.read_bytes()[:40])
  return dict(type='masks', path=str(tmp_path), split='all')


class Broken(tiny_source.Source):
  """Record 1 cannot be read, whole or its labels alone."""

  def __getitem__(self, index):
    if index == 1:
      raise BadExample('cut short')
    return super().__getitem__(index)

  def labels(self, index):
    return self[index]['labels']


def broken():
  return Broken(labels=[[0], [1], [2]], names=NAMES)


def data(config, ops=LABELS):
  ctx = harness.context(3)
  return EvalData(ctx, config, [*harness.IMAGE_OPS, *ops], 2)


def one_line(error, *words):
  text = str(error.value)
  assert '\n' not in text
  for word in words:
    assert word in text


def test_labels_of_an_evaluator_by_whole_records(pairs):
  found = data(pairs)
  with pytest.raises(ValueError, match=r'^evals\.fasteval\.data: ') as error:
    list(found.label_ids())
  one_line(error, 'c.png cannot be used: ', 'masks')


def test_labels_of_an_evaluator_alone(monkeypatch):
  config = dict(type=harness.SOURCE, labels=[[0], [1], [2]], names=NAMES)
  found = data(config)
  found.source = broken()
  with pytest.raises(ValueError, match=r'^evals\.fasteval\.data: ') as error:
    list(found.label_ids())
  one_line(error, 'record-1 cannot be used: cut short')


def test_an_op_that_cannot_use_the_labels():
  config = dict(type=harness.SOURCE, labels=[[0], [0, 1, 2]], names=NAMES)
  with pytest.raises(ValueError, match='record-1 cannot be used: 3 labels'):
    list(data(config).label_ids())


def test_labels_without_a_name_name_their_record_too():
  config = dict(type=harness.SOURCE, labels=[[0], [7]], names=NAMES)
  with pytest.raises(ValueError, match='label 7') as error:
    list(data(config).label_ids())
  assert 'in record record-1' in error.value.__notes__


def test_running_over_the_set_says_the_same(pairs):
  with pytest.raises(ValueError, match=r'c\.png cannot be used') as error:
    list(data(pairs).batches())
  one_line(error)


READERS = {
  'the sheet of predictions': lambda source, path: prediction_sheet.write(
    path, source, [(1, {'predictions': [], 'image': 'x'})], None, {}, 3
  ),
  'thumbnails of an audit': lambda source, path: noise_audit.Thumbnails(
    source, 8
  )[1],
  'labels beside features': lambda source, path: feature_shards.rows_of(
    source, np.arange(3), np.zeros((3, 2), np.float32)
  ),
}


@pytest.mark.parametrize('reader', READERS)
def test_tools_name_the_record(reader, tmp_path):
  with pytest.raises(ValueError, match='record-1 cannot be used: cut') as error:
    READERS[reader](broken(), str(tmp_path / 'page.html'))
  one_line(error)


def test_what_is_no_mistake_of_a_record_passes():
  with pytest.raises(KeyError), record_named(broken(), 0, 'x'):
    raise KeyError('y')
  with record_named(broken(), 0, 'x'):
    pass


def test_exclusions_pass_over_what_evaluating_will_name(pairs):
  config = dict(pairs)
  found = EvalData(
    harness.context(3),
    config,
    [*harness.IMAGE_OPS, *LABELS],
    2,
    exclude_ids=['d.png'],
  )
  assert found.excluded.tolist() == [3]
  assert len(pipeline.open_source(config)) == 4
