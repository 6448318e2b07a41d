"""Who may import whom, and what no file may contain (docs/architecture.md)."""

import ast
import collections
import functools
import itertools
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = (
  'big_vision_like', 'input_pipeline', 'evaluators', 'configs', 'tools',
)  # fmt: skip
FILES = [
  *sorted(p for name in PACKAGES for p in (ROOT / name).rglob('*.py')),
  ROOT / 'main.py',
]
MODULES_A_FOLDER = 25
LINES_A_FILE = 500

NUMERIC = {'jax', 'flax', 'optax', 'orbax', 'grain', 'tensorflow_datasets'}
OURS = {*PACKAGES, 'main', 'benchmarks', 'tests'}
B = 'big_vision_like'

# What plug-ins keep to, and how they say what their options may be: imported by
# anything and importing nothing of ours.
CONTRACTS = {f'{B}.protocols', f'{B}.config.option_types'}

# folder -> (our modules and folders it may import, third parties it may not)
RULES = {
  'configs': ({'configs'}, NUMERIC | {'numpy'}),
  f'{B}/config': ({f'{B}.config', 'configs.common'}, NUMERIC | {'numpy'}),
  f'{B}/metrics': ({f'{B}.metrics'}, NUMERIC),
  f'{B}/parallel': ({f'{B}.parallel', f'{B}.config'}, {'optax', 'orbax'}),
  f'{B}/ops': ({f'{B}.ops', f'{B}.parallel'}, {'optax', 'orbax', 'grain'}),
  f'{B}/losses': (
    {f'{B}.losses', f'{B}.ops', f'{B}.parallel'}, {'optax', 'orbax', 'grain'},
  ),
  f'{B}/models': (
    {f'{B}.models', f'{B}.ops', f'{B}.parallel'}, {'optax', 'orbax', 'grain'},
  ),
  f'{B}/tasks': (
    {
      f'{B}.tasks', f'{B}.models', f'{B}.ops', f'{B}.losses',
      f'{B}.config.plugins', f'{B}.config.stream_names',
      'input_pipeline.labels',
    },
    {'optax', 'orbax', 'grain'},
  ),
  f'{B}/training': (
    {f'{B}.training', f'{B}.config', f'{B}.parallel'}, {'orbax', 'grain'},
  ),
  f'{B}/checkpoints': (
    {
      f'{B}.checkpoints', f'{B}.config', f'{B}.parallel', f'{B}.training',
      f'{B}.models.resnet', 'input_pipeline.files', 'input_pipeline.labels',
    },
    {'grain'},
  ),
  f'{B}/runtime': (
    {f'{B}.runtime', f'{B}.config', 'input_pipeline.files'},
    {'optax', 'orbax', 'grain', 'flax'},
  ),
  f'{B}/pages': (
    {f'{B}.pages', f'{B}.config', f'{B}.runtime.figures', 'input_pipeline'},
    NUMERIC,
  ),
  f'{B}/inference': (
    {
      f'{B}.inference', f'{B}.checkpoints', f'{B}.config', f'{B}.experiment',
      f'{B}.metrics',
      f'{B}.ops', f'{B}.parallel', f'{B}.training', 'input_pipeline',
    },
    {'optax', 'orbax'},
  ),
  'input_pipeline': (
    {'input_pipeline', f'{B}.config'},
    {'jax', 'flax', 'optax', 'orbax'},
  ),
  'input_pipeline/files': (
    {'input_pipeline.files', 'input_pipeline.examples'}, NUMERIC,
  ),
  'evaluators': (
    {
      'evaluators.harness', f'{B}.config', f'{B}.metrics', f'{B}.ops',
      f'{B}.pages', f'{B}.parallel', 'input_pipeline',
    },
    {'optax', 'orbax'},
  ),
}  # fmt: skip
EXEMPT = {
  'input_pipeline/device.py': {'jax'},
  f'{B}/ops/logistic_regression.py': {'optax'},  # its solver
  'tools/convert_pth.py': {'torch'},  # a process of its own
}
# The trunk meets plug-ins by name only; these are all it may know of them.
TRUNK = (
  'program', 'experiment', 'opening', 'resuming', 'train', 'evaluate', 'plan',
  'memory_advice', 'config', 'training', 'checkpoints', 'runtime', 'parallel',
)  # fmt: skip
# Folder -> what a module of it defines; its parts lie in folders below.
PLUGINS = {
  'input_pipeline/sources': 'Source',
  f'{B}/tasks': 'Task',
  f'{B}/models': 'Model',
  'evaluators': 'Evaluator',
  'tools': 'main',
  'configs': 'get_config',
  'configs/studies': 'get_config',
}
# The table of all keys; what several studies share.
NO_PLUGINS = {
  'configs/common.py',
  'configs/detectors.py',
  'configs/poses.py',
  'configs/studies/detection.py',
  'configs/studies/pretraining.py',
  'configs/studies/transfer.py',
}


