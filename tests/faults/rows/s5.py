"""S5: secrets in addresses, options and the environment."""

import hashlib
import json
import pathlib
import random

from tests.faults import commands
from tests.faults.field import Field
from tests.faults.rows import Row

# name -> (address, option token, value of HF_TOKEN); {} is the secret.
FORMS = {
  'user of an address': ('https://me:{}@host.org/data?v=1', '', ''),
  'token of an address': ('https://host.org/data?v=1&access_token={}', '', ''),
  'signature of an address': (
    's3://bucket/x?X-Amz-Signature={}&X-Amz-Date=2026', '', '',
  ),
  'option': ('https://host.org/data', '{}', ''),
  'environment': ('https://host.org/{}/data', '', '{}'),
}  # fmt: skip
FAILURES = ('', 'opening', 'record', 'reading')


def _places(folder: pathlib.Path, secret: str) -> list[str]:
  """Files that hold it, but those that the trial itself has written."""
  return [
    str(path.relative_to(folder))
    for path in folder.rglob('*')
    if path.is_file()
    and path.parent != folder
    and secret.encode() in path.read_bytes()
  ]


def trial(field: Field, number: int, rng: random.Random) -> str:
  form = list(FORMS)[number % len(FORMS)]
  fails = FAILURES[number // len(FORMS) % len(FAILURES)]
  secret = f'{rng.getrandbits(120):030x}'
  url, token, held = (text.format(secret) for text in FORMS[form])
  environ = {'HF_TOKEN': held} if held else {}
  world = json.loads(field.config.read_text())['input']['source']
  del world['type'], world['split']
  source = {
    'type': 'tests.fixtures.secret_source',
    'world': world,
    'url': url,
    'token': token,
    'digest': hashlib.sha256(f'{url} {token}'.encode()).hexdigest(),
    'fails': fails,
  }
  run = field.run(f's5-{number}')
  run.change(**{'input.source': source, 'input.max_bad_fraction': 0.5})
  command = [
    'main', f'--config={run.config}', f'--workdir={run.workdir}', '--trust',
    f'--config.input.workers={rng.choice((0, 1))}',
  ]  # fmt: skip
  expected = {'opening': 2, 'reading': 1}.get(fails, 0)
  output = ''
  for steps in (4, 8):
    code, said = commands.run(
      [*command, f'--config.total_steps={steps}'], **environ
    )
    assert code == expected, f'{form} {fails}: {code}: {said[-3000:]}'
    output += said
  if not expected:
    assert 'resuming from step 4' in output, output
    # What was stored is enough to predict, and says what it lacks to train.
    stored = f'--config={run.workdir / "config.json"}'
    again = ['main', stored, f'--workdir={run.folder / "again"}', '--trust']
    code, said = commands.run(again, **environ)
    assert code == 2 and 'its secret was not stored' in said, said
    output += said
    tool = rng.choice((
      ['tools.inspect_data', f'--config={run.config}', '--num=4'],
      ['tools.verify_checkpoint', f'--checkpoint={run.workdir}'],
      ['tools.export', f'--checkpoint={run.workdir}', '--format=safetensors'],
    ))  # fmt: skip
    if tool[0] != 'tools.verify_checkpoint':
      made = {'tools.inspect_data': 'made/x.html'}.get(tool[0], 'made')
      (run.folder / 'made').mkdir()
      tool += [f'--output={run.folder / made}', '--trust']
    code, said = commands.run(tool, **environ)
    assert code == 0, f'{tool}: {said[-3000:]}'
    output += said
  assert secret not in output, f'{form} {fails}: printed: {output}'
  found = _places(run.folder, secret)
  assert not found, f'{form} {fails}: in {found}'
  return f'{form}; fails: {fails or "no"}'


ROW = Row(
  'S5',
  'a secret as the user or a parameter of an address, as an option, in the '
  'environment; runs that work, and that fail with the address in the message',
  'in no file of the workdir, no line of a command, no output of a tool; the '
  'same command goes on, and a stored config says what it lacks',
  trial,
  trials=20,
  per_commit=0,
)
