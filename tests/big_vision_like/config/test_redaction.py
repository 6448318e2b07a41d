"""What is a secret, where it is left out, and what is none."""

import html
import json
import os
import re
import shlex
import sys
import urllib.parse

import pytest

from big_vision_like.checkpoints import place
from big_vision_like.config import redaction, settings
from big_vision_like.pages import html_page
from big_vision_like.runtime import logs
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from tests import tiny
from tools.cli import command

SECRET = 's3cr3tvalue'


@pytest.fixture(autouse=True)
def nothing_learnt(monkeypatch):
  monkeypatch.setattr(redaction, '_learnt', set())


@pytest.mark.parametrize(
  'before, after',
  [
    ('https://me:{}@host/x?v=1', 'https://***@host/x?v=1'),
    ('at ftp://{}@host.', 'at ftp://***@host.'),
    ('s3://b/x?X-Amz-Signature={}&v=2', 's3://b/x?X-Amz-Signature=***&v=2'),
    ("('https://h/?v=1;api_key={}')", "('https://h/?v=1;api_key=***')"),
    ('https://h/x?key={}#part', 'https://h/x?key=***#part'),
    ('--config.input.source.token={} x', '--config.input.source.token=*** x'),
    ('denied: hf_token={}', 'denied: hf_token=***'),
    ('webdataset:PASSWORD={}', 'webdataset:PASSWORD=***'),
    ('//bob:{}@host/share', '//***@host/share'),
    ("at '//{}@host'", "at '//***@host'"),
    ('"https://me:x\'{}@h/"', '"https://***@h/"'),
    ('PGPASSWORD={} psql', 'PGPASSWORD=*** psql'),
    ('MY_DB_PASS={}', 'MY_DB_PASS=***'),
    ("key.token='a {}' b", 'key.token=*** b'),
    ('Authorization: Bearer {}', 'Authorization: Bearer ***'),
  ],
)
def test_texts(before, after):
  assert redaction.text(before.format(SECRET)) == after


@pytest.mark.parametrize(
  'text',
  [
    'step 4/8  loss 5.541  lr 0.01  102 images/s', 'label_key=cls', 'key=5',
    'num_tokens=77777777', 'author=somebody', 'git@github.com:x/y',
    'gs://bucket/folder', 'https://host.org/data?v=1&split=train', 'a@b://c',
    'config.evals.val.metric=map@100', 'bypass=1', 'a // b@c',
    'file:///data/x@2', 'https://h//b@c', 'compass=12345678',
  ],
)  # fmt: skip
def test_texts_without_any(text):
  assert redaction.text(text) == text


def test_options_and_what_is_learnt_of_them():
  config = {
    'token': SECRET,
    'url': 'https://me:hunter2222@h/?sig=0123456789',
    'nested': [{'api_key': 'x', 'auth': None, 'tokens': ['a'], 'secret': ''}],
  }
  assert redaction.plain(config) == {
    'token': '***',
    'url': 'https://***@h/?sig=***',
    'nested': [{'api_key': '***', 'auth': None, 'tokens': ['a'], 'secret': ''}],
  }
  told = f'GET of hunter2222, 0123456789: denied for {SECRET}'
  assert redaction.text(told) == told
  redaction.learn(config)
  assert redaction.text(told) == 'GET of ***, ***: denied for ***'
  assert redaction.text('x') == 'x'  # too short to be looked for everywhere


def test_the_environment(monkeypatch):
  monkeypatch.setenv('MY_HF_TOKEN', SECRET)
  monkeypatch.setenv('TOKENIZERS_PARALLELISM', 'sometimes')
  monkeypatch.setenv('GOOGLE_APPLICATION_CREDENTIALS', '/home/me/key.json')
  monkeypatch.setenv('SOME_PASSWORD', 'true')
  text = f'{SECRET} sometimes /home/me/key.json true'
  assert redaction.text(text) == '*** sometimes /home/me/key.json true'
  assert redaction.plain({'path': f'/data/{SECRET}'}) == {'path': '/data/***'}


