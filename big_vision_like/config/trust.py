"""Names of modules in stored files: what may be imported because of them.

A config names its plug-ins, and a dotted name is any module on Python's path.
One that the user wrote is theirs to run. A checkpoint or a config.json may be a
stranger's, who can put a module beside it: of these only our own are imported,
unless --trust says otherwise.

Files that such a config names are no better than it: what a prepared data set
names is looked at too (`of_user`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from big_vision_like.config import shipped

FLAG = '--trust'
HELP = (
  'import modules that the checkpoint or config.json names, though they are '
  'not of this program: their code runs'
)
_KEYS = ('type', 'op')  # that name plug-ins
_WITH_CODE = 'tfds'  # source that imports what its files name
_strange: list[str] = []  # stored configs that were opened without trust


def foreign(config: Any, prefix: str = '') -> Iterator[tuple[str, str]]:
  """(key, name) of the modules of others that a config names."""
  if isinstance(config, Mapping):
    for key, value in config.items():
      where = f'{prefix}.{key}' if prefix else str(key)
      if key in _KEYS and isinstance(value, str):
        top, dot, _ = value.partition('.')
        if dot and top not in shipped.PACKAGES:
          yield where, value
      else:
        yield from foreign(value, where)
  elif isinstance(config, Sequence) and not isinstance(config, str | bytes):
    for position, value in enumerate(config):
      yield from foreign(value, f'{prefix}[{position}]')


def check(config: Mapping[str, Any], where: str, trust: bool) -> None:
  """Refuses a stored config that names modules of others.

  Args:
    config: plain, as it was stored.
    where: what it was stored in, for the message.
    trust: whether they may be imported.

  Raises:
    ValueError: naming key and module.
  """
  if trust:
    return
  _strange.append(where)
  for key, name in foreign(config):
    raise ValueError(refusal(where, name, key))


def refusal(where: str, name: str, key: str = '') -> str:
  """What is said of a name in a stored file that is not imported."""
  return (
    f'{where} names the module {name!r}{f" ({key})" if key else ""}, which is '
    f'not of this program, and its code would run; where you trust it, add '
    f'{FLAG}'
  )


def of_user() -> bool:
  """Whether all that this process opens is named by its user, or trusted.

  One stored config that is not trusted is enough for False: what it points to
  cannot be told from the rest.
  """
  return not _strange


def runs_code(config: Any) -> bool:
  """Whether a stored config needs trust: see `foreign`, `of_user`."""
  return any(foreign(config)) or _has_code(config)


def _has_code(config: Any) -> bool:
  if isinstance(config, Mapping):
    kind = str(config.get('type', '')).rpartition('.')[2]
    return kind == _WITH_CODE or any(map(_has_code, config.values()))
  return isinstance(config, list | tuple) and any(map(_has_code, config))


def in_arguments(argv: Sequence[str]) -> bool:
  """Whether a command line, not parsed yet, has the flag."""
  given = {f'{dashes}trust{end}' for dashes in ('-', '--') for end in _TRUE}
  return not given.isdisjoint(argv)


_TRUE = ('', '=true', '=True', '=1')
