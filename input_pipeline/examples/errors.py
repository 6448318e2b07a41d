"""The one exception by which a record says that it cannot be used."""


class BadExample(Exception):
  """A record that cannot be used: corrupt, truncated, oversized, ...

  Sources and ops raise it; the pipeline replaces the record by a masked blank,
  counts it, lists its key, and stops above the budget. `reason` is one line.
  """

  def __init__(self, reason: str):
    super().__init__(reason)
    self.reason = reason
