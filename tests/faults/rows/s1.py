"""S1: files of arrays and weights made to do harm, by every reader."""

import json
import os
import pathlib
import pickle
import random
import shutil
import subprocess
import sys
import zipfile

from input_pipeline.prepared import manifest as manifests
from tests.faults import memory, record_sets
from tests.faults.field import Field
from tests.faults.rows import Row
from tests.faults.trainers import ROOT
from tests.input_pipeline.files import hostile_arrays as arrays

_MOST_KIB = 200 << 10
# reader -> (kinds, file name, imports, call).
_READERS = {
  'arrays of a data set': (
    arrays.NPY, 'x.npy', 'from input_pipeline.files import numpy_files',
    'numpy_files.mapped(sys.argv[1])',
  ),
  'vectors of dedup': (
    arrays.NPY, 'x.npy', 'from tools.near_duplicates import signatures',
    'signatures.open_vectors(sys.argv[1], 4)',
  ),
  'vectors of dedup, safetensors': (
    arrays.SAFETENSORS, 'x.safetensors',
    'from tools.near_duplicates import signatures',
    'signatures.open_vectors(sys.argv[1], 4)',
  ),
  'state of dedup': (
    arrays.NPZ, 'x.npz', 'from input_pipeline.files import numpy_files',
    'numpy_files.read_all(sys.argv[1])',
  ),
  'weights': (
    arrays.SAFETENSORS, 'x.safetensors',
    'from big_vision_like.checkpoints import safetensors_files',
    'safetensors_files.read(sys.argv[1])',
  ),
  'features': (
    arrays.SAFETENSORS, 'x.safetensors',
    'from tools.embedding import feature_shards',
    'feature_shards.count(sys.argv[1], "safetensors")',
  ),
}  # fmt: skip
_CASES = [
  (reader, kind) for reader, told in _READERS.items() for kind in told[0]
]
_PTH = ('a pickle', 'an archive of torch with a payload', 'of another kind')
# Arrays that lie beside the shards of a data set, and in its manifest.
_STRANGERS = ('labels', 'label_ends')
_ALL = [
  *_CASES,
  *(('tools.convert_torch', kind) for kind in _PTH),
  *(('a warm start', kind) for kind in ('a pickle', 'a tensor of a terabyte')),
  *(('a data set of a stranger', kind) for kind in _STRANGERS),
]


def _torch(path: pathlib.Path, kind: str) -> None:
  content = pickle.dumps({'conv1.weight': arrays.Payload()})
  if kind == 'an archive of torch with a payload':
    with zipfile.ZipFile(path, 'w') as archive:
      archive.writestr('archive/data.pkl', content)
      archive.writestr('archive/version', '3\n')
      archive.writestr('archive/byteorder', 'little')
  else:
    path.write_bytes(content if kind == 'a pickle' else b'\x80\x02]q\x00.')


def _tool(args: list[str], cwd: pathlib.Path) -> str:
  done = subprocess.run(
    [sys.executable, '-m', *args],
    cwd=cwd,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    timeout=240,
  )
  assert done.returncode == 2, f'{done.returncode}: {done.stdout[-2000:]}'
  return done.stdout


def _convert(folder: pathlib.Path, kind: str) -> str:
  _torch(folder / 'w.pth', kind)
  args = ['--input=w.pth', '--output=out']
  return _tool(['tools.convert_torch', *args], folder)


def _main(field: Field, folder: pathlib.Path, **changes: object) -> str:
  """What main says with this in the place of its config's values."""
  content = json.loads(field.config.read_text())
  content['evals'] = {}
  content['input']['ops'][-1]['fill_in'] = False
  for name, value in changes.items():
    section, _, key = name.partition('__')
    content[section][key] = value
  config = folder / 'config.json'
  config.write_text(json.dumps(content))
  args = [f'--config={config}', f'--workdir={folder / "w"}']
  return _tool(['main', *args], folder)


def _warm_start(field: Field, folder: pathlib.Path, kind: str) -> str:
  """From a file in the place of a checkpoint."""
  path = folder / 'weights.safetensors'
  arrays.write(arrays.SAFETENSORS, kind, path, random.Random(0))
  said = _main(field, folder, init_from__path=str(path))
  assert str(path) in said, said
  return said


def _data_set(
  field: Field, folder: pathlib.Path, name: str, rng: random.Random
) -> str:
  """With a manifest that is right for what is in it."""
  data = folder / 'data'
  record_sets.write(data, 20, 1)
  path = data / f'train.{name}.npy'
  for other in _STRANGERS:
    shape = (20,)
    (data / f'train.{other}.npy').write_bytes(
      arrays.npy_header(shape, '<i4' if other == 'labels' else '<i8')
      + bytes(20 * (4 if other == 'labels' else 8))
    )
  kind = rng.choice(('Python objects', 'a terabyte claimed', 'a pickle'))
  arrays.write(arrays.NPY, kind, path, rng)
  found = manifests.load(str(data))
  found.label_index['train'] = {
    n: manifests.describe_file(str(data), f'train.{n}.npy') for n in _STRANGERS
  }
  found.save(str(data))
  source = {'type': 'records', 'path': str(data)}
  return _main(field, folder, input__source=source)


def trial(field: Field, number: int, rng: random.Random) -> str:
  reader, kind = _ALL[number % len(_ALL)]
  folder = field.folder / f's1-{number}'
  folder.mkdir(parents=True)
  grown = ''
  if reader in _READERS:
    table, name, imports, call = _READERS[reader]
    words = arrays.write(table, kind, folder / name, rng)
    said, kib = memory.of(imports, call, folder / name, cwd=folder)
    assert words in said and str(folder / name) in said, said
    assert kib <= _MOST_KIB, f'{reader}, {kind}: {kib} KiB'
    grown = f' (+{kib >> 10} MiB)'
  elif reader == 'tools.convert_torch':
    said = _convert(folder, kind)
    assert 'w.pth' in said, said
  elif reader == 'a warm start':
    said = _warm_start(field, folder, kind)
  else:
    said = _data_set(field, folder, kind, rng)
    assert f'train.{kind}.npy' in said, said
  last = said.strip().splitlines()[-1]
  assert 'Traceback' not in said, said
  assert len(last) < 700, last
  assert not list(folder.rglob(arrays.CANARY)), f'{reader}, {kind}: it has run'
  shutil.rmtree(folder)
  return f'{reader}: {kind}{grown}'


ROW = Row(
  'S1',
  'pickles, payloads of code, headers that claim a terabyte, 100 MB of header, '
  'names twice, bombs: as npy, npz, safetensors, pth, by every reader',
  'refused in one line that names the file; nothing of it has run; within '
  '200 MiB',
  trial,
  trials=len(_ALL),
  per_commit=0,
)
