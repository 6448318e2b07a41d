"""What every evaluator shares: how it is built, fed, run and checked.

An evaluator is one module that exports `Evaluator`; docs/add-an-evaluator.md
walks through one. Every example of the evaluation set counts exactly once, for
any batch size, number of devices or hosts.
"""

import dataclasses
import functools
import itertools
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from big_vision_like import mesh as mesh_lib
from big_vision_like import plugins, text_lines
from input_pipeline import device, pipeline
from input_pipeline.errors import BadExample
from input_pipeline.ops import labels as label_ops

# Keys of a config entry that the loop reads; the rest are the evaluator's.
LOOP_KEYS = (
  'type', 'every_steps', 'every_epochs', 'every_examples', 'every_percent',
  'at_start', 'at_end',
)  # fmt: skip

Outputs = dict[str, Any]
PredictFn = Callable[[Any, Outputs], Outputs]
_LABEL_OPS = ('labels', 'single_label')


@dataclasses.dataclass(frozen=True)
class EvalContext:
  """What an evaluator may know besides its options.

  Attributes:
    mesh: the device mesh; None evaluates on one device.
    workdir: folder of the run, or None.
    name: the evaluator's key in config.evals.
    num_classes: number of classes of the model.
    train_source: opens the training source, or returns None.
    classes: fingerprint of the names of the classes that the checkpoint was
      trained on (Vocabulary.fingerprint); None where that is not known.
    process_index: this process; the first one talks.
  """

  mesh: Mesh | None
  workdir: str | None
  name: str
  num_classes: int
  train_source: Callable[[], Any] = lambda: None
  classes: str | None = None
  process_index: int = 0

  @property
  def where(self) -> str:
    """Config key of the evaluator, the start of its messages."""
    return f'evals.{self.name}'

  def say(self, text: str) -> None:
    """Prints one line, from one process."""
    if self.process_index == 0:
      print(f'[{self.where}] {text}', flush=True)


def from_config(
  evals: Mapping[str, Mapping[str, Any]],
  predict: Mapping[str, PredictFn],
  ctx_for: Callable[[str], EvalContext],
) -> dict[str, Any]:
  """Builds the evaluators of config.evals; all their options are checked.

  Args:
    evals: name -> dict(type=..., data=..., **options and LOOP_KEYS).
    predict: the task's prediction functions by name.
    ctx_for: makes the context of the evaluator of a name.

  Returns:
    name -> evaluator.

  Raises:
    ValueError: an entry that names no evaluator, or an option that is unknown,
      missing or invalid; the message starts with 'evals.<name>'.
  """
  built = {}
  for name in evals:
    evaluator_class, options = checked(evals, name)
    built[name] = evaluator_class(dict(predict), ctx_for(name), **options)
  return built


def checked(
  evals: Mapping[str, Mapping[str, Any]], name: str
) -> tuple[Callable[..., Any], dict[str, Any]]:
  """(class, options) of an evaluator; names and types of options are checked.

  Raises:
    ValueError: see `from_config`.
  """
  where = f'evals.{name}'
  entry = _plain(evals[name], where)
  if 'type' not in entry:
    raise ValueError(
      f'{where}: missing key "type"; valid: '
      f'{", ".join(plugins.names("evaluator"))}'
    )
  evaluator_class = plugins.get('evaluator', entry['type'])
  options = {k: v for k, v in entry.items() if k not in LOOP_KEYS}
  plugins.check_kwargs(where, evaluator_class, options)
  if not callable(getattr(evaluator_class, 'run', None)):
    raise ValueError(
      f'{where}: {entry["type"]!r} has no method run(self, state)'
    )
  return evaluator_class, options


def check_result(name: str, result: Any) -> dict[str, float]:
  """The figures of an evaluator as plain numbers.

  Raises:
    ValueError: not a dict of finite scalars by metric name; says which
      evaluator and which figure.
  """
  where = f'evaluator {name!r}'
  if not isinstance(result, Mapping):
    raise ValueError(
      f'{where} must return a dict of numbers, got {type(result).__name__}'
    )
  figures = {}
  for key, value in result.items():
    if not isinstance(key, str) or not key or key.split() != [key]:
      raise ValueError(
        f'{where}: a metric name is a string without spaces, got {key!r}'
      )
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
      raise ValueError(
        f'{where}: {key!r} must be a number (use float(...)), got '
        f'{type(value).__name__}: {value!s:.80}'
      )
    if not math.isfinite(value):
      raise ValueError(f'{where}: {key!r} is {value}')
    figures[key] = float(value)
  return figures


