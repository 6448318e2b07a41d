"""The cache of compiled programs: its place, and a second process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from big_vision_like.runtime import compile_cache

DIR = 'JAX_COMPILATION_CACHE_DIR'
PROGRAM = """
import json
from big_vision_like.runtime import compile_cache
compile_cache.use()
import jax
seen = []
jax.monitoring.register_event_listener(lambda name, **_: seen.append(name))
figure = jax.jit(lambda x: (x @ x.T).sum())(jax.numpy.ones((40, 50)))
print(json.dumps([
  float(figure), seen.count('/jax/compilation_cache/cache_hits'),
  seen.count('/jax/compilation_cache/cache_misses'),
]))
"""


def test_the_place_is_the_users_cache_folder():
  added = compile_cache.environment({'XDG_CACHE_HOME': '/c', 'HOME': '/h'})
  assert added[DIR].startswith('/c/big_vision_like/compiled/')
  assert int(added['JAX_COMPILATION_CACHE_MAX_SIZE']) == 4 * 2**30
  relative = compile_cache.environment({'XDG_CACHE_HOME': 'c', 'HOME': '/h'})
  assert relative[DIR].startswith('/h/.cache/big_vision_like/')
  at_home = compile_cache.environment({'HOME': '/h'})
  assert at_home[DIR].startswith('/h/.cache/big_vision_like/compiled/')


def test_what_the_user_has_set_is_kept():
  assert compile_cache.environment({DIR: '/mine'}) == {}
  size = 'JAX_COMPILATION_CACHE_MAX_SIZE'
  added = compile_cache.environment({'HOME': '/h', size: '7'})
  assert size not in added and DIR in added


def _run(project_root, **variables):
  environ = {k: v for k, v in os.environ.items() if 'CACHE' not in k}
  done = subprocess.run(
    [sys.executable, '-c', PROGRAM],
    cwd=project_root,
    env=environ | variables,
    capture_output=True,
    text=True,
    check=True,
  )
  return json.loads(done.stdout)


@pytest.mark.slow
def test_a_second_process_reads_what_the_first_compiled(project_root, tmp_path):
  quick = {'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
  quick['XDG_CACHE_HOME'] = str(tmp_path)
  first, again = (_run(project_root, **quick) for _ in range(2))
  assert first[0] == again[0] == 80_000
  assert first[1] == 0 and first[2] >= 1
  assert again[1] == first[2] and again[2] == 0
  off = _run(project_root, JAX_ENABLE_COMPILATION_CACHE='0', **quick)
  assert off[1:] == [0, 0]


@pytest.mark.slow
def test_a_folder_that_cannot_be_made_is_no_error(project_root, tmp_path):
  (tmp_path / 'file').write_text('')
  figure, hits, misses = _run(
    project_root, XDG_CACHE_HOME=str(tmp_path / 'file')
  )
  assert figure == 80_000 and hits == misses == 0


def test_halves_of_entries_are_removed(tmp_path, monkeypatch):
  """What a kill between the two files of an entry leaves."""
  for name in DIR, 'JAX_ENABLE_COMPILATION_CACHE':
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.delitem(sys.modules, 'jax', raising=False)
  folder = pathlib.Path(compile_cache.environment(os.environ)[DIR])
  folder.mkdir(parents=True)
  for name in 'whole-cache', 'whole-atime', 'cut-cache', 'gone-atime':
    (folder / name).write_bytes(b'x')
  with monkeypatch.context() as patch:
    patch.setattr(os, 'environ', dict(os.environ))
    compile_cache.use()
  left = {p.name for p in folder.iterdir() if p.name[0] != '.'}
  assert left == {'whole-cache', 'whole-atime'}
