"""Damaged files of a workdir: set aside, named, and the run goes on."""

import json
import os
import shutil

import pytest

from big_vision_like import mending, train
from big_vision_like.config import settings
from big_vision_like.runtime import figures, writers
from tests import tiny

pytestmark = pytest.mark.usefixtures('programs_kept')

CONFIG = {'evals': {}, 'ckpt.every_steps': 1}


def config(**changes):
  return tiny.simple(**{'total_steps': 2, **CONFIG, **changes})


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('trained')
  train.run(config(), str(workdir))
  return workdir


@pytest.fixture
def workdir(trained, tmp_path):
  return shutil.copytree(trained, tmp_path / 'w')


def mended(workdir) -> str:
  return '\n'.join(mending.mend(workdir))


def test_an_undamaged_workdir_stays_as_it_is(workdir):
  before = {p.name: p.read_bytes() for p in workdir.glob('*.json*')}
  assert not mended(workdir)
  assert before == {p.name: p.read_bytes() for p in workdir.glob('*.json*')}


@pytest.mark.parametrize(
  'line',
  [b'{"step": 1, "x\xff": 1}', b'{"loss": 2}', b'[1]', b'{"step"', b'[' * 9999],
)
def test_what_is_no_line_of_metrics_is_set_aside(workdir, line):
  path = workdir / figures.METRICS
  first, *rest = path.read_bytes().split(b'\n')
  path.write_bytes(b'\n'.join([first, line, *rest]))
  assert [m['step'] for m in writers.read_metrics(workdir)] == [1, 2]
  assert f'{path}: what is no line (2) is now in ' in mended(workdir)
  assert path.read_bytes().split(b'\n') == [first, *rest]
  assert (workdir / 'metrics.jsonl.damaged').read_bytes() == line + b'\n'


def test_what_is_no_file_in_the_place_of_one(workdir):
  stored = (workdir / settings.FILE).read_text()
  for name in (figures.METRICS, settings.FILE):
    (workdir / name).unlink()
    os.mkfifo(workdir / name)
  said = mended(workdir)
  assert 'metrics.jsonl is no file: it is now called metrics.jsonl.dam' in said
  assert 'config.json cannot be used (it is no file): it is now called' in said
  assert (workdir / settings.FILE).read_text() == stored


@pytest.mark.parametrize(
  ('content', 'problem'),
  [
    (b'', 'not JSON'),
    (b'{"seed": \xff}', 'not JSON'),
    (b'[]', 'not a JSON object'),
    (b'{"sed": 1}', "unknown config key 'sed'"),
  ],
)
def test_the_config_of_the_checkpoint_replaces_a_damaged_one(
  workdir, content, problem
):
  path = workdir / settings.FILE
  before = settings.from_json(path)
  path.write_bytes(content)
  said = mended(workdir)
  assert f'{path} cannot be used ({problem}' in said
  assert f'that of checkpoint {workdir}/checkpoints/2 takes its place' in said
  assert (workdir / 'config.json.damaged').read_bytes() == content
  assert not settings.differences(settings.from_json(path), before)


def test_without_a_checkpoint_the_config_given_counts(workdir):
  shutil.rmtree(workdir / 'checkpoints')
  (workdir / settings.FILE).write_bytes(b'')
  assert 'config is that of --config from here on' in mended(workdir)


def test_a_run_resumes_and_still_refuses_another_config(workdir, capsys):
  (workdir / settings.FILE).write_bytes(b'')
  with (workdir / figures.METRICS).open('ab') as file:
    file.write(b'\xff\n{"no": 1}\n')
  with pytest.raises(ValueError, match='was written by another config'):
    train.run(config(seed=5), str(workdir))
  state = train.run(config(total_steps=3), str(workdir))
  assert int(state.step) == 3
  assert 'resuming from step 2' in capsys.readouterr().out
  lines = (workdir / figures.METRICS).read_text().splitlines()
  assert json.loads(lines[-1])['step'] == 3
