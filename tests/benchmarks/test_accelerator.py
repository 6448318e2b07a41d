"""The sweep with contestants that only count memory; a real run on the CPU."""

import pytest

from benchmarks import accelerator, device_ceilings, roofline, train_step
from benchmarks.train_step_kernels import Net

MEMORY = 1000
PER_IMAGE = {'ours': 2, 'flax': 3}


class Fake:
  """Takes memory while it lives; the images of a step take a second."""

  in_use = 0
  starts: tuple = ()

  def __init__(self, name, args):
    self.name = name
    self.peak_bytes = PER_IMAGE[name] * args.batch
    self.seconds = []
    Fake.starts += ((name, args.batch),)
    if Fake.in_use + self.peak_bytes > MEMORY:
      raise train_step.OutOfMemory(name)
    Fake.in_use += self.peak_bytes

  def run_round(self):
    self.seconds.append(1.0)

  def close(self):
    Fake.in_use -= self.peak_bytes


@pytest.fixture(autouse=True)
def no_memory_in_use():
  Fake.in_use, Fake.starts = 0, ()


def parse(text):
  return accelerator.parse(text.split())


def sweep(memory_bytes, first=64):
  args = parse(f'--first_batch {first} --contestants ours flax --rounds 3')
  runs = list(accelerator.sweep(args, 50, 224, memory_bytes, Fake))
  assert Fake.in_use == 0  # all were closed
  return {b: {n: o.how for n, o in found.items()} for b, found in runs}


EXPECTED = {
  64: {'ours': 'in turns', 'flax': 'in turns'},  # 320 of 1000
  128: {'ours': 'in turns', 'flax': 'in turns'},  # 640
  256: {'ours': 'alone', 'flax': 'alone'},  # 1280, but 512 and 768
  512: {'ours': 'out of memory', 'flax': 'out of memory'},
}


def test_sweep_doubles_until_nobody_fits():
  assert sweep(None) == EXPECTED
  assert ('flax', 1024) not in Fake.starts


def test_known_memory_saves_a_start_that_cannot_fit():
  assert sweep(MEMORY) == EXPECTED
  assert Fake.starts.count(('ours', 256)) == 1
  Fake.starts = ()
  sweep(None)
  assert Fake.starts.count(('ours', 256)) == 2


def test_who_does_not_fit_stays_out():
  assert sweep(None, first=300) == {
    300: {'ours': 'alone', 'flax': 'alone'},
    600: {'ours': 'out of memory', 'flax': 'out of memory'},
  }
  assert sweep(None, first=400) == {
    400: {'ours': 'alone', 'flax': 'out of memory'},
    800: {'ours': 'out of memory'},
  }


def test_a_failure_is_told_from_missing_memory():
  class Broken(Fake):
    def __init__(self, name, args):
      super().__init__(name, args)
      if name == 'flax':
        self.close()
        raise RuntimeError('no such library')

  args = train_step.parse(['--batch', '4', '--rounds', '2'])
  found = accelerator.measure(['ours', 'flax'], args, start=Broken)
  assert found['flax'] == accelerator.Outcome('failed')
  assert found['ours'] == accelerator.Outcome('alone', (1.0, 1.0), 8)
  assert Fake.in_use == 0


@pytest.mark.parametrize(
  ('error', 'expected'),
  [
    (
      RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes'),
      True,
    ),
    (RuntimeError('CUDA out of memory. Tried to allocate 2 GiB'), True),
    (MemoryError(), True),
    (RuntimeError('INVALID_ARGUMENT: shapes'), False),
    (ModuleNotFoundError("No module named 'timm'"), False),
  ],
)
def test_errors_of_memory_are_recognised(error, expected):
  assert train_step.is_out_of_memory(error) is expected


