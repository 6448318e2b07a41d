"""The records of a training stream that cannot be used, and their budget."""

import dataclasses
from collections.abc import Sequence

from big_vision_like.config import stream_names

_MIN_BAD_BASE = 10_000
_NUM_KEYS_SHOWN = 10
_MAX_KEYS_KEPT = 10_000


@dataclasses.dataclass
class BadRecords:
  """Count and list of the unusable records met so far by this process."""

  max_fraction: float
  num_records: int
  stream: str = stream_names.MAIN
  seen: int = 0
  count: int = 0
  reasons: dict[str, str] = dataclasses.field(default_factory=dict)

  def update(self, keys: Sequence[str], reasons: Sequence[str], seen: int):
    """Adds a batch of `seen` records, of which `keys` were bad."""
    self.seen += seen
    self.count += len(keys)
    for key, reason in zip(keys, reasons):
      if len(self.reasons) < _MAX_KEYS_KEPT:
        self.reasons[key] = reason
    base = max(self.seen, min(self.num_records, _MIN_BAD_BASE))
    if self.count > self.max_fraction * base:
      raise ValueError(
        f'{stream_names.config_key(self.stream)}.max_bad_fraction='
        f'{self.max_fraction:g} exceeded: {self.count} of the {self.seen} '
        'records read so far cannot be used:\n'
        f'{self.listing(_NUM_KEYS_SHOWN)}'
      )

  def listing(self, num: int) -> str:
    """The first `num` keys with their reasons, one a line."""
    return '\n'.join(f'  {k}: {r}' for k, r in list(self.reasons.items())[:num])
