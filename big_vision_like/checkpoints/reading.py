"""What is in a stored checkpoint: its arrays, its metadata, read one by one.

What cannot be read is `folders.DamagedError`, one line that names the folder.
"""

import contextlib
import pathlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from big_vision_like.checkpoints import formats, late_answers
from big_vision_like.checkpoints.folders import DamagedError
from big_vision_like.config import json_text
from big_vision_like.config.stream_names import MAIN
from big_vision_like.parallel import mesh as mesh_lib
from input_pipeline.labels.space import LabelSpace

_META_KEYS = ('config', 'num_classes')
_SHOWN_REASON = 300  # characters of what a library says of a damaged file


@contextlib.contextmanager
def damage_named(path: pathlib.Path, item: str = '') -> Iterator[None]:
  """Turns what libraries say of unreadable files into one line."""
  try:
    with late_answers.dropped():
      yield
  except RecursionError:
    raise DamagedError(
      f'checkpoint {path} is damaged or incomplete: '
      f'{f"{item}: " if item else ""}JSON nested too deeply'
    ) from None
  except (RuntimeError, MemoryError):  # not of the files
    raise
  except Exception as error:  # tensorstore's have no type of their own
    what = f'{item}: {_reason(error)}' if item else _reason(error)
    raise DamagedError(
      f'checkpoint {path} is damaged or incomplete: {what}'
    ) from error


def _reason(error: BaseException) -> str:
  """The first cause, in one line."""
  while (cause := error.__cause__ or error.__context__) is not None:
    error = cause
  text = ' '.join(str(error).split())
  return textwrap.shorten(text, _SHOWN_REASON) or type(error).__name__


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """{'a/b/c': shape} of a tree of arrays or ShapeDtypeStructs."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {mesh_lib.path_name(path): tuple(x.shape) for path, x in leaves}


def stored_tree(path: pathlib.Path, item: str) -> Any:
  """Nested dict of ShapeDtypeStructs of an item of a stored checkpoint."""
  with damage_named(path, item), ocp.PyTreeCheckpointer() as reader:
    metadata = reader.metadata(path / item)
    tree = getattr(metadata, 'item_metadata', metadata)
    tree = getattr(tree, 'tree', tree)
    if tree is None:  # Orbax only logs what it met
      raise ValueError('the list of its arrays cannot be read')
  if item == 'extra':
    tree = formats.without_marker(tree)
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

  Raises:
    DamagedError: it cannot be read.
    ValueError: the checkpoint is of a newer format than is known.
  """
  handler = ocp.JsonCheckpointHandler()
  with damage_named(path, 'meta'), ocp.Checkpointer(handler) as reader:
    meta = reader.restore(path / 'meta')
    json_text.check_depth(meta)
    for key in _META_KEYS:
      if not isinstance(meta, dict) or key not in meta:
        raise ValueError(f'no key {key!r}')
  formats.check(meta, path)
  return meta


def by_stream(meta: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
  """Stream -> what a checkpoint tells of its labels, as of the main one."""
  return {MAIN: meta, **meta.get('also', {})}


def label_spaces(
  meta: Mapping[str, Any], path: pathlib.Path
) -> dict[str, LabelSpace]:
  """The labels of each stream that a checkpoint was trained on."""
  return {n: label_space(told, path) for n, told in by_stream(meta).items()}


def label_space(meta: Mapping[str, Any], path: pathlib.Path) -> LabelSpace:
  """The labels of a checkpoint; their number alone, if it is an old one.

  Args:
    meta: from `read_meta`.
    path: its folder, for messages.

  Raises:
    DamagedError: no label space.
  """
  if 'space' not in meta:
    return LabelSpace.of_count(meta['num_classes'])
  with damage_named(path, 'meta'):
    return LabelSpace.from_json(meta['space'], 'meta')


def read_weights(path: pathlib.Path, sharding: Any) -> tuple[Any, Any]:
  """(params, extra) of a stored checkpoint, for predictions only.

  Both are their averages (EMA) where the run kept them; older versions kept
  those of the parameters alone. Optimizer slots are not read.

  Args:
    path: checkpoint folder of one step, from `find`.
    sharding: where each array goes.
  """

  def read(item: str, tree: Any) -> Any:
    place = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    target = jax.tree.map(place, tree)
    return load_into(target, path, item, list(shapes(target)))

  def averaged(item: str, average: str) -> Any:
    tree = stored_averages(path, average)
    if tree is None:
      return read(item, stored_tree(path, item))
    return read('train', {average: tree})[average]

  return averaged('params', 'ema'), averaged('extra', 'ema_extra')


def stored_averages(path: pathlib.Path, name: str = 'ema') -> Any:
  """Tree of ShapeDtypeStructs of averages; None where none were kept.

  Args:
    path: checkpoint folder of one step.
    name: 'ema', of the parameters, or 'ema_extra', of the batch statistics.
  """
  tree = stored_tree(path, 'train').get(name)
  return tree if jax.tree.leaves(tree) else None


def load_into(
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
  with damage_named(path, item), ocp.PyTreeCheckpointer() as reader:
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
