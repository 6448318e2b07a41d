"""metrics.jsonl as it is read: its lines, and which of their figures count.

The file is append-only, so a run that goes on under another config or on other
data leaves what it trained before behind. Where that happens a line says so;
such notes hold numbers, as all lines do, under names without a slash:

    {"step": 3, "data_id": 81985529216486895, "anew_from": 4, "anew:val": 1}

    data_id     the training data of what follows, as a number
    anew_from   steps from here on are trained anew: what stands above of them
                does not count
    anew:NAME   the options of evaluator NAME have changed: it has evaluated
                nothing yet, though what stands above is still shown
"""

import hashlib
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from big_vision_like.config import json_text

METRICS = 'metrics.jsonl'
DATA, ANEW_FROM = 'data_id', 'anew_from'
_ANEW = 'anew:'
Line = dict[str, Any]


def read(workdir: str | pathlib.Path) -> Iterator[Line]:
  """All lines, notes too; those that cannot be read are left out."""
  path = pathlib.Path(workdir) / METRICS
  if not path.exists():
    return
  for text in path.read_bytes().split(b'\n'):
    line = parse(text)
    if line is not None:
      yield line


def parse(text: bytes) -> Line | None:
  """One line; None where it is torn, damaged or has no step."""
  try:
    line = json_text.parse(text)
  except ValueError:  # not JSON, or not UTF-8
    return None
  step = line.get('step') if isinstance(line, dict) else None
  return line if isinstance(step, int) and not isinstance(step, bool) else None


def note(
  data: str, anew_from: int | None = None, evaluators: Iterable[str] = ()
) -> dict[str, int]:
  """A note's keys.

  Args:
    data: fingerprint of the training data.
    anew_from: the first step that is trained anew; None: none is.
    evaluators: names of those whose options have changed.
  """
  found = {DATA: data_number(data)}
  if anew_from is not None:
    found[ANEW_FROM] = anew_from
  return found | {f'{_ANEW}{name}': 1 for name in evaluators}


def data_number(fingerprint: str) -> int:
  """48 bits of a fingerprint, which every reader of JSON keeps."""
  digest = hashlib.blake2b(fingerprint.encode(), digest_size=6).digest()
  return int.from_bytes(digest)


def is_note(line: Mapping[str, Any]) -> bool:
  return DATA in line


def last(lines: Sequence[Line], key: str) -> int | None:
  """What the last note with this key says; None without one."""
  found = (
    line[key] for line in reversed(lines) if is_note(line) and key in line
  )
  return next(found, None)


def counting(lines: Sequence[Line]) -> list[Line]:
  """The lines with figures that count, in their order, without notes."""
  limit = float('inf')
  kept = []
  for line in reversed(lines):
    if is_note(line):
      limit = min(limit, line.get(ANEW_FROM, limit))
    elif line.get('step', 0) < limit:
      kept.append(line)
  return kept[::-1]


def evaluated(lines: Sequence[Line]) -> dict[str, set[int]]:
  """Evaluator -> steps whose figures count and are of its present options."""
  limit = float('inf')
  changed: set[str] = set()
  found: dict[str, set[int]] = {}
  for line in reversed(lines):
    if is_note(line):
      limit = min(limit, line.get(ANEW_FROM, limit))
      changed |= {k.removeprefix(_ANEW) for k in line if k.startswith(_ANEW)}
    elif line.get('step', 0) < limit:
      for name in {key.partition('/')[0] for key in line} - changed:
        found.setdefault(name, set()).add(line['step'])
  return found
