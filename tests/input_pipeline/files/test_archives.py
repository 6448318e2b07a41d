"""Folders, zips, tars and tars of tars: what is read, and what is refused."""

import concurrent.futures
import gzip
import os
import pathlib
import pickle
import tarfile
import threading

import numpy as np
import pytest

from input_pipeline.examples.errors import BadExample
from input_pipeline.files import (
  archive_index,
  archives,
  decompress,
  tar_members,
)
from tests.input_pipeline.files import archives_made
from tests.input_pipeline.files.archives_made import (
  add,
  tar_bytes,
  zip_bytes,
)

LONG = 'a long folder/' * 12 + 'x' * 150 + '.jpg'
CONTENT = {
  'b/2.jpg': b'two' * 500,
  'b/10.jpg': b'',
  'a.jpg': bytes(range(256)) * 9,
  'späte/ü.jpg': b'umlaut',
  LONG: b'long name',
}
FORMATS = {
  'ustar': tarfile.USTAR_FORMAT,
  'gnu': tarfile.GNU_FORMAT,
  'pax': tarfile.PAX_FORMAT,
}


@pytest.fixture
def make(tmp_path):
  """Writes CONTENT in one of the forms; its path."""

  def write(kind: str) -> pathlib.Path:
    if kind == 'folder':
      for name, data in CONTENT.items():
        path = tmp_path / 'folder' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
      return tmp_path / 'folder'
    if kind in ('stored', 'deflated'):
      path = tmp_path / f'{kind}.zip'
      method = {'stored': 0, 'deflated': 8}[kind]
      path.write_bytes(zip_bytes(CONTENT, method))
      return path
    content = {k: v for k, v in CONTENT.items() if kind != 'ustar' or k != LONG}
    path = tmp_path / f'{kind}.tar'
    path.write_bytes(tar_bytes(content, format=FORMATS[kind]))
    return path

  return write


@pytest.mark.parametrize(
  'kind', ['folder', 'stored', 'deflated', 'ustar', 'gnu', 'pax']
)
def test_every_kind_gives_the_same_files(make, kind):
  path = make(kind)
  files = archives.open_files(path)
  expected = {k: v for k, v in CONTENT.items() if kind != 'ustar' or k != LONG}
  assert list(files.names) == sorted(expected, key=str.encode)
  assert {name: files.read(name) for name in files.names} == expected
  assert dict(zip(files.names, files.sizes.tolist())) == {
    name: len(data) for name, data in expected.items()
  }
  assert 'a.jpg' in files and 'a.jp' not in files and 'zz' not in files
  assert files.names[-1] == files.names[len(files) - 1]
  assert files.names[1:3] == list(files.names)[1:3]
  with pytest.raises(BadExample, match='not in '):
    files.read('b/3.jpg')
  with pytest.raises(BadExample, match='larger than 1,499 bytes'):
    files.read('b/2.jpg', max_bytes=1499)
  for index in (-1, len(files)):
    with pytest.raises(IndexError):
      files.read_at(index)
  copy = pickle.loads(pickle.dumps(files))  # noqa: S301
  assert copy.read('b/2.jpg') == CONTENT['b/2.jpg']
  assert copy.fingerprint() == files.fingerprint()


def test_fingerprint_is_of_names_and_sizes(tmp_path):
  def fingerprint(content):
    path = tmp_path / 'x.tar'
    path.write_bytes(tar_bytes(content))
    return archives.open_files(path).fingerprint()

  first = fingerprint({'a': b'12', 'b': b'3'})
  assert fingerprint({'b': b'9', 'a': b'99'}) == first
  assert fingerprint({'a': b'1', 'b': b'23'}) != first
  assert fingerprint({'ab': b'12', 'b': b'3'}) != first


def test_tar_of_tars_is_read_by_absolute_offsets(tmp_path):
  path = tmp_path / 'train.tar'
  inner = {f'n{i:08}_{j}.JPEG': os.urandom(700) for i in (2,) for j in range(5)}
  path.write_bytes(
    tar_bytes({'n2.tar': inner, './README': b'hello', 'n1.tar': {'x': b'1'}})
  )
  files = archives.open_files(path)
  expected = {f'n2.tar/{name}': data for name, data in inner.items()}
  expected |= {'README': b'hello', 'n1.tar/x': b'1'}
  assert {name: files.read(name) for name in files.names} == expected
  assert files.names[0] == 'README'


