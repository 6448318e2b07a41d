"""Checkpoints saved and restored: a thin layer over Orbax.

A checkpoint holds four items: `params`, `extra` (batch statistics), `train`
(step, optimizer slots, key, averages) and `meta` (JSON: the resolved config,
the data position and fingerprint, the true number of classes and a digest of
their names, the format, see formats.py). Saves run in the background and appear
under their final name only when complete, with a manifest of all files
(manifest.py); a run that is killed in a save finds the one before. Arrays are
restored straight onto the mesh of the restarted run. What cannot be read is
`folders.DamagedError`, one line that names the folder.
"""

import contextlib
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from big_vision_like.checkpoints import folders, formats, manifest, reading
from big_vision_like.checkpoints.retention import Keeper
from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.training.state import TrainState

_TRAIN_FIELDS = ('step', 'opt_state', 'rng', 'ema', 'nonfinite_step')


class Checkpointer:
  """Saves and restores the train states of one workdir.

  Args:
    workdir: folder of the run; checkpoints go to `<workdir>/checkpoints`.
    keep_last: number of newest checkpoints to keep; while a save is under way,
      and until the next `check`, one more is there.
    keep_every_steps: also keep those whose step is a multiple of it.
    read_only: never write, delete or create anything.
    folder: the checkpoints, if not there; local, or a path of etils.
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
    self.folder = folder or folders.of_workdir(workdir)
    if not read_only:
      folders.check_name(self.folder, 'checkpoints')
    self._manager = ocp.CheckpointManager(
      self.folder,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=managers.EveryNSteps(1),  # all: Keeper deletes
        cleanup_tmp_directories=not read_only,
        create=not read_only,
        read_only=read_only,
        enable_async_checkpointing=not read_only,
        async_options=ocp.options.AsyncOptions(
          post_finalization_callback=None if read_only else self._write_manifest
        ),
        # The loop decides when to save; a save never falls to a busy writer.
        enable_should_save_is_saving_in_progress_check=False,
      ),
    )
    self._saving: int | None = None  # the step, or that of the last save
    self._keeper: Keeper | None = None
    if not read_only and jax.process_index() == 0:
      self._keeper = Keeper(self.folder, keep_last, keep_every_steps)

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint."""
    return next((int(p.name) for p in folders.by_step(self.folder)), None)

  def steps(self) -> list[int]:
    """Steps of all complete checkpoints, ascending."""
    return [int(p.name) for p in folders.by_step(self.folder)][::-1]

  def path(self, step: int) -> pathlib.Path:
    """Folder of the checkpoint of a step."""
    return self.folder / str(step)

  def save(self, step: int, state: TrainState, meta: Mapping[str, Any]) -> None:
    """Starts a save in the background; raises what an earlier save met."""
    self.check()
    if step in self._manager.all_steps():
      return
    self.settle()  # the manifest is of one save
    self._saving = step
    if self._keeper is not None:
      self._keeper.expect(step)
    train = _train_item(state)
    told = {formats.KEY: formats.NUMBER, manifest.KEY: manifest.FILE}
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        params=ocp.args.StandardSave(state.params),
        extra=ocp.args.StandardSave(formats.with_marker(state.extra)),
        train=ocp.args.StandardSave(train),
        meta=ocp.args.JsonSave({**meta, **told}),
      ),
      force=True,
    )
    if not saved:
      raise RuntimeError(f'checkpoint of step {step} was not started')

  def _write_manifest(self) -> None:
    """Called by Orbax, in the first process, when all files are complete."""
    assert self._saving is not None
    name = self.path(self._saving)
    folder = next(
      p
      for p in self.folder.iterdir()
      if p.name.partition('.orbax-checkpoint-tmp')[0] == name.name
    )
    manifest.write(folder, self._saving, name)

  def set_best(self, best: dict[str, Any] | None) -> None:
    """Which checkpoint is the best now, as `folders.read_best` tells it."""
    if self._keeper is not None:
      self._keeper.set_best(best)

  def check(self) -> None:
    """Raises what a save in the background has met."""
    self._manager.check_for_errors()
    if self._keeper is not None:
      self._keeper.start()

  def settle(self) -> None:
    """Blocks until no save is under way; raises if it failed."""
    self._manager.wait_until_finished()
    self._manager.check_for_errors()

  def wait(self) -> None:
    """As `settle`, and until what is not kept is deleted."""
    self.settle()
    if self._keeper is not None:
      self._keeper.finish()

  def restore(self, abstract: TrainState, step: int) -> TrainState:
    """The state of a step, placed as `abstract` (shapes and shardings) says.

    Slots of an older format are taken over as they are, under today's names.
    A head that is padded to another width (task.class_multiple) is padded or
    cut to fit; the caller compares the true numbers of classes. Where averages
    of the weights were kept without those of the statistics, as older versions
    did, the latter begin at the last statistics.

    Raises:
      ValueError: the checkpoint is of another model, head or optimizer, or of
        a format that is not known yet.
      DamagedError: it cannot be read.
    """
    averaged = reading.stored_averages(self.path(step), 'ema_extra')
    if abstract.ema_extra is not None and averaged is None:
      state = self.restore(abstract.replace(ema_extra=None), step)
      return state.replace(ema_extra=jax.tree.map(jnp.copy, state.extra))
    number = formats.number_of(self.meta(step))
    train = _train_item(abstract)
    train['opt_state'] = formats.as_stored(abstract.opt_state, number)
    expected = dict(params=abstract.params, extra=abstract.extra, train=train)
    stored = {
      item: reading.stored_shapes(self.path(step), item) for item in expected
    }
    differences = _differences(expected, stored)
    if differences:
      raise ValueError(
        f'checkpoint {self.path(step)} does not fit the model, the optimizer, '
        'train.ema_decay or train.mode of this config:\n'
        + '\n'.join(differences)
      )
    if not stored['extra']:
      del expected['extra']
    as_stored = {k: _as_stored(v, stored[k]) for k, v in expected.items()}
    with reading.damage_named(self.path(step)):
      items = self._manager.restore(
        step,
        args=ocp.args.Composite(
          **{k: ocp.args.StandardRestore(v) for k, v in as_stored.items()}
        ),
      )
    items = {k: jax.tree.map(_fit, items[k], v) for k, v in expected.items()}
    train = items['train']
    train['opt_state'] = formats.from_stored(
      train['opt_state'], abstract.opt_state, number
    )
    return TrainState(
      params=items['params'], extra=items.get('extra', abstract.extra), **train
    )

  def reload(self) -> None:
    """Looks again which checkpoints are there."""
    self._manager.reload()

  def meta(self, step: int) -> dict[str, Any]:
    """What was stored beside the arrays of a step."""
    return reading.read_meta(self.path(step))

  def close(self, *, failed: bool = False) -> None:
    """Waits for the save under way and stops the background threads.

    Args:
      failed: the run has; what a save meets late must not replace the reason.
    """
    with contextlib.suppress(*[Exception] * failed):
      self._manager.close()
    if self._keeper is not None:
      self._keeper.close()


def _differences(
  items: Mapping[str, Any], stored: Mapping[str, Mapping[str, Any]]
) -> list[str]:
  """Lines on the arrays that do not fit those of the checkpoint."""
  lines = []
  for item, tree in items.items():
    here, there = reading.shapes(tree), stored[item]
    for name in sorted((here.keys() | there.keys()) - {'rng'}):
      if not _fits(name, here.get(name), there.get(name)):
        lines.append(
          f'  {name}: {there.get(name, "absent")} in the checkpoint, '
          f'{here.get(name, "absent")} in the config'
        )
  return lines[:10]


def _train_item(state: TrainState) -> dict[str, Any]:
  """What the item `train` holds; some of it only where there is any."""
  train = {name: getattr(state, name) for name in _TRAIN_FIELDS}
  for name in ('workers', 'ema_extra', 'loss_statistics'):
    if jax.tree.leaves(getattr(state, name)):
      train[name] = getattr(state, name)
  return train


def _fits(name: str, here: Any, there: Any) -> bool:
  """Same shape, or a head of another padded width."""
  if None in (here, there) or not mesh_lib.spec_for(name, len(here)):
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
