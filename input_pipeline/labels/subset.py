"""Subsets of a source, by chance and by label, without copying anything.

    source.subset = dict(num_images=30_000_000, labels='imagenet')

Two studies of the paper (Sun et al. 2017, section 5.2) need them: more data
(nested random subsets of 10M, 30M and 100M images, hash_order.py), and fewer
classes (the labels that ImageNet has too, restriction.py). Labels choose
first, chance takes its part of what they leave. docs/subsets.md.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from big_vision_like import protocols
from big_vision_like.config import option_types, plugins
from big_vision_like.config.option_types import Between, Count, NonEmpty
from big_vision_like.protocols import Described, Source
from input_pipeline.labels import (
  arrays,
  hash_order,
  ragged,
)
from input_pipeline.labels import (
  restriction as label_restriction,
)
from input_pipeline.labels.arrays import LabelIndex
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.restriction import Restriction
from input_pipeline.labels.space import LabelSpace
from input_pipeline.labels.vocabulary import Vocabulary

_Fraction = Annotated[float, Between(0, 1, open='low')]


@dataclasses.dataclass(frozen=True)
class Options:
  """What `source.subset` may hold; None counts as not given.

  Attributes:
    fraction: share of the records, in (0, 1].
    num_images: number of records, instead of a fraction.
    rest: all the others instead: what `fraction` or `num_images` leaves out.
    seed: another one draws independently; subsets of one seed are nested.
    labels: 'imagenet', a file of names, or a list of names.
    unlabelled: records without one of the labels: 'drop', or 'keep' for
      evaluation sets.
    fill_in: labels that are dropped count as their kept ancestors.
    keep_ids: all labels keep their ids and outputs; those dropped never occur.
    other_pixels: what pixels of other labels are in masks: 'void', or
      'background' where the masks have one.
  """

  fraction: _Fraction | None = None
  num_images: Count | None = None
  rest: bool | None = None
  seed: int | None = None
  labels: str | Annotated[Sequence[str], NonEmpty()] | None = None
  unlabelled: Literal['drop', 'keep'] | None = None
  fill_in: bool | None = None
  keep_ids: bool | None = None
  other_pixels: label_restriction.OtherPixels | None = None


def _parse(options: Mapping[str, Any], where: str) -> Options:
  """Checked options; ValueError names key, value and what is valid."""
  plugins.check_kwargs(where, Options, options)
  parsed = Options(**options)
  given = {n: v for n, v in dataclasses.asdict(parsed).items() if v is not None}
  if 'fraction' in given and 'num_images' in given:
    raise ValueError(f'{where}: give fraction or num_images, not both')
  for name in ('seed', 'rest'):
    if name in given and not {'fraction', 'num_images'} & given.keys():
      raise ValueError(f'{where}.{name}: needs fraction or num_images')
  for name in ('unlabelled', 'fill_in', 'keep_ids', 'other_pixels'):
    if name in given and 'labels' not in given:
      raise ValueError(f'{where}.{name}: needs labels')
  return parsed


class Subset:
  """Some records of a source, perhaps with fewer labels; itself a source.

  Attributes:
    vocabulary, hierarchy: those of the labels kept.
    space: of the labels kept; masks and keypoints are the source's.
    in_hash_order: records come in hash order, so a prefix is a random subset.
    description: what it is of the whole, for people.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None

  def __init__(
    self,
    source: Source,
    chosen: np.ndarray | range,
    restriction: Restriction | None,
    *,
    counts: np.ndarray | None,
    in_hash_order: bool,
    identity: str,
    description: str,
  ):
    self._source = source
    self._read_labels = arrays.reader(source)
    self._chosen = chosen
    self._restriction = restriction
    self._identity = identity
    self.has_truth = (
      not isinstance(source, protocols.WithTruth) or source.has_truth
    )
    self.in_hash_order = in_hash_order
    self.description = description
    labels = source if restriction is None else restriction
    self.vocabulary = dataclasses.replace(labels.vocabulary, counts=counts)
    self.hierarchy = labels.hierarchy
    self.space = self._space(LabelSpace.of_source(source))
    self.background = self.space.background

  def _space(self, whole: LabelSpace) -> LabelSpace:
    """The source's, with the labels kept."""
    external = whole.external_ids
    if external is not None and len(self.vocabulary) < len(external):
      assert self._restriction is not None
      external = tuple(external[i] for i in self._restriction.kept.tolist())
    return dataclasses.replace(
      whole,
      vocabulary=self.vocabulary,
      hierarchy=self.hierarchy,
      external_ids=external,
    )

  def __len__(self) -> int:
    return len(self._chosen)

  def __getitem__(self, index: int) -> dict[str, Any]:
    original = self._original(index)
    example = self._source[original]
    if self._restriction is None:
      return example
    return self._restriction.example(example, self._source.key(original))

  def key(self, index: int) -> str:
    """Name of the record in the whole source."""
    return self._source.key(self._original(index))

  def labels(self, index: int) -> np.ndarray:
    """Raw label ids, without decoding where the source can."""
    original = self._original(index)
    labels = self._read_labels(original)
    if self._restriction is None:
      return labels
    return self._restriction.labels(labels, self._source.key(original))

  def label_index(self) -> LabelIndex | None:
    """Labels of all records as flat arrays, made now; None without the
    source's."""
    whole = arrays.of(self._source)
    if whole is None:
      return None
    if self._restriction is not None:
      return self._restriction.index(whole, self._chosen)
    return arrays.taken(whole, self._chosen)

  def sizes(self) -> np.ndarray | None:
    """int32 [n, 2] height and width of the stored images, where known."""
    source = self._source
    sized = isinstance(source, protocols.WithSizes)
    return self._of_records(source.sizes() if sized else None)

  def image_ids(self) -> np.ndarray | None:
    """int64 [n] numbers of the images where they come from, where known."""
    source = self._source
    numbered = isinstance(source, protocols.WithImageIds)
    return self._of_records(source.image_ids() if numbered else None)

  def objects(self) -> protocols.Objects | None:
    """Those of its records; None where labels are left out, or not known."""
    source = self._source
    if self._restriction is not None or not isinstance(
      source, protocols.WithObjects
    ):
      return None
    whole = source.objects()
    if whole is None:
      return None
    return _objects_of(whole, np.asarray(self._chosen), len(source))

  def _of_records(self, whole: np.ndarray | None) -> np.ndarray | None:
    return None if whole is None else whole[np.asarray(self._chosen)]

  @property
  def computed_by(self) -> Mapping[str, Any]:
    """What the whole source's feature maps were computed by; {} of others."""
    source = self._source
    return (
      source.computed_by if isinstance(source, protocols.ComputedBy) else {}
    )

  def check_ops(self, specs: Sequence[Mapping[str, Any]], where: str) -> None:
    """As the whole source does."""
    if isinstance(self._source, protocols.ComputedBy):
      self._source.check_ops(specs, where)

  def report_lines(self) -> list[str]:
    """What the whole source says of itself."""
    source = self._source
    told = isinstance(source, protocols.Reporting)
    lines = source.report_lines() if told else ()
    return [f'of all {len(source):,} records: {line}' for line in lines]

  def fingerprint(self) -> str:
    """That of the whole source, and what was chosen of it."""
    return f'{self._source.fingerprint()}*{self._identity}'

  def _original(self, index: int) -> int:
    if not 0 <= index < len(self._chosen):
      raise IndexError(f'record {index} of {len(self._chosen)}')
    return int(self._chosen[int(index)])


