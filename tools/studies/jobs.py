"""A job: one run of a study with one seed, and what it stands on.

Jobs form a directed graph without cycles: a job waits for the one whose
checkpoint it starts from, and for those of the search that decides what it
trains. Until that search has ended the job is open: it has a variant for every
candidate, and takes the place of the one that is chosen.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from big_vision_like.config import settings, stream_names

from . import entries
from .choices import Choice

_LENGTH = ('total_steps', 'total_epochs', 'total_examples')
# Keys that change neither the weights at the end nor what is known of them.
IGNORED = tuple(k for k in settings.FREE_SECTIONS if k not in _LENGTH)
START = 'init_from.path'
_AVERAGES = 'init_from.ema'


@dataclasses.dataclass(frozen=True)
class Job:
  """One run with one seed.

  Attributes:
    run: what it belongs to.
    seed: of this job.
    workdir: its folder.
    config: complete and plain, as main gets it; of an open job that of the
      first candidate's variant.
    parent: the job that it starts from, or None.
    search: of a run with best_of, the jobs of its candidates.
    variants: of an open job, candidate -> the job if it is chosen.
    choice: what the search came to; None: it goes on, or there is none.
    trusted: whether main may run code that the config or its data name: it
      began as a file of the user's own.
  """

  run: entries.Run
  seed: int
  workdir: pathlib.Path
  config: Mapping[str, Any]
  parent: 'Job | None'
  search: Sequence['Job'] = ()
  variants: Mapping[str, 'Job'] = dataclasses.field(default_factory=dict)
  choice: Choice | None = None
  trusted: bool = False

  @property
  def name(self) -> str:
    """'scratch seed 0'."""
    return f'{self.run.name} seed {self.seed}'

  @property
  def parents(self) -> dict[str, 'Job']:
    """By name, all that it may start from: of an open job several."""
    either = self.variants.values() or (self,)
    found = [job.parent for job in either if job.parent is not None]
    return {parent.name: parent for parent in found}

  @property
  def is_known(self) -> bool:
    """Whether it is decided what it trains, and what it starts from."""
    return not self.variants and (self.parent is None or self.parent.is_known)

  @functools.cached_property
  def training(self) -> dict[str, Any]:
    """Flat keys that decide what the weights at the end are.

    Where the folder of the study lies is not among them; what the job starts
    from is, with all of its own keys.
    """
    flat = settings.flat(self.config)
    kept = {k: v for k, v in flat.items() if not within(k, IGNORED)}
    if not flat[START]:
      del kept[_AVERAGES]  # of no checkpoint; older records do not have it
    if self.parent is not None:
      kept[START] = f'{self.parent.name}, step {self.run.start_step or "last"}'
      kept['start_from'] = self.parent.identity
    return kept

  @functools.cached_property
  def identity(self) -> str:
    """Short digest of `training`."""
    text = json.dumps(self.training, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def within(key: str, sections: Iterable[str]) -> bool:
  """Whether a dotted key is one of the sections or lies in one.

  The keys of a stream are as those of `input`.
  """
  key = stream_names.as_main(key)
  return any(key == s or key.startswith(f'{s}.') for s in sections)
