"""What a device reaches at best: matrix product and copy.

The ceilings of benchmarks/roofline.py, measured: the fastest of square bfloat16
products, which accumulate in float32, and of passes that read an array and
write another (both counted). Data sheets promise more than either.

  python -m benchmarks.device_ceilings
  python -m benchmarks.device_ceilings --device cpu --sides 512 --mib 64
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

SIDES = (4096, 8192, 16_384)
MIB = (512, 1024, 2048)
_ROUNDS = 5
_ROUND_S = 0.1  # shortest round
_MARK = 'device_ceilings:'


def measure(sides: Sequence[int], mib: Sequence[int]) -> dict[str, Any]:
  """Ceilings of jax's first device, in this process.

  Args:
    sides: of the square matrices.
    mib: sizes of the arrays that are copied.

  Returns:
    'device', 'flops_per_s', 'bytes_per_s', and 'memory_bytes' (None where jax
    does not tell).
  """
  import jax
  import jax.numpy as jnp

  def product_rate(side: int) -> float:
    key = jax.random.key(0)
    make = jax.jit(lambda k: jax.random.normal(k, (side, side), jnp.bfloat16))
    left, right = make(key), make(key) / side**0.5  # powers stay bounded
    product = jax.jit(lambda x: (x @ right).astype(jnp.bfloat16))
    return 2 * side**3 / _fastest(product, left)

  def copy_rate(size: int) -> float:
    negative = jax.jit(lambda x: -x)
    array = jnp.ones(size * 2**20 // 4, jnp.float32)
    return 2 * array.nbytes / _fastest(negative, array)

  device = jax.local_devices()[0]
  stats = device.memory_stats() or {}
  return {
    'device': device.device_kind,
    'flops_per_s': max(product_rate(side) for side in sides),
    'bytes_per_s': max(copy_rate(size) for size in mib),
    'memory_bytes': stats.get('bytes_limit'),
  }


def _fastest(function: Callable[[Any], Any], x: Any) -> float:
  """Seconds of a call in the fastest of several rounds of calls in a row."""
  import jax

  def seconds(calls: int) -> float:
    y = x
    start = time.perf_counter()
    for _ in range(calls):
      y = function(y)
    jax.block_until_ready(y)
    return time.perf_counter() - start

  seconds(2)  # compiles and warms up
  calls = 1
  while seconds(calls) < _ROUND_S:
    calls *= 2
  return min(seconds(calls) for _ in range(_ROUNDS)) / calls


def measure_apart(
  device: str, sides: Sequence[int], mib: Sequence[int]
) -> dict[str, Any]:
  """`measure` in a process of its own, which leaves no memory taken.

  Args:
    device: 'cpu' or 'gpu'.
    sides: see `measure`.
    mib: see `measure`.

  Raises:
    RuntimeError: the process failed; its message is on stderr.
  """
  platforms = 'cuda' if device == 'gpu' else 'cpu'
  command = [sys.executable, '-m', 'benchmarks.device_ceilings', '--here']
  command += ['--sides', *map(str, sides), '--mib', *map(str, mib)]
  done = subprocess.run(
    command,
    env={**os.environ, 'JAX_PLATFORMS': platforms},
    stdout=subprocess.PIPE,
    text=True,
  )
  for line in done.stdout.splitlines():
    if line.startswith(_MARK):
      return json.loads(line.removeprefix(_MARK))
  raise RuntimeError('device_ceilings ended early: see its message above')


def describe(ceilings: dict[str, Any]) -> str:
  """One line."""
  return (
    f'{ceilings["device"]}: bfloat16 product '
    f'{ceilings["flops_per_s"] / 1e12:.4g} TFLOP/s, copy '
    f'{ceilings["bytes_per_s"] / 1e9:.4g} GB/s'
  )


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--device', default='gpu', choices=('cpu', 'gpu'))
  add('--sides', type=int, nargs='+', default=SIDES, help='of the matrices')
  add('--mib', type=int, nargs='+', default=MIB, help='sizes of the copies')
  add('--here', action='store_true', help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.here:
    print(_MARK, json.dumps(measure(args.sides, args.mib)), flush=True)
  else:
    print(describe(measure_apart(args.device, args.sides, args.mib)))


if __name__ == '__main__':
  main()
