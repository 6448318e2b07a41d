"""The lines of metrics.jsonl that two equal runs must have in common."""

import json
import pathlib
from typing import Any

_OF_THE_CLOCK = ('_s', '_share', 'read_retries')


def lines(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """All of them; every one must be JSON."""
  text = (workdir / 'metrics.jsonl').read_text()
  assert text.endswith('\n')
  return [json.loads(line) for line in text.splitlines()]


def reproducible(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """The same without what time decides."""
  return [
    {k: v for k, v in line.items() if not k.endswith(_OF_THE_CLOCK)}
    for line in lines(workdir)
  ]
