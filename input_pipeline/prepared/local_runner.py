"""Writes shards in processes of this machine."""

import concurrent.futures
import multiprocessing
from collections.abc import Callable, Generator, Mapping
from typing import Any

from big_vision_like.protocols import Source
from input_pipeline.prepared import worker_process
from input_pipeline.prepared.preparation import Done, Task, WorkersFailed, write
from input_pipeline.prepared.recipe import Recipe

_POLL_S = 0.2

_worker: tuple[str, Mapping[str, Any], Recipe, Any] | None = None


def _start_worker(
  folder: str,
  sources: Mapping[str, Source],
  recipe: Recipe,
  counter: Any,
) -> None:
  global _worker
  _worker = folder, sources, recipe, counter
  worker_process.end_with_parent()


def _work(task: Task) -> Done:
  assert _worker is not None
  folder, sources, recipe, counter = _worker

  def tick() -> None:
    with counter.get_lock():
      counter.value += 1

  return write(folder, task, sources[task.split], recipe, tick)


def run(
  folder: str,
  tasks: list[Task],
  sources: Mapping[str, Source],
  recipe: Recipe,
  *,
  workers: int,
  advance: Callable[[int], object],
) -> Generator[Done, None, None]:
  """Writes the shards, several at a time, and yields each as it is done.

  Args:
    folder: output folder.
    tasks: shards to write.
    sources: split -> source, picklable.
    recipe: what to store.
    workers: processes; 1 works in this one.
    advance: called with the number of images finished since its last call.

  Raises:
    WorkersFailed: a process died.
  """
  if workers == 1 or len(tasks) <= 1:
    for task in tasks:
      yield write(folder, task, sources[task.split], recipe, lambda: advance(1))
    return
  context = multiprocessing.get_context('spawn')
  counter = context.Value('q', 0)
  seen = 0
  with concurrent.futures.ProcessPoolExecutor(
    min(workers, len(tasks)),
    context,
    _start_worker,
    (folder, sources, recipe, counter),
  ) as pool:
    waiting = {pool.submit(_work, task) for task in tasks}
    try:
      while waiting:
        done, waiting = concurrent.futures.wait(
          waiting, _POLL_S, concurrent.futures.FIRST_COMPLETED
        )
        now = counter.value
        advance(now - seen)
        seen = now
        for future in done:
          yield _result(future)
    finally:
      pool.shutdown(wait=True, cancel_futures=True)


def _result(future: concurrent.futures.Future[Done]) -> Done:
  try:
    return future.result()
  except concurrent.futures.BrokenExecutor:
    raise WorkersFailed(
      'a worker process died (out of memory? then give fewer --workers)'
    ) from None
