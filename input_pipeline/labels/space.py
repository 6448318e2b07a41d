"""The label space: what the outputs of a task stand for.

A source has one, a task is built for one, and a checkpoint carries it whole, so
that predictions have names where the training data are not at hand.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from big_vision_like import protocols
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary

_KEYS = (
  'count', 'names', 'descriptions', 'imagenet_ids', 'parents', 'background',
  'keypoints', 'external_ids',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Skeleton:
  """Keypoints of a person or thing, in the order of the data.

  Attributes:
    names: unique names, K of them.
    pairs: (left, right) indices that a reflection exchanges.
    sigmas: K positive tolerances relative to the object's size (COCO's OKS).
    anonymous: only the pairs are known; there are no names.
  """

  names: tuple[str, ...]
  pairs: tuple[tuple[int, int], ...] = ()
  sigmas: tuple[float, ...] | None = None
  anonymous: bool = False

  def __post_init__(self):
    if bool(self.names) == self.anonymous or len(set(self.names)) < len(
      self.names
    ):
      raise ValueError(f'keypoint names must be unique, got {self.names}')
    used = [i for pair in self.pairs for i in pair]
    last = max(used, default=0) if self.anonymous else len(self.names) - 1
    known = all(0 <= i <= last for i in used)
    if not known or len(set(used)) < len(used):
      raise ValueError(
        f'keypoint pairs {self.pairs} must name each of 0 to {last} at most '
        'once'
      )
    sigmas = self.sigmas or ()
    good = all(math.isfinite(s) and s > 0 for s in sigmas)
    if self.sigmas is not None and (len(sigmas) != len(self.names) or not good):
      raise ValueError(
        f'{len(self.names)} keypoints need as many positive sigmas, got '
        f'{self.sigmas}'
      )

  @classmethod
  def of_pairs(cls, pairs: Sequence[Sequence[int]]) -> 'Skeleton':
    """Keypoints of which nothing else is known, as older data sets say it."""
    found = tuple((left, right) for left, right in pairs)
    return cls((), found, anonymous=True)

  def to_json(self) -> dict[str, Any]:
    """Plain data, read by `from_json`."""
    found = dataclasses.asdict(self)
    del found['anonymous']  # where there are no names
    return found

  @classmethod
  def from_json(cls, data: Mapping[str, Any]) -> 'Skeleton':
    """Keypoints that `to_json` wrote."""
    names, sigmas = tuple(data['names']), data['sigmas']
    return cls(
      names,
      tuple((left, right) for left, right in data['pairs']),
      None if sigmas is None else tuple(sigmas),
      anonymous=not names,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class LabelSpace:
  """Names of the labels and what is known of them.

  Attributes:
    vocabulary: the labels in the order of their ids.
    hierarchy: ancestors of each label, or None.
    background: whether id 0 of masks is the background and label i is i + 1;
      None where the data have no masks.
    keypoints: those of the objects, or None.
    external_ids: id of each label where the data come from (COCO's category
      ids), or None.
    anonymous: only the number of labels is known; their names are numbers.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None = None
  background: bool | None = None
  keypoints: Skeleton | None = None
  external_ids: tuple[int, ...] | None = None
  anonymous: bool = False

  def __post_init__(self):
    given = self.external_ids
    if given is not None and len(given) != self.num_classes:
      raise ValueError(
        f'{len(given)} external ids for {self.num_classes} labels'
      )

  @classmethod
  def of_count(cls, num_classes: int) -> 'LabelSpace':
    """A space of which only the number of labels is known.

    Raises:
      ValueError: not a positive number.
    """
    if num_classes < 1:
      raise ValueError(f'{num_classes} classes: must be at least 1')
    names = tuple(map(str, range(num_classes)))
    known = cls.of_vocabulary(Vocabulary(names))
    return dataclasses.replace(known, anonymous=True)

  @classmethod
  def of_vocabulary(cls, vocabulary: Vocabulary) -> 'LabelSpace':
    """Labels none of which is above another."""
    return cls(vocabulary, Hierarchy.from_edges(vocabulary.names, []))

  @classmethod
  def of_source(cls, source: protocols.Source) -> 'LabelSpace':
    """The space of a source: its own, or what else it says of its labels."""
    if isinstance(source, protocols.WithSpace) and source.space is not None:
      return source.space
    masks = isinstance(source, protocols.WithMasks)
    points = isinstance(source, protocols.WithKeypoints)
    numbered = isinstance(source, protocols.WithExternalIds)
    return cls(
      source.vocabulary,
      source.hierarchy,
      background=source.background if masks else None,
      keypoints=source.keypoints if points else None,
      external_ids=source.external_ids if numbered else None,
    )

  @property
  def num_classes(self) -> int:
    """Number of labels, without a background."""
    return len(self.vocabulary)

  @property
  def names(self) -> tuple[str, ...]:
    return self.vocabulary.names

  def fingerprint(self) -> str:
    """16 hex digits of the names in their order."""
    return self.vocabulary.fingerprint()

  def digest(self) -> str:
    """16 hex digits of everything in it."""
    text = json.dumps(self.to_json(), sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

  def to_json(self) -> dict[str, Any]:
    """Plain data, read by `from_json`; parents are ids."""
    if self.anonymous:
      return {'count': self.num_classes}
    known = self.vocabulary
    found: dict[str, Any] = {'names': list(known.names)}
    if known.descriptions is not None:
      found['descriptions'] = list(known.descriptions)
    if known.imagenet_ids is not None:
      found['imagenet_ids'] = list(known.imagenet_ids)
    if self.hierarchy is not None:
      found['parents'] = _parents(self.hierarchy)
    if self.background is not None:
      found['background'] = self.background
    if self.keypoints is not None:
      found['keypoints'] = self.keypoints.to_json()
    if self.external_ids is not None:
      found['external_ids'] = list(self.external_ids)
    return found

  @classmethod
  def from_json(cls, data: Mapping[str, Any], where: str) -> 'LabelSpace':
    """A space that `to_json` wrote.

    Args:
      data: plain data.
      where: file, for messages.

    Raises:
      ValueError: something else, naming the key.
    """
    if not isinstance(data, Mapping) or not {'count', 'names'} & data.keys():
      raise ValueError(f'{where}: no label space: neither names nor count')
    for key in data:
      if key not in _KEYS:
        raise ValueError(
          f'{where}: unknown key {key!r} of a label space; valid: '
          f'{", ".join(_KEYS)}'
        )
    try:
      return cls._read(data)
    except (TypeError, KeyError, ValueError, IndexError) as error:
      raise ValueError(f'{where}: label space: {error}') from None

  @classmethod
  def _read(cls, data: Mapping[str, Any]) -> 'LabelSpace':
    if 'count' in data:
      return cls.of_count(data['count'])
    names = tuple(data['names'])
    vocabulary = Vocabulary(
      names,
      imagenet_ids=data.get('imagenet_ids'),
      descriptions=data.get('descriptions'),
    )
    hierarchy = None
    if 'parents' in data:
      hierarchy = Hierarchy.from_edges(names, _edges(names, data['parents']))
    keypoints = data.get('keypoints')
    if keypoints is not None:
      keypoints = Skeleton.from_json(keypoints)
    external = data.get('external_ids')
    return cls(
      vocabulary,
      hierarchy,
      data.get('background'),
      keypoints,
      None if external is None else tuple(external),
    )


def _parents(hierarchy: Hierarchy) -> list[list[int]]:
  """Ids above each label from which its ancestors follow.

  Its direct parents, and ancestors reached through nodes that are no labels.
  """
  found = []
  for parents, ancestors in zip(hierarchy.parents, hierarchy.ancestors):
    reached = set(hierarchy.close(parents).tolist())
    beyond = [i for i in ancestors.tolist() if i not in reached]
    found.append([*parents.tolist(), *beyond])
  return found


def _edges(
  names: Sequence[str], parents: Sequence[Sequence[int]]
) -> list[tuple[str, str]]:
  """(child, parent) names of the parents of each label."""
  if len(parents) != len(names):
    raise ValueError(f'{len(parents)} rows of parents for {len(names)} names')
  return [
    (names[child], names[parent])
    for child, row in enumerate(parents)
    for parent in row
  ]