ESCAPED = {
  'as it is': str,
  'Python': repr,
  'ASCII': ascii,
  'JSON': json.dumps,
  'JSON with letters': lambda text: json.dumps(text, ensure_ascii=False),
  'twice': lambda text: repr(json.dumps(repr(text))),
  'bytes': lambda text: repr([text.encode()]),
  'a URL': urllib.parse.quote,
  'all of a URL': lambda text: urllib.parse.quote(text, safe='').lower(),
  'a form': urllib.parse.quote_plus,
  'HTML': html.escape,
  'references': lambda text: text.encode('ascii', 'xmlcharrefreplace').decode(),
  'a shell': shlex.quote,
}


@pytest.mark.parametrize('how', ESCAPED)
def test_secrets_as_messages_escape_them(monkeypatch, how):
  for value in ("hunter2'hunter2\\x", 'p\xe4ss "&<>/\n\t%\U0001f600 word\x07'):
    monkeypatch.setenv('API_TOKEN', value)
    found = redaction.text(f'no {ESCAPED[how](value)}: it')
    assert re.fullmatch(r"""no [\\b'"\[]*\*\*\*[\\'"\]]*: it""", found), found


def test_many_backslashes_are_no_work(monkeypatch):
  monkeypatch.setenv('API_TOKEN', 'a' + 12 * '\\' + "b'c" + 9 * '\\')
  text = 'a' + 5000 * '\\' + 'x'
  assert redaction.text(text) == text  # at once
  assert redaction.text(repr(os.environ['API_TOKEN'])) == '"***"'


def test_variables_whose_names_say_it(monkeypatch):
  for name in ('PGPASSWORD', 'MY_DB_PASS', 'SSHPASS', 'MYSQL_PWD', 'XTOKEN'):
    with monkeypatch.context() as patch:
      patch.setenv(name, SECRET)
      assert redaction.text(f'at {SECRET}{SECRET}') == 'at ******'
  monkeypatch.setenv('API_TOKEN', SECRET)
  monkeypatch.setenv('OTHER_TOKEN', f'{SECRET}more')  # of which it is a part
  assert redaction.text(f'{SECRET}more') == '***'


def config_of(token: str):
  config = tiny.config()
  config.input.source.token = token
  return config


def test_configs_are_stored_without_and_compared_so(tmp_path):
  config = config_of(SECRET)
  text = settings.to_json(config)
  assert SECRET not in text
  assert json.loads(text)['input']['source']['token'] == '***'
  (tmp_path / 'config.json').write_text(text)
  stored = settings.from_json(tmp_path / 'config.json')
  assert settings.differences(stored, config) == []
  assert settings.differences(stored, config_of('another one')) == []
  assert settings.equal(stored.input, config.input)
  config.input.source.noise = 0.5
  assert len(settings.differences(stored, config)) == 1
  with pytest.raises(ValueError) as error:
    pipeline.checked_source(
      {'type': 'synthetic', 'url': 'https://***@h/x'}, 'input.source'
    )
  assert str(error.value) == (
    "input.source.url='https://***@h/x': its secret was not stored with the "
    'config; give the whole value'
  )


def test_logs_pages_reasons_and_tools(tmp_path, capsys):
  redaction.learn({'token': SECRET})
  log = logs.Log()
  log.open(tmp_path)
  logs.Tee(sys.stdout, log).write(f'with {SECRET}\n')
  log._file.close()
  assert capsys.readouterr().out == 'with ***\n'
  assert (tmp_path / 'log.txt').read_text().endswith('  with ***\n')
  assert html_page.escape(f'<{SECRET}>') == '&lt;***&gt;'
  assert BadExample(f'GET {SECRET}: 404').reason == 'GET ***: 404'

  def work():
    print(f'reading {SECRET}')
    raise ValueError(f'no {SECRET}')

  assert command.run(work) == 2
  said = capsys.readouterr()
  assert (said.out, said.err) == ('reading ***\n', 'error: no ***\n')


def test_tracebacks_of_tools_have_none(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'excepthook', sys.__excepthook__)
  monkeypatch.setenv('API_TOKEN', SECRET)

  def work():
    raise RuntimeError(f'no {SECRET}')

  with pytest.raises(RuntimeError) as error:
    command.run(work)
  sys.excepthook(error.type, error.value, error.tb)
  assert capsys.readouterr().err.endswith('RuntimeError: no ***\n')


def test_a_place_for_checkpoints_has_none(tmp_path):
  with pytest.raises(ValueError, match='has a secret in it') as error:
    place.settle(tmp_path, f's3://key:{SECRET}@bucket/x', True)
  assert SECRET not in str(error.value)
