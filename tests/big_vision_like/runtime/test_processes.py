"""Runs of two processes with two fake devices each, over loopback.

Real processes, each forked from one that has all imported.
"""

import json
import pathlib
import re
import shutil
import signal
import socket
import threading
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from big_vision_like.checkpoints import folders, manifest, reading
from big_vision_like.config import settings
from big_vision_like.parallel import mesh
from big_vision_like.runtime import distributed, writers
from configs import common, quickstart
from input_pipeline import pipeline
from tests.configs.test_configs import ROOT
from tests.faults.trainers import free_port

CONFIG = ROOT / 'configs' / 'quickstart.py'
# A rate that does not follow the length: the runs of all tests share a program.
OPTIONS = [
  '--config.log_every_steps=1', '--config.schedule.lr=0.001',
  '--config.schedule.type=constant',
]  # fmt: skip


class World:
  """`num` processes of `python -m main`; their output goes to files."""

  def __init__(
    self,
    trainers,
    num,
    devices,
    folder,
    *options,
    only=None,
    config=f'{CONFIG}:tiny',
    inject=(),
  ):
    self.folder = pathlib.Path(folder)
    self.workdir = self.folder / 'run'
    port = free_port()
    self.processes = {}
    inject = [('no_plot',), *inject]
    for i in range(num) if only is None else only:
      world = [f'--num_processes={num}', f'--process_id={i}']
      world += [f'--coordinator=127.0.0.1:{port}'] if num > 1 else []
      args = [f'--config={config}', f'--workdir={self.workdir}', *OPTIONS]
      self.processes[i] = trainers.start(
        [*args, *options, *(world if num > 1 else world[:1])],
        self.folder / f'out{i}',
        inject=[*inject, ('noted_records', str(self.folder / f'ids{i}'))],
        devices=devices,
      )

  def __enter__(self):
    return self

  def __exit__(self, *error):
    for process in self.processes.values():
      if process.poll() is None:
        process.end()
        process.wait()

  def output(self, i):
    return self.processes[i].output()

  def wait(self, timeout_s=300):
    """Exit codes, by process."""
    deadline = time.monotonic() + timeout_s
    return {
      i: p.wait(max(deadline - time.monotonic(), 1))
      for i, p in self.processes.items()
    }

  def wait_for(self, text, i=0):
    self.processes[i].wait_for(text, timeout_s=300)

  def ids(self):
    """[steps, batch] records of the batches, parts side by side."""
    parts = [np.loadtxt(self.folder / f'ids{i}', int) for i in self.processes]
    return np.concatenate(parts, 1)

  def figures(self, name):
    return {
      m['step']: m[name]
      for m in writers.read_metrics(self.workdir)
      if name in m
    }


def params_of(workdir):
  """Arrays of the newest checkpoint, by name."""
  path = folders.find(workdir)
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  request = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one),
    reading.stored_tree(path, 'params'),
  )
  with ocp.PyTreeCheckpointer() as reader:
    tree = reader.restore(
      path / 'params',
      args=ocp.args.PyTreeRestore(
        item=request,
        restore_args=ocp.checkpoint_utils.construct_restore_args(request),
      ),
    )
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {mesh.path_name(key): np.asarray(x) for key, x in leaves}


@pytest.fixture(scope='module')
def one_process(tmp_path_factory, trainers):
  with World(trainers, 1, 4, tmp_path_factory.mktemp('one')) as world:
    assert world.wait() == {0: 0}, world.output(0)
    yield world


