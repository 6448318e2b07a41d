"""Where configs and tools are: beside this package, or, installed, inside it.

A checkout has `configs` and `tools` at its top level. In an installed package
they are big_vision_like.configs and big_vision_like.tools, so that no common
name is taken in site-packages. A config file reads the same in both: `configs`
is importable everywhere, the shipped ones before a folder of the user's own.
"""

import importlib
import importlib.util
import pathlib
import pkgutil
import sys
import types

# What site-packages gets of an installed package.
PACKAGES = ('big_vision_like', 'input_pipeline', 'evaluators')
_PACKAGE = 'big_vision_like'
_CONFIGS = 'configs'


def package(name: str) -> str:
  """Import path of the shipped package 'configs' or 'tools'."""
  inside = f'{_PACKAGE}.{name}'
  return inside if importlib.util.find_spec(inside) else name


def folder(name: str) -> pathlib.Path:
  """Folder of the shipped package 'configs' or 'tools'."""
  spec = importlib.util.find_spec(package(name))
  assert spec is not None and spec.origin is not None, name
  return pathlib.Path(spec.origin).parent


def config_file(path: str) -> str:
  """`path`, or the shipped config that it names where no such file is here.

  Args:
    path: 'configs/quickstart.py', 'my/config.py', ...
  """
  parts = pathlib.PurePath(path).parts
  if parts[:1] == (_CONFIGS,) and not pathlib.Path(path).is_file():
    shipped = folder(_CONFIGS).joinpath(*parts[1:])
    if shipped.is_file():
      return str(shipped)
  return path


def command(name: str) -> list[str]:
  """The command line, without arguments, of a command of `bvl`, as a child.

  Installed, no module of the working folder may take the place of one of ours.
  """
  installed = package('tools') != 'tools'
  alone = ['-P'] if installed else []
  return [sys.executable, *alone, '-m', _PACKAGE, name]


def make_importable() -> None:
  """`import configs` means the shipped ones, installed or not.

  Modules of a package `configs` elsewhere on the path come after these; call
  it again when the path has changed.
  """
  if package(_CONFIGS) == _CONFIGS:
    return
  own = str(folder(_CONFIGS))
  module = sys.modules.get(_CONFIGS)
  if module is None:
    module = types.ModuleType(_CONFIGS, 'The configs of big_vision_like.')
    sys.modules[_CONFIGS] = module
  elif list(getattr(module, '__path__', ()))[:1] != [own]:
    return  # the user's own, imported before
  module.__path__ = pkgutil.extend_path([own], _CONFIGS)