def relative(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).as_posix()


def dotted(path: pathlib.Path) -> str:
  name = relative(path).removesuffix('.py').replace('/', '.')
  return name.removesuffix('.__init__')


MODULES = {dotted(path) for path in FILES}


@functools.cache
def modules(path: pathlib.Path) -> frozenset[str]:
  """Dotted names imported anywhere in a file, `from a import b` as a.b."""
  package = dotted(path)
  if path.name != '__init__.py':
    package = package.rpartition('.')[0]
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      base = node.module or ''
      if node.level:
        above = package.split('.')[: len(package.split('.')) - node.level + 1]
        base = '.'.join([*above, *filter(None, [node.module])])
      for alias in node.names:
        name = f'{base}.{alias.name}'
        found.add(name if name in MODULES else base)
  return frozenset(found)


def inside(module: str, place: str) -> bool:
  return module == place or module.startswith(f'{place}.')


@pytest.mark.parametrize('place', RULES)
def test_imports_stay_within_their_layer(place):
  ours, banned = RULES[place]
  files = [p for p in FILES if relative(p).startswith(f'{place}/')]
  assert files, place
  for path in files:
    for module in modules(path):
      top = module.partition('.')[0]
      if top in OURS:
        fine = any(inside(module, m) for m in ours | CONTRACTS)
        assert fine, f'{relative(path)} imports {module}'
      else:
        allowed = EXEMPT.get(relative(path), set())
        assert top not in banned - allowed, f'{relative(path)} imports {module}'


def test_contracts_import_nothing_of_ours():
  for name in CONTRACTS:
    found = modules(ROOT / f'{name.replace(".", "/")}.py')
    assert not {m for m in found if m.partition('.')[0] in OURS}, name


def test_nothing_imports_tools_but_tools():
  for path in FILES:
    if not relative(path).startswith('tools/'):
      for module in modules(path):
        assert not inside(module, 'tools'), f'{relative(path)}: {module}'


@pytest.mark.parametrize('name', TRUNK)
def test_trunk_names_no_plugin(name):
  """The loop must take tasks, models, sources and evaluators it never met."""
  place = ROOT / B / name
  files = list(place.rglob('*.py')) or [place.with_suffix('.py')]
  weights = 'big_vision_like/checkpoints/torch_weights.py'  # ResNet's names
  for path in files:
    for module in modules(path):
      for package in (f'{B}.tasks', f'{B}.models', 'input_pipeline.sources'):
        if relative(path) != weights:
          assert not inside(module, package), f'{relative(path)}: {module}'
      if inside(module, 'evaluators'):
        assert inside(module, 'evaluators.harness'), module


@pytest.mark.parametrize('folder', PLUGINS)
def test_plugin_folders_hold_plugins_only(folder):
  for path in sorted((ROOT / folder).glob('*.py')):
    if path.name == '__init__.py' or relative(path) in NO_PLUGINS:
      continue
    assert PLUGINS[folder] in defined(path), f'{relative(path)} is no plug-in'


