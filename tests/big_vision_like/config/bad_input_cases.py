"""Command lines that are mistakes, and what their messages must hold."""

import json
import pathlib

from PIL import Image

QUICK = '--config=configs/quickstart.py:tiny'
# id -> (arguments, words that the message must hold). {tmp}: a folder with the
# files that `make_files` writes; {work}: a fresh workdir; CODE configs below.
CASES = {
  'no config': (['--workdir={work}'], ['--config is missing']),
  'no workdir': ([QUICK], ['--workdir is missing']),
  'config file missing': (
    ['--config=configs/nothing.py', '--workdir={work}'],
    ['configs/nothing.py'],
  ),
  'config json missing': (
    ['--config={tmp}/none.json', '--workdir={work}'],
    ['none.json', 'no such file'],
  ),
  'config json broken': (
    ['--config={tmp}/broken.json', '--workdir={work}'],
    ['broken.json', 'not JSON'],
  ),
  'config json unknown key': (
    ['--config={tmp}/unknown.json', '--workdir={work}'],
    ["unknown config key 'sead'", "did you mean 'seed'"],
  ),
  'config without get_config': (
    ['--config={tmp}/empty.py', '--workdir={work}'],
    ['get_config'],
  ),
  'unknown config argument': (
    ['--config=configs/jft_resnet.py:depht=50', '--workdir={work}'],
    ["'depht'", 'depth=101|50|152'],
  ),
  'bad config argument value': (
    ['--config=configs/jft_resnet.py:depth=34', '--workdir={work}'],
    ['depth', '101, 50, 152'],
  ),
  'config argument that is no number': (
    ['--config=configs/jft_resnet.py:fraction=nan', '--workdir={work}'],
    ["fraction='nan'", 'float'],
  ),
  'fraction above one': (
    ['--config=configs/jft_resnet.py:fraction=2', '--workdir={work}'],
    ['fraction=2.0', '(0, 1]'],
  ),
  'negative batch as an argument': (
    ['--config=configs/jft_resnet_large_batch.py:batch=-32', '--mode=plan'],
    ['batch=-32', 'at least 1'],
  ),
  'negative size as an argument': (
    ['--config=configs/own_data.py:path=x,size=-5', '--workdir={work}'],
    ['size=-5', 'at least 1'],
  ),
  'own_data without a path': (
    ['--config=configs/own_data.py', '--workdir={work}'],
    ['path=DATA'],
  ),
  'unknown mode': ([QUICK, '--mode=test'], ['train|eval|plan']),
  'unknown flag': ([QUICK, '--wrkdir=x'], ['wrkdir']),
  'stray argument': ([QUICK, '--workdir={work}', 'seed=1'], ['seed=1']),
  'no length': (
    ['CODE:c.total_steps = None', '--workdir={work}'],
    ['total_steps', 'total_epochs', 'total_examples'],
  ),
  'batch that the devices do not divide': (
    ['CODE:c.input.batch_size = 0', '--workdir={work}'],
    ['input.batch_size'],
  ),
  'accumulation that does not divide': (
    [QUICK, '--workdir={work}', '--config.train.accum_steps=3'],
    ['train.accum_steps=3', 'input.batch_size=16'],
  ),
  'mesh larger than the machine': (
    [QUICK, '--workdir={work}', '--config.mesh.data=7'],
    ['mesh.data=7', '1 devices'],
  ),
  'mesh of nothing': (
    [QUICK, '--workdir={work}', '--config.mesh.model=0'],
    ['mesh.model=0'],
  ),
  'batch no multiple of the mesh, planned': (
    [QUICK, '--mode=plan', '--config.plan.num_devices=5'],
    ['input.batch_size=16', '5 devices'],
  ),
  'classes no multiple of the model axis, planned': (
    [
      QUICK,
      '--mode=plan',
      '--config.plan.num_devices=4',
      '--config.mesh.model=4',
    ],
    ['23', '4 devices', 'class_multiple'],
  ),
  'unknown source': (
    ["CODE:c.input.source.type = 'record'", '--workdir={work}'],
    ["unknown source 'record'", "'records'", 'synthetic'],
  ),
  'unknown source option': (
    ['CODE:c.input.source.nois = 0.1', '--workdir={work}'],
    ['input.source', "'nois'", "'noise'"],
  ),
  'source option out of range': (
    ['CODE:c.input.source.noise = 1.5', '--workdir={work}'],
    ['noise'],
  ),
  'unknown split': (
    ["CODE:c.input.source.split = 'test'", '--workdir={work}'],
    ["'test'", 'train', 'fasteval'],
  ),
  'data path missing': (
    ['--config=configs/own_data.py:path={tmp}/nowhere', '--workdir={work}'],
    ['nowhere', 'no such file or folder'],
  ),
  'data path of an unknown kind': (
    ['--config=configs/own_data.py:path={tmp}/notes.txt', '--workdir={work}'],
    ['notes.txt', '.csv'],
  ),
  'empty image folder': (
    ['--config=configs/own_data.py:path={tmp}/hollow', '--workdir={work}'],
    ['hollow'],
  ),
  'no validation split': (
    ['--config=configs/own_data.py:path={tmp}/images', '--workdir={work}'],
    ['val', 'train'],
  ),
  'CSV without its columns': (
    ['--config=configs/own_data.py:path={tmp}/columns.csv', '--workdir={work}'],
    ['columns.csv', "'path'"],
  ),
  'CSV whose images are missing': (
    ['--config=configs/own_data.py:path={tmp}/gone.csv', '--workdir={work}'],
    ['gone.csv', 'gone.jpg'],
  ),
  'label outside the vocabulary': (
    ['VOCABULARY', '--workdir={work}'],
    ['labels.csv:3', "'dgo'", 'dog'],
  ),
  'hierarchy with a cycle': (
    ['HIERARCHY:cycle.tsv', '--workdir={work}'],
    ['cycle.tsv', 'cycle', 'dog', 'cat'],
  ),
  'hierarchy with an unknown parent': (
    ['HIERARCHY:unknown.tsv', '--workdir={work}'],
    ['unknown.tsv:1', 'anmal'],
  ),
  'hierarchy file missing': (
    ['HIERARCHY:nothing.tsv', '--workdir={work}'],
    ['nothing.tsv'],
  ),
  'records of a damaged set': (
    [
      '--config=configs/jft_resnet.py:path={tmp}/halfset',
      '--config.device=any',
      '--workdir={work}',
    ],
    ['halfset'],
  ),
  'no accelerator for a config that wants one': (
    ['--config=configs/jft_resnet.py:path={tmp}/halfset', '--workdir={work}'],
    ["config.device='accelerator'", "'cpu'", '--config.device=any'],
  ),
  'half a world': (
    [QUICK, '--workdir={work}', '--num_processes=2'],
    ['--coordinator', '--process_id', 'belong together'],
  ),
  'unknown op': (
    ["CODE:c.input.ops = [dict(op='crop', size=3)]", '--workdir={work}'],
    ["'crop'", 'random_crop'],
  ),
  'unknown op option': (
    [
      "CODE:c.input.ops = [dict(op='random_crop', sise=3)]",
      '--workdir={work}',
    ],
    ['input.ops[0]', "'sise'", "'size'"],
  ),
  'ops that leave the size open': (
    [
      "CODE:c.input.ops = [dict(op='labels', max_labels=9)]",
      '--workdir={work}',
    ],
    ['input.ops', 'resize or crop'],
  ),
  'unknown model': (
    ["CODE:c.model.type = 'resnext'", '--workdir={work}'],
    ["unknown model 'resnext'", 'resnet'],
  ),
  'unknown model option': (
    ['CODE:c.model.dept = 50', '--workdir={work}'],
    ['model', "'dept'", "'depth'"],
  ),
  'impossible batch norm': (
    [QUICK, '--workdir={work}', '--config.model.bn=group'],
    ['model.bn', 'ghost'],
  ),
  'unknown task': (
    [QUICK, '--workdir={work}', '--config.task.type=multi'],
    ["unknown task 'multi'", 'multilabel'],
  ),
  'number of classes not that of the data': (
    [QUICK, '--workdir={work}', '--config.task.num_classes=22'],
    ['task.num_classes=22', '23'],
  ),
  'unknown optimizer': (
    [QUICK, '--workdir={work}', '--config.optim.type=rmsprob'],
    ['optim.type', 'rmsprop'],
  ),
  'unknown optimizer option': (
    ['CODE:c.optim.momentun = 0.9', '--workdir={work}'],
    ['optim.momentun', "'momentum'"],
  ),
  'unknown schedule option': (
    ['CODE:c.schedule.warmup = 5', '--workdir={work}'],
    ['schedule.warmup', 'warmup_steps'],
  ),
  'freezing what is not there': (
    ["CODE:c.optim.freeze = ['backbnoe/.*']", '--workdir={work}'],
    ['optim.freeze', 'backbone'],
  ),
  'unknown evaluator': (
    ["CODE:c.evals.fasteval.type = 'map'", '--workdir={work}'],
    ["unknown evaluator 'map'", 'multilabel_map'],
  ),
  'evaluator option that does not exist': (
    ['CODE:c.evals.fasteval.top = 5', '--workdir={work}'],
    ['evals.fasteval', "'top'"],
  ),
  'evaluator option out of range': (
    ["CODE:c.evals.fasteval.axis = 'images'", '--workdir={work}'],
    ['axis', 'class'],
  ),
  'evaluator data missing': (
    [
      "CODE:c.evals.fasteval.data = dict(type='records', path='nowhere')",
      '--workdir={work}',
    ],
    ['nowhere'],
  ),
  'warm start from nowhere': (
    [QUICK, '--workdir={work}', '--config.init_from.path={tmp}/nowhere'],
    ['init_from.path', 'nowhere'],
  ),
  'evaluating a workdir without a checkpoint': (
    [QUICK, '--mode=eval', '--workdir={work}'],
    ['no checkpoint'],
  ),
  'task without its labels': (
    ["CODE:c.task.type = 'softmax'", '--workdir={work}'],
    ["task 'softmax'", "'label'", 'label_ids'],
  ),
  'a number as text': (
    ["CODE:c.model.bn_decay = '0.9'", '--workdir={work}'],
    ['bn_decay', '0.9', 'float'],
  ),
  'freezing a number': (
    ['CODE:c.optim.freeze = 5', '--workdir={work}'],
    ['optim.freeze=5', 'list of str'],
  ),
  'an op that is a word': (
    ["CODE:c.input.ops = ['decode']", '--workdir={work}'],
    ["input.ops[0]: an op is a dict with the key 'op', got 'decode'"],
  ),
  'evaluating before the start': (
    ['CODE:c.evals.fasteval.every_steps = -3', '--workdir={work}'],
    ['evals.fasteval.every_steps must be a number of at least 0, got -3'],
  ),
  'evaluating never': (
    ['CODE:c.evals.fasteval.every_steps = 0', '--workdir={work}'],
    ['evals.fasteval.every_steps=0 must be at least one step'],
  ),
  'an evaluator called train': (
    ['CODE:c.evals.train = c.evals.fasteval', '--workdir={work}'],
    ['evals', "'train'"],
  ),
  'pattern that is none': (
    ["CODE:c.init_from.reinit = ('(',)", '--workdir={work}'],
    ['init_from.reinit'],
  ),
  'config with a syntax error': (
    ['--config={tmp}/syntax.py', '--workdir={work}'],
    ['does not load'],
  ),
  'arguments for a stored config': (
    ['--config={tmp}/unknown.json:tiny', '--workdir={work}'],
    ['no arguments'],
  ),
  'empty workdir': ([QUICK, '--workdir='], ['--workdir is missing']),
  'checkpoint flag in training': (
    [QUICK, '--workdir={work}', '--checkpoint=x'],
    ['--checkpoint', '--mode=eval'],
  ),
  'workdir is a file': (
    [QUICK, '--workdir={tmp}/notes.txt'],
    ['--workdir', 'notes.txt'],
  ),
}


