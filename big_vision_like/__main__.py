"""The command `bvl`: training, studies and tools, by their names.

  bvl train --config configs/quickstart.py --workdir DIR
  bvl predict --checkpoint DIR --input photos/ --output labels

`bvl train` is `python -m main` of a checkout, with all of its flags; every
other command is `python -m tools.NAME`. `bvl COMMAND --help` tells its flags.
"""

import ast
import importlib
import os
import pkgutil
import runpy
import sys
from typing import Any

from big_vision_like.config import plugins, shipped

TRAIN, LAUNCH = 'train', 'launch.local'


def names() -> list[str]:
  """`train`, and the tools by their names."""
  modules = pkgutil.iter_modules([str(shipped.folder('tools'))])
  return [TRAIN, *(m.name for m in modules if not m.ispkg), LAUNCH]


def purpose(name: str) -> str:
  """What a command is, in one line."""
  if name == TRAIN:
    return 'Pretrains, evaluates or plans: a config, a workdir.'
  path = shipped.folder('tools').joinpath(*name.split('.'))
  text = path.with_name(f'{path.name}.py').read_text('utf-8')
  return (ast.get_docstring(ast.parse(text)) or '').partition('\n')[0]


def main() -> None:
  """Runs the command that the first argument names."""
  name, arguments = (sys.argv[1:2] or ['--help'])[0], sys.argv[2:]
  # What `python -m` does first: a user's own modules, after all others.
  sys.path.append(os.getcwd())
  shipped.make_importable()
  if name in ('--help', '-h', 'help'):
    print(f'{__doc__}\ncommands:')
    for command in names():
      print(f'  {command:20} {purpose(command)}')
  elif name == TRAIN:
    sys.argv = [f'bvl {name}', *arguments]
    from big_vision_like import program

    program.run()
  elif name in (known := names()):
    sys.argv[1:] = arguments
    tools = shipped.package('tools')
    command: Any = importlib.import_module(f'{tools}.cli.command')
    command.PREFIX = 'bvl '
    runpy.run_module(f'{tools}.{name}', run_name='__main__', alter_sys=True)
  else:
    print(
      f'error: no command {name!r}{plugins.suggest(name, known)}; valid: '
      f'{", ".join(known)}',
      file=sys.stderr,
    )
    sys.exit(2)


if __name__ == '__main__':
  main()
