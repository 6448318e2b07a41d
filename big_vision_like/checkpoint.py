"""Checkpoints: a thin layer over Orbax, the only module that knows it.

A checkpoint holds four items: `params`, `extra` (batch statistics), `train`
(step, optimizer slots, key, averages) and `meta` (JSON: the resolved config,
the data position and fingerprint, the true number of classes and a digest of
their names). Saves run in the background and appear under their final name only
when complete; a run that is killed in a save finds the one before. Arrays are
restored straight onto the mesh of the restarted run. What cannot be read is
`DamagedError`, one line that names the folder.
"""

import contextlib
import dataclasses
import inspect
import pathlib
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from big_vision_like import mesh as mesh_lib

# Where checkpoints are is a part of this interface.
from big_vision_like.checkpoint_folders import FOLDER as FOLDER
from big_vision_like.checkpoint_folders import DamagedError as DamagedError
from big_vision_like.checkpoint_folders import find as find
from big_vision_like.state import TrainState

_TRAIN_FIELDS = ('step', 'opt_state', 'rng', 'ema', 'nonfinite_step')
_META_KEYS = ('config', 'num_classes')
_SHOWN_REASON = 300  # characters of what a library says of a damaged file


@contextlib.contextmanager
def _reading(path: pathlib.Path, item: str = '') -> Iterator[None]:
  """Turns what libraries say of unreadable files into one line."""
  hook = sys.unraisablehook

  def without_late_answers(met: Any) -> None:
    closed = str(met.exc_value) == 'Event loop is closed'
    if not closed and not inspect.iscoroutine(met.object):
      hook(met)

  # The other reads of one that failed end later, unawaited or with answers to
  # a closed event loop, and each would print; so after a failure this stays.
  sys.unraisablehook = without_late_answers
  try:
    yield
  except (RuntimeError, MemoryError):  # not of the files
    raise
  except Exception as error:  # tensorstore's have no type of their own
    what = f'{item}: {_reason(error)}' if item else _reason(error)
    raise DamagedError(
      f'checkpoint {path} is damaged or incomplete: {what}'
    ) from error
  sys.unraisablehook = hook


def _reason(error: BaseException) -> str:
  """The first cause, in one line."""
  while (cause := error.__cause__ or error.__context__) is not None:
    error = cause
  text = ' '.join(str(error).split())
  return textwrap.shorten(text, _SHOWN_REASON) or type(error).__name__


