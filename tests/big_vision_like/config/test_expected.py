"""What a run says of its figures against those expected, and mistakes."""

import pytest

from big_vision_like.config import expected, settings
from configs import quickstart
from tests import tiny


@pytest.mark.parametrize(
  'got, value, words',
  [
    (62.0, (60.8, 64.2), '62, in the range expected, 60.8 to 64.2'),
    (60.8, (60.8, 64.2), '60.8, in the range expected, 60.8 to 64.2'),
    (59.123, (60.8, 64.2), '59.12, below the range expected, 60.8 to 64.2'),
    (65.0, [60.8, 64.2], '65, above the range expected, 60.8 to 64.2'),
    (78.0, 79.2, '78, about 79.2 expected'),
    (None, (60.8, 64.2), 'no figure, 60.8 to 64.2 expected'),
  ],
)
def test_verdict(got, value, words):
  assert expected.verdict(got, value) == words


@pytest.mark.parametrize(
  'value', [(64.2, 60.8), (1.0,), (1, 2, 3), 'high', None, (0, float('nan'))]
)
def test_mistakes(value):
  with pytest.raises(ValueError, match=r"'expected.val/top1' must be a range"):
    expected.check({'val/top1': value})


def test_a_config_with_a_wrong_range_is_refused():
  config = tiny.config(expected={'fasteval/map@100': (64.2, 60.8)})
  with pytest.raises(ValueError, match=r'expected\.fasteval/map@100'):
    settings.complete(config)


def test_the_range_of_the_quickstart_is_for_the_quickstart_as_it_is():
  """Figures of six runs, docs/log.md; with fewer images it is another one."""
  (low, high) = quickstart.get_config().expected['fasteval/map@100']
  for figure in (60.8, 62.5, 63.1, 63.6, 63.7, 64.2):
    assert low < figure < high
  for arg in ('images=500', 'noise=0', 'fill_in=false', 'steps=7', 'tiny'):
    assert not quickstart.get_config(arg).expected
