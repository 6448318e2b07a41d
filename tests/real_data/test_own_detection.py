"""Real photographs with boxes learnt by heart (docs/detection.md)."""

import pytest

from big_vision_like import train
from big_vision_like.runtime import writers
from configs import own_detection
from tools import prepare_images

pytestmark = [
  pytest.mark.slow,
  pytest.mark.nightly,
  pytest.mark.real_data,
]


@pytest.mark.usual_compiling
def test_eight_photographs_are_learnt_by_heart(real_data, tmp_path):
  photos, prepared = real_data / 'voc2012_slice/VOCdevkit', tmp_path / 'eight'
  code = prepare_images.main(
    [
      f'--input={photos}',
      f'--output={prepared}',
      '--option=task=detection',
      '--splits=all',
      '--limit=8',
      '--long_side=512',
    ]
  )
  assert code in (0, None)
  config = own_detection.get_config(
    f'path={prepared},split=all,eval_split=all,metric=voc,size=128,depth=14,'
    'width=24,output_stride=8,regions=few,epochs=240,lr=0.02,workers=0'
  )
  train.run(config, str(tmp_path / 'run'))
  scores = {
    line['step']: line['val/ap50']
    for line in writers.read_metrics(tmp_path / 'run')
    if 'val/ap50' in line
  }
  assert scores[0] < 5
  assert scores[240] > 95


@pytest.mark.parametrize(
  ('data', 'arguments'),
  [
    ('voc2012_slice/VOCdevkit', 'split=all,eval_split=all,metric=voc'),
    ('coco_tiny', 'metric=coco'),
  ],
)
def test_fifty_photographs_are_trained_on_and_scored(
  real_data, tmp_path, data, arguments
):
  """An epoch; one bad example of fifty would end the run."""
  config = own_detection.get_config(
    f'path={real_data / data},{arguments},size=128,depth=14,width=24,'
    'output_stride=8,regions=few,epochs=1,batch=8,workers=0'
  )
  config.unlock()
  config.evals.val.every_percent = 100
  state = train.run(config, str(tmp_path / 'run'))
  assert int(state.step) == 6 and int(state.nonfinite_step) == -1
  last = list(writers.read_metrics(tmp_path / 'run'))[-1]
  assert last['val/num_images'] == 50 and 0 <= last['val/ap50'] <= 100