class Checkpointer:
  """Saves and restores the train states of one workdir.

  Args:
    workdir: folder of the run; checkpoints go to `<workdir>/checkpoints`.
    keep_last: number of newest checkpoints to keep.
    keep_every_steps: also keep those whose step is a multiple of it.
    read_only: never write, delete or create anything.
    folder: the checkpoints, if not there.
  """

  def __init__(
    self,
    workdir: str,
    *,
    keep_last: int = 2,
    keep_every_steps: int | None = None,
    read_only: bool = False,
    folder: pathlib.Path | None = None,
  ):
    if keep_last < 1:
      raise ValueError(f'ckpt.keep_last={keep_last} must be at least 1')
    self.folder = folder or pathlib.Path(workdir).absolute() / FOLDER
    policies: list[Any] = [managers.LatestN(keep_last)]
    if keep_every_steps:
      policies.append(managers.EveryNSteps(keep_every_steps))
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=managers.AnyPreservationPolicy(policies),
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
        enable_async_checkpointing=not read_only,
        # The loop decides when to save; a save never falls to a busy writer.
        enable_should_save_is_saving_in_progress_check=False,
      ),
    )

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """Steps of all complete checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def path(self, step: int) -> pathlib.Path:
    """Folder of the checkpoint of a step."""
    return self.folder / str(step)

  def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
    """Starts a save in the background; raises what an earlier save met."""
    self.check()
    if step in self._manager.all_steps():
      return
    train = _train_item(state)
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        extra=ocp.args.StandardSave(state.extra),
        train=ocp.args.StandardSave(train),
        meta=ocp.args.JsonSave(dict(meta)),
      ),
      force=True,
    )
    if not saved:
      raise RuntimeError(f'checkpoint of step {step} was not started')

  def check(self) -> None:
    """Raises what a save in the background has met."""
    self._manager.check_for_errors()

  def wait(self) -> None:
    """Blocks until the save under way is complete; raises if it failed."""
    self._manager.wait_until_finished()
    self.check()

  def restore(self, abstract: TrainState, step: int) -> TrainState:
    """The state of a step, placed as `abstract` (shapes and shardings) says.

    A head that is padded to another width (task.class_multiple) is padded or
    cut to fit; the caller compares the true numbers of classes.

    Raises:
      ValueError: the checkpoint is of another model, head or optimizer.
      DamagedError: it cannot be read.
    """
    train = _train_item(abstract)
    expected = dict(params=abstract.params, extra=abstract.extra, train=train)
    stored = {item: stored_shapes(self.path(step), item) for item in expected}
    differences = _differences(expected, stored)
    if differences:
      raise ValueError(
        f'checkpoint {self.path(step)} does not fit the model, the optimizer, '
        'train.ema_decay or train.mode of this config:\n'
        + '\n'.join(differences)
      )
    as_stored = {k: _as_stored(v, stored[k]) for k, v in expected.items()}
    with _reading(self.path(step)):
      items = self._manager.restore(
        step,
        args=ocp.args.Composite(
          **{k: ocp.args.StandardRestore(v) for k, v in as_stored.items()}
        ),
      )
    items = {k: jax.tree.map(_fit, items[k], v) for k, v in expected.items()}
    return TrainState(
      params=items['params'], extra=items['extra'], **items['train']
    )

  def meta(self, step: int) -> dict[str, Any]:
    """What was stored beside the arrays of a step."""
    return read_meta(self.path(step))

  def close(self) -> None:
    """Waits for the save under way and stops the background threads."""
    self._manager.close()


def _differences(
  items: Mapping[str, Any], stored: Mapping[str, Mapping[str, Any]]
) -> list[str]:
  """Lines on the arrays that do not fit those of the checkpoint."""
  lines = []
  for item, tree in items.items():
    here, there = shapes(tree), stored[item]
    for name in sorted((here.keys() | there.keys()) - {'rng'}):
      if not _fits(name, here.get(name), there.get(name)):
        lines.append(
          f'  {name}: {there.get(name, "absent")} in the checkpoint, '
          f'{here.get(name, "absent")} in the config'
        )
  return lines[:10]


def _train_item(state: TrainState) -> dict[str, Any]:
  """What the item `train` holds; `workers` only where there are some."""
  train = {name: getattr(state, name) for name in _TRAIN_FIELDS}
  return train if state.workers is None else {**train, 'workers': state.workers}


def _fits(name: str, here: Any, there: Any) -> bool:
  """Same shape, or a head of another padded width."""
  if None in (here, there) or not mesh_lib.has_rule(name):
    return here == there
  return here[:-1] == there[:-1]


def _as_stored(tree: Any, stored: Mapping[str, tuple[int, ...]]) -> Any:
  """`tree` with the stored width of the head."""

  def leaf(path, x):
    shape = stored.get(mesh_lib.path_name(path), x.shape)
    if shape == x.shape:
      return x
    whole = jax.sharding.NamedSharding(
      x.sharding.mesh, jax.sharding.PartitionSpec()
    )
    return jax.ShapeDtypeStruct(shape, x.dtype, sharding=whole)

  return jax.tree_util.tree_map_with_path(leaf, tree)


def _fit(x: jax.Array, abstract: jax.ShapeDtypeStruct) -> jax.Array:
  """`x` padded with zeros or cut along its last axis."""
  width = abstract.shape[-1] if abstract.shape else 0
  if x.shape == abstract.shape:
    return x
  room = [(0, 0)] * (x.ndim - 1) + [(0, max(width - x.shape[-1], 0))]
  fit = jax.jit(
    lambda x: jnp.pad(x[..., :width], room), out_shardings=abstract.sharding
  )
  return fit(x)


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """{'a/b/c': shape} of a tree of arrays or ShapeDtypeStructs."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {mesh_lib.path_name(path): tuple(x.shape) for path, x in leaves}


def stored_tree(path: pathlib.Path, item: str) -> Any:
  """Nested dict of ShapeDtypeStructs of an item of a stored checkpoint."""
  with _reading(path, item), ocp.PyTreeCheckpointer() as reader:
    metadata = reader.metadata(path / item)
    tree = getattr(metadata, 'item_metadata', metadata)
    tree = getattr(tree, 'tree', tree)
    if tree is None:  # Orbax only logs what it met
      raise ValueError('the list of its arrays cannot be read')
  return jax.tree.map(
    lambda m: jax.ShapeDtypeStruct(tuple(m.shape), m.dtype),
    tree,
    is_leaf=lambda m: hasattr(m, 'shape'),
  )


def stored_shapes(path: pathlib.Path, item: str) -> dict[str, tuple[int, ...]]:
  """{'a/b/c': shape} of an item of a stored checkpoint."""
  return shapes(stored_tree(path, item))


def read_meta(path: pathlib.Path) -> dict[str, Any]:
  """The meta item of the checkpoint folder of one step.

  Checkpoints of older versions and converted weights have no `classes`.
  """
  handler = ocp.JsonCheckpointHandler()
  with _reading(path, 'meta'), ocp.Checkpointer(handler) as reader:
    meta = reader.restore(path / 'meta')
    for key in _META_KEYS:
      if not isinstance(meta, dict) or key not in meta:
        raise ValueError(f'no key {key!r}')
  return meta


def read_weights(path: pathlib.Path, sharding: Any) -> tuple[Any, Any]:
  """(params, extra) of a stored checkpoint, for predictions only.

  The parameters are their averages (EMA) where the run kept them. Optimizer
  slots are not read.

  Args:
    path: checkpoint folder of one step, from `find`.
    sharding: where each array goes.
  """

  def read(item: str, tree: Any) -> Any:
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    target = jax.tree.map(place, tree)
    return _load_into(target, path, item, list(shapes(target)))

  ema = _stored_averages(path)
  if ema is not None:
    params = read('train', {'ema': ema})['ema']
  else:
    params = read('params', stored_tree(path, 'params'))
  return params, read('extra', stored_tree(path, 'extra'))


