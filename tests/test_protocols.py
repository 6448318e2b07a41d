"""Every plug-in stands in plugin_types.py, where its types are compared."""

import ast
import inspect
import json
import pathlib
import subprocess
import sys

import pytest

from big_vision_like import protocols
from input_pipeline import ops
from tests import plugin_types
from tests.conftest import ROOT

# Class -> where such are, and their table.
TABLES = {
  'Source': ('input_pipeline', plugin_types.SOURCES),
  'Model': ('big_vision_like/models', plugin_types.MODELS),
  'Task': ('big_vision_like/tasks', plugin_types.TASKS),
  'Evaluator': ('evaluators', plugin_types.EVALUATORS),
}
MY_OPS = 'tests.fixtures.my_package.my_ops'
SOURCES, OPS = (
  set(table.values()) for table in (plugin_types.SOURCES, plugin_types.OPS)
)
MODELS, TASKS = (
  set(table.values()) for table in (plugin_types.MODELS, plugin_types.TASKS)
)
# What plug-ins may have besides -> those asked for it, those listed with it.
OFFERED = {
  protocols.WithSpace: (SOURCES, plugin_types.SPACES),
  protocols.WithMasks: (SOURCES | TASKS, plugin_types.MASKS),
  protocols.WithKeypoints: (SOURCES, plugin_types.KEYPOINTS),
  protocols.WithExternalIds: (SOURCES, plugin_types.EXTERNAL_IDS),
  protocols.WithTruth: (SOURCES, plugin_types.TRUTH),
  protocols.WithSizes: (SOURCES, plugin_types.SIZES),
  protocols.WithImageIds: (SOURCES, plugin_types.IMAGE_IDS),
  protocols.WithObjects: (SOURCES, plugin_types.OBJECTS),
  protocols.WithPeople: (SOURCES, plugin_types.PEOPLE),
  protocols.ComputedBy: (SOURCES, plugin_types.COMPUTED_BY),
  protocols.WithFrozenMap: (TASKS, plugin_types.FROZEN_MAPS),
  protocols.LabelReader: (SOURCES, plugin_types.LABEL_READERS),
  protocols.LabelIndexed: (SOURCES, plugin_types.LABEL_INDEXED),
  protocols.HashOrdered: (SOURCES, plugin_types.HASH_ORDERED),
  protocols.Described: (SOURCES, plugin_types.DESCRIBED),
  protocols.Reporting: (SOURCES, plugin_types.REPORTING),
  protocols.WithEdges: (SOURCES, plugin_types.WITH_EDGES),
  protocols.StoredKeys: (SOURCES, plugin_types.STORED_KEYS),
  protocols.RecordReader: (SOURCES, plugin_types.RECORD_READERS),
  protocols.Declaring: (OPS, OPS),
  protocols.Deterministic: (OPS, OPS),
  protocols.Sizing: (OPS, plugin_types.SIZING),
  protocols.Selective: (OPS, plugin_types.SELECTIVE),
  protocols.WithoutChance: (OPS, plugin_types.WITHOUT_CHANCE),
  protocols.ShowingWhole: (OPS, plugin_types.SHOWING_WHOLE),
  protocols.Freezing: (MODELS, plugin_types.FREEZING),
  protocols.WithComputeType: (MODELS, plugin_types.COMPUTE_TYPES),
  protocols.WithConv: (MODELS, plugin_types.CONVOLUTIONS),
  protocols.WithLayout: (MODELS | TASKS, plugin_types.LAYOUTS),
  protocols.WithAnchors: (TASKS, plugin_types.ANCHORS),
  protocols.NeedingStart: (TASKS, plugin_types.STARTS),
  protocols.WithParts: (TASKS, plugin_types.PARTS),
}


def classes(path: pathlib.Path) -> set[str]:
  body = ast.parse(path.read_text()).body
  return {node.name for node in body if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize('name', TABLES)
def test_every_plugin_is_in_the_table_of_its_kind(name):
  place, table = TABLES[name]
  paths = [
    p for d in (place, 'tests/fixtures') for p in (ROOT / d).rglob('*.py')
  ]
  found = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for path in paths
    if name in classes(path)
  }
  missing = found - table.keys()
  assert not missing, f'not in tests/plugin_types.py: {sorted(missing)}'
  for module, cls in table.items():
    assert inspect.isclass(cls) and cls.__module__ == module


def test_every_op_is_in_the_table():
  table = plugin_types.OPS
  own = {name for name in table if '.' not in name}
  assert own == ops.OPS.keys()
  assert all(table[name] is ops.find('', name) for name in own)
  mine = classes(ROOT / f'{MY_OPS.replace(".", "/")}.py')
  assert table.keys() - own == {f'{MY_OPS}.{name}' for name in mine}


def offers(cls: type, protocol: type) -> bool:
  """Whether a class has the members of a protocol, or its instances do."""
  text = ''.join(
    inspect.getsource(c) for c in cls.__mro__ if c.__module__ != 'builtins'
  )
  return all(
    getattr(cls, name, None) not in (None, False)
    or f'    self.{name} = ' in text
    for name in members(protocol)
  )


def members(protocol: type) -> set[str]:
  return {n for n in vars(protocol) if not n.startswith('_')}


@pytest.mark.parametrize('protocol', OFFERED, ids=lambda p: p.__name__)
def test_what_plugins_offer_besides_is_listed(protocol):
  """What a class offers those offer, too, that inherit from it."""
  asked, listed = OFFERED[protocol]
  found = {cls for cls in asked if offers(cls, protocol)}
  heirs = {cls for cls in found if {*cls.__mro__[1:]} & found}
  assert found - heirs == {*listed} - heirs


def test_every_protocol_is_compared_with_something():
  found = {
    value
    for value in vars(protocols).values()
    if inspect.isclass(value) and getattr(value, '_is_runtime_protocol', False)
  }
  assert found == OFFERED.keys()


FOREIGN = """
from collections.abc import Callable
from big_vision_like.protocols import Source
from input_pipeline.labels.vocabulary import Vocabulary

class Mine:
  hierarchy = None
  vocabulary = Vocabulary(('a',))
  def __len__(self): return 1
  def __getitem__(self, index): return {}
  def key(self, index) -> KEY: return KEY()
  def fingerprint(self): return ''

source: Callable[..., Source] = Mine
"""


def test_the_type_checker_compares_a_foreign_source(tmp_path):
  """Its signature with the protocol, and what is asked of one."""
  (tmp_path / 'good.py').write_text(FOREIGN.replace('KEY', 'str'))
  (tmp_path / 'bad.py').write_text(FOREIGN.replace('KEY', 'int'))
  asking = 'from big_vision_like.protocols import Source\n'
  asking += 'def pairs(source: Source): return source.keypoint_pairs\n'
  (tmp_path / 'asking.py').write_text(asking)
  settings = {'typeCheckingMode': 'basic', 'extraPaths': [str(ROOT)]}
  (tmp_path / 'pyrightconfig.json').write_text(json.dumps(settings))
  checker = pathlib.Path(sys.executable).parent / 'basedpyright'
  done = subprocess.run(
    [checker, '--outputjson', '--pythonpath', sys.executable],
    cwd=tmp_path, capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  found = json.loads(done.stdout)['generalDiagnostics']
  errors = {
    (pathlib.Path(one['file']).name, one['message'].split('\n')[0])
    for one in found
    if one['severity'] == 'error'
  }
  assert {name for name, _ in errors} == {'bad.py', 'asking.py'}, errors
  assert any('"keypoint_pairs"' in message for _, message in errors)