def test_rows_by_hand(monkeypatch):
  kernel = accelerator.Kernel('a', 'b', 'forward', 2e9, 1e9)
  monkeypatch.setattr(accelerator, 'kernels', lambda net: [kernel])
  machine = roofline.Machine(1e12, 250e9)  # 2 ms and 4 ms an image
  outcomes = {
    'ours': accelerator.Outcome('alone', (0.08, 0.1, 0.2), 3 * 2**29),
    'flax': accelerator.Outcome('alone', (0.2,), 2**30),
    'torch': accelerator.Outcome('out of memory'),
  }
  found = accelerator.rows(Net(50, 224, 10), outcomes, machine)
  start = '| ResNet-50 at 224 | 10 | '
  assert found[0] == (
    f'{start}ours | alone | 100 | 50 .. 125 | 1.00 | 1.5 | 20% | 40% | 40% |'
  )
  assert found[1] == (
    f'{start}flax | alone | 50 | 50 .. 50 | 2.00 | 1.0 | 10% | 20% | 20% |'
  )
  assert found[2] == f'{start}torch | out of memory |' + '  |' * 7
  columns = {line.count('|') for line in [*found, *accelerator._HEADER]}
  assert columns == {12}


class FakeDetector(Fake):
  """Steps of a second an image; three fit, or nine at inference."""

  def __init__(self, name, args):
    self.name, self.batch = name, args.batch
    self.peak_bytes = args.batch * 2**30
    self.seconds = []
    if args.batch > {'ours': 3, 'ours-inference': 9}[name]:
      raise train_step.OutOfMemory(name)

  def run_round(self):
    self.seconds.append(float(self.batch))

  def close(self):
    pass


def test_the_detector_has_rows_of_its_own():
  args = parse('--rounds 2 --preset paper')
  found = list(accelerator.detection_sweep(args, FakeDetector))
  assert [step.batch for step, _ in found] == [1, 2, 4, 8, 16]
  assert [{*outcomes} for _, outcomes in found] == [
    *[{'ours', 'ours-inference'}] * 3, *[{'ours-inference'}] * 2,
  ]  # fmt: skip
  machine = roofline.Machine(15.84e12, 1e12)
  step, outcomes = found[1]
  assert (step.height, step.width, step.dtype) == (600, 1024, 'bfloat16')
  start = '| Faster R-CNN, ResNet-101 at 600x1024, paper | 2 | '
  assert accelerator.detection_rows(step, outcomes, machine) == [
    f'{start}train step | alone | 1 | 1 .. 1 |  | 2.0 | 10% |  |  |',
    f'{start}inference | alone | 1 | 1 .. 1 |  | 2.0 |  |  |  |',
  ]
  step, outcomes = found[2]
  lost, kept = accelerator.detection_rows(step, outcomes, machine)
  assert '| train step | out of memory |' in lost
  assert {row.count('|') for row in (lost, kept)} == {12}


def test_bad_nets_are_refused(capsys):
  for text in ('50:600x1024x3', '15:60x60', '101'):
    with pytest.raises(SystemExit):
      parse(f'--detector {text}')
    assert 'is not like 101:600x1024' in capsys.readouterr().err
  for text in ('50', '51:224', '50:big'):
    with pytest.raises(SystemExit):
      parse(f'--nets {text}')
    assert 'is not like 101:299' in capsys.readouterr().err


@pytest.mark.slow
def test_ceilings_are_of_this_machine():
  found = device_ceilings.measure_apart('cpu', (64, 256), (4,))
  assert found['device'] == 'cpu'
  assert 1e8 < found['flops_per_s'] < 1e14
  assert 1e8 < found['bytes_per_s'] < 1e13


@pytest.mark.slow
@pytest.mark.nightly
def test_run_on_the_cpu(tmp_path, capsys):
  output = tmp_path / 'table.md'
  options = '--device cpu --nets 50:32 --first_batch 2 --last_batch 2'
  options += ' --detector 14:64x64'
  options += f' --contestants ours torch --rounds 1 --steps 1 --output {output}'
  assert accelerator.main(options.split()) == 0
  text = capsys.readouterr().out
  assert output.read_text() == text.removesuffix('\n')
  lines = [s.split(' | ') for s in text.splitlines() if s[:8] == '| ResNet']
  assert [cells[2:4] for cells in lines] == [
    ['ours', 'in turns'],
    ['torch', 'in turns'],
  ]
  for cells in lines:
    assert float(cells[4]) > 0 and float(cells[7]) > 0.1
  detector = [s for s in text.splitlines() if s[:8] == '| Faster']
  assert [row.split(' | ')[2:4] for row in detector] == [
    ['train step', 'alone'],
    ['inference', 'alone'],
  ] * 2  # of one image and of two
