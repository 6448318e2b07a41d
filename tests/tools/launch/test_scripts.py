"""The launch scripts with stand-ins for gcloud, srun, nvidia-smi and python."""

import os
import pathlib
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

SCRIPTS = ROOT / 'tools' / 'launch'
pytestmark = pytest.mark.skipif(not shutil.which('bash'), reason='no bash')


class Host:
  """Runs a script with the given programs first on PATH."""

  def __init__(self, folder: pathlib.Path):
    self._bin = folder / 'bin'
    self._bin.mkdir()
    self.program('python', 'printf "%s\\n" main: "$@"')

  def program(self, name, text):
    path = self._bin / name
    path.write_text(f'#!/bin/bash\n{text}\n')
    path.chmod(0o755)

  def __call__(self, script, *args, path=None, **environ):
    found = subprocess.run(
      ['/bin/bash', SCRIPTS / script, *args],
      env={
        'PATH': path or f'{self._bin}:{os.environ["PATH"]}',
        'PYTHON': str(self._bin / 'python'),
        'SLURM_SUBMIT_DIR': str(ROOT),
        **environ,
      },
      capture_output=True,
      text=True,
      timeout=60,
    )
    return found.returncode, found.stdout.splitlines(), found.stderr


@pytest.fixture
def host(tmp_path):
  return Host(tmp_path)


ARGS = ('--config=c.py:a=1', '--workdir=a folder')


def test_gpu_host_starts_one_process(host):
  host.program('nvidia-smi', 'echo "0, H200, 143771 MiB"')
  code, out, _ = host('gpu_host.sh', *ARGS)
  assert code == 0
  assert out == [
    '0, H200, 143771 MiB', 'main:', '-m', 'main', *ARGS,
    '--config.device=gpu', '--num_processes=1',
  ]  # fmt: skip


def test_gpu_host_refuses_a_host_without_driver_and_missing_arguments(host):
  code, out, err = host('gpu_host.sh')
  assert (code, out) == (2, []) and "main's arguments" in err
  if not shutil.which('nvidia-smi'):
    code, out, err = host('gpu_host.sh', *ARGS)
    assert (code, out) == (2, []) and 'driver' in err


@pytest.fixture
def slurm(host):
  """Two nodes of a job; srun takes the exit code of the last task."""
  host.program('scontrol', '[ $1 = show ] && printf "n7\\nn8\\n" || echo "$@"')
  host.program(
    'srun',
    'while [ "${1:0:2}" = -- ]; do shift; done\n'
    'for i in 0 1; do SLURM_PROCID=$i "$@"; done',
  )

  def run(**environ):
    return host(
      'slurm.sh',
      *ARGS,
      SLURM_JOB_ID='1234567',
      SLURM_JOB_NODELIST='n[7-8]',
      SLURM_NTASKS='2',
      **environ,
    )

  return run


def test_slurm_starts_a_process_a_node(slurm):
  code, out, _ = slurm()
  flags = ['--config.device=gpu', '--coordinator=n7:24567', '--num_processes=2']
  one = ['main:', '-m', 'main', *ARGS, *flags]
  assert code == 0
  assert out == [*one, '--process_id=0', *one, '--process_id=1']


def test_slurm_queues_a_stopped_job_again(host, slurm):
  host.program('python', 'exit 143')
  assert slurm()[:2] == (143, ['requeue 1234567'])
  assert slurm(REQUEUE='0')[:2] == (143, [])
  host.program('python', 'exit 1')
  assert slurm()[:2] == (1, [])


def test_tpu_pod_starts_a_process_on_every_host(host):
  # Runs the command line as ssh would, in a home folder of its own.
  home = host._bin.parent / 'home'
  (home / 'big_vision_like' / '.venv' / 'bin').mkdir(parents=True)
  shutil.copy(host._bin / 'python', home / 'big_vision_like/.venv/bin/python')
  host.program(
    'gcloud',
    'printf "%s\\n" "$@" >&2\n'
    'for x in "$@"; do [ "${x#--command=}" = "$x" ] || line=${x#--command=}; '
    f'done; cd {home} && bash -c "$line"',
  )
  environ = {'TPU_NAME': 'slice', 'ZONE': 'z', 'PROJECT': 'p'}
  code, _, err = host('tpu_pod.sh', 'run', *ARGS, **environ)
  assert code == 0, err
  head = ['compute', 'tpus', 'tpu-vm', 'ssh', 'slice', '--worker=all']
  lines = err.splitlines()
  assert lines[: len(head)] == head
  assert lines[-2:] == ['--zone=z', '--project=p']
  log = home / 'big_vision_like' / 'run.log'
  for _ in range(200):
    if 'device' in log.read_text():
      break
    subprocess.run(['sleep', '0.05'])
  assert log.read_text().splitlines() == [
    'main:', '-m', 'main', *ARGS, '--config.device=tpu',
  ]  # fmt: skip


def test_tpu_pod_refuses_what_it_does_not_know(host):
  host.program('gcloud', 'exit 99')
  environ = {'TPU_NAME': 'slice', 'ZONE': 'z'}
  code, _, err = host('tpu_pod.sh', 'jump', **environ)
  assert code == 2 and "'jump' is not create" in err
  code, _, err = host('tpu_pod.sh', 'run', **environ)
  assert code == 2 and "main's arguments" in err
  code, _, err = host('tpu_pod.sh', 'log', TPU_NAME='slice')
  assert code == 2 and 'ZONE' in err
  assert host('tpu_pod.sh', 'log', **environ)[0] == 99
