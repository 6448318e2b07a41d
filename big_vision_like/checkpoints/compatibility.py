"""Whether a config means the net and the classes that a checkpoint holds.

Arrays that fit say little: nets of other layouts have the same shapes and
compute something else, and a head of 40 columns may stand for any 40 classes.
So both are compared by what the checkpoint says of itself.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from big_vision_like.config import plugins
from big_vision_like.protocols import WithLayout
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary


def check_layout(
  config: Any, meta: Mapping[str, Any], path: pathlib.Path, where: str
) -> None:
  """The net of a checkpoint computes what the config's does, shapes apart.

  Plug-ins name in `LAYOUT` the options that no array shows.

  Args:
    config: complete.
    meta: of the checkpoint (checkpoint.read_meta).
    path: its folder, for the message.
    where: key or flag of the path, for the message.

  Raises:
    ValueError: listing the options that differ.
  """
  differ = []
  for kind in ('model', 'task'):
    here, there = config[kind], meta['config'][kind]
    plugin = plugins.get(kind, here.type)
    if kind == 'model' and there.get('type') != here.type:
      continue  # the arrays tell
    # A task may inherit the list without taking all of its options.
    known = plugins.option_names(plugin)[0]
    for name in filter(known.__contains__, _layout(plugin)):
      then, now = (plugins.option(plugin, c, name) for c in (there, here))
      if now != then:
        differ.append(f'  {kind}.{name}: {then!r} there, {now!r} here')
  if differ:
    raise ValueError(
      f'{where}={str(path)!r} is a net of another layout, whose arrays '
      'have the same shapes but compute something else:\n'
      + '\n'.join(differ)
      + '\ntake those of the checkpoint (configs: layout=torch for weights of '
      'torchvision and timm)'
    )


def _layout(plugin: object) -> Sequence[str]:
  """Names of the options of a model or task that no array shows."""
  return plugin.LAYOUT if isinstance(plugin, WithLayout) else ()


def classes_differ(
  meta: Mapping[str, Any], space: LabelSpace | Vocabulary
) -> bool:
  """Whether the names of the classes are other ones, or in another order.

  Args:
    meta: of a checkpoint; without its key `classes` nothing is known.
    space: a LabelSpace or a Vocabulary.
  """
  return meta.get('classes') not in (None, space.fingerprint())
