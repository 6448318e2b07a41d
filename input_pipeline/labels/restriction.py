"""A data set seen through some of its labels (Sun et al. 2017, section 5.2).

The paper asks whether many classes matter by training on the 941 labels that
ImageNet has too. `Restriction` is what such a choice does to labels, to the
vocabulary and the hierarchy, and to every field of an example that holds label
ids; which records are kept is decided in subset.py.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from input_pipeline.examples import annotations, mask_files
from input_pipeline.labels import arrays, states
from input_pipeline.labels import hierarchy as hierarchies
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.arrays import Block, LabelIndex
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.ragged import Ragged
from input_pipeline.labels.vocabulary import Vocabulary

IMAGENET = 'imagenet'
OtherPixels = Literal['void', 'background']
_NO_CLASS = -1  # of a mask id that stands for nothing


def chosen_ids(
  vocabulary: Vocabulary, labels: str | Sequence[str], where: str
) -> np.ndarray:
  """Ids that an option `labels` names: int64 [k], ascending.

  Args:
    vocabulary: the labels there are.
    labels: 'imagenet' for those with an imagenet_id, a vocabulary or text file
      of names, or a list of names.
    where: config key, for messages.

  Raises:
    ValueError: an unknown or repeated name, or no label at all.
    FileNotFoundError: no such file.
  """
  known = vocabulary.origin or 'the vocabulary'
  if labels == IMAGENET:
    marked = vocabulary.imagenet_ids or ()
    ids = [i for i, synset in enumerate(marked) if synset is not None]
    if not ids:
      raise ValueError(
        f"{where}='{IMAGENET}': no label of {known} has an imagenet_id; add "
        f'it to vocabulary.jsonl, or give a file of names'
      )
    return np.array(ids, np.int64)
  if isinstance(labels, str):
    listed = vocabularies.load(labels)
    names, places = listed.names, listed.where
  else:
    names, places = tuple(labels), lambda i: f'{where}[{i}]'
  ids = []
  for i, name in enumerate(names):
    try:
      ids.append(vocabulary.index(name))
    except ValueError as error:
      raise ValueError(f'{places(i)}: {error}') from None
  if len(set(ids)) < len(ids):
    again = next(n for i, n in enumerate(names) if n in names[:i])
    raise ValueError(f'{where}: name {again!r} appears twice')
  return np.sort(np.array(ids, np.int64))


class Restriction:
  """Maps the labels of a data set to those that are kept.

  Attributes:
    vocabulary, hierarchy: of the labels kept.
    carries: bool [C], which old labels say something about a kept one.
    kept: int64 [k], the old ids of the labels kept, ascending.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None

  def __init__(
    self,
    vocabulary: Vocabulary,
    hierarchy: Hierarchy | None,
    kept: np.ndarray,
    *,
    fill_in: bool = False,
    keep_ids: bool = False,
    background: bool = True,
    other_pixels: str = 'void',
  ):
    """Takes the labels to keep.

    Args:
      vocabulary, hierarchy: of the data set.
      kept: integer [k] ids, ascending and unique.
      fill_in: a label that is dropped counts as its kept ancestors; one that is
        dropped and known to be absent, as its kept descendants' absence.
      keep_ids: ids and vocabulary stay; labels are only taken away.
      background: whether id 0 of a mask is the background, label i being i + 1.
      other_pixels: what pixels of the other labels become, 'void' (255, which
        counts nowhere) or 'background'.
    """
    self.vocabulary, self.hierarchy = hierarchies.restrict(
      vocabulary, hierarchy, kept, keep_ids=keep_ids
    )
    self.kept = kept
    self._num_labels = len(vocabulary)
    self._new = np.full(len(vocabulary), -1, np.int32)
    self._new[kept] = kept if keep_ids else np.arange(len(kept))
    pairs = kept, self._new[kept]  # (label, kept label that it stands for)
    self._whole = hierarchy if fill_in else None
    self._below: states.Negatives | None = None
    if self._whole is not None:
      self._below = states.Negatives(self._whole, fill_in=True)
      below = self._whole.ancestors.owners
      above = self._new[self._whole.ancestors.values]
      pairs = (
        np.concatenate([pairs[0], below[above >= 0]]),
        np.concatenate([pairs[1], above[above >= 0]]),
      )
    self._pixels = self._table_of_masks(int(background), other_pixels)
    self._up = Ragged.of_pairs(*pairs, len(vocabulary))
    self.carries = self._up.lengths > 0

  def labels(self, raw: np.ndarray, where: str = 'example') -> np.ndarray:
    """Kept labels, int32 [n], of raw ones: in their order, or, filled in,
    ascending."""
    raw = self._checked(raw, where)
    if self._whole is not None:
      raw = self._whole.close(raw)
    new = self._new[raw]
    return new[new >= 0]

  def example(self, example: dict[str, Any], where: str) -> dict[str, Any]:
    """The example with all its label ids mapped; others' boxes are left out.

    An ancestor that stands for several labels gets the highest of their
    confidences.

    Raises:
      ValueError: a label that the vocabulary does not have.
      BadExample: a mask that cannot be read, or with such an id.
    """
    out = dict(example)
    raw = self._checked(example['labels'], where)
    if 'negatives' in out:
      absent = self._checked(out['negatives'], where)
      if self._below is not None:
        dropped = absent[self._new[absent] < 0]
        below, _ = self._below.resolve(dropped, raw)
        absent = np.union1d(absent, below)
      new = self._new[absent]
      out['negatives'] = new[new >= 0]
    if 'label_conf' in out:
      confidence = np.asarray(out['label_conf'], np.float32)
      if self._whole is not None:
        raw, confidence = states.close_confidences(self._whole, raw, confidence)
      out['label_conf'] = confidence[self._new[raw] >= 0]
    out['labels'] = self.labels(raw, where)
    if 'box_labels' in out:
      new = self._new[self._checked(out['box_labels'], where)]
      _keep_boxes(out, new >= 0)
      out['box_labels'] = new[new >= 0]
    if 'segmentation' in out:
      mask = out['segmentation']
      out['segmentation'] = mask_files.replaced(mask, self._pixels)
    return out

  def _table_of_masks(self, first: int, other_pixels: str) -> np.ndarray:
    """int16 [256]: new id of each id of a mask, or _NO_CLASS.

    Filled in, a pixel of a label that is dropped is one of its lowest kept
    ancestor; where several are lowest the pixel is void, since it belongs to a
    label that is kept.

    Args:
      first: mask id of label 0.
      other_pixels: see `__init__`.
    """
    void = annotations.IGNORE
    table = np.full(void + 1, _NO_CLASS, np.int16)
    table[:first] = 0
    table[void] = void
    new = self._new[: void - first]
    other = void if other_pixels == 'void' else 0
    table[first : first + len(new)] = np.where(new >= 0, new + first, other)
    if self._whole is not None:
      for label in np.flatnonzero(new < 0).tolist():
        ancestors = self._whole.ancestors[label]
        kept = ancestors[self._new[ancestors] >= 0]
        if len(kept):
          lowest = _lowest(self._whole, kept)
          table[first + label] = (
            void if lowest is None else self._new[lowest] + first
          )
    return table

  def index(
    self, index: LabelIndex, chosen: np.ndarray | range | None = None
  ) -> LabelIndex:
    """The kept labels of the chosen records; 12 bytes a record and more."""
    return arrays.joined(
      arrays.unique(block, self._num_labels)
      if self._whole is not None
      else block
      for block in self._blocks(index, chosen)
    )

  def counts(
    self, index: LabelIndex, chosen: np.ndarray | range | None
  ) -> np.ndarray:
    """int64: images of each label of the new vocabulary."""
    return arrays.counts(self._blocks(index, chosen), len(self.vocabulary))

  def _blocks(
    self, index: LabelIndex, chosen: np.ndarray | range | None
  ) -> Iterator[Block]:
    for block in arrays.blocks(index, chosen):
      yield arrays.replaced(block, self._up)

  def _checked(self, ids: Any, where: str) -> np.ndarray:
    ids = np.asarray(ids, np.int64).reshape(-1)
    if ids.size and (ids.min() < 0 or ids.max() >= self._num_labels):
      bad = ids[(ids < 0) | (ids >= self._num_labels)][0]
      raise ValueError(
        f'label {bad} of {where!r} is outside the vocabulary of '
        f'{self._num_labels} names'
      )
    return ids


def _lowest(hierarchy: Hierarchy, labels: np.ndarray) -> int | None:
  """The one of some labels that is below all others, if there is one."""
  above = [len(hierarchy.ancestors[i]) for i in labels.tolist()]
  lowest = int(labels[np.argmax(above)])
  others = labels[labels != lowest]
  return lowest if np.isin(others, hierarchy.ancestors[lowest]).all() else None


def _keep_boxes(example: dict[str, Any], keep: np.ndarray) -> None:
  """Drops boxes with every field that has one entry a box, in place."""
  if keep.all():
    return
  for name, value in example.items():
    if name == 'keypoints' or name.startswith('box'):
      if isinstance(value, list):
        example[name] = [v for v, k in zip(value, keep.tolist()) if k]
      else:
        example[name] = np.asarray(value)[keep]
  if 'instance_map' in example:  # 1 + number of the box, 0 for none
    number = np.concatenate([[0], np.where(keep, np.cumsum(keep), 0)])
    shown = example['instance_map']
    example['instance_map'] = number[shown].astype(shown.dtype)