@pytest.mark.slow
def test_two_processes_train_as_one_does(one_process, trainers, tmp_path):
  with World(trainers, 2, 2, tmp_path, '--config.profile.steps=(3,4)') as world:
    assert world.wait() == {0: 0, 1: 0}, world.output(0) + world.output(1)
  np.testing.assert_array_equal(world.ids(), one_process.ids())
  for name in ('train/loss', 'fasteval/map@100', 'fasteval/num_images'):
    ours, expected = world.figures(name), one_process.figures(name)
    assert ours.keys() == expected.keys()
    np.testing.assert_allclose(
      list(ours.values()), list(expected.values()), rtol=1e-5
    )
  assert set(world.figures('fasteval/num_images').values()) == {48}
  a, b = params_of(world.workdir), params_of(one_process.workdir)
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-5)
  assert re.search(r'2 process\(es\).* 4 .*device', world.output(0))
  assert 'step 6/6' not in world.output(1)  # the first one talks
  for i in (0, 1):  # one trace a process
    traces = world.workdir / 'profile' / f'process_{i}'
    assert len(list(traces.rglob('*.xplane.pb'))) == 1
  lines = (world.workdir / 'metrics.jsonl').read_text().splitlines()
  steps = [m['step'] for m in map(json.loads, lines) if 'train/loss' in m]
  assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_two_processes_go_on_from_the_newest_whole_one(
  one_process, trainers, tmp_path
):
  """And every file of both is in the manifest of what they save."""
  shutil.copytree(one_process.workdir, tmp_path / 'run')
  root = tmp_path / 'run' / 'checkpoints'
  next(root.glob('6/params/ocdbt.process_0/d/*')).unlink()
  with World(trainers, 2, 2, tmp_path) as world:
    assert world.wait() == {0: 0, 1: 0}, world.output(0) + world.output(1)
  said = world.output(0)
  assert re.search(r'6 is damaged or incomplete \(params/.* is missing\)', said)
  assert 'resuming from step 4 ' in said
  np.testing.assert_array_equal(world.ids(), one_process.ids()[4:])
  whole, ours = params_of(one_process.workdir), params_of(world.workdir)
  for name in whole:
    np.testing.assert_allclose(ours[name], whole[name], rtol=1e-4, atol=1e-5)
  step = root / '6'
  assert manifest.problems(step) == []
  told = json.loads((step / manifest.FILE).read_text())['content']['files']
  found = {p.relative_to(step).as_posix() for p in step.rglob('*')}
  assert told.keys() <= found
  assert {p.rpartition('_')[2][0] for p in told if 'ocdbt.process' in p} == {
    '0', '1',
  }  # fmt: skip
  file = next(step.glob('params/ocdbt.process_1/d/*'))
  file.write_bytes(file.read_bytes()[:-1] + b'!')
  [problem] = manifest.problems(step)
  assert problem.startswith('params/ocdbt.process_1/d/')


def order_of_records(num_steps):
  """[num_steps, batch] indices, read in this process."""
  config = quickstart.get_config('tiny')
  source = pipeline.open_train(config)
  data = pipeline.train(
    source,
    pipeline.build_ops(config.input.ops, source),
    batch_size=config.input.batch_size,
    seed=config.seed,
  )
  ids = [next(data)['_id'] for _ in range(num_steps)]
  data.close()
  return np.stack(ids)


@pytest.mark.slow
@pytest.mark.parametrize(
  'asked', [pytest.param(0, marks=pytest.mark.nightly), 1]
)
def test_sigterm_to_one_stops_both_and_one_process_goes_on(
  asked, trainers, tmp_path
):
  long = ['--config.ckpt.every_steps=100000']
  long += ['--config.evals.fasteval.every_steps=100000']
  with World(
    trainers, 2, 2, tmp_path, *long, '--config.total_steps=4000'
  ) as world:
    world.wait_for('step 3/')
    world.processes[asked].send(signal.SIGTERM)
    codes = world.wait(120)
  said = [re.findall(r'saved step (\d+)', world.output(i)) for i in (0, 1)]
  assert codes == {0: 143, 1: 143}, world.output(0) + world.output(1)
  assert said[0] == said[1] != []
  assert folders.find(world.workdir).name == said[0][0]
  step = int(said[0][0])
  expected = order_of_records(step + 3)
  np.testing.assert_array_equal(world.ids()[:step], expected[:step])
  if asked == 0:
    return
  saved = params_of(world.workdir)
  (tmp_path / 'ids0').unlink()
  length = f'--config.total_steps={step + 3}'
  with World(trainers, 1, 4, tmp_path, *long, length) as again:
    assert again.wait() == {0: 0}, again.output(0)
  assert f'resuming from step {step}' in again.output(0)
  np.testing.assert_array_equal(again.ids(), expected[step:])
  assert params_of(world.workdir).keys() == saved.keys()
  assert np.isfinite(list(again.figures('train/loss').values())).all()