def make_files(tmp: pathlib.Path) -> None:
  """Writes the broken files that the cases point at."""
  (tmp / 'broken.json').write_text('{"seed": ')
  (tmp / 'unknown.json').write_text(json.dumps({'sead': 1}))
  (tmp / 'empty.py').write_text('"""No get_config here."""\n')
  (tmp / 'syntax.py').write_text('def get_config(:\n')
  (tmp / 'notes.txt').write_text('hello')
  (tmp / 'hollow' / 'train').mkdir(parents=True)
  for name in ('cat', 'dog'):
    folder = tmp / 'images' / 'train' / name
    folder.mkdir(parents=True)
    for i in range(3):
      Image.new('RGB', (40, 40), (90, 60 * i, 20)).save(folder / f'{i}.jpg')
  (tmp / 'columns.csv').write_text('file,label\na.jpg,cat\n')
  (tmp / 'gone.csv').write_text('path,labels,split\ngone.jpg,cat,train\n')
  rows = ['path,labels,split', 'images/train/cat/0.jpg,cat,train']
  rows += ['images/train/dog/0.jpg,dgo,train']
  (tmp / 'labels.csv').write_text('\n'.join(rows) + '\n')
  (tmp / 'names.txt').write_text('cat\ndog\n')
  (tmp / 'cycle.tsv').write_text('cat\tdog\ndog\tcat\n')
  (tmp / 'unknown.tsv').write_text('cat\tanmal\n')
  (tmp / 'halfset').mkdir()
  (tmp / 'halfset' / 'manifest.json').write_text('{"format"')


def write_config(path: pathlib.Path, body: str) -> str:
  """A config file that is quickstart:tiny with one change."""
  path.write_text(
    'from configs import quickstart\n\n\n'
    'def get_config():\n'
    "  c = quickstart.get_config('tiny')\n"
    '  c.unlock()\n'
    f'  {body}\n'
    '  return c\n'
  )
  return f'--config={path}'


def expand(arg: str, files: pathlib.Path, work: pathlib.Path) -> str:
  kind, _, rest = arg.partition(':')
  config = work.parent / 'config_of_case.py'
  if kind == 'CODE':
    return write_config(config, rest)
  if kind == 'VOCABULARY':
    return write_config(
      config,
      f"c.input.source = dict(type='table', path={str(files)!r} + "
      f"'/labels.csv', vocabulary={str(files)!r} + '/names.txt')",
    )
  if kind == 'HIERARCHY':
    return write_config(
      config,
      f"c.input.source = dict(type='folder', path={str(files)!r} + '/images', "
      f'hierarchy={str(files / rest)!r})',
    )
  return arg.format(tmp=files, work=work)
