"""Who may import whom, and what no file may contain (docs/architecture.md)."""

import ast
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

NUMERIC = {'jax', 'flax', 'optax', 'orbax', 'grain', 'tensorflow_datasets'}
OURS = {*PACKAGES, 'main', 'benchmarks', 'tests'}

# folder or file -> (our modules it may import, third parties it may not)
RULES = {
  'configs': ({'configs.common', 'configs'}, NUMERIC | {'numpy'}),
  'big_vision_like/metrics': ({'big_vision_like.metrics'}, NUMERIC),
  **dict.fromkeys(
    (
      'big_vision_like/hierarchy.py', 'big_vision_like/hierarchy_files.py',
      'big_vision_like/label_graph.py', 'big_vision_like/text_lines.py',
      'big_vision_like/vocabulary.py',
    ),
    (
      {
        'big_vision_like.hierarchy_files', 'big_vision_like.label_graph',
        'big_vision_like.plugins', 'big_vision_like.text_lines',
        'big_vision_like.vocabulary',
      },
      NUMERIC,
    ),
  ),
  'big_vision_like/ops': (
    {'big_vision_like.ops'}, {'optax', 'orbax', 'grain'},
  ),
  'big_vision_like/models': (
    {'big_vision_like.models', 'big_vision_like.ops'},
    {'optax', 'orbax', 'grain'},
  ),
  'big_vision_like/losses.py': (
    {'big_vision_like.ops'}, {'optax', 'orbax', 'grain'},
  ),
  'big_vision_like/tasks': (
    {
      'big_vision_like.tasks', 'big_vision_like.models',
      'big_vision_like.ops', 'big_vision_like.losses', 'big_vision_like',
    },
    {'optax', 'orbax', 'grain'},
  ),
  'input_pipeline': (
    {
      'input_pipeline', 'big_vision_like.hierarchy',
      'big_vision_like.hierarchy_files',
      'big_vision_like.vocabulary', 'big_vision_like.plugins',
      'big_vision_like.durations', 'big_vision_like.text_lines',
      'big_vision_like',
    },
    {'jax', 'flax', 'optax', 'orbax'},
  ),
  'evaluators': (
    {
      'evaluators.common', 'evaluators.class_files',
      'evaluators.frozen_features', 'evaluators',
      'big_vision_like.metrics', 'big_vision_like.mesh', 'big_vision_like.ops',
      'big_vision_like.plugins', 'big_vision_like.text_lines',
      'big_vision_like.vocabulary', 'input_pipeline', 'big_vision_like',
    },
    {'optax', 'orbax'},
  ),
}  # fmt: skip
EXEMPT = {
  'input_pipeline/device.py': {'jax'},
  'big_vision_like/ops/logistic_regression.py': {'optax'},  # its solver
  'tools/convert_pth.py': {'torch'},  # a process of its own
}
PLUGIN_FREE = (
  'step', 'state', 'mesh', 'optim', 'checkpoint', 'train', 'evaluate',
  'experiment', 'plan', 'settings',
)  # fmt: skip


def imports(path: pathlib.Path) -> list[tuple[str, list[str]]]:
  """(module, names) of every import anywhere in a file."""
  out = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      out += [(alias.name, []) for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module:
      out.append((node.module, [alias.name for alias in node.names]))
  return out


def modules(path: pathlib.Path) -> set[str]:
  """Dotted names imported, `from a import b` counting as a.b for our own."""
  found = set()
  for module, names in imports(path):
    top = module.partition('.')[0]
    if top in OURS and names and module in {*PACKAGES, 'big_vision_like'}:
      found |= {f'{module}.{name}' for name in names}
    else:
      found.add(module)
  return found


def relative(path: pathlib.Path) -> str:
  return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize('place', RULES)
def test_imports_stay_within_their_layer(place):
  ours, banned = RULES[place]
  files = [
    p
    for p in FILES
    if relative(p) == place or relative(p).startswith(f'{place}/')
  ]
  assert files, place
  for path in files:
    for module in modules(path):
      top = module.partition('.')[0]
      if top in OURS:
        fine = any(
          module == m or (m != 'big_vision_like' and module.startswith(f'{m}.'))
          for m in ours
        )
        assert fine, f'{relative(path)} imports {module}'
      else:
        allowed = EXEMPT.get(relative(path), set())
        assert top not in banned - allowed, f'{relative(path)} imports {module}'


def test_trainer_names_no_plugin():
  """The loop must take tasks, models, sources and evaluators it never met."""
  for name in PLUGIN_FREE:
    path = ROOT / 'big_vision_like' / f'{name}.py'
    for module in modules(path):
      for package in ('tasks', 'models', 'input_pipeline.sources'):
        assert not module.startswith(f'big_vision_like.{package}'), module
        assert not module.startswith(package), module
      if module.startswith('evaluators'):
        assert module == 'evaluators.common', module


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_nothing_dangerous_and_no_tensorflow(path):
  tree = ast.parse(path.read_text())
  for module, _ in imports(path):
    top = module.partition('.')[0]
    banned = {'pickle', 'tensorflow', 'torch', 'clu'}
    assert top not in banned - EXEMPT.get(relative(path), set()), module
  for node in ast.walk(tree):
    if isinstance(node, ast.Call):
      name = getattr(node.func, 'id', getattr(node.func, 'attr', ''))
      method = isinstance(node.func, ast.Attribute)
      assert name != 'extractall', relative(path)
      assert method or name not in ('eval', 'exec'), relative(path)
      for keyword in node.keywords:
        flag = getattr(keyword.value, 'value', None)
        assert not (keyword.arg in ('shell', 'allow_pickle') and flag)
      assert ast.unparse(node.func) != 'yaml.load', relative(path)


@pytest.mark.parametrize('path', FILES, ids=relative)
def test_files_are_short_and_explain_themselves(path):
  text = path.read_text()
  assert len(text.splitlines()) <= 500, relative(path)
  assert ast.get_docstring(ast.parse(text)), relative(path)
  assert path.stem not in ('utils', 'util', 'helpers', 'misc')
