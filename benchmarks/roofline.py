"""What a train step of ResNet could reach: arithmetic, bytes, roofline.

The roofline model (Williams et al. 2009) gives a kernel max(operations / peak,
bytes / bandwidth) seconds; the sum over the kernels of a train step bounds its
images per second. benchmarks/train_step_kernels.py says what counts as one
kernel, and what it reads and writes; a compiler that fuses more than that can
do better than the bound. Nothing is measured here: the ceilings are options.

  python -m benchmarks.roofline
  python -m benchmarks.roofline --depth 50 --size 224 --batch 256 --layers
  python -m benchmarks.roofline --peak_tflops 312 --bandwidth_gb_s 2039
"""

import argparse
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.train_step_kernels import Kernel, Net, kernels
from big_vision_like.models import resnet

# NVIDIA's data sheet of the H200 SXM: bfloat16 without sparsity, HBM3e.
H200_TFLOPS = 989.0
H200_GB_S = 4800.0


class Machine(NamedTuple):
  """Ceilings of a device."""

  flops_per_s: float
  bytes_per_s: float

  @property
  def balance(self) -> float:
    """FLOPs per byte below which a kernel is bound by memory."""
    return self.flops_per_s / self.bytes_per_s


def is_memory_bound(kernel: Kernel, machine: Machine) -> bool:
  """Whether moving the bytes takes longer than the arithmetic."""
  return kernel.flops < kernel.bytes * machine.balance


def seconds(work: Iterable[Kernel], machine: Machine) -> float:
  """Roofline's time per image of the kernels, one after the other."""
  return sum(
    max(k.flops / machine.flops_per_s, k.bytes / machine.bytes_per_s)
    for k in work
  )


def images_per_s(work: Iterable[Kernel], machine: Machine) -> float:
  """The rate that the roofline allows."""
  return 1 / seconds(work, machine)


def memory_share(work: Sequence[Kernel], machine: Machine) -> float:
  """Share of the roofline's time that is bound by memory."""
  bound = [k for k in work if is_memory_bound(k, machine)]
  return seconds(bound, machine) / seconds(work, machine)


def table(work: Sequence[Kernel], machine: Machine, key: str) -> str:
  """Markdown: one row for each value of `key`, 'kind' or 'layer'."""
  total = seconds(work, machine)
  lines = [
    f'| {key} | GFLOP, forward | GFLOP, backward and update | MB, forward '
    '| MB, backward and update | FLOP/byte | time, share '
    '| of it memory-bound |',
    '|---|---|---|---|---|---|---|---|',
  ]
  groups: dict[str, list[Kernel]] = {}
  for kernel in work:
    groups.setdefault(getattr(kernel, key), []).append(kernel)
  for name, group in [*groups.items(), ('**sum**', list(work))]:
    ahead = [k for k in group if k.step == 'forward']
    back = [k for k in group if k.step != 'forward']
    flops = [sum(k.flops for k in part) for part in (ahead, back)]
    moved = [sum(k.bytes for k in part) for part in (ahead, back)]
    intensity = sum(flops) / sum(moved)
    lines.append(
      f'| {name} | {flops[0] / 1e9:.3f} | {flops[1] / 1e9:.3f} '
      f'| {moved[0] / 1e6:.2f} | {moved[1] / 1e6:.2f} | {intensity:.1f} '
      f'| {seconds(group, machine) / total:.1%} '
      f'| {memory_share(group, machine):.0%} |'
    )
  return '\n'.join(lines)


def report(net: Net, machine: Machine, by_layer: bool = False) -> str:
  """The whole analysis as Markdown."""
  work = kernels(net)
  compute = sum(k.flops for k in work) / machine.flops_per_s
  traffic = sum(k.bytes for k in work) / machine.bytes_per_s
  return '\n'.join(
    [
      f'ResNet-{net.depth} at {net.size}, {net.classes:,} classes, batch '
      f'{net.batch}, {net.dtype}; {machine.flops_per_s / 1e12:.4g} TFLOP/s, '
      f'{machine.bytes_per_s / 1e9:.4g} GB/s: a kernel below '
      f'{machine.balance:.0f} FLOP/byte is bound by memory. Per image:',
      '',
      table(work, machine, 'layer' if by_layer else 'kind'),
      '',
      f'Bound by the roofline: {images_per_s(work, machine):,.0f} images/s, '
      f'{memory_share(work, machine):.0%} of the time bound by memory '
      f'(arithmetic alone: {1 / compute:,.0f}, traffic alone: '
      f'{1 / traffic:,.0f} images/s).',
    ]
  )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  default = Net()
  add('--depth', type=int, default=default.depth, choices=resnet.UNITS)
  add('--size', type=int, default=default.size, help='pixels')
  add('--batch', type=int, default=default.batch, help='on the device')
  add('--dtype', default=default.dtype, choices=('float32', 'bfloat16'))
  add('--stride_in', default=default.stride_in)
  add('--classes', type=int, default=default.classes)
  add('--peak_tflops', type=float, default=H200_TFLOPS, help='%(default)s')
  add('--bandwidth_gb_s', type=float, default=H200_GB_S, help='%(default)s')
  add('--layers', action='store_true', help='a row for every layer')
  return parser.parse_args(argv)


def main() -> None:
  args = parse()
  net = Net(*(getattr(args, name) for name in Net._fields))
  machine = Machine(args.peak_tflops * 1e12, args.bandwidth_gb_s * 1e9)
  print(report(net, machine, args.layers))


if __name__ == '__main__':
  main()
