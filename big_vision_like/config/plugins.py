"""Find sources, tasks, models and evaluators by name; check their options.

A plug-in is a module. A bare name is a module of the kind's own package, a
dotted name any importable module, so a user's evaluator needs no registry and
no change here: `type='my_package.my_evaluator'`.
"""

import dataclasses
import difflib
import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any

from big_vision_like.config import option_types

_PACKAGES = {
  'source': 'input_pipeline.sources',
  'task': 'big_vision_like.tasks',
  'model': 'big_vision_like.models',
  'evaluator': 'evaluators',
}
_EXPORTS = {
  'source': 'Source',
  'task': 'Task',
  'model': 'Model',
  'evaluator': 'Evaluator',
}


def names(kind: str) -> list[str]:
  """Names of the project's own plug-ins of a kind, sorted."""
  package = importlib.import_module(_PACKAGES[kind])
  found = (m.name for m in pkgutil.iter_modules(package.__path__))
  return sorted(n for n in found if n != 'common' and _exports(kind, n))


def _exports(kind: str, name: str) -> bool:
  """Whether the module's text defines the class its kind must export."""
  spec = importlib.util.find_spec(f'{_PACKAGES[kind]}.{name}')
  if spec is None or spec.origin is None:
    return False
  with open(spec.origin, encoding='utf-8') as file:
    return f'\nclass {_EXPORTS[kind]}' in file.read()


def load(kind: str, name: str) -> ModuleType:
  """Imports the plug-in `name` of `kind` ('source', 'task', ...).

  Raises:
    ValueError: no such plug-in, or one whose own imports fail; the message
      lists the project's own ones, or names the import.
  """
  if not isinstance(name, str) or not all(name.split('.')):
    raise ValueError(f'{kind} type must be a name, got {name!r}')
  if '.' not in name and name not in names(kind):
    raise ValueError(
      f'unknown {kind} {name!r}{suggest(name, names(kind))}; valid: '
      f'{", ".join(names(kind))}, or the dotted name of your own module'
    )
  path = name if '.' in name else f'{_PACKAGES[kind]}.{name}'
  module = import_module(path, f'{kind} {name!r}')
  if not hasattr(module, _EXPORTS[kind]):
    raise ValueError(
      f'{kind} {name!r}: module {path} does not define {_EXPORTS[kind]!r}'
    )
  return module


def import_module(path: str, what: str) -> ModuleType:
  """Imports a module by its dotted name.

  Args:
    path: of the module.
    what: it is for, as the start of messages ("model 'my_package.my_model'").

  Raises:
    ValueError: there is no such module on Python's path, or an import inside
      it fails, or else its own code; which of them, in one line.
  """
  try:
    return importlib.import_module(path)
  except ImportError as error:
    absent = getattr(error, 'name', None) or ''
    if not isinstance(error, ModuleNotFoundError) or not _leads_to(
      absent, path
    ):
      raise ValueError(
        f'{what}: an import inside the module fails: {error}{_line_of(error)}'
      ) from error
  except (Exception, SystemExit) as error:  # the module is code
    place = _place_of(error)
    message = error.msg if isinstance(error, SyntaxError) else error
    raise ValueError(
      f'{what}: the module does not load: {place}{type(error).__name__}: '
      f'{message}'
    ) from error
  top = path.partition('.')[0]
  if absent == top:
    raise ValueError(
      f"{what}: there is no module {top!r} on Python's path; set PYTHONPATH to "
      f'the folder that holds it (now {os.environ.get("PYTHONPATH", "")!r})'
    )
  found = sys.modules.get(absent.rpartition('.')[0])
  where = getattr(found, '__file__', None) or getattr(found, '__path__', '')
  raise ValueError(
    f'{what}: there is no module {absent!r}; its package was found at {where} '
    f'(PYTHONPATH is {os.environ.get("PYTHONPATH", "")!r})'
  )


def _leads_to(module: str, path: str) -> bool:
  """Whether a module is the one at a path, or a package above it."""
  return bool(module) and f'{path}.'.startswith(f'{module}.')


def _line_of(error: BaseException) -> str:
  """' (FILE, line N)' of the import statement that failed; '' if unknown."""
  inner = _own_frames(error)
  return f' ({inner[-1].filename}, line {inner[-1].lineno})' if inner else ''


def _place_of(error: BaseException) -> str:
  """'FILE:N: ' of what failed while a module was imported; '' if unknown."""
  if isinstance(error, SyntaxError) and error.filename:
    return f'{error.filename}:{error.lineno}: '
  inner = _own_frames(error)
  return f'{inner[-1].filename}:{inner[-1].lineno}: ' if inner else ''


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
  """Those after this module's and importlib's own."""
  frames = traceback.extract_tb(error.__traceback__)
  return [f for f in frames if not f.filename.startswith('<frozen importlib')][
    2:
  ]


def get(kind: str, name: str) -> Callable[..., Any]:
  """The class that the plug-in exports (Source, Task, Model, Evaluator)."""
  return getattr(load(kind, name), _EXPORTS[kind])


def suggest(name: str, valid: Iterable[str]) -> str:
  """' (did you mean X?)' or nothing."""
  close = difflib.get_close_matches(str(name), list(valid), n=1)
  return f' (did you mean {close[0]!r}?)' if close else ''


def parameters(fn: Callable[..., Any]) -> list[str]:
  """Names of what a class or function is called with by position."""
  found = inspect.signature(fn).parameters.values()
  return [p.name for p in found if p.kind == p.POSITIONAL_OR_KEYWORD]


def option_names(fn: Callable[..., Any]) -> tuple[list[str], list[str]]:
  """(all, required) option names of a class or function.

  Options are the keyword-only parameters, or the fields of a Linen module.
  """
  if dataclasses.is_dataclass(fn):
    linen = ('parent', 'name')
    fields = [f for f in dataclasses.fields(fn) if f.init]
    missing = dataclasses.MISSING
    return (
      [f.name for f in fields if f.name not in linen],
      [
        f.name
        for f in fields
        if f.default is missing and f.default_factory is missing
      ],
    )
  parameters = inspect.signature(fn).parameters.values()
  options = [p for p in parameters if p.kind == p.KEYWORD_ONLY]
  required = [p.name for p in options if p.default is p.empty]
  return [p.name for p in options], required


def check_kwargs(
  where: str, fn: Callable[..., Any], kwargs: Mapping[str, Any]
) -> None:
  """Checks options against the keyword-only parameters of `fn`.

  Names, types, and what the types say of ranges and choices (option_types.py).

  Args:
    where: config key of the options, for the message ('evals.fasteval').
    fn: class or function whose keyword-only parameters are the options.
    kwargs: the options given.

  Raises:
    ValueError: unknown or missing option, or a value that is not valid; names
      it and what is valid.
  """
  valid, required = option_names(fn)
  for name in kwargs:
    if name not in valid:
      raise ValueError(
        f'{where}: unknown option {name!r}{suggest(name, valid)}; '
        f'valid: {", ".join(valid) or "none"}'
      )
  option_types.check(where, fn, kwargs)
  missing = [name for name in required if name not in kwargs]
  if missing:
    raise ValueError(
      f'{where}: missing option {", ".join(map(repr, missing))}; '
      f'valid: {", ".join(valid)}'
    )


def option(fn: Callable[..., Any], given: Mapping[str, Any], name: str) -> Any:
  """An option of a class or function as given, or else its default."""
  if name in given:
    return given[name]
  if dataclasses.is_dataclass(fn):
    return next(f.default for f in dataclasses.fields(fn) if f.name == name)
  return inspect.signature(fn).parameters[name].default
