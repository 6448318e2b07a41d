"""S4: odd paths of workdirs, data, configs and outputs."""

import json
import os
import pathlib
import random

from tests.faults import commands
from tests.faults.field import Field
from tests.faults.rows import Row
from tests.input_pipeline.ops import image_fixtures

_NO_UTF_8 = 'bytes that are no UTF-8'
# As workdirs: tensorstore and Orbax do not take them.
_REFUSED = {
  _NO_UTF_8: 'is not UTF-8: checkpoints cannot be in such a folder',
  'quotes and variables': 'loses arrays; take a path without * ? [ and',
  'format characters': 'loses arrays; take a path without * ? [ and',
}
_ODD_FILE = os.fsdecode(b';\'"\xff\n ')
NAMES = {
  'spaces': ' a  b ',
  'unicode': 'ünï-日本-\U0001f600',
  'a command': ';rm -rf x;$(touch y)`touch z`|touch v&',
  'quotes and variables': '\'it\'s "$HOME" ~ *?[a]',
  'format characters': '%s{x}{0}%(a)d\\n',
  'a leading dash': '--workdir=x',
  'a line break': 'new\nline\ttab',
  _NO_UTF_8: os.fsdecode(b'\xff\xfe-latin-\xe9'),
  'a name of 200 bytes': 'n' * 200,
  'up and down again': 'up/../down',
  'a link': 'link',
}


def _make(folder: pathlib.Path, kind: str) -> pathlib.Path:
  """The place for config, data and workdir."""
  if kind == 'a link':
    (folder / 'elsewhere').mkdir()
    (folder / 'link').symlink_to(folder / 'elsewhere')
    return folder / 'link'
  if kind == 'up and down again':
    (folder / 'up').mkdir()
  place = folder / NAMES[kind]
  place.mkdir()
  return place


def _write_images(data: pathlib.Path, rng: random.Random) -> None:
  for name in ('cat', 'dog'):
    (data / 'train' / name).mkdir(parents=True)
    for i in range(8):
      photo = image_fixtures.FIXTURES[rng.choice(('baseline', '444', 'bmp'))]
      odd = _ODD_FILE if i == 5 else ''
      (data / 'train' / name / f'{i}{odd}.jpg').write_bytes(photo[0])


def trial(field: Field, number: int, rng: random.Random) -> str:
  kind = list(NAMES)[number % len(NAMES)]
  run = field.run(f's4-{number}')
  place = _make(run.folder, kind)
  listed = sorted(os.listdir(run.folder))
  _write_images(place / 'data', rng)
  ops = json.loads(field.config.read_text())['input']['ops']
  ops[-1]['fill_in'] = False  # there is no hierarchy
  source = {'type': 'folder', 'path': str(place / 'data')}
  run.change(**{'input.source': source, 'input.ops': ops, 'evals': {}})
  config = place / 'config.json'
  config.write_bytes(run.config.read_bytes())
  run.config.unlink()
  run.config, run.workdir = config, place / 'w'
  if kind in _REFUSED:
    trainer = run.start()
    assert trainer.wait(120) == 2, trainer.output()[-2000:]
    said = trainer.output()
    assert _REFUSED[kind] in said, said
    assert 'Traceback' not in said and not run.workdir.exists(), said
    run.workdir = run.folder / 'w'
    listed.append('w')
  for steps in (2, 4):
    trainer = run.start(f'--config.total_steps={steps}')
    code = trainer.wait(120)
    assert code == 0, f'{kind}: {code}: {trainer.output()[-2000:]}'
    assert f'step {steps}/{steps}' in trainer.output(), trainer.output()
  assert 'resuming from step 2' in trainer.output(), trainer.output()
  assert run.saved() == 4
  log = (run.workdir / 'log.txt').read_bytes().decode()
  assert 'step 4/4' in log

  cwd = run.folder / 'cwd'
  cwd.mkdir()
  predict = [
    'tools.predict', f'--checkpoint={run.workdir}', '--trust',
    f'--input={place / "data"}', f'--output={place / "out"}',
  ]  # fmt: skip
  code, said = commands.run(predict, cwd)
  assert code == 0, f'{kind}: {said[-2000:]}'
  lines = (place / 'out' / 'predictions.jsonl').read_text().splitlines()
  assert len(lines) == 16, f'{kind}: {lines}'
  sheet = [
    'tools.inspect_data', f'--config={config}', '--num=4',
    f'--output={place / "sheet.html"}',
  ]  # fmt: skip
  code, said = commands.run(sheet, cwd)
  assert code == 0, f'{kind}: {said[-2000:]}'
  assert (place / 'sheet.html').stat().st_size > 1000
  gone = place / 'none'
  code, said = commands.run(
    ['tools.verify_checkpoint', f'--checkpoint={gone}'], cwd
  )
  assert code == 2 and said.startswith('error: '), f'{kind}: {said}'
  assert 'Traceback' not in said, f'{kind}: {said}'
  assert not list(cwd.iterdir()), f'{kind}: {list(cwd.iterdir())}'
  made = {'out', 'cwd', 'ledger.jsonl'}
  left = set(os.listdir(run.folder)) - made - set(listed)
  assert not left, f'{kind}: {left}'
  return kind


ROW = Row(
  'S4',
  'config, data, workdir and outputs under paths with spaces, quotes, '
  'commands, line breaks, bytes that are no UTF-8, `..`, links',
  'used literally, by training, a resume and tools; nothing is made elsewhere '
  'and no shell sees them; workdirs that are not UTF-8, or have one of `*?[\\` '
  'in them, are refused: tensorstore and Orbax do not take them',
  trial,
  trials=len(NAMES),
  per_commit=0,
)
