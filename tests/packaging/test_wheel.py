"""The wheel, installed apart from the checkout: what it holds, what it runs."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest
from PIL import Image

from tests.conftest import ROOT, xla_flags

PACKAGES = ('big_vision_like', 'input_pipeline', 'evaluators')
INSIDE = ('configs', 'tools')  # of big_vision_like, once installed


def _run(command, **options) -> subprocess.CompletedProcess:
  done = subprocess.run(
    [str(c) for c in command],
    capture_output=True, text=True, timeout=300, **options,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  return done


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> pathlib.Path:
  """Built from a copy, so that the checkout stays as it is."""
  copy = tmp_path_factory.mktemp('source')
  for name in (*PACKAGES, *INSIDE):
    shutil.copytree(
      ROOT / name, copy / name, ignore=shutil.ignore_patterns('__pycache__')
    )
  for name in ('pyproject.toml', 'README.md', 'LICENSE', 'requirements.txt'):
    shutil.copy(ROOT / name, copy)
  out = tmp_path_factory.mktemp('wheel')
  pip = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps']
  _run([*pip, '--no-build-isolation', '--wheel-dir', out, copy])
  [path] = out.glob('*.whl')
  return path


@pytest.fixture(scope='module')
def bvl(wheel, tmp_path_factory):
  """Runs the installed command in an empty folder."""
  site = tmp_path_factory.mktemp('site')
  pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps']
  _run([*pip, '--target', site, wheel])
  environ = {**os.environ, 'PYTHONPATH': str(site), 'XLA_FLAGS': xla_flags()}
  folder = tmp_path_factory.mktemp('elsewhere')

  script = site / 'bin' / 'bvl'

  def run(*args) -> str:
    command = [sys.executable, script, *args]
    return _run(command, cwd=folder, env=environ).stdout

  def fails(*args) -> subprocess.CompletedProcess:
    command = [sys.executable, str(script), *args]
    return subprocess.run(
      command, cwd=folder, env=environ, capture_output=True, text=True
    )

  run.folder, run.fails = folder, fails
  return run


def test_extras_are_those_of_the_requirement_files():
  project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
  for name, packages in project['optional-dependencies'].items():
    lines = (ROOT / f'requirements-{name}.txt').read_text().splitlines()
    assert packages == [line for line in lines if line[0] not in '#-']


def test_every_package_is_listed():
  text = (ROOT / 'pyproject.toml').read_text()
  listed = set(tomllib.loads(text)['tool']['setuptools']['packages'])
  dotted = lambda path: path.parent.relative_to(ROOT).as_posix()
  found = {
    dotted(path).replace('/', '.')
    for name in (*PACKAGES, *INSIDE)
    for path in (ROOT / name).rglob('__init__.py')
  }
  inside = lambda name: name.partition('.')[0] in INSIDE
  assert listed == {
    f'big_vision_like.{name}' if inside(name) else name for name in found
  }


@pytest.mark.slow
def test_site_packages_gets_three_names_and_one_command(wheel):
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
    [entry] = [n for n in names if n.endswith('entry_points.txt')]
    scripts = archive.read(entry).decode().split()
  top = {name.partition('/')[0] for name in names}
  assert {n for n in top if not n.endswith('.dist-info')} == set(PACKAGES)
  assert scripts[:2] == ['[console_scripts]', 'bvl'] and len(scripts) == 4
  scripts = {p.name for p in (ROOT / 'tools' / 'launch').glob('*.sh')}
  assert scripts == {
    pathlib.PurePath(n).name for n in names if n.endswith('.sh')
  }


@pytest.mark.slow
def test_trains_and_predicts_from_any_folder(bvl):
  (bvl.folder / 'mine.py').write_text(
    'from configs import common, quickstart\n'
    'def get_config(arg=None):\n'
    "  config = quickstart.get_config('tiny')\n"
    '  config.total_steps = 2\n'
    '  assert common.base().keys() >= config.keys()\n'
    '  return config\n'
  )
  bvl('train', '--config', 'mine.py', '--workdir', 'run', '--config.seed=3')
  assert json.loads((bvl.folder / 'run/config.json').read_text())['seed'] == 3
  assert (bvl.folder / 'run/checkpoints/2').is_dir()
  (bvl.folder / 'photos').mkdir()
  Image.new('RGB', (40, 40), 'red').save(bvl.folder / 'photos/red.png')
  out = bvl(
    'predict', '--checkpoint', 'run', '--input', 'photos', '--output', 'p'
  )
  assert (bvl.folder / 'p').exists(), out


@pytest.mark.slow
def test_late_mistakes_are_one_line_too(bvl):
  tiny = ['train', '--config', 'configs/quickstart.py:tiny']
  for options, words in (
    ([], '--workdir is missing'),
    (['--workdir=w', '--config.input.batch_size=0'], 'batch_size'),
    (['--workdir=w', '--config.evals.fasteval.top_k=-1'], 'top_k'),
  ):
    done = bvl.fails(*tiny, *options)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert done.stderr.startswith('error: ')
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_users_own_packages_beside_ours(bvl):
  """`configs` has both; no other name of the working folder counts."""
  for name in ('configs', 'evaluators', 'tools'):
    (bvl.folder / name).mkdir()
    (bvl.folder / name / '__init__.py').write_text(
      '' if name == 'configs' else 'raise RuntimeError("the user\'s")\n'
    )
  (bvl.folder / 'configs/ownhelp.py').write_text('SEED = 11\n')
  (bvl.folder / 'configs/exp.py').write_text(
    'from configs import common, ownhelp, quickstart\n'
    'def get_config(arg=None):\n'
    "  config = quickstart.get_config('tiny')\n"
    '  config.seed = ownhelp.SEED\n'
    '  config.total_steps = 2\n'
    '  return config\n'
  )
  launch = ['launch.local', '--processes=1', '--']
  bvl(*launch, '--config', 'configs/exp.py', '--workdir', 'own')
  assert json.loads((bvl.folder / 'own/config.json').read_text())['seed'] == 11


@pytest.mark.slow
def test_shipped_configs_and_names_of_commands(bvl):
  plan = bvl('train', '--config', 'configs/quickstart.py:tiny', '--mode=plan')
  assert 'parameters' in plan
  text = bvl('--help')
  tools = [p.stem for p in (ROOT / 'tools').glob('*.py') if p.stem[0] != '_']
  for name in ('train', 'launch.local', *tools):
    assert f'\n  {name} ' in text
  usage = bvl('predict', '--help')
  assert usage.startswith('usage: bvl predict') and 'python -m' not in usage
  assert '--workdir' in bvl('train', '--help')