def _stored_averages(path: pathlib.Path) -> Any:
  """Tree of ShapeDtypeStructs of the averages; None where none were kept."""
  ema = stored_tree(path, 'train').get('ema')
  return ema if jax.tree.leaves(ema) else None


@dataclasses.dataclass(frozen=True)
class WarmStart:
  """What a warm start did, as parameter names.

  Attributes:
    loaded: taken from the checkpoint.
    reinitialised: as the patterns asked.
    left: in the checkpoint, not used here.
    averages: whether the parameters are the averages (EMA) of the run; None
      where it kept none.
  """

  loaded: tuple[str, ...]
  reinitialised: tuple[str, ...]
  left: tuple[str, ...]
  averages: bool | None = None

  def summary(self) -> str:
    """Three lines for the log, four where the run kept averages."""
    lines = []
    if self.averages is not None:
      taken = 'averages' if self.averages else 'last weights, not the averages'
      lines.append(f'  parameters: the {taken} (init_from.ema={self.averages})')
    for name in ('loaded', 'reinitialised', 'left'):
      names = getattr(self, name)
      shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
      lines.append(
        f'  {name}: {len(names)} arrays {f"({shown})" if shown else ""}'
      )
    return '\n'.join(lines)


def warm_start(
  state: TrainState,
  path: pathlib.Path,
  reinit: Sequence[str],
  *,
  ema: bool = True,
) -> tuple[TrainState, WarmStart]:
  """Parameters and batch statistics of a checkpoint into a fresh state.

  Args:
    state: freshly initialised, placed on the mesh; step and slots stay fresh.
    path: checkpoint folder of one step, from `find`.
    reinit: patterns of parameter names ('head/.*') that keep their fresh
      values; checkpoint arrays of such names are left.
    ema: take the averages (EMA) of the parameters where the run kept them, as
      evaluations do; else the parameters as trained.

  Raises:
    ValueError: an array is missing, superfluous or of another shape and no
      pattern allows it.
    DamagedError: the checkpoint cannot be read.
  """
  problems: list[str] = []
  loaded: list[str] = []
  fresh: list[str] = []
  left: list[str] = []
  allowed = lambda name: any(re.fullmatch(p, name) for p in reinit)
  has_averages = _stored_averages(path) is not None
  values = {}
  for item in ('params', 'extra'):
    target = getattr(state, item)
    here, there = shapes(target), stored_shapes(path, item)
    for name in sorted(here.keys() | there.keys()):
      if allowed(name):
        (fresh if name in here else left).append(name)
      elif here.get(name) == there.get(name):
        loaded.append(name)
      else:
        problems.append(
          f'  {name}: {there.get(name, "absent")} in the checkpoint, '
          f'{here.get(name, "absent")} in the model'
        )
    if problems:
      values[item] = target
    elif item == 'params' and ema and has_averages:
      names = [f'ema/{name}' for name in loaded]
      values[item] = _load_into({'ema': target}, path, 'train', names)['ema']
    else:
      values[item] = _load_into(target, path, item, loaded)
  for pattern in reinit:
    if not any(re.fullmatch(pattern, name) for name in (*fresh, *left)):
      problems.append(f'  init_from.reinit: {pattern!r} matches no array')
  if problems:
    raise ValueError(
      f'init_from.path={str(path)!r} does not fit; name what may differ in '
      f'init_from.reinit (now {list(reinit)}):\n' + '\n'.join(problems[:10])
    )
  if state.ema is not None:
    values['ema'] = jax.tree.map(lambda x: x.copy(), values['params'])
  averages = ema if has_averages else None
  report = WarmStart(tuple(loaded), tuple(fresh), tuple(left), averages)
  return state.replace(**values), report


def _load_into(
  target: Any, path: pathlib.Path, item: str, names: Sequence[str]
) -> Any:
  """`target` with the arrays called `names` read from the checkpoint."""
  wanted = set(names)
  paths, treedef = jax.tree_util.tree_flatten_with_path(target)
  request: dict[str, Any] = {}
  for key_path, array in paths:
    if mesh_lib.path_name(key_path) in wanted:
      node = request
      keys = mesh_lib.path_name(key_path).split('/')
      for key in keys[:-1]:
        node = node.setdefault(key, {})
      node[keys[-1]] = jax.ShapeDtypeStruct(
        array.shape, array.dtype, sharding=array.sharding
      )
  if not request:
    return target
  with _reading(path, item), ocp.PyTreeCheckpointer() as reader:
    read = reader.restore(
      path / item,
      args=ocp.args.PyTreeRestore(
        item=request,
        restore_args=ocp.checkpoint_utils.construct_restore_args(request),
        partial_restore=True,
      ),
    )
  found = {
    mesh_lib.path_name(p): x
    for p, x in jax.tree_util.tree_leaves_with_path(read)
  }
  leaves = [found.get(mesh_lib.path_name(p), x) for p, x in paths]
  return jax.tree_util.tree_unflatten(treedef, leaves)
