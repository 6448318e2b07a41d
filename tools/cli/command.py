"""How a command ends: exit codes and messages that all of them share.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted
(Ctrl-C); 141 nobody reads the output any more, as after `... | head`.
"""

import argparse
import os
import select
import sys
from collections.abc import Callable
from typing import Any

from big_vision_like.config import redaction, trust
from big_vision_like.runtime import compile_cache

# How users call the tools; `bvl`, the command of an installed package, sets it.
PREFIX = 'python -m tools.'


def as_called(text: str | None) -> str:
  """A usage text with the commands as the user calls them."""
  return (text or '').replace('python -m tools.', PREFIX)


def add_trust(parser: argparse.ArgumentParser) -> None:
  """Adds the flag --trust of commands that read checkpoints."""
  parser.add_argument(trust.FLAG, action='store_true', help=trust.HELP)


def add_part(parser: argparse.ArgumentParser) -> None:
  """Adds the flag --part of commands that use the model of a checkpoint."""
  parser.add_argument(
    '--part', help='of a checkpoint of a joint task: which of its parts'
  )


def run(
  work: Callable[[], Any],
  *,
  mistakes: tuple[type[Exception], ...] = (ValueError, OSError),
  text: Callable[[Exception], str] = str,
  interrupted: str = 'interrupted',
) -> int:
  """Does the work; returns the exit code.

  Args:
    work: all of the command, after its arguments are parsed; an int that it
      returns is the exit code.
    mistakes: exceptions that mean a mistake of the user.
    text: exception -> message.
    interrupted: message after Ctrl-C.
  """
  compile_cache.use()
  with redaction.streams():
    return _run(work, mistakes, text, interrupted)


def _run(
  work: Callable[[], Any],
  mistakes: tuple[type[Exception], ...],
  text: Callable[[Exception], str],
  interrupted: str,
) -> int:
  try:
    code = work()
    sys.stdout.flush()  # here, where a reader that has gone is no traceback
    return code if type(code) is int else 0
  except mistakes as error:
    if isinstance(error, BrokenPipeError) and _reader_has_gone():
      return 141
    print(f'error: {text(error)}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print(f'\n{interrupted}', file=sys.stderr)
    return 130


def _reader_has_gone() -> bool:
  """Whether stdout cannot be written to; if so, what is left is dropped.

  The default action of SIGPIPE would end the command too, but also where a
  worker process has died, and without tidying up.
  """
  poll = select.poll()
  poll.register(sys.stdout.fileno(), select.POLLOUT)
  if not any(event & select.POLLERR for _, event in poll.poll(0)):
    return False
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, sys.stdout.fileno())
  os.close(nowhere)
  return True
