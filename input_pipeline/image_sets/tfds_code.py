"""Which code tensorflow-datasets may run because of a prepared folder.

The folder's features.json names a class for every feature, and the library
imports the module of whatever stands there. Where a stored config has named the
folder, both may be a stranger's: only the library's own classes are taken then
(big_vision_like/config/trust.py). The names are looked at where the library
looks them up, so that none is missed however the file nests or spells them.
"""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from big_vision_like.config import trust

_OWN = 'tensorflow_datasets.'
_LOOK_UP = 'cls_from_name'
_one_at_a_time = threading.Lock()


class ForeignCodeError(ValueError):
  """A folder names code that may not run."""


@contextlib.contextmanager
def own_only(directory: str) -> Iterator[None]:
  """Around what opens a folder: nobody else's code is imported, unless trusted.

  Args:
    directory: the folder, for the message.

  Raises:
    ForeignCodeError: it names a class that is not the library's.
  """
  if trust.of_user():
    yield
    return
  import tensorflow_datasets as tfds

  features: Any = tfds.features.FeatureConnector
  look_up = vars(features)[_LOOK_UP]  # KeyError: another library than is known
  refused: list[str] = []

  def look_up_own(cls: Any, name: str) -> Any:
    if not name.startswith(_OWN):
      refused.append(name)
      raise ForeignCodeError
    return look_up.__func__(cls, name)

  with _one_at_a_time:
    setattr(features, _LOOK_UP, classmethod(look_up_own))
    try:
      yield
    except Exception:
      if not refused:
        raise
      raise ForeignCodeError(
        trust.refusal(f'{directory}/features.json', refused[0])
      ) from None
    finally:
      setattr(features, _LOOK_UP, look_up)


def check_build(name: str) -> None:
  """Refuses to run the builder of a data set that a stored config names."""
  if not trust.of_user():
    raise ForeignCodeError(
      f'build=True would run the builder of {name!r}, which a stored config '
      f'asks for; where you trust it, add {trust.FLAG}'
    )
