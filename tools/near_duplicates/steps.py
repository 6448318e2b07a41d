"""What tools/dedup.py does, step by step: signatures, candidates, verdicts."""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from input_pipeline.files import atomic

from . import (
  chunks,
  hashes,
  page,
  pairs,
  scoring,
  search,
  thumbnails,
  workers,
)
from .chunks import Chunk
from .sets import NamedSet
from .signatures import Signatures, Vectors
from .state import State

_CHUNK_VALUES = 1 << 25  # of vectors: 64 MB in float16
_MAX_ROWS = 1 << 16
_NUM_BAD_SHOWN = 10
_UNKNOWN = -1  # hash distance that was not computed


@dataclasses.dataclass
class Found:
  """Candidate pairs, by score; a row is a place in the list of all chunks.

  Attributes:
    first, second: int64 [n]; in a comparison of sets the second is of an
      evaluation set, within sets the later record.
    mirrored: bool [n].
    bits: int64 [n] hash distance, or -1.
    cosine: float64 [n], or NaN.
    score: float64 [n]; NaN without verification, -1 if an image is unreadable.
    accepted: bool [n].
  """

  first: np.ndarray
  second: np.ndarray
  mirrored: np.ndarray
  bits: np.ndarray
  cosine: np.ndarray
  score: np.ndarray
  accepted: np.ndarray

  def __len__(self) -> int:
    return len(self.first)

  def take(self, rows: np.ndarray) -> 'Found':
    return Found(
      *(getattr(self, f.name)[rows] for f in dataclasses.fields(self))
    )


class Rows:
  """Where a row of all chunks is: its set, its record, its key."""

  def __init__(self, sets: Sequence[NamedSet]):
    self._sets = sets
    sizes = [len(s.source) for s in sets]
    self.first = np.cumsum([0, *sizes])

  def place(self, row: int) -> tuple[int, int]:
    """(set, record)."""
    number = int(np.searchsorted(self.first, row, side='right')) - 1
    return number, int(row - self.first[number])

  def key(self, row: int) -> str:
    number, record = self.place(row)
    return self._sets[number].source.key(record)

  def set_name(self, row: int) -> str:
    return self._sets[self.place(row)[0]].name

  def set_label(self, row: int) -> str:
    """'train', or 'train 2' where there are several."""
    number, _ = self.place(row)
    role = self._sets[number].role
    alike = [i for i, named in enumerate(self._sets) if named.role == role]
    return role if len(alike) == 1 else f'{role} {alike.index(number) + 1}'


