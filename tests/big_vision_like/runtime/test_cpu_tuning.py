"""Environment for CPU runs: what is added, what is kept, one restart."""

import os
import subprocess
import sys

import pytest

from big_vision_like.runtime import cpu_tuning

FLAG = '--xla_cpu_experimental_ynn_fusion_type=dot,reduce'
TUNABLE = (
  'glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:'
  'glibc.malloc.trim_threshold=1000000000000'
)


@pytest.fixture
def glibc(monkeypatch):
  monkeypatch.setattr(
    cpu_tuning.platform, 'libc_ver', lambda: ('glibc', '2.36')
  )


@pytest.mark.parametrize('version', ['0.10.2', '0.11.1', '0.12.0.1', '0.12.3'])
def test_adds_both(glibc, version):
  added = cpu_tuning.environment({}, version)
  assert added == {'XLA_FLAGS': FLAG, 'GLIBC_TUNABLES': TUNABLE}


@pytest.mark.parametrize('version', ['0.9.9', '0.10.1', '0.13.0', '1.0.0', '2'])
def test_leaves_xla_alone_where_the_flag_may_be_unknown(glibc, version):
  assert cpu_tuning.environment({}, version) == {'GLIBC_TUNABLES': TUNABLE}


def test_keeps_what_is_there(glibc):
  current = {'XLA_FLAGS': '--a=b', 'GLIBC_TUNABLES': 'glibc.rtld.nns=3'}
  assert cpu_tuning.environment(current, '0.12.0') == {
    'XLA_FLAGS': f'--a=b {FLAG}',
    'GLIBC_TUNABLES': f'glibc.rtld.nns=3:{TUNABLE}',
  }


def test_respects_the_users_choice(glibc):
  current = {
    'XLA_FLAGS': '--xla_cpu_experimental_ynn_fusion_type=dot',
    'GLIBC_TUNABLES': 'glibc.malloc.hugetlb=1',
  }
  assert cpu_tuning.environment(current, '0.12.0') == {}


def test_no_tunables_without_glibc(monkeypatch):
  monkeypatch.setattr(cpu_tuning.platform, 'libc_ver', lambda: ('', ''))
  assert 'GLIBC_TUNABLES' not in cpu_tuning.environment({}, '0.12.0')


def test_the_installed_xla_knows_the_flag():
  """XLA aborts on an unknown flag, so this process would not survive."""
  environment = {**os.environ, 'XLA_FLAGS': '', 'JAX_PLATFORMS': 'cpu'}
  environment |= cpu_tuning.environment(environment)
  assert FLAG in environment['XLA_FLAGS']
  code = 'import jax.numpy as jnp; print(float(jnp.ones(3).sum()))'
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stdout.strip() == '3.0', done.stderr


def _run(project_root, **variables):
  """Runs a program that restarts itself and prints its environment."""
  code = (
    'import os, sys; from big_vision_like.runtime import cpu_tuning; '
    'cpu_tuning.reexec(); '
    'print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], '
    '"jax" in sys.modules)'
  )
  kept = {
    name: value
    for name, value in os.environ.items()
    if name not in ('GLIBC_TUNABLES', 'JAX_PLATFORMS', 'BVL_CPU_TUNED')
  }
  done = subprocess.run(
    [sys.executable, '-c', code, 'an argument'],
    env={**kept, **variables},
    cwd=project_root,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip()


def test_restart_keeps_the_command(project_root):
  expected = f"{TUNABLE} ['an argument'] False"
  assert _run(project_root, JAX_PLATFORMS='cpu') == expected


@pytest.mark.parametrize(
  'variables', [{'JAX_PLATFORMS': 'cuda'}, {'BVL_CPU_TUNED': '1'}]
)
def test_no_restart_for_accelerators_or_when_told(project_root, variables):
  assert _run(project_root, **variables).startswith('None')