def test_several_tars_as_one(tmp_path):
  names = [f's-{i}.tar' for i in range(archive_index.MAX_OPEN + 3)]
  for i, name in enumerate(names):
    (tmp_path / name).write_bytes(tar_bytes({'a.jpg': b'%d' % i}))
  files = archives.open_tars(str(tmp_path), names)
  for i, name in enumerate(names):  # more than are kept open
    assert files.read(f'{name}/a.jpg') == b'%d' % i
  with pytest.raises(FileNotFoundError, match=r's-x\.tar: no such file'):
    archives.open_tars(str(tmp_path), ['s-x.tar'])


def test_threads_share_one_index(make):
  files = archives.open_files(make('deflated'))
  start = threading.Barrier(8)

  def read(i):
    start.wait()
    return [files.read(name) == CONTENT[name] for name in CONTENT] * 20

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert all(all(found) for found in pool.map(read, range(8)))


def test_index_is_small(tmp_path):
  """50 bytes a file and its name, as promised, also in the pickle."""
  content = {f'n01440764/n01440764_{i}.JPEG': b'x' for i in range(3000)}
  path = tmp_path / 'x.tar'
  path.write_bytes(tar_bytes(content))
  length = np.mean([len(name) for name in content])
  size = len(pickle.dumps(archives.open_files(path)))
  assert size / len(content) < length + 50


def test_links_of_a_folder_are_followed_but_not_in_circles(make, tmp_path):
  folder = make('folder')
  (tmp_path / 'far').mkdir()
  (tmp_path / 'far' / 'c.jpg').write_bytes(b'far')
  (folder / 'link').symlink_to(tmp_path / 'far')
  (folder / 'gone.jpg').symlink_to(tmp_path / 'nothing')
  files = archives.open_files(folder)
  assert files.read('link/c.jpg') == b'far'
  with pytest.raises(BadExample, match='cannot be opened'):
    files.read('gone.jpg')
  (folder / 'link' / 'back').symlink_to(folder)
  with pytest.raises(ValueError, match='a link back to a folder above it'):
    archives.open_files(folder)


@pytest.mark.parametrize(
  'kind, fault',
  [
    *(('tar', fault) for fault in archives_made.HOSTILE_TARS),
    *(('zip', fault) for fault in archives_made.HOSTILE_ZIPS),
  ],
)
def test_hostile_archives_are_refused(tmp_path, kind, fault):
  path = tmp_path / 'in' / f'bad.{kind}'
  path.parent.mkdir()
  message = archives_made.write_hostile(path, fault)
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(ValueError, match=rf'bad\.{kind}.*{message}'):
    archives.open_files(path)
  assert sorted(tmp_path.rglob('*')) == before


def test_a_sparse_file_is_refused(tmp_path):
  """In the pax form it pretends to be a plain file of another name."""
  path = tmp_path / 'bad.tar'
  with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as archive:
    pax = {'GNU.sparse.major': '1', 'GNU.sparse.name': 'x.jpg'}
    add(archive, 'GNUSparseFile.0/x.jpg', b'1', pax_headers=pax)
  with pytest.raises(ValueError, match='is a sparse file: refused'):
    archives.open_files(path)


def test_sizes_and_names_in_pax_headers(tmp_path):
  """As another program may write them, where the old fields say otherwise."""
  path = tmp_path / 'x.tar'
  with tarfile.open(path, 'w', format=tarfile.PAX_FORMAT) as archive:
    add(archive, 'short', b'12345', pax_headers={'path': 'pax/ö.jpg'})
    add(archive, 'after', b'1')
  assert archives.open_files(path).read('pax/ö.jpg') == b'12345'
  for bad, message in (
    (b'5 a=b', 'a pax header that is none'),
    (b'x', 'a pax header that is none'),
    (b'11 size=-1\n', r"a pax header has the size b'-1'"),
    (b'17 size=99999999\n', 'cut short: member'),
  ):
    with tarfile.open(path, 'w') as archive:
      add(archive, 'p', bad, type=tarfile.XHDTYPE)
      add(archive, 'a.jpg', b'1')
    with pytest.raises(ValueError, match=message):
      archives.open_files(path)


def test_a_long_name_without_end_is_refused(tmp_path):
  path = tmp_path / 'x.tar'
  with tarfile.open(path, 'w') as archive:
    add(archive, 'n', b'n' * (2 << 20), type=tarfile.GNUTYPE_LONGNAME)
  with pytest.raises(ValueError, match='a long name of 2,097,152 bytes'):
    archives.open_files(path)


