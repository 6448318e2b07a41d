"""Speed and memory of the class-partitioned head against dense targets.

Loss and gradients (features, kernel, bias) of the final layer, ours from label
ids with logits split over the mesh's 'model' axis, against the usual way: one
multi-hot [batch, classes] target built on the host, transferred, and
optax.sigmoid_binary_cross_entropy on the same JAX. A dense step's time includes
making and moving its targets, ours making and moving its ids.

  python -m benchmarks.head --output benchmarks/results/head.md

Memory is the compiled program's own account per device (arguments, outputs and
temporaries); cases above --run_limit_gib are compiled but not run.
"""

import argparse
import contextlib
import dataclasses
import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

LABELS = 8  # ids a row, padded with -1
GIB = 2**30
MIB = 2**20
HEADER = (
  '| classes | batch | mesh (data, model) | head | ms, median (quartiles) '
  '| time / dense | MiB per device | of it temporaries | memory / dense '
  '| memory / model = 1 |',
  '|---|---|---|---|---|---|---|---|---|---|',
)


@dataclasses.dataclass(frozen=True)
class Case:
  """One line of the table."""

  features: int
  classes: int
  batch: int
  data: int
  model: int
  kind: str  # 'sparse' (ours) or 'dense'


def cases(
  features: int, sizes: list[int], batches: list[int], devices: int
) -> list[Case]:
  """Ours on (1, 1) or every split of `devices`; dense is data-parallel."""
  meshes = [(devices // m, m) for m in (1, 2, 4, 8) if m <= devices]
  return [
    Case(features, classes, batch, *mesh, kind)
    for classes in sizes
    for batch in batches
    for kind, chosen in (('dense', meshes[:1]), ('sparse', meshes))
    for mesh in chosen
  ]


def build(case: Case):
  """(compiled step, function that makes its arguments on the device)."""
  import jax
  import jax.numpy as jnp
  import numpy as np
  import optax
  from jax.sharding import AxisType, NamedSharding
  from jax.sharding import PartitionSpec as P

  from big_vision_like.losses import classification
  from big_vision_like.models.parts import heads
  from big_vision_like.parallel import constraints

  mesh = jax.make_mesh(
    (case.data, case.model),
    ('data', 'model'),
    axis_types=(AxisType.Auto,) * 2,
  )
  multiple = case.model if case.kind == 'sparse' else 1
  width = heads.padded_classes(case.classes, multiple)
  head = heads.ClassifierHead(case.classes, class_multiple=multiple)
  named = lambda *spec: NamedSharding(mesh, P(*spec))
  kernel_spec, bias_spec = named(None, 'model'), named('model')
  params_spec = {'kernel': kernel_spec, 'bias': bias_spec}
  rows = named(constraints.BATCH)

  def sparse(features, params, ids):
    logits = head.apply({'params': params}, features)
    return classification.sigmoid_sparse(logits, ids, case.classes).mean()

  def dense(features, params, targets):
    logits = features @ params['kernel'] + params['bias']
    loss = optax.sigmoid_binary_cross_entropy(logits, targets)
    return loss.sum(axis=1).mean()

  step = jax.jit(
    jax.value_and_grad(
      sparse if case.kind == 'sparse' else dense, argnums=(0, 1)
    ),
    in_shardings=(rows, params_spec, rows),
    out_shardings=(named(), (rows, params_spec)),
  )
  f32 = jnp.float32
  label_shape = (
    jax.ShapeDtypeStruct((case.batch, LABELS), jnp.int32)
    if case.kind == 'sparse'
    else jax.ShapeDtypeStruct((case.batch, width), f32)
  )
  params_shape = {
    'kernel': jax.ShapeDtypeStruct((case.features, width), f32),
    'bias': jax.ShapeDtypeStruct((width,), f32),
  }
  with jax.set_mesh(mesh):
    compiled = step.lower(
      jax.ShapeDtypeStruct((case.batch, case.features), f32),
      params_shape,
      label_shape,
    ).compile()

  def arguments():
    """Fixed features and params, and a function that makes the labels."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(case.batch, case.features)).astype(np.float32)
    place = jax.jit(
      lambda key: {
        'kernel': 0.03 * jax.random.normal(key, (case.features, width)),
        'bias': jnp.zeros((width,)),
      },
      out_shardings=params_spec,
    )

    def labels():
      ids = rng.integers(0, case.classes, (case.batch, LABELS), np.int32)
      ids[:, 4:] = -1
      if case.kind == 'sparse':
        return jax.device_put(ids, rows)
      targets = np.zeros((case.batch, width), np.float32)
      targets[np.arange(case.batch)[:, None], ids[:, :4]] = 1
      return jax.device_put(targets, rows)

    return (
      jax.device_put(features, rows),
      place(jax.random.key(0)),
      labels,
    )

  return compiled, arguments


def measure(block: list[Case], repeats: int, limit: float) -> list[dict]:
  """Times (ms) and bytes per device of cases that are compared.

  They run in turns, so that what else the machine does slows all of them.
  """
  rows, runs = [], []
  for case in block:
    compiled, arguments = build(case)
    memory = compiled.memory_analysis()
    temporaries = memory.temp_size_in_bytes
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes
    total += temporaries
    row = dict(case=case, total=total, temporaries=temporaries, times=None)
    rows.append(row)
    if total * case.data * case.model <= limit * GIB:
      row['times'] = []
      runs.append((row['times'], compiled, *arguments()))
  for turn in range(repeats + 1):
    for times, compiled, features, params, labels in runs:
      elapsed = _time_step(compiled, features, params, labels)
      if turn:  # the first one touches new memory
        times.append(elapsed)
  return rows


def _time_step(compiled, features, params, labels) -> float:
  """Milliseconds of one step, its labels included."""
  import jax

  start = time.perf_counter()
  jax.block_until_ready(compiled(features, params, labels()))
  return (time.perf_counter() - start) * 1e3


def table(rows: list[dict]) -> list[str]:
  """Markdown lines of a block; ratios are to its dense line."""
  lines = []
  dense: dict = {}
  whole: dict = {}  # ours with the classes in one piece
  for row in rows:
    case = row['case']
    if case.kind == 'dense':
      dense = row
    elif case.model == 1:
      whole = row
    timing, ratio = _timing(row['times'], dense['times'])
    share = (
      f'{row["total"] / whole["total"]:.3f}' if case.kind == 'sparse' else ''
    )
    lines.append(
      f'| {case.classes:,} | {case.batch:,} | ({case.data}, {case.model}) '
      f'| {case.kind} | {timing} | {ratio} | {row["total"] / MIB:,.0f} '
      f'| {row["temporaries"] / MIB:,.0f} '
      f'| {row["total"] / dense["total"]:.3f} | {share} |'
    )
  return lines


def _timing(
  times: list[float] | None, dense: list[float] | None
) -> tuple[str, str]:
  """'median (quartiles)' and the ratio to the dense median, where run."""
  if times is None:
    return 'compiled only', ''
  low, middle, high = statistics.quantiles(times, n=4)
  ratio = f'{middle / statistics.median(dense):.2f}' if dense else ''
  return f'{middle:.0f} ({low:.0f}-{high:.0f})', ratio


def one_process(
  features: int, devices: int, args: argparse.Namespace
) -> Iterator[str]:
  """The table for a number of devices, from a process of its own."""
  env = dict(os.environ)
  if not args.real_devices:
    env['JAX_PLATFORMS'] = 'cpu'
    env['XLA_FLAGS'] = f'--xla_force_host_platform_device_count={devices}'
  command = [sys.executable, '-m', 'benchmarks.head', f'--worker={devices}']
  command += [f'--features={features}', f'--repeats={args.repeats}']
  command += [f'--run_limit_gib={args.run_limit_gib}']
  command += ['--classes', *map(str, args.classes)]
  command += ['--batches', *map(str, args.batches)]
  with subprocess.Popen(
    command, env=env, stdout=subprocess.PIPE, text=True
  ) as worker:
    assert worker.stdout is not None
    yield from (line.rstrip() for line in worker.stdout)
  if worker.returncode:
    raise subprocess.CalledProcessError(worker.returncode, command)


def machine() -> str:
  from importlib import metadata

  name = platform.processor() or platform.machine()
  if os.path.exists('/proc/cpuinfo'):
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      models = [x.split(':')[1].strip() for x in file if 'model name' in x]
    name = models[0] if models else name
  packages = ('jax', 'flax', 'optax', 'numpy')
  versions = ', '.join(f'{p} {metadata.version(p)}' for p in packages)
  return (
    f'{name}, {os.cpu_count()} cores; Python {platform.python_version()}, '
    f'{versions}; {datetime.date.today()}.'
  )


def report(args: argparse.Namespace) -> Iterator[str]:
  """Lines of the report, as soon as they are known."""
  command = ' '.join(['python -m benchmarks.head', *sys.argv[1:]])
  yield from [
    '# Head: loss and gradients, label ids against dense targets',
    '',
    f'Machine: {machine()}',
    '',
    f'Command: `{command}`',
    '',
    'All float32. `sparse` is the head and loss of this project, `dense` '
    'multi-hot targets with optax on the same JAX and devices, '
    'data-parallel. A time is one whole step with its labels made and '
    f'transferred, over {args.repeats} steps, the lines of a block in turns. '
    "Memory: XLA's account of arguments, outputs and temporaries on one "
    'device; temporaries with the logits fall with the number of devices, '
    'whatever the mesh, all else with `model`. `compiled only`: all '
    f'devices together would need more than {args.run_limit_gib:g} GiB.',
  ]
  kind = 'device(s)' if args.real_devices else 'fake CPU device(s)'
  for features in args.features:
    for devices in args.devices:
      yield from ['', f'## {features} features, {devices} {kind}', '']
      yield from one_process(features, devices, args)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--devices', type=int, nargs='+', default=[1, 8])
  parser.add_argument(
    '--classes', type=int, nargs='+', default=[18_291, 100_000, 1_000_000]
  )
  parser.add_argument('--batches', type=int, nargs='+', default=[256, 1024])
  parser.add_argument('--features', type=int, nargs='+', default=[2048, 256])
  parser.add_argument('--repeats', type=int, default=7)
  parser.add_argument('--run_limit_gib', type=float, default=6.0)
  parser.add_argument('--real_devices', action='store_true')
  parser.add_argument('--output', help='file for the report; default: stdout')
  parser.add_argument('--worker', type=int, help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.worker:
    chosen = cases(args.features[0], args.classes, args.batches, args.worker)
    size = len({(case.kind, case.model) for case in chosen})
    print('\n'.join(HEADER), flush=True)
    for start in range(0, len(chosen), size):
      block = chosen[start : start + size]
      rows = measure(block, args.repeats, args.run_limit_gib)
      print('\n'.join(table(rows)), flush=True)
    return
  with contextlib.ExitStack() as stack:
    file = sys.stdout
    if args.output:
      file = stack.enter_context(open(args.output, 'w', encoding='utf-8'))
    for line in report(args):
      print(line, file=file, flush=True)


if __name__ == '__main__':
  main()