@pytest.mark.slow
@pytest.mark.nightly
def test_sigterm_inside_an_evaluation_of_two_processes(trainers, tmp_path):
  config = quickstart.get_config('tiny')
  with config.unlocked():
    config.evals.fasteval.data.num_images = 20_000
    config.evals.fasteval.every_steps = 2
  path = tmp_path / 'config.json'
  path.write_text(config.to_json())
  long = ['--config.ckpt.every_steps=100000', '--config.total_steps=4000']
  with World(trainers, 2, 2, tmp_path, *long, config=path) as world:
    world.wait_for('[eval] step 0')
    world.wait_for('step 2/')
    time.sleep(1)
    world.processes[1].send(signal.SIGTERM)
    codes = world.wait(120)
    assert codes == {0: 143, 1: 143}, world.output(0) + world.output(1)
    for i in (0, 1):
      assert 'saved step 2' in world.output(i)
    assert '[eval] step 2' not in world.output(0)


@pytest.mark.slow
@pytest.mark.nightly
def test_sigterm_to_one_of_two_that_evaluate(one_process, trainers, tmp_path):
  config = quickstart.get_config('tiny')
  with config.unlocked():
    config.evals.fasteval.data.num_images = 200_000
  path = tmp_path / 'config.json'
  path.write_text(config.to_json())
  shutil.copytree(one_process.workdir, tmp_path / 'run')
  with World(trainers, 2, 2, tmp_path, '--mode=eval', config=path) as world:
    world.wait_for('evaluating ')
    time.sleep(3)
    world.processes[1].send(signal.SIGTERM)
    codes = world.wait(60)
    assert codes == {0: 75, 1: 75}, world.output(0) + world.output(1)
    assert not (world.workdir / 'eval.jsonl').read_text()


@pytest.mark.slow
def test_a_hung_process_ends_the_other_with_its_name(trainers, tmp_path):
  long = ['--config.total_steps=4000', '--config.train.step_timeout_s=20']
  with World(trainers, 2, 2, tmp_path, *long) as world:
    world.wait_for('step 5/')
    world.processes[1].send(signal.SIGSTOP)
    assert world.processes[0].wait(120) == 1, world.output(0)
    said = world.output(0)
  assert 'takes longer than 20 s' in said
  assert 'train.step_timeout_s' in said
  assert re.search(r'process 1: step \d+, no sign of life', said)
  assert 'Thread 0x' in said  # the stacks


@pytest.mark.slow
def test_a_missing_process_is_named_by_those_who_came(trainers, tmp_path):
  with World(
    trainers, 3, 1, tmp_path, '--start_timeout_s=6', only=(0, 2)
  ) as world:
    assert world.wait(60) == {0: 1, 2: 1}
  for i in (0, 2):
    said = world.output(i)
    assert '2 of 3 processes came in time; missing: 1' in said
    assert f'0: {socket.gethostname()} pid {world.processes[0].pid}' in said
    assert f'2: {socket.gethostname()} pid {world.processes[2].pid}' in said


def test_without_a_first_process_the_others_say_so():
  begun = time.monotonic()
  with pytest.raises(TimeoutError, match=r'process 1 did not reach process 0'):
    distributed.roll_call(f'127.0.0.1:{free_port()}', 2, 1, 0.5)
  assert time.monotonic() - begun < distributed._GRACE_S


def test_roll_call_lets_all_go_and_frees_the_port():
  port, gone = free_port(), []

  def call(i):
    distributed.roll_call(f'127.0.0.1:{port}', 4, i, 20)
    gone.append(i)

  threads = [threading.Thread(target=call, args=(i,)) for i in (3, 1, 0, 2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join(30)
  assert sorted(gone) == [0, 1, 2, 3]
  distributed._listen(port).close()


@pytest.mark.parametrize(
  'arguments, words',
  [
    (('127.0.0.1:1', None, None), 'belong together'),
    (('127.0.0.1:1', 2, 2), '--process_id=2 must be 0 to 1'),
    (('127.0.0.1:1', 0, 0), '--num_processes=0 must be at least 1'),
    (('nowhere', 2, 1), 'must be host:port'),
    (('host:99999', 2, 1), 'must be host:port'),
  ],
)
def test_flags_that_do_not_fit_are_refused(arguments, words):
  with pytest.raises(ValueError, match=words):
    distributed.initialize(*arguments)


def test_a_config_that_wants_an_accelerator_never_falls_to_the_cpu():
  distributed.check_platform('any')
  distributed.check_platform('cpu')
  for wanted in ('gpu', 'tpu', 'accelerator'):
    with pytest.raises(ValueError, match=rf"config.device='{wanted}'.*'cpu'"):
      distributed.check_platform(wanted)
  config = common.base()
  config.device = 'cuda'
  with pytest.raises(ValueError, match="device='cuda'; valid: any, cpu"):
    settings.complete(config)
