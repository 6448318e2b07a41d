"""Which names of folders are those of steps: the number as Python writes it.

Other names may read as a number too: 06, or digits of other scripts. A step
would then have two names, of which a run writes one and finds the other.
"""

import unicodedata

_MOST_DIGITS = 18


def step_of(name: str) -> int | None:
  """The step that a folder of this name holds; None: that is no name of one."""
  if not (name.isascii() and name.isdecimal() and len(name) <= _MOST_DIGITS):
    return None
  return int(name) if str(int(name)) == name else None


def looks_like_one(name: str) -> bool:
  """Whether somebody may take a name that is none for that of a step."""
  text = name.strip().removeprefix('+')
  return (
    bool(text)
    and step_of(name) is None
    and all(unicodedata.category(c) in ('Nd', 'No', 'Nl') for c in text)
  )
