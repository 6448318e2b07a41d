"""Near vectors among 10^6: our cells on disk against faiss in memory.

  python -m benchmarks.dedup [--num 1000000] [--dim 256] [--rounds 1]

Random unit vectors, with planted pairs whose cosine is known. Both contestants
look for all pairs of cosine >= 0.9 within the set, from the same .npy file:
  ours    tools.near_duplicates: signatures to shards, k-means cells,
          products within cells, candidates to disk
  faiss   IndexIVFFlat over the same number of cells and probes, all vectors in
          memory as float32, range_search of all
Each runs in a process of its own, whose peak memory is its own; the rounds
alternate. Recall is over the planted pairs.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import faiss
import numpy as np

from benchmarks.input_pipeline import machine
from tools.near_duplicates import cells, chunks, search, signatures
from tools.near_duplicates.state import State

COSINE = 0.9
PROBES = 4
_ROWS = 1 << 16
_PLANTED = 100  # one pair a so many vectors


def make(path: str, num: int, dim: int) -> None:
  """Writes float16 [num, dim]: row i of the last ones is near to row i."""
  rng = np.random.default_rng(0)
  out = np.lib.format.open_memmap(path, 'w+', np.float16, (num, dim))
  planted = num // _PLANTED
  for low in range(0, num, _ROWS):
    block = rng.standard_normal((min(_ROWS, num - low), dim), np.float32)
    out[low : low + _ROWS] = _unit(block)
  cosine = rng.uniform(0.905, 1, (planted, 1))
  base = out[:planted].astype(np.float32)
  noise = rng.standard_normal((planted, dim), np.float32)
  noise -= (noise * base).sum(1, keepdims=True) * base
  out[num - planted :] = cosine * base + np.sqrt(1 - cosine**2) * _unit(noise)
  out.flush()


def _unit(vectors: np.ndarray) -> np.ndarray:
  return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _num_cells(num: int) -> int:
  return 1 << max(0, round(np.log2(max(num / cells._MEMBERS, 1))))


def ours(path: str) -> tuple[set[tuple[int, int]], dict[str, float]]:
  """(pairs, seconds of each phase)."""
  array = np.load(path, mmap_mode='r')
  seconds, start = {}, time.perf_counter()
  with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
    state = State(folder)
    vectors = signatures.Vectors('files', array.shape[1], files=[('x', array)])
    made = signatures.Signatures(state, vectors, hashed=False, mirrored=False)
    every = [
      chunks.Chunk(0, low, min(low + _ROWS, len(array)), f'rows {low}')
      for low in range(0, len(array), _ROWS)
    ]
    with signatures.workers.Workers([], 1) as pool:
      made.make(every, pool, lambda num: None)
    seconds['signatures'] = time.perf_counter() - start
    options = search.Options(
      None, COSINE, within=True, method='cells', probes=PROBES, memory_mb=256
    )
    finder = search.Search(state, made, options)
    middle = time.perf_counter()
    database = cells.Cells(state, made, every, PROBES, 256)
    seconds['centres'] = time.perf_counter() - middle
    middle = time.perf_counter()
    for chunk in every:
      database.members(chunk)
      database.queries(chunk)
    seconds['cells of each vector'] = time.perf_counter() - middle
    middle = time.perf_counter()
    finder.run(every, every)
    found = finder.candidates(every, every)['cosine']
    seconds['products'] = time.perf_counter() - middle
  low = np.minimum(found.query, found.found)
  high = np.maximum(found.query, found.found)
  return set(zip(low.tolist(), high.tolist())), seconds


def with_faiss(path: str) -> tuple[set[tuple[int, int]], dict[str, float]]:
  """The same with IndexIVFFlat."""
  start = time.perf_counter()
  vectors = np.load(path).astype(np.float32)
  num, dim = vectors.shape
  seconds = {'reading': time.perf_counter() - start}
  num_cells = _num_cells(num)
  coarse = faiss.IndexFlatIP(dim)
  index = faiss.IndexIVFFlat(coarse, dim, num_cells, faiss.METRIC_INNER_PRODUCT)
  index.cp.niter, index.cp.spherical = cells._ITERATIONS, True
  middle = time.perf_counter()
  index.train(vectors[:: max(1, num // (num_cells * cells._SAMPLE))])
  seconds['centres'] = time.perf_counter() - middle
  middle = time.perf_counter()
  index.add(vectors)
  seconds['cells of each vector'] = time.perf_counter() - middle
  middle = time.perf_counter()
  index.nprobe = PROBES
  found: set[tuple[int, int]] = set()
  for low in range(0, num, _ROWS):
    block = vectors[low : low + _ROWS]
    ends, _, members = index.range_search(block, COSINE)
    queries = low + np.repeat(np.arange(len(block)), np.diff(ends).astype(int))
    other = queries != members
    a, b = queries[other], members[other]
    lows, highs = np.minimum(a, b).tolist(), np.maximum(a, b).tolist()
    found.update(zip(lows, highs))
  seconds['products'] = time.perf_counter() - middle
  return found, seconds


def child(contestant: str, path: str) -> None:
  """Runs one contestant and prints a line of JSON."""
  start = time.perf_counter()
  found, seconds = {'ours': ours, 'faiss': with_faiss}[contestant](path)
  total = time.perf_counter() - start
  num = np.load(path, mmap_mode='r').shape[0]
  planted = num // _PLANTED
  hits = sum((i, num - planted + i) in found for i in range(planted))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  result = {
    'seconds': total,
    'phases': seconds,
    'recall': hits / planted,
    'others': len(found) - hits,
    'peak_mb': peak,
  }
  print(json.dumps(result))


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--num', type=int, default=1_000_000)
  parser.add_argument('--dim', type=int, default=256)
  parser.add_argument('--rounds', type=int, default=1)
  parser.add_argument('--child', nargs=2, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.child:
    child(*args.child)
    return
  print(f'{machine()}, faiss {faiss.__version__}\n')
  print(
    f'{args.num:,} vectors of {args.dim}, {_num_cells(args.num):,} cells, '
    f'{PROBES} probes, cosine >= {COSINE}\n'
  )
  print(
    '| contestant | seconds | phases | recall | other pairs | peak RSS, MB |'
  )
  print('|---|--:|---|--:|--:|--:|')
  times: dict[str, list[float]] = {'ours': [], 'faiss': []}
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'vectors.npy')
    make(path, args.num, args.dim)
    for _ in range(args.rounds):
      for name, seen in times.items():
        out = subprocess.run(
          [sys.executable, '-m', 'benchmarks.dedup', '--child', name, path],
          check=True, capture_output=True, text=True,
        )  # fmt: skip
        result = json.loads(out.stdout.splitlines()[-1])
        seen.append(result['seconds'])
        phases = ', '.join(
          f'{phase} {value:.0f}' for phase, value in result['phases'].items()
        )
        print(
          f'| {name} | {result["seconds"]:.0f} | {phases} | '
          f'{result["recall"]:.2%} | {result["others"]} | '
          f'{result["peak_mb"]:,.0f} |',
          flush=True,
        )
  ratio = np.median(np.array(times['faiss']) / np.array(times['ours']))
  print(f'\nfaiss / ours, seconds: {ratio:.2f}')


if __name__ == '__main__':
  main()
