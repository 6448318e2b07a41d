"""Several streams of training data, zipped into one batch a step.

`config.input` and every section of `config.input.also` are streams: a source,
its ops, a batch size. Each is a pure function of (seed, name, step), so each
resumes on its own at no cost (pipeline.py). A batch has the fields of the main
stream under their names and those of the others as 'NAME/image'.
docs/streams.md.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from big_vision_like.config import json_text, stream_names
from big_vision_like.config.stream_names import MAIN
from big_vision_like.protocols import Source
from input_pipeline import feature_map_checks, pipeline
from input_pipeline import ops as example_ops
from input_pipeline.bad_records import BadRecords
from input_pipeline.batch_fields import Op
from input_pipeline.examples import fields
from input_pipeline.labels import subset
from input_pipeline.labels.space import LabelSpace
from input_pipeline.ops.context import OpContext
from input_pipeline.truth import true_boxes


@dataclasses.dataclass(frozen=True)
class Stream:
  """A stream whose data are open.

  Attributes:
    section: of the config.
    source: its records.
    ops: built for them.
  """

  section: Any
  source: Source
  ops: list[Op]


Streams = Mapping[str, Stream]


def open_all(config: Any) -> dict[str, Stream]:
  """The streams of a complete config by name, the main one first.

  Raises:
    ValueError, FileNotFoundError: naming the key of the stream.
  """
  opened = {}
  for name, section in stream_names.sections(config).items():
    source = open_source(config, name)
    where = f'{stream_names.config_key(name)}.ops'
    opened[name] = Stream(
      section, source, feature_map_checks.build_ops(section.ops, source, where)
    )
  return opened


def open_source(config: Any, name: str) -> Source:
  """The source of one stream, or the subset that the config asks for."""
  if name == MAIN:
    return pipeline.open_train(config)
  where = stream_names.config_key(name)
  section = stream_names.sections(config)[name]
  source = pipeline.open_source(section.source, f'{where}.source')
  if any(spec.get('op') == 'boxes' for spec in section.ops):
    true_boxes.check_any(source, f'{where}.source')
  return subset.take(source, section.fraction, f'{where}.fraction')


def spaces(streams: Streams) -> dict[str, LabelSpace]:
  """The labels of each stream, its own."""
  return {n: LabelSpace.of_source(s.source) for n, s in streams.items()}


def batch_spec(
  config: Any, spaces: Mapping[str, LabelSpace]
) -> dict[str, tuple[tuple[int, ...], Any]]:
  """(shape, dtype) of every field of a batch, without opening any data.

  Args:
    config: complete.
    spaces: the labels of each stream, by its name.

  Raises:
    ValueError: ops that cannot be, or a stream of the name of a field.
  """
  found = {}
  for name, section in stream_names.sections(config).items():
    if name in fields.FIELDS:
      raise ValueError(
        f'input.also: {name!r} is a field of batches and cannot name a stream'
      )
    where = f'{stream_names.config_key(name)}.ops'
    ops = example_ops.build(
      section.ops, OpContext.of_space(spaces[name], where)
    )
    example = pipeline.example_spec(ops, where)
    spec = pipeline.batch_spec(example, section.batch_size)
    found |= {stream_names.field(name, k): v for k, v in spec.items()}
  return found


def fingerprint(streams: Streams) -> str:
  """A text that tells the data of all streams.

  That of the main one where it is the only one, as runs have always stored it.
  """
  found = {name: s.source.fingerprint() for name, s in streams.items()}
  return found[MAIN] if [*found] == [MAIN] else json.dumps(found)


def differences(before: str, now: str) -> list[str]:
  """Lines '  KEY: fingerprint -> fingerprint' of the streams with other data.

  Args:
    before, now: of `fingerprint`.
  """
  old, new = _by_stream(before), _by_stream(now)
  return [
    f'  {stream_names.config_key(name)}.source: {old.get(name, "none")} -> '
    f'{new.get(name, "none")}'
    for name in dict.fromkeys([*old, *new])
    if old.get(name) != new.get(name)
  ]


def _by_stream(text: str) -> dict[str, str]:
  try:
    found = json_text.parse(text)
  except ValueError:
    found = None
  if isinstance(found, dict) and MAIN in found:
    return found
  return {MAIN: text}  # of one stream


class Batches:
  """Endless host batches of all streams; see the module docstring.

  Args:
    iterators: of each stream.
    again: step -> its batch, read anew.
  """

  def __init__(
    self,
    iterators: Mapping[str, pipeline.TrainIterator],
    again: Callable[[int], dict[str, np.ndarray]],
  ):
    self._iterators = iterators
    self.again = again

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    return {
      stream_names.field(name, key): value
      for name, iterator in self._iterators.items()
      for key, value in next(iterator).items()
    }

  @property
  def bad(self) -> dict[str, BadRecords]:
    """The records of each stream that could not be used."""
    return {name: it.bad for name, it in self._iterators.items()}

  def key(self, id_field: str, index: int) -> str:
    """The key of a record by the field of the batch that has its index."""
    return self._iterators[stream_names.stream_of(id_field)].key(index)

  def close(self) -> None:
    """Stops workers and threads."""
    for iterator in self._iterators.values():
      iterator.close()


def train(
  streams: Streams,
  config: Any,
  *,
  start_step: int,
  part: Callable[[int], tuple[int, int]] = lambda batch_size: (0, 1),
) -> Batches:
  """Batches of step `start_step + 1` on.

  Args:
    streams: from `open_all`.
    config: the complete config that they are of.
    start_step: number of batches to skip, at no cost.
    part: global batch size -> (index, number) of the part that is read here.
  """
  main = config.input

  def open_at(step: int, again: bool = False) -> Batches:
    iterators = {}
    for name, stream in streams.items():
      section = stream.section
      index, count = part(section.batch_size)
      workers = main.workers if section.workers is None else section.workers
      iterators[name] = pipeline.train(
        stream.source,
        stream.ops,
        batch_size=section.batch_size,
        seed=stream_names.seed_of(config.seed, name),
        start_step=step,
        workers=0 if again else workers,
        threads=main.threads,
        prefetch=1 if again else main.prefetch,
        max_bad_fraction=1.0 if again else section.max_bad_fraction,
        process_index=index,
        process_count=count,
        stream=name,
      )
    return Batches(iterators, read_again)

  def read_again(step: int) -> dict[str, np.ndarray]:
    batches = open_at(step - 1, again=True)
    try:
      return next(batches)
    finally:
      batches.close()

  return open_at(start_step)
