"""Plug-ins of one's own that cannot be imported: what, and where to look."""

import pytest

from big_vision_like.config import plugins
from input_pipeline import ops
from input_pipeline.ops.context import OpContext

KINDS = ('source', 'task', 'model', 'evaluator')


def as_op(name):
  ops.build([dict(op=f'{name}.Op')], OpContext())


LOADERS = {kind: lambda n, k=kind: plugins.load(k, n) for kind in KINDS}
LOADERS |= {'op': as_op}


@pytest.fixture
def package(tmp_path, monkeypatch):
  """A package whose modules fail in their own imports."""
  folder = tmp_path / 'some_package'
  folder.mkdir()
  for name, text in {
    '__init__': '',
    'absent_library': '"""Text."""\nimport no_such_library\n',
    'absent_sibling': 'from some_package import nothing_here\n',
    'absent_cousin': 'import some_package.nothing_here\n',
    'absent_name': 'from math import no_such_name\n',
    'deep': 'import some_package.absent_library\n',
    'empty': '',
    'unfinished': 'x = 1\ndef f(:\n',
    'raising': 'x = 1\nraise RuntimeError("no licence")\n',
    'leaving': 'import sys\nsys.exit(3)\n',
    'raising_deep': 'from some_package import raising\n',
  }.items():
    (folder / f'{name}.py').write_text(text)
  monkeypatch.syspath_prepend(str(tmp_path))
  monkeypatch.setenv('PYTHONPATH', 'over/there')
  return folder


@pytest.mark.parametrize('kind', LOADERS)
@pytest.mark.parametrize(
  ('name', 'message'),
  [
    (
      'no_package.thing',
      r"no module 'no_package' on Python's path; set PYTHONPATH to the folder "
      r"that holds it \(now 'over/there'\)$",
    ),
    (
      'some_package.thing',
      r"no module 'some_package.thing'; its package was found at "
      r".*some_package.__init__.py \(PYTHONPATH is 'over/there'\)$",
    ),
    (
      'some_package.absent_library',
      r"an import inside the module fails: No module named 'no_such_library' "
      r'\(.*absent_library.py, line 2\)$',
    ),
    (
      'some_package.absent_sibling',
      r"inside .*fails: cannot import name 'nothing_here'.*sibling.py, line 1",
    ),
    (
      'some_package.absent_cousin',
      r"inside .*: No module named 'some_package.nothing_here' .*line 1\)$",
    ),
    (
      'some_package.absent_name',
      r"inside .*: cannot import name 'no_such_name' from 'math'",
    ),
    (
      'some_package.deep',
      r"inside .*named 'no_such_library' \(.*absent_library.py, line 2\)$",
    ),
    (
      'some_package.unfinished',
      r'the module does not load: .*/unfinished\.py:2: SyntaxError: '
      r'invalid syntax$',
    ),
    (
      'some_package.raising',
      r'does not load: .*/raising\.py:2: RuntimeError: no licence$',
    ),
    (
      'some_package.raising_deep',
      r'does not load: .*/raising\.py:2: RuntimeError: no licence$',
    ),
    (
      'some_package.leaving',
      r'does not load: .*/leaving\.py:2: SystemExit: 3$',
    ),
    ('some_package.empty', 'module some_package.empty does not define'),
  ],
)
def test_what_does_not_import_is_named(package, kind, name, message):
  with pytest.raises(ValueError, match=message) as error:
    LOADERS[kind](name)
  assert kind in str(error.value) and name in str(error.value)
  assert '\n' not in str(error.value)
