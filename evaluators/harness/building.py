"""Evaluators built from config.evals, and their figures checked."""

import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any

from big_vision_like.config import plugins
from big_vision_like.protocols import Evaluator, Prediction
from evaluators.harness.context import EvalContext, plain

# Keys of a config entry that the loop reads; the rest are the evaluator's.
LOOP_KEYS = (
  'type', 'every_steps', 'every_epochs', 'every_examples', 'every_percent',
  'at_start', 'at_end', 'stream', 'part',
)  # fmt: skip


def from_config(
  evals: Mapping[str, Mapping[str, Any]],
  predict: Mapping[str, Prediction],
  ctx_for: Callable[[str], EvalContext],
) -> dict[str, Evaluator]:
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
    ctx = ctx_for(name)
    seen = (
      of_part(predict, ctx.part)
      if ctx.parts
      else of_stream(predict, ctx.stream)
    )
    built[name] = evaluator_class(seen, ctx, **options)
  return built


def of_part(
  predict: Mapping[str, Prediction], part: str
) -> dict[str, Prediction]:
  """Those of a part of a joint task, 'PART/logits' as 'logits'; no others."""
  prefix = f'{part}/'
  return {
    name.removeprefix(prefix): prediction
    for name, prediction in predict.items()
    if name.startswith(prefix)
  }


def of_stream(
  predict: Mapping[str, Prediction], stream: str
) -> dict[str, Prediction]:
  """Predictions as an evaluator of a stream finds them.

  Those of the stream, 'NAME/logits', are 'logits', before others of that name.
  """
  prefix = f'{stream}/' if stream else ''
  own = {
    name.removeprefix(prefix): prediction
    for name, prediction in predict.items()
    if prefix and name.startswith(prefix)
  }
  return {**predict, **own}


def checked(
  evals: Mapping[str, Mapping[str, Any]], name: str
) -> tuple[Callable[..., Evaluator], dict[str, Any]]:
  """(class, options) of an evaluator; names and types of options are checked.

  Raises:
    ValueError: see `from_config`.
  """
  where = f'evals.{name}'
  entry = plain(evals[name], where)
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