def choose(
  predict: Mapping[str, PredictFn], name: str, ctx: EvalContext
) -> PredictFn:
  """The prediction function of a name, ValueError listing those there are."""
  if name not in predict:
    raise ValueError(
      f'{ctx.where}: the task has no prediction {name!r}'
      f'{plugins.suggest(name, predict)}; valid: {", ".join(predict)}'
    )
  return predict[name]


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
    exclude_ids: see `read_excluded`; `figures` gives both sets of figures.
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
    self.source = pipeline.open_source(_plain(data, where), where)
    self._specs = [_plain(op, f'{ctx.where}.ops') for op in ops]
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
    self.excluded = read_excluded(
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
      found |= without_excluded(compute(self.kept(ids)))
    return found

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
    """
    own = any('.' in spec['op'] for spec in self._specs)
    specs = [s for s in self._specs if own or s['op'] in _LABEL_OPS]
    if not own:
      specs = [label_ops.positives_only(s) for s in specs]
    ops = pipeline.build_ops(specs, self.source, f'{self.ctx.where}.ops')
    whole = own or any(s.get('min_confidence') is not None for s in specs)
    read = None if whole else getattr(self.source, 'labels', None)
    for index in range(len(self.source)):
      example = {'labels': read(index)} if read else self.source[index]
      rng = np.random.default_rng((0, 0, index))
      for op in ops:
        example = op(example, rng)
      if 'label_ids' in example:
        yield example['label_ids'][example['label_ids'] >= 0]
      else:
        yield np.atleast_1d(example['label'])


def without_excluded(figures: Mapping[str, float]) -> dict[str, float]:
  """Figures under the names that those without `exclude_ids` have."""
  return {f'{name}/dedup': value for name, value in figures.items()}


def read_excluded(
  exclude: str | Sequence[str | int] | None,
  source: Any,
  where: str,
  say: Callable[[str], None] = print,
) -> np.ndarray | None:
  """Indices of the records that `exclude_ids` names: int64 [n], ascending.

  A list without any key is what tools/dedup.py writes where it finds nothing;
  one line says so, since a file cut short looks the same.

  Args:
    exclude: text file of record keys, one a line, such as the drop_ids.txt of
      tools/dedup.py; or a list of keys or indices; None excludes nothing. A
      key that several records share excludes all of them.
    source: the evaluation set.
    where: config key, for messages.
    say: prints a line.

  Raises:
    FileNotFoundError: no such file.
    ValueError: naming the config key or `file:line`: a key or index that the
      set does not have, or nothing is left.
  """
  if exclude is None:
    return None
  if isinstance(exclude, str):
    named: list[tuple[str, Any]] = [
      (f'{exclude}:{number}', line)
      for number, line in enumerate(text_lines.read(exclude), 1)
      if line.strip()
    ]
  else:
    named = [(where, key) for key in exclude]
  if not named:
    say(f'exclude_ids={exclude!r} names no record: nothing is excluded')
  index_of = _indices_of_keys(source, [k for _, k in named])
  found: set[int] = set()
  for place, key in named:
    if isinstance(key, str):
      indices = index_of.get(key) or index_of.get(key.strip(), [])
    elif isinstance(key, int | np.integer) and not isinstance(key, bool):
      indices = [int(key)] if 0 <= key < len(source) else []
    else:
      raise ValueError(f'{place}: {key!r} is neither a key nor an index')
    if not indices:
      raise ValueError(
        f'{place}: no record {key!r} among the {len(source)} of the '
        f'evaluation set; its first is {source.key(0)!r}. Lists of tools.dedup '
        'hold the keys of the data that it was given'
      )
    found.update(indices)
  if len(found) == len(source):
    raise ValueError(f'{where} excludes every record')
  return np.array(sorted(found), np.int64)


def _indices_of_keys(source: Any, keys: Sequence[Any]) -> dict[str, list[int]]:
  """Key -> indices, for those keys wanted that the source has.

  A key that is no place in the set may be the name that an image had before it
  was prepared; to find those, the records are read.
  """
  texts = [key for key in keys if isinstance(key, str)]
  wanted = {*texts, *(key.strip() for key in texts)}
  found: dict[str, list[int]] = {}
  for name_of in (source.key, getattr(source, 'stored_key', None)):
    if name_of is None or all({k, k.strip()} & found.keys() for k in texts):
      break
    for index in range(len(source)):
      try:
        key = name_of(index)
      except BadExample:  # evaluating it will say so
        continue
      if key in wanted and index not in found.get(key, ()):
        found.setdefault(key, []).append(index)
  return found


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


def _plain(entry: Any, where: str) -> dict[str, Any]:
  """A config entry as a dict of plain values."""
  if hasattr(entry, 'to_dict'):
    return entry.to_dict()
  if not isinstance(entry, Mapping):
    raise ValueError(f'{where} must be a dict, got {entry!r}')
  return dict(entry)
