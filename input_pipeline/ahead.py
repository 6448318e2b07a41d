"""Batches made ahead of their use, by threads or by worker processes."""

from typing import Any

import grain

from input_pipeline import worker_room
from input_pipeline import workers as data_workers


def iterate(batches: Any, room: worker_room.Need, threads: int) -> Any:
  """An iterator of batches in their order.

  Args:
    batches: grain.MapDataset of them.
    room: how many workers make them, and how many batches each holds ready;
      without workers, how many this process does.
    threads: of this process, or of every worker.

  Raises:
    ValueError: no room for the workers.
  """
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=max(room.prefetch, threads)
  )
  dataset = batches.to_iter_dataset(options)
  if not room.workers:
    return iter(dataset)
  worker_room.check(room)
  _mark_flags_parsed()
  iterator = iter(
    dataset.mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=room.workers, per_worker_buffer_size=room.prefetch
      ),
      worker_init_fn=data_workers.start_up(),
    )
  )
  worker_room.claim(iterator, room)
  return iterator


def close(iterator: Any) -> None:
  """Stops the workers and threads of an iterator."""
  stop = getattr(iterator, 'close', None)
  if stop is not None:
    stop()
  worker_room.release(iterator)


def _mark_flags_parsed() -> None:
  """Grain's workers read absl flags; a library user may not have parsed any."""
  from absl import flags

  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
