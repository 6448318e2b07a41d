"""S6: what must not stand in the source tree."""

import random

from tests import test_layers
from tests.faults.field import Field
from tests.faults.rows import Row

# As it would stand in a module, and what it is.
_HITS = {
  'import pickle\n': 'pickle',
  'from torch import load\n': 'torch',
  'import numpy as np\nnp.load("x", allow_pickle=True)\n': 'allow_pickle',
  'eval("1")\n': 'eval',
  'exec("x = 1")\n': 'exec',
  'import subprocess\nsubprocess.run("ls", shell=True)\n': 'shell',
  'import os\nos.system("ls")\n': 'os.system',
  'import tarfile\ntarfile.open("x").extractall()\n': 'extractall',
  'import yaml\nyaml.load("x")\n': 'yaml.load',
  'import yaml\nyaml.unsafe_load("x")\n': 'yaml.unsafe_load',
}


def trial(field: Field, number: int, rng: random.Random) -> str:
  """No hit in the tree, and one planted into a module is found."""
  for path in test_layers.FILES:
    assert not test_layers.dangerous(path), path
  planted = list(_HITS)[number % len(_HITS)]
  source = rng.choice(test_layers.FILES).read_text()
  path = field.folder / f's6-{number}' / 'planted.py'
  path.parent.mkdir(parents=True)
  path.write_text(f'{source}\n{planted}')
  found = test_layers.dangerous(path)
  assert len(found) == 1 and _HITS[planted] in found[0], (planted, found)
  return f'{len(test_layers.FILES)} modules; planted: {_HITS[planted]}'


ROW = Row(
  'S6',
  'pickle, `allow_pickle=True`, `eval`, `exec`, a shell, `extractall`, unsafe '
  'YAML or torch in code that runs',
  '0 hits in the tree; each of these, planted into a module, is found',
  trial,
  trials=len(_HITS),
  per_commit=0,
)
