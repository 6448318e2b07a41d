"""F27: shapes and meshes that do not fit; checkpoints of another net."""

import json
import random
import shutil

from tests.faults.field import Field
from tests.faults.rows import Row
from tests.faults.trees import snapshot

_ACCEPT = '--config.resume.accept_config_change=True'
_PLAN = '--mode=plan'


def _mesh(devices: int, *more: str) -> list[str]:
  return [_PLAN, f'--config.plan.num_devices={devices}', *more]


# name -> (arguments, words of the message). '@KEY=JSON' changes the config;
# {oracle}: a finished workdir; with _ACCEPT the workdir is a copy of that one,
# otherwise a fresh one.
CASES: dict[str, tuple[list[str], list[str]]] = {
  'batch no multiple of the devices': (
    _mesh(3), ['input.batch_size=8', '3 devices'],
  ),
  'classes no multiple of the model axis': (
    _mesh(4, '--config.mesh.model=4', '--config.task.class_multiple=1'),
    ['13', '4 devices', 'class_multiple'],
  ),
  'more devices than there are': (
    ['--config.mesh.data=7'], ['mesh.data=7', '1 devices'],
  ),
  'a mesh of nothing': (['--config.mesh.model=0'], ['mesh.model=0']),
  'both axes take the rest': (
    _mesh(4, '--config.mesh.model=-1'),
    ['only one of mesh.data, mesh.model may be -1'],
  ),
  'axes that do not give the devices': (
    _mesh(8, '--config.mesh.data=3', '--config.mesh.model=2'),
    ['mesh.data=3', 'mesh.model=2', '8 devices'],
  ),
  'accumulation that does not divide': (
    ['--config.train.accum_steps=3'],
    ['train.accum_steps=3', 'input.batch_size=8'],
  ),
  'accumulation and devices': (
    _mesh(4, '--config.train.accum_steps=4'),
    ['train.accum_steps=4', 'input.batch_size=8'],
  ),
  'no batch': (['--config.input.batch_size=0'], ['input.batch_size']),
  'number of classes': (
    ['@task.num_classes=22'], ['task.num_classes=22', '13'],
  ),
  'groups of batch norm': (
    ['@model.bn="ghost"', '@model.bn_group=3'],
    ['model.bn_group', 'a batch of 8', '3 examples'],
  ),
  'a depth that there is not': (['--config.model.depth=15'], ['depth', '15']),
  'a width of nothing': (['--config.model.width=0'], ['model.width=0']),
  'a task without its labels': (
    ['--config.task.type=softmax'], ["task 'softmax'", "'label'"],
  ),
  'a warm start from a wider net': (
    ['--config.init_from.path={oracle}', '--config.model.width=8'],
    ['init_from', 'backbone/'],
  ),
  'a warm start from a net of another layout': (
    [
      '--config.init_from.path={oracle}',
      '--config.model.stride_in=first_unit_3x3',
    ],
    ['init_from.path', 'model.stride_in'],
  ),
  'a warm start from no checkpoint': (
    ['--config.init_from.path={oracle}/tensorboard'],
    ['init_from.path', 'no checkpoint'],
  ),
  'evaluating the checkpoint of another net': (
    ['--mode=eval', '--checkpoint={oracle}', '--config.model.width=8'],
    ['backbone/', 'checkpoint'],
  ),
  'going on with a wider net': (
    [_ACCEPT, '--config.model.width=8'],
    ['backbone/', 'checkpoint', 'config'],
  ),
  'going on with other slots': (
    [_ACCEPT, '--config.optim.type=adam'], ["'rmsprop'", "'adam'"],
  ),
}  # fmt: skip


def trial(field: Field, number: int, rng: random.Random) -> str:
  del rng
  name = list(CASES)[number % len(CASES)]
  given, words = CASES[name]
  oracle = field.oracle.workdir
  run = field.run(f'f27-{number}')
  before = {}
  if _ACCEPT in given:
    shutil.copytree(oracle, run.workdir)
    before = snapshot(run.workdir)
  changes = [a[1:].split('=') for a in given if a.startswith('@')]
  if changes:
    run.change(**{key: json.loads(value) for key, value in changes})
  given = [a.format(oracle=oracle) for a in given if not a.startswith('@')]
  trainer = run.start(*given)
  code = trainer.wait(60)
  said = trainer.output()
  assert code == 2, f'{name}: {code}: {said[-2000:]}'
  assert 'Traceback' not in said, f'{name}: {said}'
  start = said.find('error: ')
  assert start >= 0, f'{name}: {said}'
  missing = [word for word in words if word not in said[start:]]
  assert not missing, f'{name}: without {missing}: {said[start:]}'
  if before:
    assert snapshot(run.workdir) == before, name
  return name


ROW = Row(
  'F27',
  'twenty batches, meshes, class counts and checkpoints that do not fit',
  'refused in words of the config, exit 2, workdirs unchanged',
  trial,
  trials=len(CASES),
  per_commit=0,
)
