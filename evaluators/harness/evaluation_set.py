"""The evaluation set of an evaluator, and predictions run over it.

Every example of the set counts exactly once, for any batch size, number of
devices or hosts.
"""

import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.protocols import ComputedBy, LabelReader, Source
from evaluators.harness import device_calls, exclusions
from evaluators.harness.context import EvalContext, Outputs, PredictFn, plain
from input_pipeline import (
  batch_fields,
  canvases,
  device,
  feature_map_checks,
  pipeline,
  waiting,
)
from input_pipeline import ops as example_ops
from input_pipeline.examples.errors import record_named
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.space import LabelSpace
from input_pipeline.ops import chains

_SHOWN = 5  # keys in a message
_LABELS_A_TIME = 1000


class EvalData:
  """An evaluation set: source, ops and batches, in a fixed order.

  The source is opened and the ops are built here, so that a missing file or a
  wrong option is known before the first training step; records are only read
  by `run_over` and `label_ids`.

  Args:
    ctx: the evaluator's context.
    data: source config, dict(type=..., split=..., ...).
    ops: list of op configs.
    batch_size: global batch size, a multiple of the devices.
    fields: batch fields that the ops must produce. Those that the host wants
      too are named again to `run_over`.
    classes: whether the labels are the model's classes, to be compared.
    exclude_ids: see `exclusions.read_excluded`; `figures` gives both sets.
    key: the evaluator's option that `data` is the value of, for messages.

  Raises:
    ValueError or FileNotFoundError: naming the key of the config.
  """

  def __init__(
    self,
    ctx: EvalContext,
    data: Mapping[str, Any],
    ops: Sequence[Mapping[str, Any]],
    batch_size: int,
    *,
    fields: Sequence[str] = ('image',),
    classes: bool = True,
    exclude_ids: str | Sequence[str | int] | None = None,
    key: str = 'data',
  ):
    self.ctx = ctx
    where = f'{ctx.where}.{key}'
    self.source = self._open(plain(data, where), where, classes)
    specs = [plain(op, f'{ctx.where}.ops[{i}]') for i, op in enumerate(ops)]
    self._ops = feature_map_checks.build_ops(
      specs, self.source, f'{ctx.where}.ops'
    )
    ctx.check_source(self.source, where)
    part, num_parts = 0, 1
    if ctx.mesh is not None:
      mesh_lib.check_batch(ctx.mesh, batch_size, f'{ctx.where}.batch_size')
      sharding = mesh_lib.batch_sharding(ctx.mesh)
      part, num_parts = device.process_part(sharding, batch_size)
    self._batches = pipeline.evaluation(
      self.source,
      self._ops,
      batch_size=batch_size,
      process_index=part,
      process_count=num_parts,
      where=f'{ctx.where}.ops',
    )
    if text := canvases.choose(self.source, self._ops).report:
      ctx.say(text)
    self._num_parts = num_parts
    found = pipeline.example_spec(self._ops, f'{ctx.where}.ops')
    for field in fields:
      if field not in found:
        raise ValueError(
          f'{ctx.where}.ops: no op makes the field {field!r}'
          f'{example_ops.hint(field)}; they make '
          f'{", ".join(found) or "none"}'
        )
    if classes:
      self._check_classes()
    self.excluded = exclusions.read_excluded(
      exclude_ids, self.source, f'{ctx.where}.exclude_ids', ctx.say
    )
    self._found = frozenset((*found, '_id', '_mask'))
    self._compiled: dict[Any, Callable[..., Any]] = {}
    self._agrees = False

  def _open(self, data: Mapping[str, Any], where: str, classes: bool) -> Source:
    """The source, with the model's classes where its data tell none."""
    try:
      return pipeline.open_source(data, where)
    except vocabularies.NotToldError:
      if not classes or self.ctx.space.anonymous:
        raise
    self.ctx.say(f"{where} tells no classes: the model's are taken")
    names = list(self.ctx.space.names)
    return pipeline.open_source({**data, 'vocabulary': names}, where)

  def _check_classes(self) -> None:
    """Same number and names of classes as the model was trained on."""
    own, where = LabelSpace.of_source(self.source), f'{self.ctx.where}.data'
    names, trained = own.names, self._trained_space()
    if len(names) != self.ctx.num_classes:
      raise ValueError(
        f'{where} has {len(names)} classes, the model {self.ctx.num_classes}'
      )
    grounds = own.background, trained.background
    if None not in grounds and grounds[0] != grounds[1]:
      raise ValueError(
        f'{where}: background={own.background} of its masks, but '
        f'{trained.background} in the training data; id 0 must mean the same '
        'in both'
      )
    if not trained.anonymous:
      self._compare_names(names, trained.names, where)
    if self.ctx.classes not in (None, own.fingerprint()):
      raise ValueError(
        f'{where}: its {len(names)} classes, {names[0]!r} and so on, have '
        'other names, or another order, than those that the checkpoint was '
        'trained on'
      )

  def _compare_names(
    self, names: Sequence[str], trained: Sequence[str], where: str
  ) -> None:
    if len(trained) != len(names):
      raise ValueError(
        f'{where} has {len(names)} classes, the training data {len(trained)}'
      )
    pairs = enumerate(zip(trained, names))
    first = next((i for i, (a, b) in pairs if a != b), None)
    if first is not None:
      raise ValueError(
        f'{where}: class {first} is {names[first]!r}, but '
        f'{trained[first]!r} in the training data; both need the same '
        'vocabulary'
      )

  def _trained_space(self) -> LabelSpace:
    """The labels that the model was trained on, as far as they are known."""
    if not self.ctx.space.anonymous:
      return self.ctx.space
    source = self.train_source
    return self.ctx.space if source is None else LabelSpace.of_source(source)

  @functools.cached_property
  def train_source(self) -> Source | None:
    """The training source; None where it cannot be opened (it says so).

    Training has opened it before, so that this is an evaluation of a
    checkpoint whose data are gone.
    """
    try:
      return self.ctx.train_source()
    except (ValueError, OSError) as error:
      self.ctx.say(f'going on without the training data: {error}')
      return None

  @property
  def train_counts(self) -> np.ndarray | None:
    """[C] training images of each class, ancestors filled in; or None."""
    source = self.train_source
    if source is None:
      return None
    counts = source.vocabulary.counts
    if counts is None or source.hierarchy is None:
      return counts
    return source.hierarchy.close_counts(counts)

  def kept(self, ids: np.ndarray) -> np.ndarray:
    """bool [n]: the examples that `exclude_ids` does not name, by `_id`."""
    if self.excluded is None:
      return np.ones(len(ids), bool)
    return ~np.isin(ids, self.excluded)

  def figures(
    self, ids: np.ndarray, compute: Callable[[np.ndarray], dict[str, float]]
  ) -> dict[str, float]:
    """Figures of all examples and, as '<name>/dedup', without the excluded.

    Args:
      ids: int [n] indices of the examples in the source, `_id` of batches.
      compute: bool [n], which examples count -> figures by name.

    Returns:
      The figures of all; those of the rest too where `exclude_ids` is given.
    """
    found = compute(np.ones(len(ids), bool))
    if self.excluded is not None:
      found |= exclusions.without_excluded(compute(self.kept(ids)))
    return found

  def refuse(self, broken: np.ndarray, ids: np.ndarray, what: str) -> None:
    """ValueError that names some of the broken examples of a batch, if any.

    Args:
      broken: bool [n].
      ids: int [n] indices of the examples in the source.
      what: is wrong, '{}' in the place of 'N images of a batch'.
    """
    if broken.any():
      keys = [self.source.key(int(i)) for i in ids[broken][:_SHOWN]]
      those = what.format(f'{int(broken.sum())} images of a batch')
      raise ValueError(f'{self.ctx.where}: {those}: {", ".join(keys)}')

  def check_state(self, state: Any) -> None:
    """ValueError where the set is feature maps that other weights have made."""
    if not self._agrees and isinstance(self.source, ComputedBy):
      where = f'{self.ctx.where}.data'
      feature_map_checks.check_weights(
        self.source, state.params, state.extra, where
      )
    self._agrees = True  # what is frozen stays as it is

  def batches(self) -> Iterator[dict[str, np.ndarray]]:
    """This process's host batches, from the start.

    Raises:
      DataError: one does not come in time.
    """
    yield from self._patiently(iter(self._batches), 'batch')

  def _patiently(self, items: Iterator[Any], what: str) -> Iterator[Any]:
    patient = waiting.Patient(
      items,
      self.ctx.timeout_s,
      'storage hangs or is too slow (input.timeout_s)',
    )
    try:
      while True:
        self.ctx.stop_here()
        try:
          item = patient.next(f'the next {what} of {self.ctx.where}')
        except StopIteration:
          return
        yield item
    finally:
      if patient.close() and isinstance(items, Generator):
        items.close()

  def compile(
    self, fn: PredictFn, fields: Sequence[str] = ()
  ) -> Callable[..., Any]:
    """`fn(state, batch)` as a jitted call, compiled once per function.

    It returns (outputs, the fields named with '_id' and '_mask'), on every
    process whole.

    Raises:
      ValueError: fields that the ops do not make.
    """
    missing = [name for name in fields if name not in self._found]
    if missing:
      raise ValueError(
        f'{self.ctx.where}: run_over is asked for {missing[0]!r}, which the '
        f'batches do not have; they have {", ".join(sorted(self._found))}'
      )
    names = frozenset((*fields, '_id', '_mask'))
    if (fn, names) not in self._compiled:
      self._compiled[fn, names] = device_calls.DeviceCall(
        fn, self.ctx.mesh, names, num_parts=self._num_parts
      )
    return self._compiled[fn, names]

  def label_ids(self) -> Iterator[np.ndarray]:
    """True label ids (unique, unpadded) of every example, as the ops give.

    Images are not decoded: only those ops run that the ids come from, on
    `source.labels(index)` where these read no more than that, else on the raw
    example. With an op that does not say what it makes the whole chain runs.

    Raises:
      ValueError: a record that cannot be used, by its key.
    """
    ops = chains.making(self._ops, ('label_ids', 'label'))
    needed = chains.needed(ops)
    enough = needed is not None and needed <= {'labels', 'image'}
    read = None
    if enough and isinstance(self.source, LabelReader):
      read = self.source.labels
    one = functools.partial(self._label_ids_of, ops, read)
    num = len(self.source)
    parts = (
      [one(i) for i in range(first, min(first + _LABELS_A_TIME, num))]
      for first in range(0, num, _LABELS_A_TIME)
    )
    for part in self._patiently(parts, 'labels'):
      yield from part

  def _label_ids_of(
    self, ops: Any, read: Callable[[int], Any] | None, index: int
  ) -> np.ndarray:
    with record_named(self.source, index, f'{self.ctx.where}.data'):
      example = {'labels': read(index)} if read else self.source[index]
      example = {'key': self.source.key(index), **example}
      rng = batch_fields.record_rng(0, 0, index)
      example = batch_fields.apply(ops, example, rng)
    if 'label_ids' in example:
      return example['label_ids'][example['label_ids'] >= 0]
    return np.atleast_1d(example['label'])


