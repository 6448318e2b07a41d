"""torchvision with its compiled operators, on a torch for CPUs.

torchvision's wheel is linked with torch's CUDA libraries, which a torch for
CPUs lacks; its operators for CPUs need nothing of them but to be loaded. So
libraries of the names that are asked for, whose symbols lead nowhere, are
compiled and loaded first.
"""

import ctypes
import importlib.util
import pathlib
import shutil
import subprocess
import tempfile

import pytest

_LIBRARIES = ('libc10_cuda.so', 'libtorch_cuda.so')


def compiled_operators() -> bool:
  """Loads torchvision with its operators if that is possible here.

  To be called before torchvision is imported in any other way.
  """
  import torch

  if not hasattr(torch.ops.torchvision, 'nms') and not torch.version.cuda:
    _load_stand_ins()
  try:
    from torchvision import extension
  except (ImportError, RuntimeError):  # no operator torchvision::nms
    return False
  return extension._has_ops()


def torchvision_or_skip():
  """torchvision; skips the module of tests where its operators are absent."""
  pytest.importorskip('torch')
  if not compiled_operators():
    pytest.skip(
      "torchvision's compiled operators do not load", allow_module_level=True
    )
  return importlib.import_module('torchvision')


def _load_stand_ins() -> None:
  """Of the CUDA libraries; nothing where it cannot be done."""
  package = importlib.util.find_spec('torchvision')
  if package is None or package.origin is None:
    return
  operators = pathlib.Path(package.origin).with_name('_C.so')
  if not operators.exists() or not all(map(shutil.which, ('gcc', 'nm'))):
    return
  listed = subprocess.run(
    ['nm', '-D', '--undefined-only', operators],
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  symbols = [line.split()[-1] for line in listed.stdout.splitlines()]
  wanted = [s for s in symbols if '4cuda' in s and '@' not in s]
  source = '\n'.join(f'char {symbol}[64];' for symbol in wanted)
  with tempfile.TemporaryDirectory() as folder:
    for name in _LIBRARIES:
      path = pathlib.Path(folder) / name
      subprocess.run(
        [
          'gcc', '-shared', '-fPIC', f'-Wl,-soname,{name}', '-x', 'c', '-',
          '-o', path,
        ],
        input=source, text=True, check=True,
      )  # fmt: skip
      ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
