"""`path` alone: prepared records, a table, a folder of images, or shards.

What lies at the path decides which source reads it, so that a config of a
user's own data needs one flag.
"""

import pathlib
from typing import Any

from big_vision_like import plugins
from big_vision_like.hierarchy import Hierarchy
from input_pipeline.sources import shard_names

_TABLES = ('.csv', '.tsv', '.jsonl')


def kind_of(path: str) -> str:
  """The source type for what lies at `path`.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: a file of another kind.
  """
  place = pathlib.Path(path)
  if not place.exists():
    if shard_names.is_pattern(path) and path.endswith('.tar'):
      return 'webdataset'
    raise FileNotFoundError(
      f'input.source.path={path!r}: no such file or folder'
    )
  if place.is_dir():
    if (place / 'manifest.json').exists():
      return 'records'
    return 'webdataset' if shard_names.in_folder(path) else 'folder'
  if place.name.endswith('.tar'):
    return 'webdataset'
  if place.name.lower().removesuffix('.gz').endswith(_TABLES):
    return 'table'
  raise ValueError(
    f'input.source.path={path!r}: neither a folder nor a .csv, .tsv or .jsonl '
    'file (or one of these with .gz) nor a .tar of WebDataset'
  )


class Source:
  """The source for what lies at `path` (see `kind_of`).

  Data without a hierarchy get one without edges: their labels are complete as
  they are, and filling in changes nothing.
  """

  def __new__(
    cls,
    *,
    path: str,
    split: str = 'train',
    hierarchy: str | None = None,
    hierarchy_unlisted: str | None = None,
    vocabulary: str | None = None,
    holdout_percent: float | None = None,
  ) -> Any:
    """Opens it.

    Args:
      path: prepared data set, image folder, CSV, TSV or JSONL file, or
        WebDataset shards (folder of .tar files, one .tar, or a pattern).
      split: name of the split.
      hierarchy: file of child -> parent edges.
      hierarchy_unlisted: its nodes outside the vocabulary: 'error' (default),
        'traverse', or 'add' them as labels.
      vocabulary: file of the labels.
      holdout_percent: data without splits: the part that is 'val'.
    """
    kind = kind_of(path)
    options = dict(
      hierarchy=hierarchy,
      hierarchy_unlisted=hierarchy_unlisted,
      vocabulary=vocabulary,
      holdout_percent=holdout_percent,
    )
    options = {k: v for k, v in options.items() if v is not None}
    source_class = plugins.get('source', kind)
    plugins.check_kwargs(
      f'input.source ({kind} at {path!r})',
      source_class,
      {'path': path, **options},
    )
    source = source_class(path=path, split=split, **options)
    if source.hierarchy is None:
      source.hierarchy = Hierarchy.from_edges(source.vocabulary.names, [])
    return source