def run_over(
  fn: PredictFn, state: Any, data: EvalData, fields: Sequence[str] = ()
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
  """Runs `fn(state, batch)` over an evaluation set, one batch ahead.

  Args:
    fn: traceable; returns a dict of [B, ...] arrays. Compiled once per
      function object, so hand in the same one every time.
    state: what `fn` needs, a tree of device arrays.
    data: the evaluation set.
    fields: of the batch, that the host wants beside the outputs.

  Yields:
    (outputs, batch): numpy arrays [n, ...] of the n examples that count; of
    the batch the fields asked for, '_id' and '_mask'. Every process sees all
    examples.

  Raises:
    ValueError: fields that the ops do not make.
  """
  data.check_state(state)
  step = data.compile(fn, fields)
  ahead, num_seen = None, 0
  for batch in itertools.chain(data.batches(), [None]):
    started = None if batch is None else step(state, batch)
    if ahead is not None:
      counted = _counted(*ahead)
      num_seen += len(counted[1]['_id'])
      yield counted
    ahead = started
  assert num_seen == len(data.source), (num_seen, len(data.source))


def _counted(outputs: Outputs, batch: Outputs) -> tuple[Outputs, Outputs]:
  """Both on the host, without the examples that only pad the batch."""
  outputs, batch = jax.device_get((outputs, batch))
  mask = batch['_mask']
  if mask.all():
    return outputs, batch
  return (
    {k: v[mask] for k, v in outputs.items()},
    {k: v[mask] for k, v in batch.items()},
  )
