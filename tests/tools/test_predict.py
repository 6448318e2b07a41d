"""Predictions: scores by hand, names, images that cannot be used."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest
import scipy.special
from PIL import Image

from big_vision_like import experiment
from big_vision_like.inference import stored_model
from big_vision_like.pages import prediction_sheet
from big_vision_like.protocols import Prediction
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary
from tests import saved_run, tiny
from tools import predict
from tools.predictions import image_list

NUM = 9


@pytest.fixture(scope='module')
def exp():
  return experiment.build(
    tiny.config(), space=LabelSpace.of_count(13), devices=jax.devices()[:1]
  )


@pytest.fixture(scope='module')
def state(exp):
  """The padding of the head would win if it were looked at."""
  state = exp.init(3)
  bias = np.linspace(-1, 1, 16, dtype=np.float32)
  bias[13:] = 100
  head = {**state.params['head'], 'bias': jax.numpy.asarray(bias)}
  return state.replace(params={**state.params, 'head': head})


@pytest.fixture(scope='module')
def workdir(exp, state, tmp_path_factory):
  return saved_run.save(tmp_path_factory.mktemp('run'), exp, state)


@pytest.fixture(scope='module')
def pixels():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (NUM, 20, 20, 3), np.uint8)


@pytest.fixture
def photos(pixels, tmp_path):
  """Images in two folders, and what is no image."""
  folder = tmp_path / 'photos'
  (folder / 'b').mkdir(parents=True)
  for i, image in enumerate(pixels):
    Image.fromarray(image).save(folder / ('b' if i > 4 else '') / f'{i}.PNG')
  (folder / 'a_cut.png').write_bytes((folder / '0.PNG').read_bytes()[:99])
  (folder / 'notes.txt').write_text('no image')
  (folder / '.hidden.png').write_text('no image')
  return folder


def lines_of(path: pathlib.Path) -> list[dict]:
  return [json.loads(line) for line in path.read_text().splitlines()]


def run(capsys, *arguments) -> tuple[int, str, str]:
  code = predict.main([str(a) for a in arguments])
  out = capsys.readouterr()
  return code, out.out, out.err


def test_labels_scores_and_names(
  exp, state, workdir, photos, pixels, tmp_path, capsys
):
  names = tuple(f'n{i:03d}' for i in range(13))
  known = [f'thing <{i}>' if i else None for i in range(13)]
  file = tmp_path / 'names.jsonl'
  Vocabulary(names, descriptions=tuple(known)).save(str(file))
  out = tmp_path / 'out'
  code, said, err = run(
    capsys, '--checkpoint', workdir, '--input', photos, '--output', out,
    '--top', 13, '--batch_size', 4, '--vocabulary', file,
  )  # fmt: skip
  assert (code, err) == (0, '')
  assert f'{NUM} images, sigmoid over 13 classes' in said
  assert '1 files without an image suffix passed over' in said
  assert '1 cannot be used' in said

  # 20x20 images: resizing to 20 changes nothing, 16 pixels remain.
  crop = {'image': pixels[:, 2:18, 2:18]}
  features = np.asarray(
    jax.jit(exp.predict['features'])(state, crop)['features']
  )
  head = jax.tree.map(lambda x: np.asarray(x, np.float64), state.params['head'])
  logits = (features.astype(np.float64) @ head['kernel'] + head['bias'])[:, :13]
  wanted = scipy.special.expit(logits)

  lines = lines_of(out / 'predictions.jsonl')
  order = [str(photos / f'{i}.PNG') for i in range(5)]
  order += [str(photos / 'b' / f'{i}.PNG') for i in range(5, NUM)]
  assert [line['image'] for line in lines] == order
  for line, row in zip(lines, wanted):
    scores = [entry['score'] for entry in line['predictions']]
    assert scores == sorted(scores, reverse=True)
    by_id = {entry['id']: entry for entry in line['predictions']}
    assert sorted(by_id) == list(range(13))
    for i, score in enumerate(row):
      assert by_id[i]['score'] == pytest.approx(score, rel=1e-3, abs=1e-5)
      assert by_id[i]['name'] == (known[i] or names[i])
      assert by_id[i].get('label') == (names[i] if known[i] else None)

  bad = lines_of(out / 'bad_images.jsonl')
  assert [entry['image'] for entry in bad] == [str(photos / 'a_cut.png')]
  page = (out / 'predictions.html').read_text()
  assert page.count('<figure') == NUM
  assert 'thing &lt;12&gt;' in page and 'thing <12>' not in page
  assert 'a_cut.png' in page


def test_names_of_the_training_data_one_image_no_page(
  workdir, photos, tmp_path, capsys
):
  out = tmp_path / 'out'
  code, _, _ = run(
    capsys, '--checkpoint', workdir, '--input', photos / '3.PNG', photos / 'b',
    '--output', out, '--sheet', 0, '--top', 2,
  )  # fmt: skip
  assert code == 0
  lines = lines_of(out / 'predictions.jsonl')
  assert [line['image'][-5:] for line in lines] == [
    f'{i}.PNG' for i in (3, 5, 6, 7, 8)
  ]
  assert {len(line['predictions']) for line in lines} == {2}
  names = stored_model.load(workdir, '').vocabulary.names
  first = lines[0]['predictions'][0]
  assert first['name'] == names[first['id']]
  assert not (out / 'predictions.html').exists()


def test_nothing_usable_leaves_no_predictions(
  workdir, photos, tmp_path, capsys
):
  code, _, err = run(
    capsys, '--checkpoint', workdir, '--input', photos / 'a_cut.png',
    '--output', tmp_path / 'out',
  )  # fmt: skip
  assert code == 2 and 'none of the 1 images can be used' in err
  assert [p.name for p in (tmp_path / 'out').iterdir()] == ['bad_images.jsonl']


def test_mistakes(workdir, photos, tmp_path, capsys):
  empty = tmp_path / 'empty'
  empty.mkdir()
  (empty / 'x.txt').write_text('')
  base = ('--checkpoint', workdir, '--output', tmp_path / 'out', '--input')
  for arguments, words in (
    ((empty,), 'no images; 1 other files there'),
    ((tmp_path / 'none',), 'no such file or folder'),
    ((photos, '--top', 0), '--top=0 must be at least 1'),
    ((photos, '--no_overlays'), "the task 'multilabel' gives labels"),
    ((photos / 'a_cut.png',), 'none of the 1 images can be used'),
  ):
    code, _, err = run(capsys, *base, *arguments)
    assert code == 2 and err.startswith('error: ') and words in err
  code, _, err = run(
    capsys, '--checkpoint', empty, '--input', photos, '--output', tmp_path
  )
  assert code == 2 and 'no checkpoint there' in err


@pytest.mark.parametrize(
  'scores, wanted',
  [
    ('sigmoid', scipy.special.expit),
    ('softmax', lambda x: scipy.special.softmax(x, -1)),
  ],
)
def test_probabilities_at_any_size_of_logit(scores, wanted):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(50, 7)) * np.logspace(-3, 3, 50)[:, None]
  found = stored_model.probabilities(logits, scores)
  np.testing.assert_allclose(found, wanted(logits), rtol=1e-12, atol=1e-300)


class OfKind:
  """A task with one prediction."""

  def __init__(self, **options):
    self.predictions = {'out': Prediction(lambda state, batch: {}, **options)}


@pytest.mark.parametrize('scores', ['softmax', 'sigmoid'])
def test_kind_of_score_is_said_by_the_prediction(workdir, scores):
  model = stored_model.load(workdir, '')
  assert model.scores == 'sigmoid'  # the task of the run
  other = dataclasses.replace(model, task=OfKind(kind='mask', scores=scores))
  assert other.scores == scores
  assert other.prediction('classes', 'mask')[0] == 'out'


def test_a_task_without_classes_is_named(workdir):
  model = stored_model.load(workdir, '')
  vectors = dataclasses.replace(model, task=OfKind(kind='vectors'))
  with pytest.raises(ValueError, match=r'no classes or mask; .* out \(vectors'):
    vectors.prediction('classes', 'mask')
  silent = dataclasses.replace(model, task=OfKind(kind='classes'))
  with pytest.raises(ValueError, match=r'does not say .* softmax or sigmoid'):
    _ = silent.scores


def test_positions_of_the_sheet():
  assert prediction_sheet.spread(5, 0) == frozenset()
  assert prediction_sheet.spread(5, 9) == frozenset(range(5))
  assert prediction_sheet.spread(1000, 4) == {0, 250, 500, 750}


def test_links_between_folders_are_not_followed(photos):
  (photos / 'b' / 'up').symlink_to(photos)
  assert len(image_list.find([str(photos)]).source) == NUM + 1
