"""Contests of operations in one process: rounds by turns, a table of times."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

Runs = dict[str, Callable[[], Any]]
Times = dict[str, list[tuple[float, float]]]


def ready(program: Callable[..., Any], *args: Any) -> Callable[[], Any]:
  """The compiled program on arrays of the device; waits for its end."""
  run, resident = jax.jit(program), jax.device_put(args)
  return lambda: jax.block_until_ready(run(*resident))


def contest(runs: Runs, rounds: int, seconds: float) -> Times:
  """name -> wall and CPU milliseconds of each round; they take turns.

  Fewer rounds, but three at least, where they would take longer than that.
  """
  for run in runs.values():
    run()
  times: Times = {name: [] for name in runs}
  begin = time.perf_counter()
  for number in range(rounds):
    if number >= 3 and time.perf_counter() - begin > seconds:
      break
    for name, run in runs.items():
      start = time.perf_counter(), time.process_time()
      run()
      end = time.perf_counter(), time.process_time()
      times[name].append((1e3 * (end[0] - start[0]), 1e3 * (end[1] - start[1])))
  return times


def table(title: str, times: Times) -> str:
  """Markdown, with ratios of medians, of the fastest rounds and of CPU time."""
  lines = [
    f'| {title} | ms, median | fastest .. slowest | CPU ms | this / ours '
    '| of fastest | of CPU |',
    '|---|---|---|---|---|---|---|',
  ]

  def middle(name: str) -> tuple[float, float, float]:
    wall, cpu = zip(*times[name])
    return statistics.median(wall), min(wall), statistics.median(cpu)

  ours = middle('ours')
  for name, values in times.items():
    own = middle(name)
    ratios = ' | '.join(f'{a / b:.2f}' for a, b in zip(own, ours))
    lines.append(
      f'| {name} | {own[0]:.2f} | {own[1]:.2f} .. {max(values)[0]:.2f} '
      f'| {own[2]:.2f} | {ratios} |'
    )
  return '\n'.join(lines)
