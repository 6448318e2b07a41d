"""Which .tar files are the shards of a split: folders, globs, {000..146}."""

import dataclasses
import glob
import itertools
import os
import re

_RANGE = re.compile(r'(\d{1,18})\.\.(\d{1,18})', re.ASCII)
_BRACES = re.compile(r'\{([^{}]*)\}')
_MAX_SHARDS = 100_000
_SPLITS = {'train', 'val', 'validation', 'test'}


@dataclasses.dataclass(frozen=True)
class Shards:
  """Sorted names of .tar files below a folder."""

  folder: str
  names: tuple[str, ...]


def is_pattern(path: str) -> bool:
  """Whether a path stands for several: with braces, * or ?."""
  return bool(_BRACES.search(path)) or glob.has_magic(path)


def find(path: str, split: str) -> Shards:
  """The shards of a split.

  Args:
    path: folder, one .tar, or a pattern.
    split: PATH/SPLIT/*.tar, or a word of the names, or what stands for
      '{split}' in a pattern; 'all': every .tar. Shards without splits are
      'all'.

  Raises:
    FileNotFoundError: no such folder, or shards missing.
    ValueError: no shards, or none of that split.
  """
  if not isinstance(split, str) or not re.fullmatch(r'[\w.-]+', split):
    raise ValueError(f'split must be a name, got {split!r}')
  if os.path.isdir(path):
    return Shards(path, _of_folder(path, split))
  if os.path.isfile(path):
    _refuse_split(path, split)
    return Shards(os.path.dirname(path) or '.', (os.path.basename(path),))
  if not is_pattern(path):
    raise FileNotFoundError(f'{path}: no such file or folder')
  if '{split}' in path:
    if split == 'all':
      raise ValueError(f'{path}: names its splits: split="all" is none of them')
    path = path.replace('{split}', split)
  else:
    _refuse_split(path, split)
  return _of_pattern(path)


def find_undivided(path: str) -> Shards:
  """All shards, where none of them is of a split.

  Raises:
    FileNotFoundError, ValueError: as `find`, or there are splits.
  """
  shards = find(path, 'all')
  for name in shards.names if os.path.isdir(path) else ():
    split = os.path.dirname(name) or _SPLITS & _words(name)
    if split:
      raise ValueError(
        f'{path}: has splits of its own ({name!r}): give one of them as split, '
        f'without holdout_percent'
      )
  return shards


def _words(name: str) -> set[str]:
  return set(re.split(r'[-_.]', name.removesuffix('.tar')))


def _refuse_split(path: str, split: str) -> None:
  if split != 'all':
    raise ValueError(
      f'{path}: without splits: use split="all", or holdout_percent to divide '
      f'the samples into train and val, or write {{split}} into the pattern'
    )


def in_folder(folder: str) -> bool:
  """Whether a folder looks like shards: .tar files in it or one level below.

  Folders of many images are not listed to their end: more than 100 sub-folders
  are classes, not splits, and 1,000 entries of one show what it holds.
  """
  if _tars(folder):
    return True
  splits = [entry.path for entry in os.scandir(folder) if entry.is_dir()]
  return len(splits) <= 100 and any(map(_begins_with_tars, splits))


def _begins_with_tars(folder: str) -> bool:
  with os.scandir(folder) as entries:
    first = itertools.islice(entries, 1000)
    return any(entry.name.endswith('.tar') for entry in first)


def _of_folder(folder: str, split: str) -> tuple[str, ...]:
  tars, below = _tars(folder), _below(folder)
  if split == 'all':
    names = tars + tuple(itertools.chain.from_iterable(below.values()))
    if not names:
      raise ValueError(f'{folder}: no .tar files in it')
    return names
  if split in below:
    return below[split]
  chosen = tuple(name for name in tars if split in _words(name))
  if not chosen:
    listed = ', '.join([*below, *tars][:5])
    raise ValueError(
      f'{folder}: no shards of split {split!r}: neither {split}/*.tar nor a '
      f'.tar with that word in its name; there: {listed or "no .tar files"}. '
      f'For shards without splits use split="all", or holdout_percent'
    )
  return chosen


def _below(folder: str) -> dict[str, tuple[str, ...]]:
  """Sub-folder -> its .tar files, where there are any."""
  found = {}
  for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
    if entry.is_dir() and not entry.name.startswith('.'):
      names = tuple(f'{entry.name}/{name}' for name in _tars(entry.path))
      if names:
        found[entry.name] = names
  return found


def _tars(folder: str) -> tuple[str, ...]:
  return tuple(
    sorted(
      name
      for name in os.listdir(folder)
      if name.endswith('.tar') and not name.startswith('.')
    )
  )


def _of_pattern(path: str) -> Shards:
  found = []
  for each in expand(path):
    if glob.has_magic(each):
      found += glob.glob(each)
    else:
      found.append(each)
  missing = [each for each in found if not os.path.isfile(each)]
  if missing or not found:
    raise FileNotFoundError(
      f'{path}: {len(missing) or "all"} of its shards are missing'
      + ''.join(f'\n  {each}' for each in missing[:10])
    )
  wrong = [each for each in found if not each.endswith('.tar')]
  if wrong:
    raise ValueError(f'{path}: {wrong[0]} is no .tar')
  folder = os.path.commonpath([os.path.dirname(each) or '.' for each in found])
  names = sorted({os.path.relpath(each, folder) for each in found})
  return Shards(folder, tuple(names))


def expand(pattern: str) -> list[str]:
  """'x-{00..02}' and 'x-{a,b}' as lists of names; zeros are kept.

  Raises:
    ValueError: braces that are neither, or too many names.
  """
  match = _BRACES.search(pattern)
  if match is None:
    return [pattern]
  inside = match[1]
  if numbers := _RANGE.fullmatch(inside):
    first, last = numbers.groups()
    if int(last) < int(first) or int(last) - int(first) >= _MAX_SHARDS:
      raise ValueError(f'{pattern}: {{{inside}}} is no range of shards')
    width = (
      len(first) if first.startswith('0') or len(first) == len(last) else 0
    )
    choices = [f'{i:0{width}}' for i in range(int(first), int(last) + 1)]
  elif ',' in inside:
    choices = inside.split(',')
  else:
    raise ValueError(
      f'{pattern}: {{{inside}}} is neither {{split}}, {{000..146}} nor {{a,b}}'
    )
  start, rest = pattern[: match.start()], expand(pattern[match.end() :])
  if len(choices) * len(rest) > _MAX_SHARDS:
    raise ValueError(f'{pattern}: more than {_MAX_SHARDS:,} shards')
  return [f'{start}{choice}{tail}' for choice in choices for tail in rest]
