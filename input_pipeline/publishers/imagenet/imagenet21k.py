"""ImageNet-21k: the whole of ImageNet, 14 million images of 21,841 synsets.

  winter21_whole.tar.gz  19,167 class tars, compressed as a whole
  fall11_whole.tar       21,841 class tars
  unpacked               a folder of class tars, or of class folders

The largest public set with a real hierarchy of labels, inner nodes among them:
the nearest thing to JFT's 18,291 that can be had (Sun et al. 2017, section 3).
No split is published: a held-out part is chosen by a hash of the file name.
"""

import dataclasses
import os

import numpy as np

from big_vision_like.config import option_types
from big_vision_like.config.option_types import Count
from input_pipeline.image_sets import holdout
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.imagenet import class_images, synsets
from input_pipeline.publishers.imagenet.class_images import (
  ClassImages,
  LabelledImages,
)


def open_splits(
  path: str,
  *,
  holdout_percent: holdout.Percent = 1.0,
  min_images: Count = 1,
  synset_file: str | None = None,
  ilsvrc_synset_file: str | None = None,
  descriptions: str | None = None,
  hierarchy: str | None = None,
  hierarchy_unlisted: str = 'add',
  hierarchy_max_depth: int | None = None,
  scratch: str | None = None,
) -> dict[str, LabelledImages]:
  """{'train': source, 'val': source}.

  Args:
    path: archive or folder.
    holdout_percent: part of the images that is 'val', above 0 and below 100.
    min_images: classes with fewer images are left out.
    synset_file: the classes to keep, a wnid a line; default: all.
    ilsvrc_synset_file: the classes of ImageNet-1k, a wnid a line; these
      labels get an `imagenet_id`.
    descriptions: words of the synsets.
    hierarchy, hierarchy_unlisted, hierarchy_max_depth: as in the folder source.
    scratch: folder for what must be decompressed as a whole.

  Raises:
    FileNotFoundError, ValueError: missing, damaged or without images; a list
      that is none; a bad option.
  """
  given = dict(holdout_percent=holdout_percent, min_images=min_images)
  option_types.check('', open_splits, given)
  lists = synsets.Lists()
  if descriptions is not None:
    lists.describe(synsets.read_text(descriptions), descriptions)
  wanted = _read(lists, synset_file)
  ilsvrc = _read(lists, ilsvrc_synset_file)
  if not os.path.exists(path):
    raise FileNotFoundError(f'--input {path!r}: no such file or folder')
  images = class_images.find(class_images.open_place(path, scratch))
  if not len(images.members):
    raise ValueError(f'{path}: no images in it')
  notes = images.notes()
  images, more = _chosen(images, wanted, min_images)
  counts = np.bincount(images.class_ids, minlength=len(images.classes))
  kept = np.flatnonzero(counts)
  names = tuple(images.classes[i] for i in kept)
  if not names:
    raise ValueError(f'{path}: no class is left: {"; ".join(more)}')
  val = class_images.held_out(images, holdout_percent)
  train = np.bincount(images.class_ids[~val], minlength=len(images.classes))
  vocabulary, closed = synsets.attach_hierarchy(
    Vocabulary(names, counts=train[kept]),
    lists.descriptions, hierarchy, hierarchy_unlisted, hierarchy_max_depth,
  )  # fmt: skip
  if ilsvrc is not None:
    known = set(ilsvrc)
    ids = tuple(name if name in known else None for name in vocabulary.names)
    vocabulary = dataclasses.replace(vocabulary, imagenet_ids=ids)
    more.append(
      f'{sum(map(bool, ids)):,} of the {len(known):,} synsets of '
      f'{ilsvrc_synset_file} are labels'
    )
  return {
    split: LabelledImages(
      part.files,
      part.members,
      class_images.relabelled(part, vocabulary.names),
      vocabulary,
      closed,
      notes + more + class_images.without_images(part, vocabulary),
    )
    for split, part in (
      ('train', images.chosen(~val)),
      ('val', images.chosen(val)),
    )
  }


def _read(lists: synsets.Lists, path: str | None) -> list[str] | None:
  if path is None:
    return None
  return lists.describe(synsets.read_text(path), path)


def _chosen(
  images: ClassImages, wanted: list[str] | None, min_images: int
) -> tuple[ClassImages, list[str]]:
  """The images of the classes to keep, and what was left out."""
  notes = []
  counts = np.bincount(images.class_ids, minlength=len(images.classes))
  keep = np.ones(len(counts), bool)
  if wanted is not None:
    known = set(wanted)
    keep = np.array([name in known for name in images.classes])
    absent = len(known.difference(images.classes))
    notes.append(
      f'{_sum(counts, ~keep)} are not among the {len(known):,} synsets wanted; '
      f'{absent:,} of these have no images'
    )
  if min_images > 1:
    few = keep & (counts < min_images)
    notes.append(f'{_sum(counts, few)} have fewer than {min_images} images')
    keep &= ~few
  return images.chosen(keep[images.class_ids]), notes


def _sum(counts: np.ndarray, left_out: np.ndarray) -> str:
  return (
    f'{np.count_nonzero(left_out):,} classes with '
    f'{counts[left_out].sum():,} images left out: they'
  )
