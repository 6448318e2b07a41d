"""ImageNet-1k (ILSVRC2012) as its publishers give it out.

  image-net.org  ILSVRC2012_img_train.tar (1,000 class tars in it),
                 ILSVRC2012_img_val.tar (50,000 images, no classes),
                 ILSVRC2012_devkit_t12.tar.gz (labels of these)
  Kaggle         imagenet-object-localization-challenge.zip, or unpacked:
                 ILSVRC/Data/CLS-LOC/{train/WNID,val}, LOC_val_solution.csv,
                 LOC_synset_mapping.txt
  unpacked       train/WNID/*.JPEG, val/WNID/*.JPEG or val/*.JPEG

Labels are in the order of the sorted wnids, as everywhere (0 is n01440764, the
tench). The baseline of Sun et al. 2017 and their transfer study train on it.
"""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np

from input_pipeline.files import archives
from input_pipeline.files.archive_index import Files
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.imagenet import class_images, synsets
from input_pipeline.publishers.imagenet.class_images import (
  ClassImages,
  LabelledImages,
)

_KAGGLE = 'ILSVRC/Data/CLS-LOC'
_TRAIN = ('ILSVRC2012_img_train.tar', 'train.tar', 'train')
_VAL = ('ILSVRC2012_img_val.tar', 'val.tar', 'val', 'validation')
_VAL_LABELS = (
  'ILSVRC2012_devkit_t12.tar.gz',
  'ILSVRC2012_devkit_t12',
  'LOC_val_solution.csv',
  'imagenet_2012_validation_synset_labels.txt',
)
_DESCRIPTIONS = ('LOC_synset_mapping.txt', 'synset_words.txt', 'words.txt')


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where the parts are; None where they have not been found.

  Attributes:
    train, val: archive or folder.
    val_labels: development kit, .csv or .txt; for images without classes.
    descriptions: list of synsets and words.
    within: the archive that all of them are members of, or None: paths.
  """

  train: str | None = None
  val: str | None = None
  val_labels: str | None = None
  descriptions: str | None = None
  within: Files | None = None


def locate(path: str) -> Layout:
  """The parts of a folder, or of Kaggle's zip, by their published names.

  Raises:
    FileNotFoundError: no such path.
    ValueError: neither, or nothing known in it.
  """
  if os.path.isfile(path) and path.lower().endswith('.zip'):
    files = archives.open_files(path)
    return Layout(
      f'{_KAGGLE}/train/',
      f'{_KAGGLE}/val/',
      _first(('LOC_val_solution.csv',), files.__contains__),
      _first(_DESCRIPTIONS, files.__contains__),
      files,
    )
  if not os.path.isdir(path):
    if not os.path.exists(path):
      raise FileNotFoundError(f'--input {path!r}: no such file or folder')
    raise ValueError(
      f'--input {path!r}: neither a folder with the published files nor '
      f"Kaggle's zip; give single archives as --train and --val"
    )

  def there(name: str) -> bool:
    return os.path.exists(os.path.join(path, name))

  kaggle = os.path.isdir(os.path.join(path, _KAGGLE))
  folder = f'{_KAGGLE}/' if kaggle else ''
  found = [
    _first([folder + name for name in _TRAIN], there),
    _first([folder + name for name in _VAL], there),
    _first(_VAL_LABELS, there),
    _first(_DESCRIPTIONS, there),
  ]
  if found[:2] == [None, None]:
    raise ValueError(
      f'--input {path!r}: none of {", ".join((*_TRAIN, *_VAL, _KAGGLE))} is '
      f'there; give --train and --val'
    )
  return Layout(
    *(None if name is None else os.path.join(path, name) for name in found),
    within=None,
  )


def _first(names: Sequence[str], there: Callable[[str], bool]) -> str | None:
  return next((name for name in names if there(name)), None)


def open_splits(
  layout: Layout,
  splits: Sequence[str],
  *,
  synset_file: str | None = None,
  hierarchy: str | None = None,
  hierarchy_unlisted: str = 'traverse',
  hierarchy_max_depth: int | None = None,
  scratch: str | None = None,
) -> dict[str, LabelledImages]:
  """split -> source.

  Args:
    layout: where the parts are.
    splits: of 'train' and 'val'.
    synset_file: the classes, a wnid a line; default: those of train, else
      those of the development kit.
    hierarchy, hierarchy_unlisted, hierarchy_max_depth: as in the folder source.
    scratch: folder for what must be decompressed as a whole.

  Raises:
    FileNotFoundError, ValueError: a part is missing, damaged, or does not fit
      the others; names the file.
  """
  lists = _lists(layout)
  found: dict[str, ClassImages] = {}
  notes: dict[str, list[str]] = {}
  for split in splits:
    place = {'train': layout.train, 'val': layout.val}[split]
    if place is None:
      raise ValueError(
        f'no images of split {split!r}: give --{split} (or --splits without it)'
      )
    files, below = _open(layout, place, scratch)
    if split == 'val' and _is_flat(files, below):
      found[split], more = _flat(files, below, lists)
    else:
      found[split], more = class_images.find(files, below), []
    if not len(found[split].members):
      raise ValueError(f'{files.path}: no images in {below or "it"}')
    notes[split] = found[split].notes() + more
  vocabulary, closed = _labels(
    found, lists, synset_file, hierarchy, hierarchy_unlisted,
    hierarchy_max_depth,
  )  # fmt: skip
  return {
    split: LabelledImages(
      images.files,
      images.members,
      class_images.relabelled(images, vocabulary.names),
      vocabulary,
      closed,
      notes[split] + class_images.without_images(images, vocabulary),
    )
    for split, images in found.items()
  }


def _lists(layout: Layout) -> synsets.Lists:
  lists = synsets.Lists()

  def read(name: str) -> tuple[bytes, str]:
    if layout.within is None:
      return synsets.read_text(name), name
    return synsets.read_member(layout.within, name)

  if (labels := layout.val_labels) is not None:
    if layout.within is None and synsets.is_devkit(labels):
      lists.read_devkit(labels)
    else:
      lists.read_val_labels(*read(labels))
  if layout.descriptions is not None:
    lists.describe(*read(layout.descriptions))
  return lists


def _open(layout: Layout, place: str, scratch: str | None) -> tuple[Files, str]:
  """(files, beginning of the names that count)."""
  if layout.within is not None:
    return layout.within, place
  return class_images.open_place(place, scratch), ''


def _is_flat(files: Files, below: str) -> bool:
  """Whether the first image lies in no class."""
  for name in files.names:
    if name.startswith(below) and class_images.is_image(name):
      return class_images.depth_of_class(name[len(below) :].split('/')) is None
  return False


def _flat(
  files: Files, below: str, lists: synsets.Lists
) -> tuple[ClassImages, list[str]]:
  """Images whose classes stand in a list, and what to say about it."""
  if not lists.val_labels:
    raise ValueError(
      f'{files.path}: images without classes: give their labels as '
      f'--val_labels (ILSVRC2012_devkit_t12.tar.gz, LOC_val_solution.csv, or '
      f'a .txt with a wnid a line)'
    )
  members, wnids, passed_over = [], [], []
  for position, name in enumerate(files.names):
    if not name.startswith(below):
      continue
    if not class_images.is_image(name):
      passed_over.append(name)
      continue
    number = synsets.val_number(name)
    if number is None or number not in lists.val_labels:
      raise ValueError(
        f'{files.path}: no label for image {name!r}: the list has '
        f'{len(lists.val_labels):,}, for ILSVRC2012_val_00000001 and so on'
      )
    members.append(position)
    wnids.append(lists.val_labels[number])
  missing = len(lists.val_labels) - len(members)
  classes, ids = np.unique(wnids, return_inverse=True)
  images = ClassImages(
    files,
    np.array(members, np.uint32),
    tuple(map(str, classes)),
    ids.astype(np.int32),
    tuple(passed_over),
  )
  said = f'{missing:,} of {len(lists.val_labels):,} labels have no image'
  return images, [said] if missing else []


def _labels(
  found: dict[str, ClassImages],
  lists: synsets.Lists,
  synset_file: str | None,
  hierarchy: str | None,
  unlisted: str,
  max_depth: int | None,
) -> tuple[Vocabulary, Hierarchy | None]:
  """The vocabulary of both splits, with counts where train is one."""
  if synset_file is not None:
    data = synsets.read_text(synset_file)
    classes = sorted(lists.describe(data, synset_file))
  elif 'train' in found:
    classes = list(found['train'].classes)
  elif lists.synsets is not None:
    classes = lists.synsets
  else:
    raise ValueError(
      'without the split train the classes are unknown: give --synsets, a '
      'file with a wnid a line'
    )
  counts = None
  if 'train' in found:
    ids = class_images.relabelled(found['train'], classes)
    counts = np.bincount(ids, minlength=len(classes))
  return synsets.attach_hierarchy(
    # Not the inner nodes that a hierarchy may add: ILSVRC's classes.
    Vocabulary(tuple(classes), counts=counts, imagenet_ids=tuple(classes)),
    lists.descriptions, hierarchy, unlisted, max_depth,
  )  # fmt: skip
