"""The files of Open Images by the names under which they are published.

  train_0.tar.gz ... train_f.tar.gz, validation.tar.gz, test.tar.gz
  oidv7-{train,val,test}-annotations-human-imagelabels.csv
  {train,validation,test}-annotations-machine-imagelabels.csv
  oidv7-class-descriptions.csv
  bbox_labels_600_hierarchy.json                          optional
  {train,validation,test}-images-...-with-rotation.csv    optional
Names of earlier releases are understood too. Archives may be plain tars, zips
or folders; tables may be gzipped.
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SPLITS = ('train', 'validation', 'test')
_SPLIT = '(train|val|validation|test)'
_LABEL_FILE = re.compile(
  rf'(?:oidv\d-)?{_SPLIT}-annotations-(human|machine)-imagelabels'
  r'(?:-boxable)?\.csv(?:\.gz)?'
)
_IMAGE_FILES = re.compile(rf'({_SPLIT}(?:_[0-9a-f])?)(|\.tar|\.tar\.gz|\.zip)')
_IMAGE_INFO = re.compile(
  rf'(?:(?:oidv\d-)?{_SPLIT}-images.*-with-rotation|image_ids_and_rotation)'
  r'\.csv(?:\.gz)?'
)
_DESCRIPTIONS = re.compile(r'(?:oidv\d-)?class-descriptions\.csv(?:\.gz)?')
_BOXABLE = re.compile(r'(?:oidv\d-)?class-descriptions-boxable\.csv(?:\.gz)?')
_HIERARCHY = re.compile(r'bbox_labels_\d+_hierarchy\.json')


class Published(NamedTuple):
  """The files to read.

  Attributes:
    images: split -> folders and archives.
    labels: (split, 'human' or 'machine') -> file.
    image_info: tables with a column Rotation.
    descriptions: file of MIDs and names.
    hierarchy: file, or None.
  """

  images: Mapping[str, Sequence[str]]
  labels: Mapping[tuple[str, str], str]
  image_info: Sequence[str]
  descriptions: str
  hierarchy: str | None


def find(
  root: str | None,
  *,
  splits: Sequence[str] | None = None,
  images: Mapping[str, Sequence[str]] | None = None,
  human_labels: Mapping[str, str] | None = None,
  machine_labels: Mapping[str, str] | None = None,
  image_info: Sequence[str] | None = None,
  class_descriptions: str | None = None,
  hierarchy: str | None = None,
) -> Published:
  """The publisher's files in a folder; those given otherwise come first.

  Args:
    root: folder of the downloads, or None where all files are given.
    splits: those to take; None for all that have images.
    images, human_labels, machine_labels: by split; image_info,
      class_descriptions, hierarchy: see `Published`.

  Raises:
    FileNotFoundError: no such folder, or no class descriptions.
    ValueError: no images, or two files for one thing; names them.
  """
  entries = _entries(root)
  found_images = _found_images(entries) | dict(images or {})
  labels = _found_labels(entries)
  for kind, given in (('human', human_labels), ('machine', machine_labels)):
    for split, path in (given or {}).items():
      labels[split, kind] = [path]
  for split in splits or ():
    if split not in found_images:
      raise ValueError(
        f'no images of split {split!r} in {root}; there are: '
        f'{", ".join(found_images) or "none"}'
      )
  chosen = {
    split: found_images[split]
    for split in SPLITS
    if split in found_images and (splits is None or split in splits)
  }
  if not chosen:
    raise ValueError(
      f'{root}: no images: expected train_0.tar.gz to train_f.tar.gz, '
      f'validation.tar.gz, test.tar.gz, or folders of such names'
    )
  if class_descriptions is None:
    every = _named(entries, _DESCRIPTIONS) or _named(entries, _BOXABLE)
    class_descriptions = _single(every, '--class_descriptions FILE')
  if class_descriptions is None:
    raise FileNotFoundError(
      f'{root}: no oidv7-class-descriptions.csv, the names of the labels'
    )
  if hierarchy is None:
    hierarchy = _single(_named(entries, _HIERARCHY), '--hierarchy FILE')
  if image_info is None:
    image_info = [
      path
      for path in _named(entries, _IMAGE_INFO)
      if _info_split(path) in (*chosen, None)
    ]
  return Published(
    images=chosen,
    labels={
      key: path
      for key, paths in labels.items()
      if (path := _single(paths, f'--{key[1]}_labels {key[0]}=FILE'))
    },
    image_info=image_info,
    descriptions=class_descriptions,
    hierarchy=hierarchy,
  )


def _entries(root: str | None) -> list[str]:
  """Sorted paths in a folder."""
  if root is None:
    return []
  if not os.path.isdir(root):
    raise FileNotFoundError(f'{root}: no such folder')
  return [os.path.join(root, name) for name in sorted(os.listdir(root))]


def _named(paths: Sequence[str], pattern: re.Pattern) -> list[str]:
  """Those whose file name fits."""
  return [p for p in paths if pattern.fullmatch(os.path.basename(p))]


def _single(paths: Sequence[str], option: str) -> str | None:
  """The one path, None without any."""
  if len(paths) > 1:
    raise ValueError(
      f'{", ".join(paths)}: more than one file for the same; choose by {option}'
    )
  return paths[0] if paths else None


def _found_images(paths: Sequence[str]) -> dict[str, list[str]]:
  """Split -> its folders and archives."""
  found: dict[str, list[str]] = {}
  stems: dict[str, str] = {}
  for path in paths:
    match = _IMAGE_FILES.fullmatch(os.path.basename(path))
    if match is None or os.path.isdir(path) != (not match[3]):
      continue
    if stems.setdefault(match[1], path) != path:
      raise ValueError(
        f'both {stems[match[1]]} and {path}: move one away, or name what to '
        f'read by --images {_split(match[2])}=PATH'
      )
    found.setdefault(_split(match[2]), []).append(path)
  return found


def _found_labels(paths: Sequence[str]) -> dict[tuple[str, str], list[str]]:
  """(split, 'human' or 'machine') -> files."""
  found: dict[tuple[str, str], list[str]] = {}
  for path in _named(paths, _LABEL_FILE):
    match = _LABEL_FILE.fullmatch(os.path.basename(path))
    assert match is not None
    found.setdefault((_split(match[1]), match[2]), []).append(path)
  return found


def _info_split(path: str) -> str | None:
  """Split of a table of image information; None for all of them."""
  match = _IMAGE_INFO.fullmatch(os.path.basename(path))
  assert match is not None
  return _split(match[1]) if match[1] else None


def _split(name: str) -> str:
  return 'validation' if name == 'val' else name
