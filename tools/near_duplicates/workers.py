"""Processes that read images of several sources; results come in order."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from big_vision_like.protocols import Source
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.decode import Decode
from input_pipeline.prepared import worker_process

_AHEAD = 4  # tasks a worker

_sources: Sequence[Source] = ()
_decoders: dict[int | None, Decode] = {}


class Workers:
  """Runs functions of (sources, task) in processes, or in this one.

  Args:
    sources: picklable sources, handed to every call.
    num: processes; 1 works in this one.

  Use as a context manager.
  """

  def __init__(self, sources: Sequence[Source], num: int):
    self._sources = sources
    self._num = num
    self._pool: concurrent.futures.ProcessPoolExecutor | None = None

  def __enter__(self) -> 'Workers':
    return self

  def __exit__(self, *error: Any) -> None:
    if self._pool is not None:
      self._pool.shutdown(wait=True, cancel_futures=True)
      self._pool = None

  def map(
    self, fn: Callable[[Sequence[Source], Any], Any], tasks: Iterable[Any]
  ) -> Iterator[Any]:
    """fn(sources, task) of each task, in order, a few tasks ahead.

    Args:
      fn: a function of a module, so that it can be named to a process.
      tasks: plain data.
    """
    if self._num == 1:
      for task in tasks:
        yield fn(self._sources, task)
      return
    if self._pool is None:
      self._pool = concurrent.futures.ProcessPoolExecutor(
        self._num,
        multiprocessing.get_context('spawn'),
        _start,
        (self._sources,),
      )
    waiting: collections.deque = collections.deque()
    with contextlib.ExitStack() as stack:
      stack.callback(lambda: [f.cancel() for f in waiting])
      for task in tasks:
        waiting.append(self._pool.submit(_run, fn, task))
        if len(waiting) >= _AHEAD * self._num:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()


def _start(sources: Sequence[Source]) -> None:
  global _sources
  _sources = sources
  worker_process.end_with_parent()


def _run(fn: Callable[[Sequence[Source], Any], Any], task: Any) -> Any:
  return fn(_sources, task)


def read_image(source: Source, index: int, min_size: int | None) -> Any:
  """uint8 [H, W, 3] of a record.

  Args:
    source: where it is.
    index: which it is.
    min_size: JPEGs may be decoded smaller, with both sides at least so long;
      None decodes every pixel.

  Raises:
    BadExample: it cannot be read or decoded.
  """
  if min_size not in _decoders:
    _decoders[min_size] = Decode(OpContext(where='decode'), min_size=min_size)
  image = source[index]['image']
  if isinstance(image, bytes):
    return _decoders[min_size].decode(image)
  if image.ndim != 3 or not image.size:
    raise BadExample(f'no image: {image.dtype} {list(image.shape)}')
  return image
