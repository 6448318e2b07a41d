"""A state dict pickled by torch -> safetensors, in a process of its own.

  python -m tools.convert_pth weights.pth weights.safetensors

A pickle can run code. torch.load(weights_only=True) allows tensors and plain
containers only; releases before 2.10 had a hole in it and are refused. Memory,
files and processes of this process are limited besides, and nothing of ours is
loaded into it. tools/convert_torch.py starts it for `.pth` files.
"""

import os
import re
import resource
import sys

_MAX_BYTES = 4 << 30
_SPARE_MEMORY = 16 << 30  # address space of torch itself
_OLDEST_TORCH = (2, 10)
_CODE = re.compile(r'(?:GLOBAL|global) (?:GLOBAL )?([\w.]+)')


def main() -> int:
  if len(sys.argv) != 3:
    print(__doc__, file=sys.stderr)
    return 2
  source, target = sys.argv[1:]
  try:
    convert(source, target)
  except KeyboardInterrupt:
    return 130
  except Exception as error:  # whatever a hostile file makes torch raise
    print(f'error: {source}: {_said(error)}', file=sys.stderr)
    return 2
  return 0


def _said(error: Exception) -> str:
  """One line; never torch's advice to load the code after all."""
  if isinstance(error, ValueError | OSError):
    return str(error).splitlines()[0]
  code = _CODE.search(str(error))
  if code:
    return (
      f'holds {code.group(1)}, which is no tensor and not loaded, since it '
      'could run code; save the state dict alone: '
      'torch.save(model.state_dict(), FILE)'
    )
  if isinstance(error, MemoryError):
    return 'its tensors need more memory than a state dict of this size'
  return f'damaged, or not written by torch.save ({type(error).__name__})'


def convert(source: str, target: str) -> None:
  """Reads the tensors of `source` and writes them to `target`."""
  size = os.path.getsize(source)
  if size > _MAX_BYTES:
    raise ValueError(f'{size:,} bytes; at most {_MAX_BYTES:,} are read')
  try:
    import safetensors.torch
    import torch
  except ImportError as error:
    raise ValueError(
      f'reading it needs {error.name}: pip install torch, or save the state '
      'dict as safetensors where it was made'
    ) from None
  version = tuple(int(n) for n in torch.__version__.split('.')[:2])
  if version < _OLDEST_TORCH:
    raise ValueError(f'torch {torch.__version__} is too old, 2.10 is needed')
  _limit(4 * size + _SPARE_MEMORY)
  loaded = torch.load(source, map_location='cpu', weights_only=True)
  for key in ('state_dict', 'model'):  # as training scripts wrap it
    if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
      loaded = loaded[key]
  if not isinstance(loaded, dict):
    raise ValueError(f'holds a {type(loaded).__name__}, not a state dict')
  tensors = {
    str(name).removeprefix('module.'): value.contiguous().clone()
    for name, value in loaded.items()
    if isinstance(value, torch.Tensor)
  }
  if not tensors:
    raise ValueError('holds no tensors')
  safetensors.torch.save_file(tensors, target)


def _limit(memory: int) -> None:
  resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == '__main__':
  sys.exit(main())