def run(args: argparse.Namespace, sets: Sequence[NamedSet]) -> dict[str, Any]:
  """All steps; returns the content of summary.json."""
  start = time.monotonic()
  os.makedirs(args.output, exist_ok=True)
  state = State(args.state or os.path.join(args.output, 'state'))
  vectors = _vectors(args, sets)
  max_rows = max(1, min(_MAX_ROWS, _CHUNK_VALUES // max(vectors.dim, 1)))
  every = chunks.unique(
    [
      chunk
      for number, named in enumerate(sets)
      for chunk in chunks.chunks_of(named.source, number, max_rows)
    ]
  )
  crops = _crops(args, vectors, sets)
  made = Signatures(
    state, vectors,
    hashed=args.hash_distance is not None, mirrored=args.mirrored,
    sketched=crops,
  )  # fmt: skip
  if args.mirrored and vectors.kind == 'files':
    print('no vectors of mirror images: these are found by their hashes only')
  sources = [named.source for named in sets]
  with state.locked(), workers.Workers(sources, args.workers) as pool:
    with _bar(sum(map(len, every)), 'signatures', 'image') as bar:
      bar.update(sum(map(len, every)) - sum(map(len, made.missing(every))))
      made.make(every, pool, bar.update)
    bad = _unreadable(made, every)
    rows = Rows(sets)
    found, searched = _candidates(args, crops, state, made, sets, every)
    _measure(found, made, every)
    if not args.no_verify:
      _verify(found, state, every, rows, pool, args.threshold)
    order = np.lexsort(
      (found.second, found.first, -_closeness(found), -found.score)
    )
    found = _one_way(found.take(order))
    dropped = _dropped(found, sets)
    counts = {
      'records': {named.name: len(named.source) for named in sets},
      'unreadable': len(bad),
      'comparisons': searched.num_compared,
      'candidates': len(found),
      'candidates_beyond_max_neighbours': searched.num_dropped,
      'near_duplicate_pairs': int(found.accepted.sum()),
      'dropped': {name: len(keys) for name, keys in dropped.items()},
    }
    summary = {
      'counts': counts,
      'search': sorted(searched.methods),
      'vectors': vectors.kind,
      'settings': {k: v for k, v in vars(args).items() if k != 'output'}
      | {'crops': 'on' if crops else 'off'},
      'unreadable': [
        {'set': rows.set_name(row), 'key': rows.key(row), 'reason': reason}
        for row, reason in bad[:_NUM_BAD_SHOWN]
      ],
      'files': _write_lists(args.output, dropped),
      'seconds': round(time.monotonic() - start, 1),
    }
    _write_pairs(args.output, found, rows, bool(args.within))
    _write_bad(args.output, bad, rows)
    atomic.write_json(os.path.join(args.output, 'summary.json'), summary)
    page.write(
      os.path.join(args.output, 'report.html'),
      summary, found, rows, sources, args.report_pairs,
    )  # fmt: skip
  for problem in summary['unreadable']:
    print(
      f'cannot be used: {problem["set"]} {problem["key"]}: {problem["reason"]}'
    )
  return summary


def _vectors(args: argparse.Namespace, sets: Sequence[NamedSet]) -> Vectors:
  """What --checkpoint and the sets' embeddings say."""
  files = [named.vectors for named in sets if named.vectors is not None]
  if files and args.cosine is None:
    raise ValueError('embeddings=FILE without --cosine compares nothing')
  if files and args.checkpoint is not None:
    raise ValueError('give --checkpoint or embeddings=FILE, not both')
  if args.cosine is None:
    return Vectors('none', 0)
  if files:
    return Vectors('files', files[0][1].shape[1], files=files)
  if args.checkpoint is None:
    return Vectors('thumbnail', thumbnails.DIM)
  from . import features  # loads jax

  sources = [named.source for named in sets]
  return features.vectors(
    args.checkpoint, sources, trusted=args.trust, part=args.part
  )


def _crops(
  args: argparse.Namespace, vectors: Vectors, sets: Sequence[NamedSet]
) -> bool:
  """Whether crops are looked for; what --crops auto decides is said.

  Raises:
    ValueError: asked for, but the vectors are none of windows.
  """
  if vectors.kind != 'thumbnail':
    if args.crops == 'on':
      raise ValueError(
        '--crops on needs colour thumbnails: it cannot be used with '
        'embeddings=FILE'
      )
    return False
  if args.crops != 'auto':
    return args.crops == 'on'
  if args.no_verify:  # among the candidates of windows most are others
    print('crops are not looked for without verification (--crops on does)')
    return False
  sides = [
    sum(len(s.source) for s in sets if s.role != role)
    for role in ('train', 'eval')
  ]
  few = sides[0] * sides[1] <= search.CROPS_BELOW
  if not few:
    print('crops are not looked for in sets of this size (--crops on does)')
  return few


def _bar(total: int, what: str, unit: str) -> Any:
  return tqdm.tqdm(total=total, desc=what, unit=unit, smoothing=0.05)


def _unreadable(
  made: Signatures, every: Sequence[Chunk]
) -> list[tuple[int, str]]:
  """(row, reason) of the images without a signature."""
  first, out = 0, []
  for chunk in every:
    bad = made.unreadable(chunk)
    out += [(first + row, reason) for row, reason in sorted(bad.items())]
    first += len(chunk)
  return out


def _candidates(
  args: argparse.Namespace,
  crops: bool,
  state: State,
  made: Signatures,
  sets: Sequence[NamedSet],
  every: Sequence[Chunk],
) -> tuple[Found, search.Search]:
  """Every candidate once, and the search that found them."""
  options = search.Options(
    hash_distance=args.hash_distance,
    cosine=args.cosine,
    mirrored=args.mirrored,
    within=bool(args.within),
    method=args.search,
    probes=args.probes,
    max_neighbours=args.max_neighbours,
    memory_mb=args.memory_mb,
    crops=crops,
  )
  searched = search.Search(state, made, options)
  is_eval = [sets[chunk.set_index].role != 'train' for chunk in every]
  is_train = [sets[chunk.set_index].role != 'eval' for chunk in every]
  queries = [c for c, yes in zip(every, is_eval) if yes]
  database = [c for c, yes in zip(every, is_train) if yes]
  with _bar(0, 'candidates', 'unit') as bar:

    def tick(done: int, total: int) -> None:
      bar.n, bar.total = done, total
      bar.refresh()

    searched.run(queries, database, tick)
  offset = 0 if args.within else sum(map(len, database))
  found = pairs.Pairs.join(
    list(searched.candidates(queries, database).values())
  )
  # Train sets come first, so a row of the database is one of all chunks.
  second, first = found.query + offset, found.found
  if args.within:
    first, second = np.minimum(first, second), np.maximum(first, second)
  keys = np.stack([first, second, found.mirrored.astype(np.int64)], 1)
  keys = np.unique(keys, axis=0)
  num = len(keys)
  return Found(
    keys[:, 0], keys[:, 1], keys[:, 2] == 1, np.full(num, _UNKNOWN),
    np.full(num, np.nan), np.full(num, np.nan), np.ones(num, bool),
  ), searched  # fmt: skip


def _measure(found: Found, made: Signatures, every: Sequence[Chunk]) -> None:
  """Hash distance and cosine of each candidate, whichever way it was found."""
  mirrors = (False, True) if found.mirrored.any() else (False,)
  for mirrored in mirrors:
    rows = np.flatnonzero(found.mirrored == mirrored)
    for a, b, some in _chunk_pairs(found, rows, every):
      i, j = found.first[some] - a[1], found.second[some] - b[1]
      if made.hashed:
        left = made.hashes(a[0], mirrored)[i]
        found.bits[some] = hashes.distance(left, made.hashes(b[0])[j])
      if made.vectors.kind != 'none' and (
        not mirrored or made.vectors.can_mirror
      ):
        left = np.asarray(made.load(a[0], mirrored)[i], np.float64)
        right = np.asarray(made.load(b[0])[j], np.float64)
        found.cosine[some] = (left * right).sum(1)


def _chunk_pairs(
  found: Found, rows: np.ndarray, every: Sequence[Chunk]
) -> Iterator[tuple[tuple[Chunk, int], tuple[Chunk, int], np.ndarray]]:
  """((chunk, its first row), (chunk, ...), the pairs between both)."""
  first = np.cumsum([0, *map(len, every)])[:-1]
  numbers = [
    np.searchsorted(first, side[rows], side='right') - 1
    for side in (found.first, found.second)
  ]
  order = np.lexsort(numbers[::-1])
  joint = numbers[0][order] * len(every) + numbers[1][order]
  for part in np.split(order, np.flatnonzero(np.diff(joint)) + 1):
    if len(part):
      a, b = (int(n[part[0]]) for n in numbers)
      yield (every[a], int(first[a])), (every[b], int(first[b])), rows[part]


def _verify(
  found: Found,
  state: State,
  every: Sequence[Chunk],
  rows: Rows,
  pool: workers.Workers,
  threshold: float,
) -> None:
  """Fills in the scores and accepts those of at least the threshold."""
  first = np.cumsum([0, *map(len, every)])[:-1]

  def content(row: int) -> str:
    number = int(np.searchsorted(first, row, side='right')) - 1
    return f'{every[number].content}:{row - first[number]}'

  order = np.lexsort((found.second, found.first))
  a, b = found.first[order].tolist(), found.second[order].tolist()
  mirrored = found.mirrored[order].tolist()
  names = [
    f'{content(i)} {content(j)}{" mirrored" * m}'
    for i, j, m in zip(a, b, mirrored)
  ]
  places = [
    (rows.place(i), rows.place(j), m) for i, j, m in zip(a, b, mirrored)
  ]
  with _bar(len(names), 'verification', 'pair') as bar:
    found.score[order] = scoring.scores(state, names, places, pool, bar.update)
  found.accepted[:] = found.score >= threshold


def _closeness(found: Found) -> np.ndarray:
  """Order of pairs without scores: cosine, else few bits."""
  return np.where(
    np.isnan(found.cosine), 1 - found.bits / hashes.BITS, found.cosine
  )


def _one_way(found: Found) -> Found:
  """Of a pair that is a candidate plain and mirrored, the better one."""
  pair = np.stack([found.first, found.second], 1)
  _, best = np.unique(pair, axis=0, return_index=True)  # the first of each
  return found.take(np.sort(best))


def _dropped(found: Found, sets: Sequence[NamedSet]) -> dict[str, list[str]]:
  """Name of each set to drop from -> keys, in the order of its records."""
  rows = Rows(sets)
  first, second = found.first[found.accepted], found.second[found.accepted]
  if sets[0].role == 'within':
    heads = pairs.first_of_groups(first, second)
    drop = sorted(row for row, head in heads.items() if row != head)
  else:
    drop = np.unique(second).tolist()
  out: dict[str, list[str]] = {
    named.name: [] for named in sets if named.role != 'train'
  }
  for row in drop:
    out[rows.set_name(row)].append(rows.key(row))
  return out


def _write_lists(folder: str, dropped: dict[str, list[str]]) -> dict[str, str]:
  """drop_ids.txt, or drop_ids_1.txt, ... of several sets; file -> set."""
  files = {}
  for number, (name, keys) in enumerate(dropped.items(), 1):
    file = 'drop_ids.txt' if len(dropped) == 1 else f'drop_ids_{number}.txt'
    lines = ''.join(f'{key}\n' for key in keys)
    atomic.write_text(os.path.join(folder, file), lines)
    files[file] = name
  return files


def _write_pairs(folder: str, found: Found, rows: Rows, within: bool) -> None:
  names = ('first', 'second') if within else ('train', 'eval')
  lines = []
  for i in range(len(found)):
    line: dict[str, Any] = {}
    for name, row in zip(names, (int(found.first[i]), int(found.second[i]))):
      line[name] = rows.key(row)
      line[f'{name}_set'] = rows.set_name(row)
    bits, cosine = int(found.bits[i]), float(found.cosine[i])
    score = float(found.score[i])
    line['mirrored'] = bool(found.mirrored[i])
    line['hash_distance'] = None if bits == _UNKNOWN else bits
    line['cosine'] = None if np.isnan(cosine) else round(cosine, 4)
    line['score'] = None if np.isnan(score) or score < 0 else round(score, 4)
    line['accepted'] = bool(found.accepted[i])
    lines.append(json.dumps(line, ensure_ascii=False) + '\n')
  atomic.write_text(os.path.join(folder, 'pairs.jsonl'), ''.join(lines))


def _write_bad(folder: str, bad: Sequence[tuple[int, str]], rows: Rows) -> None:
  content = [
    {'set': rows.set_name(row), 'key': rows.key(row), 'reason': reason}
    for row, reason in bad
  ]
  lines = [json.dumps(line, ensure_ascii=False) + '\n' for line in content]
  atomic.write_text(os.path.join(folder, 'unreadable.jsonl'), ''.join(lines))