class SubsetOfPeople(Subset):
  """Some people of a source of people; itself one."""

  @property
  def images(self) -> Source:
    """All images of the whole source."""
    assert isinstance(self._source, protocols.WithPeople)
    return self._source.images

  @property
  def has_all_boxes(self) -> bool:
    """Whether boxes that show nobody are among the records."""
    assert isinstance(self._source, protocols.WithPeople)
    return self._source.has_all_boxes

  def image_index(self) -> np.ndarray:
    """int64 [n] record of `images` that each person is in."""
    assert isinstance(self._source, protocols.WithPeople)
    return self._source.image_index()[np.asarray(self._chosen)]

  def kinds(self) -> np.ndarray:
    """int64 [k] labels of the objects that count as people."""
    assert isinstance(self._source, protocols.WithPeople)
    return self._source.kinds()


def _objects_of(
  whole: protocols.Objects, chosen: np.ndarray, num_records: int
) -> protocols.Objects:
  """The objects of some records, which are counted anew."""
  counts = np.bincount(whole.image, minlength=num_records)
  starts = ragged.ends_of(counts)[:-1]
  lengths = counts[chosen]
  rows = ragged.positions(starts[chosen], lengths)
  columns = {name: value[rows] for name, value in vars(whole).items()}
  columns['image'] = np.repeat(np.arange(len(chosen)), lengths)
  return protocols.Objects(**columns)


def take(
  source: Source, fraction: float, where: str = 'input.fraction'
) -> Source:
  """The source, or the subset of it that a fraction in (0, 1] keeps.

  Raises:
    ValueError: a fraction outside (0, 1].
  """
  option_types.check_value(where, _Fraction, fraction)
  return _choose(source, Options(fraction=fraction), where)


def select(
  source: Source, options: Mapping[str, Any] | None, where: str
) -> Source:
  """The records and labels of a source that `options` choose; see Options.

  Raises:
    ValueError: unknown option or invalid value, unknown label, more records
      asked for than there are; names `where`.
    FileNotFoundError: no such file of labels.
  """
  if options is not None and not hasattr(options, 'keys'):
    raise ValueError(f'{where} must be a dict, got {options!r}')
  return _choose(source, _parse(dict(options or {}), where), where)


