"""Scores of candidate pairs, by workers, kept in the state folder.

A score is a line of verified.jsonl: once written, no later call decodes these
two images again.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np

from big_vision_like.config import json_text
from big_vision_like.protocols import Source
from input_pipeline.examples.errors import BadExample

from . import verify, workers
from .state import State

_FILE = f'verified-{verify.VERSION}.jsonl'
_BLOCK = 16  # pairs a task

# ((set, row), (set, row), mirrored)
Pair = tuple[tuple[int, int], tuple[int, int], bool]


def scores(
  state: State,
  names: Sequence[str],
  pairs: Sequence[Pair],
  pool: workers.Workers,
  advance: Callable[[int], object],
) -> np.ndarray:
  """float64 [n] verification scores; -1 where an image cannot be read.

  Args:
    state: keeps them.
    names: for each pair, what identifies its two images by content.
    pairs: the records to compare; neighbours in the list that share their
      first record read it once.
    pool: reads and compares.
    advance: called with the number of pairs finished since the last call.
  """
  known = dict(map(json_text.parse, state.lines(_FILE)))
  left = [i for i, name in enumerate(names) if name not in known]
  advance(len(names) - len(left))
  blocks = [left[i : i + _BLOCK] for i in range(0, len(left), _BLOCK)]
  results = pool.map(score_block, ([pairs[i] for i in b] for b in blocks))
  for block, values in zip(blocks, results):
    fresh = {names[i]: value for i, value in zip(block, values)}
    state.append(map(json.dumps, fresh.items()), _FILE)
    known |= fresh
    advance(len(block))
  return np.array([known[name] for name in names], np.float64)


def score_block(
  sources: Sequence[Source], block: Sequence[Pair]
) -> list[float]:
  """Scores of some pairs; an image that several share is read once."""
  images: dict[tuple[int, int], verify.Prepared | None] = {}

  def image(place: tuple[int, int]) -> verify.Prepared | None:
    if place not in images:
      try:
        pixels = workers.read_image(sources[place[0]], place[1], verify.SIDE)
        images[place] = verify.prepare(pixels)
      except BadExample:
        images[place] = None
    return images[place]

  out = []
  for first, second, mirrored in block:
    a, b = image(first), image(second)
    if a is None or b is None:
      out.append(-1.0)
    else:
      out.append(round(verify.score(a.mirrored if mirrored else a, b), 6))
  return out
