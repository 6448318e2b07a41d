"""Study configs in a folder of a test, on a main that takes milliseconds."""

import json
import pathlib
import sys
from typing import Any

FAKE_MAIN = pathlib.Path(__file__).parents[2] / 'fixtures' / 'fake_main.py'
PROGRAM = [sys.executable, '-I', '-S', str(FAKE_MAIN)]

_RUN = """
from configs import common

def get_config(arg=None):
  arg = common.parse(arg, fake='')
  c = common.base()
  c.total_steps = 10
  c.model.fake = arg.fake
  c.evals.val = dict(type='classification', batch_size=4)
  c.lock()
  return c
"""


def write(folder: pathlib.Path, **study: Any) -> str:
  """Writes run.py and study.py; returns the path of the latter.

  `config` of a run is run.py where it is left out; `fake` is its argument.
  """
  (folder / 'run.py').write_text(_RUN)
  runs = []
  for entry in study.pop('runs'):
    entry = dict(entry)
    fake = entry.pop('fake', '')
    config = f'{folder}/run.py{":" if fake else ""}{fake and f"fake={fake}"}'
    runs.append({'config': config, **entry})
  given = {'title': 'A study', **study, 'runs': runs}
  path = folder / 'study.py'
  path.write_text(
    'import json\nfrom configs import studies\n\n'
    'def get_config(arg=None):\n'
    '  c = studies.base("")\n'
    f'  for key, value in json.loads({json.dumps(given)!r}).items():\n'
    '    with c.unlocked(), c.ignore_type():\n'
    '      c[key] = value\n'
    '  return c\n'
  )
  return str(path)
