"""Runs commands `python -m MODULE` in forks that have all imported.

  python -m tests.cli_server < cases.jsonl > results.jsonl

A case is {'module', 'args', 'cwd', 'path'}, the last PYTHONPATH as a list; its
result {'code', 'out', 'err', 'seconds'}. The parent never starts a jax back
end, so its children can fork safely; a case costs what it does, not the seconds
of importing.
"""

import importlib
import json
import os
import runpy
import sys
import tempfile
import time
import traceback
import warnings

# What a command imports when it needs it.
_IMPORTED = (
  'big_vision_like.pages.metrics_plot',
  'big_vision_like.plan',
  'big_vision_like.tasks.multilabel',
  'big_vision_like.models.resnet',
  'big_vision_like.train',
  'configs.common',
  'evaluators.multilabel_map',
  'input_pipeline.sources.synthetic',
  'main',
  'matplotlib.backends.backend_agg',
)


def import_all() -> None:
  """Once, for all that are forked from here."""
  warnings.simplefilter('ignore')
  for name in _IMPORTED:
    importlib.import_module(name)
  writers = sys.modules['big_vision_like.runtime.writers']
  writers.board_modules()


def run_case(case: dict, timeout_s: float = 300) -> dict:
  """Exit code and output of one command."""
  with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
    start = time.monotonic()
    child = os.fork()
    if child == 0:
      _child(case, out.fileno(), err.fileno())
    while True:
      done, status = os.waitpid(child, os.WNOHANG)
      if done:
        code = os.waitstatus_to_exitcode(status)
        break
      if time.monotonic() - start > timeout_s:
        os.kill(child, 9)
        os.waitpid(child, 0)
        code = 'timeout'
        break
      time.sleep(0.02)
    texts = []
    for file in (out, err):
      file.seek(0)
      texts.append(file.read().decode(errors='replace'))
    return {
      'code': code,
      'out': texts[0],
      'err': texts[1],
      'seconds': time.monotonic() - start,
    }


def _child(case: dict, out: int, err: int) -> None:
  os.dup2(out, 1)
  os.dup2(err, 2)
  code: object = 1
  try:
    if case['cwd']:
      _move(case['cwd'], case['path'])
    sys.argv = [case['module'], *case['args']]
    runpy.run_module(case['module'], run_name='__main__', alter_sys=True)
    code = 0
  except SystemExit as stop:
    code = stop.code
  except BaseException:
    traceback.print_exc()
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _move(cwd: str, path: list[str]) -> None:
  """As if Python had been started there, with this PYTHONPATH."""
  os.chdir(cwd)
  here = {'', os.path.dirname(os.path.dirname(os.path.abspath(__file__)))}
  given = [os.path.abspath(p) for p in path]
  sys.path[:] = [cwd, *given, *(p for p in sys.path if p not in here)]
  os.environ['PYTHONPATH'] = os.pathsep.join(path)


def main() -> None:
  os.environ['BVL_CPU_TUNED'] = '1'
  import_all()

  for line in sys.stdin:
    print(json.dumps(run_case(json.loads(line))), flush=True)


if __name__ == '__main__':
  main()
