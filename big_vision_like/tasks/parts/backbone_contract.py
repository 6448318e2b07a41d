"""What a task asks of a model, checked where its shapes are first traced.

A model of one's own that keeps to docs/add-a-model.md passes; what does not is
named in one line, before any data are read.
"""

import os
import traceback
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from big_vision_like.protocols import Backbone, WithComputeType

# Endpoint -> its shape in words; others may have any.
_SHAPES = {
  'pooled': ('B', 'D'),
  'block3': ('B', 'h', 'w', 'C'),
  'block4': ('B', 'h', 'w', 'C'),
}


def init(
  backbone: Backbone,
  rng: jax.Array,
  image: jax.Array,
  wanted: Iterable[str],
  options: Mapping[str, Any],
  methods: Iterable[str] = (),
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """(variables, endpoints) of a model's first pass over images.

  Args:
    backbone: Linen module, (image, train) -> endpoints by name.
    rng: key of the parameters.
    image: float32 [B, H, W, 3].
    wanted: endpoints that heads are to take.
    options: of a call; without `taps` there is 'pooled' too.
    methods: that the task calls besides.

  Raises:
    ValueError: it fails, has no parameters, or lacks an endpoint or has one of
      another shape or type; the message names the model's class.
  """
  name = f'{type(backbone).__module__}.{type(backbone).__qualname__}'
  for method in ('init', 'apply', *methods):
    if not callable(getattr(backbone, method, None)):
      what = (
        ', which the task calls (docs/add-a-model.md)'
        if method in methods
        else '; it must be a flax.linen.Module'
      )
      raise ValueError(f'model {name}: has no method {method!r}{what}')
  try:
    variables, endpoints = _first_pass(backbone, rng, image, options)
  except Exception as error:  # of the user's code or of a library below it
    if isinstance(error, ValueError) and str(error).startswith('model'):
      raise  # of an option of the model, which it names
    reason = ' '.join(str(error).split()) or 'no reason given'
    raise ValueError(
      f'model {name}: init on images {list(image.shape)} fails: '
      f'{type(error).__name__}: {reason}{_line_of(error, backbone)}'
    ) from error
  if not variables.get('params'):
    raise ValueError(f'model {name}: has no parameters')
  if not isinstance(endpoints, Mapping):
    raise ValueError(
      f'model {name}: must return a dict of endpoints by name, got '
      f'{type(endpoints).__name__}'
    )
  usual = () if options else ('pooled',)
  for endpoint in dict.fromkeys((*usual, *wanted)):
    _check(name, endpoint, endpoints, image.shape[0])
  return variables, dict(endpoints)


def _first_pass(
  backbone: Any, rng: jax.Array, image: jax.Array, options: Mapping[str, Any]
) -> tuple[dict[str, Any], Any]:
  """(variables, endpoints), traced once where a call as usual gives both."""
  if not options and callable(getattr(backbone, 'init_with_output', None)):
    endpoints, variables = backbone.init_with_output(rng, image, train=False)
    return dict(variables), endpoints
  variables = dict(backbone.init(rng, image, train=False))
  return variables, backbone.apply(variables, image, train=False, **options)


def compute_dtype(backbone: Backbone) -> str:
  """Type that heads compute in: the model's, 'float32' if it says none."""
  if isinstance(backbone, WithComputeType):
    return backbone.compute_dtype
  return 'float32'


def _check(
  name: str, wanted: str, endpoints: Mapping[str, Any], batch_size: int
) -> None:
  if wanted not in endpoints:
    raise ValueError(
      f'model {name}: has no endpoint {wanted!r}, which the task needs; it '
      f'returns {", ".join(map(repr, endpoints)) or "none"}'
    )
  value, dims = endpoints[wanted], _SHAPES.get(wanted, ('B', '...'))
  shape = getattr(value, 'shape', None)
  fits = shape is not None and shape[:1] == (batch_size,)
  if '...' not in dims:
    fits = fits and len(shape or ()) == len(dims)
  if not fits:
    got = type(value).__name__ if shape is None else list(shape)
    raise ValueError(
      f'model {name}: endpoint {wanted!r} must be [{", ".join(dims)}] with '
      f'B={batch_size}, got {got}'
    )
  if not jnp.issubdtype(value.dtype, jnp.floating):
    raise ValueError(
      f'model {name}: endpoint {wanted!r} must be floating, got {value.dtype}'
    )


def _line_of(error: BaseException, backbone: Backbone) -> str:
  """' (FILE, line N)': where in the model's own package it failed."""
  package = type(backbone).__module__.partition('.')[0]
  for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
    module = frame.f_globals.get('__name__', '')
    if module.partition('.')[0] == package and module != __name__:
      return f' ({os.path.relpath(frame.f_code.co_filename)}, line {line})'
  return ''