def _choose(source: Source, options: Options, where: str) -> Source:
  restriction, index = None, None
  chosen: np.ndarray | range = range(len(source))
  if options.labels is not None:
    if isinstance(source, protocols.WithPeople):
      raise ValueError(
        f'{where}.labels: of people the labels are chosen by classes, those of '
        'the images by of.subset'
      )
    restriction = _restriction(source, options, where)
    drop = options.unlabelled != 'keep'
    index = arrays.of(source)
    if index is None and (drop or options.fill_in):
      index = arrays.build(source)
    if index is not None:
      arrays.check(index, len(source.vocabulary), where)
    if drop:
      assert index is not None
      chosen = arrays.carrying(index, restriction.carries)
  available = len(chosen)
  num = _num_drawn(available, options, restriction, where)
  drawn = num < available
  if options.rest and not drawn:
    raise ValueError(f'{where}.rest: {num:,} of {available:,} records: no rest')
  if not drawn and restriction is None:
    return source
  seed = options.seed or 0
  in_hash_order = hash_order.stored(source)
  if drawn:
    if options.rest:
      chosen = hash_order.first(source, chosen, available, seed)[num:]
    else:
      chosen = hash_order.first(source, chosen, num, seed)
    in_hash_order = seed == 0
    share = len(chosen) / available
    index = arrays.of(source) if index is None else index
  else:
    share = 1.0
  of_people = isinstance(source, protocols.WithPeople)
  return (SubsetOfPeople if of_people else Subset)(
    source,
    chosen,
    restriction,
    counts=_counts(source, restriction, index, chosen, share),
    in_hash_order=in_hash_order,
    identity=_identity(
      num,
      seed if drawn else None,
      options,
      restriction,
      LabelSpace.of_source(source).background is not None,
    ),
    description=_describe(
      source,
      len(chosen),
      seed if drawn else None,
      restriction,
      bool(options.rest),
    ),
  )


def _restriction(source: Source, options: Options, where: str) -> Restriction:
  assert options.labels is not None
  kept = label_restriction.chosen_ids(
    source.vocabulary, options.labels, f'{where}.labels'
  )
  if options.fill_in and source.hierarchy is None:
    raise ValueError(f'{where}.fill_in: the data set has no hierarchy')
  background = LabelSpace.of_source(source).background is not False
  other_pixels = options.other_pixels or 'void'
  if other_pixels == 'background' and not background:
    raise ValueError(
      f"{where}.other_pixels='background': the masks of the data have none "
      "(background=False); valid: 'void'"
    )
  return Restriction(
    source.vocabulary,
    source.hierarchy,
    kept,
    fill_in=bool(options.fill_in),
    keep_ids=bool(options.keep_ids),
    background=background,
    other_pixels=other_pixels,
  )


def _num_drawn(
  available: int, options: Options, restriction: Restriction | None, where: str
) -> int:
  """How many of the available records to take."""
  carrying = '' if restriction is None else ' with one of the labels'
  if available == 0:
    raise ValueError(f'{where}.labels: no record{carrying}')
  if options.num_images is None:
    return max(round(available * (options.fraction or 1)), 1)
  if options.num_images > available:
    raise ValueError(
      f'{where}.num_images={options.num_images}, but there are {available} '
      f'records{carrying}'
    )
  return options.num_images


def _counts(
  source: Source,
  restriction: Restriction | None,
  index: LabelIndex | None,
  chosen: np.ndarray | range,
  share: float,
) -> np.ndarray | None:
  """Images of each label in the subset: counted, or without an index the
  number to be expected; None where the source does not know its own."""
  vocabulary = source.vocabulary
  if vocabulary.counts is None:
    return None
  if index is None:
    known = vocabulary if restriction is None else restriction.vocabulary
    assert known.counts is not None
    return np.rint(known.counts * share).astype(np.int64)
  if restriction is None:
    blocks = arrays.blocks(index, chosen)
    return arrays.counts(blocks, len(vocabulary))
  return restriction.counts(index, chosen)


def _identity(
  num: int,
  seed: int | None,
  options: Options,
  restriction: Restriction | None,
  masks: bool,
) -> str:
  """Changes with whatever changes the records or what is seen of them."""
  parts = [num, seed]
  if options.rest:
    parts.append('rest')
  if restriction is not None:
    parts += [options.unlabelled == 'keep', bool(options.fill_in)]
    parts += [bool(options.keep_ids), restriction.kept.tolist()]
    if masks or options.other_pixels is not None:
      parts.append(options.other_pixels or 'void')
  digest = hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()
  return f'{num}:{digest}'


def _describe(
  source: Source,
  num: int,
  seed: int | None,
  restriction: Restriction | None,
  rest: bool,
) -> str:
  before = source.description if isinstance(source, Described) else ''
  text = f'{num:,} of {len(source):,} records'
  if seed is not None:
    text += f', {"those not " if rest else ""}drawn by hash with seed {seed}'
  if restriction is not None:
    of = len(source.vocabulary)
    text += f', {len(restriction.kept):,} of {of:,} labels'
  return f'{before}; of these {text}' if before else text