@pytest.mark.parametrize('kind', ['tar', 'zip'])
def test_too_many_members_are_refused(tmp_path, monkeypatch, kind):
  content = {f'{i}.jpg': b'' for i in range(11)}
  path = tmp_path / f'many.{kind}'
  path.write_bytes({'tar': tar_bytes, 'zip': zip_bytes}[kind](content))
  monkeypatch.setattr(archive_index, 'MAX_MEMBERS', 10)
  with pytest.raises(ValueError, match=rf'many\.{kind}: more than 10 files'):
    archives.open_files(path)
  monkeypatch.setattr(archive_index, 'MAX_MEMBERS', 11)
  assert len(archives.open_files(path)) == 11


def test_a_tar_cut_anywhere_is_refused(tmp_path):
  whole = tar_bytes({'a.jpg': b'1' * 700, 'n.tar': {'b': b'2'}, 'c.jpg': b'3'})
  end = len(whole.rstrip(b'\0'))
  path = tmp_path / 'cut.tar'
  for length in (0, 100, 512, 1000, 1536, 2048, 2100, end - 1, end):
    path.write_bytes(whole[:length])
    with pytest.raises(ValueError, match=r'cut\.tar.*(cut short|not a tar)'):
      archives.open_files(path)
  path.write_bytes(whole[: end + 1536])  # with its end mark
  assert len(archives.open_files(path)) == 3


def test_a_damaged_header_in_the_middle_is_no_end(tmp_path):
  """The standard library stops there without a word: images would be lost."""
  data = bytearray(tar_bytes({f'{i}.jpg': b'x' for i in range(5)}))
  data[2048 + 30] ^= 1
  path = tmp_path / 'x.tar'
  path.write_bytes(data)
  with tarfile.open(path) as archive:
    assert len(archive.getmembers()) == 2
  with pytest.raises(
    ValueError, match=r"no header at byte 2,048, behind member '1\.jpg'"
  ):
    archives.open_files(path)


def test_bytes_flipped_anywhere_never_crash(tmp_path):
  rng = np.random.default_rng(0)
  for kind, whole in (
    ('tar', tar_bytes(CONTENT | {'n.tar': {'b': b'2'}}, format=2)),
    ('zip', zip_bytes(CONTENT)),
  ):
    path = tmp_path / f'x.{kind}'
    refused = 0
    for _ in range(150):
      data = bytearray(whole)
      for _ in range(3):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
      path.write_bytes(data)
      try:
        files = archives.open_files(path)
      except ValueError as error:
        assert str(error).startswith(str(tmp_path))
        refused += 1
        continue
      for name in files.names:
        try:
          files.read(name)
        except BadExample:
          refused += 1
    assert refused > 20


def test_old_programs_and_big_sizes():
  """Signed checksums, and GNU's binary sizes above 8 GiB."""
  info = tarfile.TarInfo('ü' * 20)
  info.size = 9 << 30
  header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
  read = lambda offset, size: bytes(header[offset : offset + size])
  found = tar_members.members(read, 0, 10 << 30, 'big')
  assert next(found) == (('ü' * 20).encode(), 512, 9 << 30)
  signed = sum(np.frombuffer(header, np.int8).tolist())
  signed += 256 - sum(np.frombuffer(header[148:156], np.int8).tolist())
  header[148:156] = b'%06o\0 ' % signed
  found = tar_members.members(read, 0, 10 << 30, 'big')
  assert next(found).size == 9 << 30


def test_an_encrypted_zip_is_refused(tmp_path):
  path = tmp_path / 'bad.zip'
  data = bytearray(zip_bytes({'x': b'1', 'fine.jpg': b'1'}, 0))
  for at in (data.index(b'PK\1\2') + 8, 6):
    data[at] |= 1
  path.write_bytes(data)
  with pytest.raises(ValueError, match="member 'x' is encrypted"):
    archives.open_files(path)


def test_zip_members_that_overlap_are_refused(tmp_path):
  """Many members over one body: a bomb of a harmless ratio each."""
  data = bytearray(zip_bytes({'a.jpg': b'1' * 90, 'b.jpg': b'1' * 90}, 0))
  second = data.index(b'PK\1\2', data.index(b'PK\1\2') + 1)
  data[second + 42 : second + 46] = bytes(4)  # where its local header is
  path = tmp_path / 'x.zip'
  path.write_bytes(data)
  with pytest.raises(ValueError, match=r'x\.zip: .*([oO]verlap)'):
    archives.open_files(path)


def test_damaged_zips(make):
  path = make('deflated')
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(ValueError, match=r'deflated\.zip: cannot be read as a z'):
    archives.open_files(path)
  data = bytearray(whole)
  start = data.index(b'a.jpg') + 5
  data[start + 100] ^= 0x55
  path.write_bytes(data)
  files = archives.open_files(path)
  with pytest.raises(BadExample, match=r'damaged in .*deflated\.zip'):
    files.read('a.jpg')
  assert files.read('späte/ü.jpg') == b'umlaut'


