"""--config in every form that absl takes reaches the one loader of configs.

A config.json is data: whatever the dashes, it is never run as code.
"""

import re

import pytest
from absl import flags

from big_vision_like.config import loading, settings
from configs import quickstart
from tools import inspect_data
from tools.cli import config_flags

FORMS = {
  'two dashes, =': ['--config={path}'],
  'two dashes, space': ['--config', '{path}'],
  'one dash, =': ['-config={path}'],
  'one dash, space': ['-config', '{path}'],
}
OVERRIDES = {
  'two dashes, =': ['--config.seed=7'],
  'two dashes, space': ['--config.seed', '7'],
  'one dash, =': ['-config.seed=7'],
  'one dash, space': ['-config.seed', '7'],
}


@pytest.fixture(scope='module')
def stored(tmp_path_factory):
  path = tmp_path_factory.mktemp('run') / settings.FILE
  path.write_text(settings.to_json(quickstart.get_config('tiny')))
  return path


def arguments(form, path):
  return [part.format(path=path) for part in FORMS[form]]


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('override', OVERRIDES)
def test_main_and_tools_read_a_config_json(form, override, stored):
  argv = ['x', *arguments(form, stored), *OVERRIDES[override]]
  wanted = settings.from_json(stored)
  wanted.seed = 7
  values = flags.FlagValues()  # as main defines them
  loading.define_flag(values, argv)
  assert values(argv) == ['x']
  for config in (
    values.config,
    config_flags.parse(argv, 'a tool', lambda values: None).config,
  ):
    assert settings.equal(config, wanted)
    assert config.is_locked


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', ['config.json', 'code.json'])
def test_what_is_no_config_json_is_named_and_never_run(
  form, name, tmp_path, capsys
):
  path = tmp_path / name
  ran = tmp_path / 'ran'
  if name == 'code.json':
    path.write_text(f'open({str(ran)!r}, "w")\ndef get_config(): pass\n')
  with pytest.raises(SystemExit) as ended:
    inspect_data.main(['x', *arguments(form, path), '--num=1'])
  said = capsys.readouterr().err
  assert ended.value.code == 2
  assert said.startswith('error: ') and str(path) in said
  assert said.count('\n') == 1
  assert not ran.exists()


@pytest.mark.slow
@pytest.mark.parametrize('form', FORMS)
def test_the_program_plans_from_a_config_json(form, stored, command_line):
  result = command_line(
    *arguments(form, stored), '-config.total_steps=9', '--mode=plan'
  )
  assert result['code'] == 0, result['err']
  assert re.search(r'^steps +9$', result['out'], re.M)


@pytest.mark.parametrize(
  ('line', 'told'),
  [
    ("c.mesh.data = 'all'", "mesh.data='all' must be -1 or int of at least 1"),
    ("c.update({'mesh': {'model': 'x'}})", "mesh.model='x' must be -1 or int"),
    (
      "c.optim.momentum = 'abc'",
      "key 'optim.momentum' must be float, got 'abc'",
    ),
    ('c.ckpt.dir = 5', "config key 'ckpt.dir' must be str, got 5"),
    ('c.mesh = 5', "config key 'mesh' must be dict, got 5"),
    (
      "c.evals.fasteval.batch_size = 'x'",
      "config key 'evals.fasteval.batch_size' must be int, got 'x'",
    ),
    ("c.seed + 'x'", 'does not load: {path}:4: TypeError: unsupported'),
  ],
)
def test_a_value_of_a_wrong_type_names_the_whole_key(line, told, tmp_path):
  path = tmp_path / 'config.py'
  path.write_text(
    'from configs import quickstart\ndef get_config():\n'
    f"  c = quickstart.get_config('tiny')\n  {line}\n  return c\n"
  )
  with pytest.raises(ValueError, match=re.escape(told.format(path=path))):
    loading.load(str(path), '--config')
