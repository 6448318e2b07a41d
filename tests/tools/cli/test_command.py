"""How commands end: mistakes, Ctrl-C, and readers that have gone."""

import subprocess
import sys

import pytest

from tools import (
  convert_torch,
  dataset_stats,
  dedup,
  export,
  extract_features,
  inspect_data,
  label_noise,
  make_fasteval,
  noise_audit,
  predict,
  study,
)
from tools.cli import command

IN_OUT = ['--checkpoint', 'run', '--output', 'out']
COMMANDS = {  # command -> (what does its work, arguments)
  convert_torch: ('convert', ['--input', 'w.pth', '--output', 'out']),
  dataset_stats: ('_count', []),
  dedup: ('run', ['--output', 'out']),
  export: ('export', [*IN_OUT, '--format', 'stablehlo']),
  extract_features: ('extract', [*IN_OUT, '--data', 'photos']),
  inspect_data: ('_inspect', []),
  label_noise: ('run', ['--data', 'a.csv', '--clean', 'b.csv']),
  make_fasteval: ('make', ['--input', 'a:val', '--output', 'out']),
  noise_audit: ('run', IN_OUT),
  predict: ('predict', [*IN_OUT, '--input', 'photos']),
  study: ('run', ['--config', 'study.py', '--workdir', 'out']),
}


@pytest.mark.parametrize('tool', COMMANDS, ids=lambda tool: tool.__name__)
def test_ctrl_c_is_one_line_and_130(tool, monkeypatch, capsys):
  def interrupted(*args, **options):
    raise KeyboardInterrupt

  name, argv = COMMANDS[tool]
  monkeypatch.setattr(tool, name, interrupted)
  try:
    code = tool.main(argv)
  except SystemExit as ended:
    code = ended.code
  assert code == 130
  said = capsys.readouterr()
  assert said.err.strip().startswith('interrupted') and not said.out
  assert said.err.strip().count('\n') == 0


def test_mistakes_are_2_and_other_errors_are_not_hidden(capsys):
  def fail(error):
    raise error

  assert command.run(lambda: None) == 0
  assert command.run(lambda: 143) == 143  # a code of the command's own
  assert command.run(lambda: fail(ValueError('--x=3'))) == 2
  assert command.run(lambda: fail(FileNotFoundError('no y'))) == 2
  assert capsys.readouterr().err == 'error: --x=3\nerror: no y\n'
  with pytest.raises(TypeError, match='ours'):
    command.run(lambda: fail(TypeError('ours')))


# stdout's reader has gone: while much is printed, or when little is flushed.
@pytest.mark.parametrize('num_lines', [1, 100_000])
def test_a_reader_that_has_gone_is_no_error(num_lines):
  code = (
    'import sys; from tools.cli import command; sys.stdin.read(); '
    'sys.exit(command.run(lambda: '
    f'[print("a line of a table") for _ in range({num_lines})]))'
  )
  child = subprocess.Popen(
    [sys.executable, '-c', code],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
  )
  assert child.stdin and child.stdout and child.stderr
  child.stdout.close()
  child.stdin.close()
  error = child.stderr.read()
  child.stderr.close()
  assert (child.wait(), error) == (141, b'')


def test_another_broken_pipe_is_an_error():
  """Such as that of a worker process which has died."""
  code = (
    'import sys; from tools.cli import command\n'
    'def work(): raise BrokenPipeError(32, "the worker")\n'
    'sys.exit(command.run(work))'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True)
  assert done.returncode == 2
  assert done.stderr == b'error: [Errno 32] the worker\n'
