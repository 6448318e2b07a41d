"""VOC's photographs with masks: prepare, train, overfit, predict."""

import numpy as np
import pytest
from PIL import Image

from big_vision_like.config import settings
from big_vision_like.metrics import segmentation
from big_vision_like.runtime import writers
from configs import voc_segmentation
from input_pipeline import pipeline
from tools import predict, prepare_voc

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

NUM = 4


@pytest.fixture(scope='module')
def prepared(year, tmp_path_factory):
  """The slice has masks and no lists: all of them are `trainaug`."""
  folder = tmp_path_factory.mktemp('voc')
  names = folder / 'trainaug.txt'
  masks = sorted((year / 'SegmentationClassAug').iterdir())
  names.write_text('\n'.join(mask.stem for mask in masks))
  code = prepare_voc.main(
    [
      f'--input={year.parent}',
      f'--output={folder / "data"}',
      '--task=segmentation',
      f'--trainaug_list={names}',
    ]
  )
  assert code in (0, None)
  return folder / 'data'


def config_of(path):
  """A few photographs by heart: a small net from scratch, all pixels count."""
  c = voc_segmentation.get_config(
    f'path={path},init=random,size=97,loss_at=pixels,num_classes=0'
  )
  c.unlock()
  c.device = 'any'
  c.total_steps = 50
  c.input.batch_size = NUM
  c.input.workers = 0
  few = dict(num_images=NUM)
  c.input.source.subset = few
  c.evals.val.data = dict(c.input.source)
  c.evals.val.every_steps = 50
  c.model.update(dict(depth=14, width=16, bn_decay=0.9))
  c.optim = dict(type='adam')
  c.schedule = dict(type='cosine', lr=3e-3, warmup_steps=10)
  c.lock()
  return c


@pytest.mark.usual_compiling
@pytest.mark.nightly
def test_a_few_photographs_are_learnt_by_heart(
  prepared, year, tmp_path, command_line
):
  config = config_of(prepared)
  given = tmp_path / 'config.json'
  given.write_text(settings.to_json(config))
  result = command_line('--config', given, '--workdir', tmp_path / 'run')
  assert result['code'] == 0, result['err']
  scores = {
    line['step']: line['val/miou']
    for line in writers.read_metrics(tmp_path / 'run')
    if 'val/miou' in line
  }
  assert scores[0] < 10
  assert scores[50] > 60  # 95 of eight at 193 pixels, by more steps

  code = predict.main(
    [
      f'--checkpoint={tmp_path / "run"}',
      f'--input={year / "JPEGImages"}',
      f'--output={tmp_path / "out"}',
      '--sheet=0',
    ]
  )
  assert code in (0, None)
  source = pipeline.open_source(
    dict(config.input.source, type='records'), 'slice'
  )
  confusion = np.zeros((21, 21), np.int64)
  for i in range(NUM):
    name = source[i]['key'].rpartition('/')[2].replace('.jpg', '.png')
    truth, mask = (
      np.asarray(Image.open(folder / name)).ravel()
      for folder in (year / 'SegmentationClassAug', tmp_path / 'out' / 'masks')
    )
    counted = truth != 255
    np.add.at(confusion, (truth[counted], mask[counted]), 1)
  assert 100 * np.nanmean(segmentation.iou(confusion)) == pytest.approx(
    scores[50], abs=1e-4
  )
