"""A detector compiles for a TPU slice, by the TPU's own compiler."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from benchmarks import tpu_programs

CODE = """
import json, sys
from benchmarks import tpu_programs
print(json.dumps(tpu_programs.programs(tpu_programs.parse(sys.argv[1:]))))
"""


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason='no libtpu, the compiler for TPUs (requirements-tpu.txt)',
)
def test_a_detector_compiles_for_eight_chips(project_root):
  """Step and prediction; images meet in sums of gradients alone."""
  arguments = '--config', 'configs/coco_detection.py:tiny,init=random'
  environment = {**os.environ, **tpu_programs.ENVIRONMENT, 'XLA_FLAGS': ''}
  environment['JAX_ENABLE_COMPILATION_CACHE'] = '0'
  done = subprocess.run(
    [sys.executable, '-c', CODE, *arguments, '--predict', 'detections'],
    cwd=project_root,
    env=environment,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  found = json.loads(done.stdout.splitlines()[-1])
  assert found.keys() == {'train step', 'detections'}
  for of in found.values():
    assert 0 < of['arguments, GiB'] < 1 and 0 < of['temporaries, GiB'] < 1
    assert of['GFLOP'] > 0 and of['GB moved'] > 0
  kinds = lambda name: {key for key in found[name] if key.endswith('s')}
  sums = {'all-reduces', 'compiling, s'}
  assert kinds('train step') == sums
  assert kinds('detections') <= {'all-gathers', 'compiling, s'}


def test_report_by_hand():
  found = {'a': {'GFLOP': 1.23456, 'all-reduces': 3.0}, 'b': {'GFLOP': 20.0}}
  args = tpu_programs.parse(['--config', 'x.py'])
  assert tpu_programs.report(args, found).splitlines()[-4:] == [
    '| | a | b |',
    '|---|---|---|',
    '| GFLOP | 1.235 | 20 |',
    '| all-reduces | 3 | 0 |',
  ]
