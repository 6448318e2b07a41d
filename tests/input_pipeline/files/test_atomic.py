"""Files that are there whole or not at all."""

import json
import os
import pathlib
import signal
import stat
import subprocess
import sys

import pytest

from input_pipeline.files import atomic, retries

KILLED = """
import os, signal, sys
from input_pipeline.files import atomic

with atomic.writing_text(sys.argv[1], unique=sys.argv[2] == 'unique') as file:
  file.write('half of ')
  file.flush()
  os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_in_the_middle(path, names):
  done = subprocess.run([sys.executable, '-c', KILLED, path, names])
  assert done.returncode == -signal.SIGKILL


@pytest.fixture
def path(tmp_path):
  path = tmp_path / 'note.txt'
  path.write_text('old')
  return path


def names(folder):
  return sorted(os.listdir(folder))


def test_content_is_whole(path):
  with atomic.writing(path) as file:
    file.write(b'a\r\n\x00')
    file.flush()
    assert path.read_text() == 'old'
  assert path.read_bytes() == b'a\r\n\x00'
  with atomic.writing_text(path) as file:
    file.write('é\r\n\n')
  assert path.read_bytes() == b'\xc3\xa9\r\n\n'
  atomic.write_text(str(path), 'new')
  assert path.read_text() == 'new'
  atomic.write_json(path, {'b': 'é', 'a': [1]})
  assert path.read_bytes().decode() == '{\n "b": "é",\n "a": [\n  1\n ]\n}\n'
  assert json.loads(path.read_bytes()) == {'b': 'é', 'a': [1]}
  assert names(path.parent) == ['note.txt']


def test_a_path_without_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  atomic.write_text('here', 'x')
  assert names(tmp_path) == ['here']
  assert (tmp_path / 'here').read_text() == 'x'


@pytest.mark.parametrize('unique', [True, False])
@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file_alone(path, error, unique):
  with (
    pytest.raises(error),
    atomic.writing_text(path, unique=unique) as file,
  ):
    file.write('half')
    file.flush()
    assert len(names(path.parent)) == 2
    raise error
  assert names(path.parent) == ['note.txt'] and path.read_text() == 'old'


def test_an_exception_before_anything_is_written(path):
  with pytest.raises(ValueError, match='x'), atomic.renamed(path):
    raise ValueError('x')
  with pytest.raises(FileNotFoundError), atomic.renamed(path):
    pass  # nothing there to rename
  assert names(path.parent) == ['note.txt'] and path.read_text() == 'old'


def test_no_folder(tmp_path):
  with pytest.raises(FileNotFoundError):
    atomic.write_text(tmp_path / 'absent' / 'note.txt', 'x')


def test_a_rename_that_fails(tmp_path):
  (tmp_path / 'folder').mkdir()
  with pytest.raises(IsADirectoryError):
    atomic.write_text(tmp_path / 'folder', 'x')
  assert names(tmp_path) == ['folder']


def test_a_kill_leaves_the_old_file_and_a_name_to_know_it_by(path):
  kill_in_the_middle(path, 'unique')
  assert path.read_text() == 'old'
  (rest,) = {*names(path.parent)} - {'note.txt'}
  start, unique, end = rest.rsplit('.', 2)
  assert (start, end) == ('note.txt', 'tmp') and int(unique, 16) >= 0
  path.unlink()
  kill_in_the_middle(path, 'unique')
  assert not path.exists()


def test_the_next_writer_takes_over_what_a_kill_left(path):
  kill_in_the_middle(path, 'the same')
  assert path.read_text() == 'old'
  assert names(path.parent) == ['note.txt', 'note.txt.tmp']
  atomic.write_text(path, 'new', unique=False)
  assert names(path.parent) == ['note.txt'] and path.read_text() == 'new'


def test_two_processes_write_the_same_file(path):
  """The later one wins, with the whole of its content."""
  with atomic.writing_text(path) as file:
    file.write('mine')
    code = (
      'import sys; from input_pipeline.files import atomic; '
      "atomic.write_text(sys.argv[1], 'theirs')"
    )
    subprocess.run([sys.executable, '-c', code, path], check=True)
    assert path.read_text() == 'theirs'
  assert path.read_text() == 'mine' and names(path.parent) == ['note.txt']


@pytest.mark.parametrize('mask', [0o022, 0o027, 0o077, 0o002])
def test_permissions_are_those_of_open(tmp_path, mask):
  before = os.umask(mask)
  try:
    atomic.write_text(tmp_path / 'ours', 'x')
    (tmp_path / 'plain').write_text('x')
  finally:
    os.umask(before)
  ours, plain = ((tmp_path / n).stat().st_mode for n in ('ours', 'plain'))
  assert ours == plain and ours & 0o777 == 0o666 & ~mask


def test_a_link_is_replaced_and_its_target_kept(tmp_path, path):
  link = tmp_path / 'link'
  link.symlink_to(path)
  atomic.write_text(link, 'new')
  assert not link.is_symlink() and link.read_text() == 'new'
  assert path.read_text() == 'old'


@pytest.mark.parametrize('unique', [True, False])
@pytest.mark.parametrize('name', ['n' * 255, 'é' * 127, 'n' * 251 + '.png'])
def test_names_as_long_as_they_can_be(tmp_path, name, unique):
  other = name[:-1] + 'x'
  with atomic.writing_text(tmp_path / name, unique=unique) as file:
    file.write('one')
    atomic.write_text(tmp_path / other, 'other', unique=unique)
    assert all(
      p.suffix == '.tmp' for p in tmp_path.iterdir() if p.name != other
    )
  assert (tmp_path / name).read_text() == 'one'
  assert (tmp_path / other).read_text() == 'other'
  assert names(tmp_path) == sorted([name, other])


def test_own_suffix(path):
  with atomic.renamed(path, suffix='.writing', unique=False) as temporary:
    assert temporary == f'{path}.writing'
    with open(temporary, 'w') as file:
      file.write('new')
  assert path.read_text() == 'new'


@pytest.mark.parametrize('durable', [True, False])
def test_content_is_on_disk_before_the_name(path, monkeypatch, durable):
  happened = []
  fsync, replace = os.fsync, os.replace

  def noted_fsync(handle):
    happened.append(os.readlink(f'/proc/self/fd/{handle}'))
    fsync(handle)

  def noted_replace(old, new):
    assert pathlib.Path(old).read_text() == 'new'
    happened.append('rename')
    replace(old, new)

  monkeypatch.setattr(os, 'fsync', noted_fsync)
  monkeypatch.setattr(os, 'replace', noted_replace)
  with atomic.renamed(path, durable=durable) as temporary:
    pathlib.Path(temporary).write_text('new')
  wanted = [temporary, 'rename', str(path.parent)]
  assert happened == (wanted if durable else ['rename'])


def test_folders_that_cannot_be_synced(path, monkeypatch):
  fsync = os.fsync
  code = 0

  def refuse(handle):
    if os.path.isdir(f'/proc/self/fd/{handle}'):
      raise OSError(code, os.strerror(code))
    fsync(handle)

  monkeypatch.setattr(os, 'fsync', refuse)
  code = 22  # EINVAL
  atomic.write_text(path, 'new')
  assert path.read_text() == 'new'
  code = 5  # EIO
  retries.use(retries.Policy(2, 0.0))
  with pytest.raises(OSError, match='tried 3 times'):
    atomic.write_text(path, 'newer')
  retries.use(retries.Policy())


def test_what_is_no_file_is_written_to_as_it_is(tmp_path):
  """As /dev/stdout or a pipe: a rename would put a file in its place."""
  pipe = tmp_path / 'pipe'
  os.mkfifo(pipe)
  reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
  try:
    atomic.write_text(pipe, 'told')
    assert os.read(reader, 9) == b'told'
  finally:
    os.close(reader)
  assert stat.S_ISFIFO(pipe.stat().st_mode)
  assert names(tmp_path) == ['pipe']


def test_errors_name_the_file_that_the_user_knows(tmp_path):
  with pytest.raises(FileNotFoundError) as missing:
    atomic.write_text(tmp_path / 'no' / 'a.txt', '')
  assert missing.value.filename == str(tmp_path / 'no' / 'a.txt')
  (tmp_path / 'folder').mkdir()
  entered = []
  with (
    pytest.raises(IsADirectoryError) as folder,
    atomic.writing_text(tmp_path / 'folder'),
  ):
    entered.append('work')
  assert folder.value.filename == str(tmp_path / 'folder') and not entered


def test_names_that_are_not_utf_8_are_written_escaped(path):
  name = os.fsdecode(b'caf\xe9.jpg')
  atomic.write_json(path, {'image': name})
  assert json.loads(path.read_text()) == {'image': name}
  assert 'caf\\udce9.jpg' in path.read_text()
