"""Places within the real data sets that several files read."""

import pytest


@pytest.fixture(scope='session')
def year(real_data):
  """Photographs of VOC 2012 with masks, without lists."""
  return real_data / 'voc2012_slice' / 'VOCdevkit' / 'VOC2012'
