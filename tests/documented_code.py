"""Python snippets of the documentation, as a user would run them."""

import os
import pathlib
import re
import subprocess
import sys

from tests.conftest import ROOT, xla_flags


def snippet(page: str, containing: str) -> str:
  """The one Python block of docs/<page> that contains a text."""
  text = (ROOT / 'docs' / page).read_text()
  blocks = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  found = [block for block in blocks if containing in block]
  assert len(found) == 1, (page, containing, len(found))
  return found[0]


def run(code: str, folder: pathlib.Path) -> str:
  """Runs code in a folder, where our packages cannot be imported."""
  code += "\nimport sys\nassert 'big_vision_like' not in sys.modules\n"
  done = subprocess.run(
    [sys.executable, '-W', 'ignore', '-c', code],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': '', 'XLA_FLAGS': xla_flags()},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout
