"""`path` alone: prepared records, a CSV or JSONL, or a folder of images.

What lies at the path decides which source reads it, so that a config of a
user's own data needs one flag.
"""

import pathlib
from typing import Any

from big_vision_like import plugins


def kind_of(path: str) -> str:
  """The source type for what lies at `path`.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: a file of another kind.
  """
  place = pathlib.Path(path).expanduser()
  if not place.exists():
    raise FileNotFoundError(f'input.source.path={path!r}: no such file or folder')
  if place.is_dir():
    return 'records' if (place / 'manifest.json').exists() else 'folder'
  if place.suffix.lower() in ('.csv', '.tsv', '.jsonl'):
    return 'table'
  raise ValueError(
    f'input.source.path={path!r}: neither a folder nor a .csv, .tsv or .jsonl '
    'file'
  )


class Source:
  """The source for what lies at `path` (see `kind_of`)."""

  def __new__(
    cls, *, path: str, split: str = 'train', options: Any = None
  ) -> Any:
    """Opens it.

    Args:
      path: prepared data set, image folder, or CSV, TSV or JSONL file.
      split: name of the split.
      options: further options of that source type.
    """
    kind = kind_of(path)
    source = plugins.get('source', kind)
    given = dict(options or {})
    plugins.check_kwargs(f'input.source.options of a {kind}', source, {
      'path': path, **given
    })
    return source(path=path, split=split, **given)