def defined(path: pathlib.Path) -> set[str]:
  """Names of the functions and classes of a module."""
  body = ast.parse(path.read_text()).body
  kinds = ast.ClassDef | ast.FunctionDef
  return {node.name for node in body if isinstance(node, kinds)}


def room(module: str) -> str:
  """A folder; the trunk's own modules are rooms of their own."""
  folder = module.rpartition('.')[0]
  package = (ROOT / module.replace('.', '/')).is_dir()
  return module if package or folder == B else folder


def test_folders_form_no_circle():
  """By imports anywhere, those under TYPE_CHECKING and in functions too."""
  needs: dict[str, dict[str, str]] = collections.defaultdict(dict)
  for path in FILES:
    for module in modules(path) & MODULES:
      here, there = room(dotted(path)), room(module)
      if here != there:
        needs[here][there] = f'{dotted(path)} imports {module}'
  assert len(needs) > 30
  done: set[str] = set()

  def visit(name: str, way: list[str]) -> None:
    if name in way:
      circle = [*way[way.index(name) :], name]
      edges = [needs[a][b] for a, b in itertools.pairwise(circle)]
      raise AssertionError('a circle: ' + '; '.join(edges))
    if name not in done:
      for other in needs.get(name, ()):
        visit(other, [*way, name])
      done.add(name)

  for name in list(needs):
    visit(name, [])


def test_folders_are_small():
  sizes = collections.Counter(
    relative(path.parent) for path in FILES if path.name != '__init__.py'
  )
  crowded = {k: n for k, n in sizes.items() if n > MODULES_A_FOLDER}
  assert not crowded


_BANNED = {'pickle', 'dill', 'cloudpickle', 'tensorflow', 'torch', 'clu'}
_SHELLS = {'os.system', 'os.popen', 'subprocess.getoutput'}


def dangerous(path: pathlib.Path) -> list[str]:
  """What a module imports or calls that none of ours may."""
  tree = ast.parse(path.read_text())
  exempt = EXEMPT.get(relative(path), set()) if path in FILES else set()
  found = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
      names = [node.module or '']
    else:
      names = []
    tops = {name.partition('.')[0] for name in names}
    found += [f'imports {top}' for top in tops & (_BANNED - exempt)]
    if isinstance(node, ast.Call):
      found += _dangerous_call(node)
  return found


def _dangerous_call(node: ast.Call) -> list[str]:
  name = getattr(node.func, 'id', getattr(node.func, 'attr', ''))
  whole = ast.unparse(node.func)
  method = isinstance(node.func, ast.Attribute)
  found = [
    f'calls with {keyword.arg}'
    for keyword in node.keywords
    if keyword.arg in ('shell', 'allow_pickle')
    and getattr(keyword.value, 'value', True)
  ]
  if (
    name == 'extractall'
    or (name in ('eval', 'exec') and not method)
    or whole in _SHELLS
    or (
      (whole.startswith('yaml.') and name.endswith('load'))
      and name != 'safe_load'
    )
  ):
    found.append(f'calls {whole}')
  return found


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_nothing_dangerous_and_no_tensorflow(path):
  assert dangerous(path) == []


def test_no_file_is_long():
  found = [
    path
    for kind in ('*.py', '*.sh')
    for path in ROOT.rglob(kind)
    if not {'.venv', '.git', 'build'} & set(path.relative_to(ROOT).parts)
  ]
  assert len(found) > 500
  lengths = {relative(p): len(p.read_text().splitlines()) for p in found}
  assert not {k: n for k, n in lengths.items() if n > LINES_A_FILE}


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_files_explain_themselves(path):
  text = path.read_text()
  assert ast.get_docstring(ast.parse(text)), relative(path)
  assert path.stem not in ('utils', 'util', 'helpers', 'misc')
