"""A save is tried before the first step, with next to no bytes.

What would fail at the first save, after hours perhaps, fails here: a folder
that cannot be written, a disk without room, a state that Orbax cannot store.
"""

import os
import pathlib
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from big_vision_like.checkpoints import folders, formats, late_answers
from big_vision_like.training.state import TrainState

_FOLDER = 'preflight'
_UNFINISHED = '.orbax-checkpoint-tmp'  # in the name of a save under way
_NOISE = 0.9  # weights compress to about so much of their bytes


def check_folder(folder: pathlib.Path, state: TrainState) -> None:
  """A file can be written there, and there is room for a checkpoint.

  Args:
    folder: of the checkpoints; made if it does not exist.
    state: of shapes and dtypes.

  Raises:
    ValueError: in one line.
  """
  probe = folder / f'{_FOLDER}.{os.getpid()}'
  try:
    folder.mkdir(parents=True, exist_ok=True)
    _check_way(folder)
    probe.write_bytes(b'x' * 4096)
    probe.unlink()
  except OSError as error:
    raise ValueError(
      f'checkpoints cannot be written to {folder}: '
      f'{error.strerror or error}; set ckpt.dir or take another --workdir'
    ) from None
  if not isinstance(folder, pathlib.Path):
    return
  free, needed = shutil.disk_usage(folder).free, _bytes(state)
  if free < needed * _NOISE:
    raise ValueError(
      f'a checkpoint takes {needed / 1e9:.3g} GB, and the disk of {folder} has '
      f'{free / 1e9:.3g} GB free; set ckpt.dir or take another --workdir'
    )


def _check_way(folder: pathlib.Path) -> None:
  """Nothing is called what a save will be that is no folder of one.

  Raises:
    ValueError: naming it.
  """
  newest = next((int(p.name) for p in folders.by_step(folder)), -1)
  for path in folder.iterdir():
    name = path.name
    a_folder = path.is_dir() and not _is_link(path)
    # As Orbax reads names: digits of other scripts too.
    if re.fullmatch(r'0|[1-9]\d{,17}', name) and int(name) > newest:
      bad = True  # by_step would have it
    else:
      ours = name == _FOLDER or _UNFINISHED in name
      bad = ours and not a_folder
    if bad:
      raise ValueError(
        f'{path} stands in the way of a checkpoint of that name and is none; '
        'remove it'
      )


def _is_link(path: pathlib.Path) -> bool:
  return isinstance(path, pathlib.Path) and path.is_symlink()


def check_saving(folder: pathlib.Path, state: TrainState) -> None:
  """Saves a tree like that of the net, an element an array, and deletes it.

  Slots and averages follow the parameters. All processes call it.

  Args:
    folder: of the checkpoints.
    state: of shapes, dtypes and shardings.

  Raises:
    ValueError: naming what Orbax says.
  """
  small = lambda tree: jax.tree.map(lambda x: np.zeros(1, x.dtype), tree)
  place = folder / _FOLDER
  tree = {
    'params': small(state.params),
    'extra': formats.with_marker(small(state.extra)),
    'split': _on_all_devices(state),
  }
  try:
    with late_answers.dropped(), ocp.StandardCheckpointer() as writer:
      writer.save(place, tree, force=True)
  except Exception as error:
    raise ValueError(
      f'the state of this run cannot be saved to {folder}: {_line(error)}'
    ) from error
  finally:
    if jax.process_index() == 0:
      _remove(folder)


def _on_all_devices(state: TrainState) -> jax.Array:
  """An array of which every device, and so every process, has an element."""
  mesh = jax.tree.leaves(state.params)[0].sharding.mesh
  split = jax.sharding.PartitionSpec(mesh.axis_names)
  where = jax.sharding.NamedSharding(mesh, split)
  return jax.make_array_from_callback(
    (mesh.size,), where, lambda _: np.zeros(1, np.float32)
  )


def _bytes(state: TrainState) -> int:
  """Of all arrays; keys count as what they hold."""
  leaves = [x for x in jax.tree.leaves(state) if _is_plain(x)]
  return sum(x.size * jnp.dtype(x.dtype).itemsize for x in leaves)


def _is_plain(x: Any) -> bool:
  return not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _line(error: BaseException) -> str:
  return ' '.join(str(error).split())[:300] or type(error).__name__


def _remove(folder: Any) -> None:
  """Removes what was tried; a failed save leaves it under another name."""
  for path in folder.iterdir():
    if path.name.startswith(f'{_FOLDER}.') or path.name == _FOLDER:
      if isinstance(path, pathlib.Path):
        shutil.rmtree(path, ignore_errors=True)
      else:
        path.rmtree()
