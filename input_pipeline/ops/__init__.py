"""Example ops: the list `config.input.ops`, from encoded bytes to arrays.

An op is built once from its options and then maps one example to the next:

    op = Op(context, **options)     # checked by their types before
    example = op(example, rng)      # may raise BadExample

All randomness comes from `rng`, so an example depends on its own generator
only. A name with a dot is the import path of an op class of the user's own.
docs/add-an-op.md shows one, and what ops declare.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from big_vision_like.config import plugins
from big_vision_like.protocols import Op
from input_pipeline.ops import chains, fused, order
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.declared import Declared

OPS = {
  'decode': 'decode.Decode',
  'resize': 'geometry.Resize',
  'resize_small': 'geometry.ResizeSmall',
  'resize_long': 'geometry.ResizeLong',
  'shrink_to_fit': 'geometry.ShrinkToFit',
  'random_crop': 'geometry.RandomCrop',
  'random_resized_crop': 'geometry.RandomResizedCrop',
  'center_crop': 'geometry.CenterCrop',
  'central_crop': 'geometry.CentralCrop',
  'random_flip': 'geometry.RandomFlip',
  'crop_person': 'crop_person.CropPerson',
  'pad': 'targets.Pad',
  'canvas': 'canvas.Canvas',
  'image_size': 'targets.ImageSize',
  'decode_segmentation': 'targets.DecodeSegmentation',
  'full_segmentation': 'targets.FullSegmentation',
  'boxes': 'targets.Boxes',
  'labels': 'labels.Labels',
  'single_label': 'labels.SingleLabel',
  'feature_map': 'feature_map.FeatureMap',
  'keep': 'labels.Keep',
  'label_noise': 'noise.LabelNoise',
}


def build(
  specs: Iterable[Mapping[str, Any]],
  context: OpContext,
) -> list[Op]:
  """Builds the ops of a config list, `[dict(op='resize', size=340), ...]`.

  A resize followed by a crop and a flip becomes one op that computes only the
  pixels that survive; results and random draws are those of the single ops.

  Args:
    specs: one mapping an op: its name under 'op', the rest are its options.
    context: labels, hierarchy and the config key for messages.

  Returns:
    Callables (example, rng) -> example, picklable.

  Raises:
    ValueError: unknown op, unknown or missing option, a value out of range, or
      ops in an order that no record passes.
  """
  placed: list[order.Placed] = []
  for position, spec in enumerate(specs):
    where = f'{context.where}[{position}]'
    if not hasattr(spec, 'keys') or 'op' not in spec:
      raise ValueError(
        f"{where}: an op is a dict with the key 'op', got {spec!r}; valid "
        f'ops: {", ".join(OPS)}'
      )
    options = {key: spec[key] for key in spec if key != 'op'}
    op_class = find(where, spec['op'])
    where = f'{where} ({spec["op"]})'
    plugins.check_kwargs(where, op_class, options)
    op = op_class(dataclasses.replace(context, where=where), **options)
    chains.check(op, where)
    if isinstance(op, Declared):
      op.where = where
    placed.append((where, op))
  order.check(placed)
  return fused.fuse([op for _, op in placed])


def hint(field: str) -> str:
  """' (...)' that says how to get a missing field of a batch, or ''."""
  for name in OPS:
    op_class = find('', name)
    assert inspect.isclass(op_class) and issubclass(op_class, Declared)
    if field in op_class.makes:
      option = op_class.options_for.get(field)
      if option is not None:
        return f' (set {option} of the op {name!r})'
      return f' (the op {name!r} makes it)'
  return ''


def find(where: str, name: Any) -> Callable[..., Op]:
  """The class of an op by its name or import path.

  Raises:
    ValueError: there is none; starts with `where`.
  """
  if name in OPS:
    module, _, attribute = f'{__name__}.{OPS[name]}'.rpartition('.')
    return getattr(importlib.import_module(module), attribute)
  if isinstance(name, str) and '.' in name:
    module, _, attribute = name.rpartition('.')
    loaded = plugins.import_module(module, f'{where}: op {name!r}')
    if not hasattr(loaded, attribute):
      raise ValueError(
        f'{where}: op {name!r}: module {module} does not define {attribute!r}'
      )
    return getattr(loaded, attribute)
  raise ValueError(
    f'{where}: unknown op {name!r}{plugins.suggest(str(name), OPS)}; valid: '
    f'{", ".join(OPS)}, or the import path of your own op class'
  )
