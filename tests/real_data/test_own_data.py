"""Real photographs: prepare, train, overfit a small set (docs/data.md)."""

import pytest

from big_vision_like import train
from big_vision_like.runtime import writers
from configs import own_data
from tools import prepare_images

pytestmark = [
  pytest.mark.slow,
  pytest.mark.real_data,
  pytest.mark.usual_compiling,
]


@pytest.mark.nightly
def test_sixty_four_photographs_are_learnt_by_heart(real_data, tmp_path):
  photos = real_data / 'tiny_imagenet_slice'
  prepared = tmp_path / 'photos'
  code = prepare_images.main(
    [
      f'--input={photos / "labels.csv"}',
      f'--output={prepared}',
      '--image_column=file',
      '--labels_column=wnid',
      f'--hierarchy={photos / "hierarchy.json"}',
      '--hierarchy_unlisted=add',
      '--splits=train',
      '--limit=64',
    ]
  )
  assert code in (0, None)
  config = own_data.get_config(
    f'path={prepared},eval_split=train,depth=14,width=24,size=56,batch=32,'
    'epochs=60,workers=0,bn_decay=0.9'
  )
  train.run(config, str(tmp_path / 'run'))
  scores = {
    line['step']: line['val/map@100']
    for line in writers.read_metrics(tmp_path / 'run')
    if 'val/map@100' in line
  }
  assert scores[0] < 60
  assert scores[120] > 95
