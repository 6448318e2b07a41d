"""The evaluation set of an evaluator, and predictions run over it.

Every example of the set counts exactly once, for any batch size, number of
devices or hosts.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from big_vision_like.parallel import mesh as mesh_lib
from evaluators.harness import exclusions
from evaluators.harness.context import EvalContext, Outputs, PredictFn, plain
from input_pipeline import device, pipeline
from input_pipeline.examples.errors import record_named
from input_pipeline.ops import labels as label_ops

_SHOWN = 5  # keys in a message
_LABEL_OPS = ('labels', 'single_label')


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
    fields: batch fields that the ops must produce.
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
    self.source = pipeline.open_source(plain(data, where), where)
    self._specs = [plain(op, f'{ctx.where}.ops') for op in ops]
    self._ops = pipeline.build_ops(self._specs, self.source, f'{ctx.where}.ops')
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
    found = pipeline.example_spec(self._ops, f'{ctx.where}.ops')
    for field in fields:
      if field not in found:
        raise ValueError(
          f'{ctx.where}.ops: no op makes the field {field!r}'
          f'{label_ops.hint(field)}; they make '
          f'{", ".join(found) or "none"}'
        )
    if classes:
      self._check_classes()
    self.excluded = exclusions.read_excluded(
      exclude_ids, self.source, f'{ctx.where}.exclude_ids', ctx.say
    )
    self._compiled: dict[PredictFn, Callable[..., Any]] = {}

  def _check_classes(self) -> None:
    """Same number and names of classes as the model was trained on."""
    vocabulary, where = self.source.vocabulary, f'{self.ctx.where}.data'
    names = vocabulary.names
    if len(names) != self.ctx.num_classes:
      raise ValueError(
        f'{where} has {len(names)} classes, the model {self.ctx.num_classes}'
      )
    source = self.train_source
    own, other = (getattr(s, 'background', None) for s in (self.source, source))
    if None not in (own, other) and own != other:
      raise ValueError(
        f'{where}: background={own} of its masks, but {other} in the training '
        'data; id 0 must mean the same in both'
      )
    train = names if source is None else source.vocabulary.names
    if len(train) != len(names):
      raise ValueError(
        f'{where} has {len(names)} classes, the training data {len(train)}'
      )
    if train != names:
      first = next(i for i, (a, b) in enumerate(zip(train, names)) if a != b)
      raise ValueError(
        f'{where}: class {first} is {names[first]!r}, but {train[first]!r} in '
        'the training data; both need the same vocabulary'
      )
    if self.ctx.classes not in (None, vocabulary.fingerprint()):
      raise ValueError(
        f'{where}: its {len(names)} classes, {names[0]!r} and so on, have '
        'other names, or another order, than those that the checkpoint was '
        'trained on'
      )

  @functools.cached_property
  def train_source(self) -> Any:
    """The training source; None where there is none (it says so)."""
    try:
      return self.ctx.train_source()
    except FileNotFoundError as error:
      self.ctx.say(f'training data not compared, not found: {error}')
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

  def batches(self) -> Iterator[dict[str, np.ndarray]]:
    """This process's host batches, from the start."""
    return iter(self._batches)

  def compile(self, fn: PredictFn) -> Callable[..., Any]:
    """`fn(state, batch)` as a jitted call, compiled once per function.

    It returns (outputs, batch without 'image'), on every process whole.
    """
    if fn in self._compiled:
      return self._compiled[fn]
    mesh = self.ctx.mesh

    def call(state, batch):
      fields = {k: v for k, v in batch.items() if k != 'image'}
      return fn(state, batch), fields

    if mesh is None:
      run = jax.jit(call)
    else:
      whole = NamedSharding(mesh, PartitionSpec())
      jitted = jax.jit(call, out_shardings=whole)

      def run(state, batch):
        placed = device.to_global(batch, mesh_lib.batch_sharding(mesh))
        with jax.set_mesh(mesh):
          return jitted(state, placed)

    self._compiled[fn] = run
    return run

  def label_ids(self) -> Iterator[np.ndarray]:
    """True label ids (unique, unpadded) of every example, as the ops give.

    Images are not decoded: only the label ops run, on `source.labels(index)`
    where the source has that, else on the raw example, as for labels chosen by
    confidence. With ops of the user's own among them the whole chain runs.

    Raises:
      ValueError: a record that cannot be used, by its key.
    """
    own = any('.' in spec['op'] for spec in self._specs)
    specs = [s for s in self._specs if own or s['op'] in _LABEL_OPS]
    if not own:
      specs = [label_ops.positives_only(s) for s in specs]
    ops = pipeline.build_ops(specs, self.source, f'{self.ctx.where}.ops')
    whole = own or any(s.get('min_confidence') is not None for s in specs)
    read = None if whole else getattr(self.source, 'labels', None)
    for index in range(len(self.source)):
      with record_named(self.source, index, f'{self.ctx.where}.data'):
        example = {'labels': read(index)} if read else self.source[index]
        rng = np.random.default_rng((0, 0, index))
        for op in ops:
          example = op(example, rng)
      if 'label_ids' in example:
        yield example['label_ids'][example['label_ids'] >= 0]
      else:
        yield np.atleast_1d(example['label'])


def run_over(
  fn: PredictFn, state: Any, data: EvalData
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
  """Runs `fn(state, batch)` over an evaluation set, one batch ahead.

  Args:
    fn: traceable; returns a dict of [B, ...] arrays. Compiled once per
      function object, so hand in the same one every time.
    state: what `fn` needs, a tree of device arrays.
    data: the evaluation set.

  Yields:
    (outputs, batch): numpy arrays [n, ...] of the n examples that count;
    'image' is left out. Every process sees all examples.
  """
  step = data.compile(fn)
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
