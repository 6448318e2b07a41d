"""Figure 4 as a study: sizes, targets and features, planned in full."""

import pytest

from configs.studies import figure4
from tools.studies import plan

SIZES = {'2000': 2000, '8000': 8000, '32000': 32_000, '': 128_000}
REAL_SIZES = {
  '10M': 10**7, '30M': 3 * 10**7, '100M': 10**8, '': 3 * 10**8,
}  # fmt: skip


def planned(arguments, tmp_path):
  """The checked study."""
  return plan.build(figure4.get_config(arguments), 'figure4', tmp_path)


def starts(built):
  """run -> run that it starts from, or None; without the search."""
  return {
    name: jobs[0].parent.run.name if jobs[0].parent else None
    for name, jobs in built.runs.items()
    if not name.startswith('rate_')
  }


def jft(size):
  return f'jft_{size}' if size else 'jft'


def test_four_sizes_fine_tuned_and_frozen_in_the_synthetic_world(tmp_path):
  built = planned(None, tmp_path)
  assert starts(built) == {
    'scratch': None,
    **{jft(size): None for size in SIZES},
    **{f'{kind}_{jft(s)}': jft(s) for s in SIZES for kind in figure4.FEATURES},
  }
  for size, num in SIZES.items():
    (before,) = built.runs[jft(size)]
    assert before.config['total_steps'] == 2 * num // 32  # two epochs
    tuned, frozen = (
      built.runs[f'{kind}_{jft(size)}'] for kind in figure4.FEATURES
    )
    assert len(tuned) == len(frozen) == 3
    assert tuned[0].run.axes == dict(images_seen=num, features='fine-tuned')
    assert frozen[0].run.axes == dict(images_seen=num, features='frozen')
    one, other = tuned[0].config, frozen[0].config
    assert one['model']['freeze'] == 'none'
    assert other['model']['freeze'] == 'conv4'
    assert {**other, 'model': one['model']} == dict(one)
  metrics = {figure.name: figure.metric for figure in built.figures}
  assert metrics == {
    'data_size_coco': 'val/ap', 'data_size_voc': 'val/ap50',
  }  # fmt: skip
  assert len(built.figures[0].runs) == len(built.figures[1].runs) == 8
  titles = [built.title_of(n) for n in ('jft_8000', 'frozen_jft', 'scratch')]
  assert titles == ['8,000 images', 'all images, frozen', 'from scratch']


def test_rates_are_searched_for_each_kind_of_features(tmp_path):
  built = planned(None, tmp_path)
  rates = [name for name in built.runs if name.startswith('rate_')]
  assert len(rates) == 3 * 3
  for name in rates:
    (job,) = built.runs[name]
    assert job.config['evals']['val']['data']['split'] == 'fasteval'
    freeze = job.config['model']['freeze']
    assert (freeze == 'conv4') == name.startswith('rate_frozen')
  for kind in figure4.FEATURES:  # all sizes have the rate of all images
    searched = [n for n in rates if n.startswith(f'rate_{kind}_')]
    for size in SIZES:
      (arm, *_) = built.runs[f'{kind}_{jft(size)}']
      assert list(arm.variants) == searched
      starts = {v.parent.run.name for v in arm.variants.values()}
      assert starts == {jft(size)}
  given = planned('lr_frozen=0.005', tmp_path)
  assert 'rate_frozen_0.01' not in given.runs
  frozen, tuned = (
    given.runs[f'{kind}_jft_2000'][0] for kind in ('frozen', 'tuned')
  )
  assert frozen.config['schedule']['lr'] == 0.005 and not frozen.variants
  assert tuned.variants


def test_the_recipes_of_the_paper_on_real_data(tmp_path):
  built = planned('coco=/c,voc=/v,jft=/j', tmp_path)
  assert starts(built) == {
    **{jft(size): None for size in REAL_SIZES},
    **{
      f'{target}_{kind}_{jft(size)}': jft(size)
      for size in REAL_SIZES
      for target in figure4.TARGETS
      for kind in figure4.FEATURES
    },
  }
  config = lambda run: built.runs[run][0].config
  assert config('jft_30M')['input']['source']['subset'] == {
    'num_images': 3 * 10**7
  }
  steps = {
    'coco_tuned_jft': 3_000_000, 'coco_frozen_jft_10M': 1_500_000,
    'voc_tuned_jft': 700_000, 'voc_frozen_jft': 700_000,
  }  # fmt: skip
  assert {run: config(run)['total_steps'] for run in steps} == steps
  assert config('voc_frozen_jft')['model']['freeze'] == 'conv4'
  assert config('coco_tuned_jft')['model']['bn'] == 'frozen'
  assert config('voc_tuned_jft')['input']['source']['path'] == '/v'
  left, right = built.figures
  assert [f.metric for f in built.figures] == ['val/ap', 'val/ap50']
  assert {run.partition('_')[0] for run in left.runs} == {'coco'}
  assert {run.partition('_')[0] for run in right.runs} == {'voc'}
  assert built.runs['voc_frozen_jft_10M'][0].run.axes['images_seen'] == 10**7
  alone = planned('voc=/v,jft=/j', tmp_path)
  assert [figure.name for figure in alone.figures] == ['data_size_voc']


@pytest.mark.parametrize(
  'arguments, words',
  [
    ('jft=a', 'belong together'),
    ('coco=a', 'belong together'),
    ('coco=a,jft=b,lr_tuned=1', 'lr_tuned is for the synthetic world'),
    ('images=0', 'images=0 must be at least 1'),
    ('imagenet=a', "unknown config argument 'imagenet'"),
  ],
)
def test_mistakes(arguments, words):
  with pytest.raises(ValueError, match=words):
    figure4.get_config(arguments)
