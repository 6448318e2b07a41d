"""A record that cannot be used, and errors that name the record."""

import contextlib
from collections.abc import Iterator

from big_vision_like.config import redaction
from big_vision_like.protocols import Records


class BadExample(Exception):
  """A record that cannot be used: corrupt, truncated, oversized, ...

  Sources and ops raise it; the pipeline replaces the record by a masked blank,
  counts it, lists its key, and stops above the budget. `reason` is one line,
  without secrets. Who reads records without counting them does so within
  `record_named`.
  """

  def __init__(self, reason: str):
    reason = redaction.text(reason)
    super().__init__(reason)
    self.reason = reason


@contextlib.contextmanager
def record_named(source: Records, index: int, where: str) -> Iterator[None]:
  """Around work that needs a record: a mistake in it names the record.

  Args:
    source: where it is.
    index: which it is.
    where: config key, flag or what it is for, the start of the message.

  Raises:
    ValueError: of one line, for a BadExample; else the one inside, with a note.
  """
  try:
    yield
  except BadExample as bad:
    raise ValueError(
      f'{where}: {source.key(index)} cannot be used: {bad.reason}'
    ) from bad
  except ValueError as error:
    error.add_note(f'in record {source.key(index)}')
    raise