def test_a_member_that_lies_about_its_size(tmp_path):
  """The directory says 100 bytes, the stream holds 10,000."""
  data = bytearray(zip_bytes({'a.jpg': os.urandom(10) * 1000}))
  entry = data.index(b'PK\1\2')
  data[entry + 24 : entry + 28] = (100).to_bytes(4, 'little')
  path = tmp_path / 'x.zip'
  path.write_bytes(data)
  with pytest.raises(BadExample, match='wrong checksum or size'):
    archives.open_files(path).read('a.jpg')


def test_what_is_no_archive(tmp_path):
  with pytest.raises(FileNotFoundError, match=r'none\.tar: no such file'):
    archives.open_files(tmp_path / 'none.tar')
  for name, message in (
    ('x.rar', 'compressed in a way that is not read here'),
    ('x.tar.xz', 'decompress it to a .tar or a folder first'),
    ('x.jpg', r'neither a folder nor a \.zip, \.tar, \.tar\.gz or \.tgz'),
    ('x.tar.gz', 'no gzip file'),
    ('x.zip', 'cannot be read as a zip'),
    ('x.tar', 'cut short'),
  ):
    (tmp_path / name).write_bytes(b'nothing')
    with pytest.raises(ValueError, match=message):
      archives.open_files(tmp_path / name)


@pytest.fixture
def no_small(monkeypatch):
  monkeypatch.setattr(decompress, 'SMALL_COMPRESSED', 0)


def test_a_small_compressed_tar_is_held_in_memory(tmp_path):
  path = tmp_path / 'devkit.tar.gz'
  path.write_bytes(gzip.compress(tar_bytes({'data/x.txt': b'1\n'})))
  files = pickle.loads(pickle.dumps(archives.open_files(path)))  # noqa: S301
  assert files.read('data/x.txt') == b'1\n'
  assert [p.name for p in tmp_path.iterdir()] == ['devkit.tar.gz']


def test_compressed_tars_need_scratch_once(tmp_path, no_small, capsys):
  path, scratch = tmp_path / 'whole.tgz', tmp_path / 'scratch'
  content = {'w/n1.tar': {'a.jpg': os.urandom(2000)}}
  path.write_bytes(gzip.compress(tar_bytes(content)))
  with pytest.raises(ValueError, match=r'whole\.tgz: .* give --scratch DIR'):
    archives.open_files(path)
  files = archives.open_files(path, scratch=str(scratch))
  assert files.read('w/n1.tar/a.jpg') == content['w/n1.tar']['a.jpg']
  (made,) = scratch.glob('whole-*.tar')
  assert made.read_bytes() == tar_bytes(content)
  assert 'decompressing' in capsys.readouterr().err
  first = made.stat().st_mtime_ns
  again = archives.open_files(path, scratch=str(scratch))
  assert made.stat().st_mtime_ns == first  # reused
  assert again.fingerprint() == files.fingerprint()
  path.write_bytes(gzip.compress(tar_bytes({'b.jpg': b'other'})))
  files = archives.open_files(path, scratch=str(scratch))
  assert list(files.names) == ['b.jpg']  # not the old one


def test_decompression_leaves_nothing_half_done(
  tmp_path, no_small, monkeypatch
):
  path, scratch = tmp_path / 'x.tar.gz', tmp_path / 'scratch'
  whole = gzip.compress(tar_bytes({'a.jpg': os.urandom(5000)}))

  def left():
    return [p.name for p in scratch.iterdir() if not p.name.endswith('.lock')]

  for data in (whole[:3000], whole[:50] + b'\0' * 40 + whole[90:]):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r'x\.tar\.gz: damaged or cut short'):
      archives.open_files(path, scratch=str(scratch))
    assert left() == []
  path.write_bytes(whole)
  with monkeypatch.context() as patched:
    patched.setattr(decompress, '_KEEP_FREE', 1 << 62)
    with pytest.raises(ValueError, match=r'--scratch .* GB more are needed'):
      archives.open_files(path, scratch=str(scratch))
  with monkeypatch.context() as patched:
    patched.setattr(decompress, '_CHUNK', 64)
    patched.setattr(decompress, 'MAX_RATIO', 10)
    path.write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(ValueError, match='above 10:1: refused'):
      archives.open_files(path, scratch=str(scratch))
  assert left() == []
