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
from typing import Any

import numpy as np

from big_vision_like.config import plugins
from input_pipeline.labels import (
  arrays,
  hash_order,
)
from input_pipeline.labels import (
  restriction as label_restriction,
)
from input_pipeline.labels.arrays import LabelIndex
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.restriction import Restriction
from input_pipeline.labels.vocabulary import Vocabulary

_UNLABELLED = ('drop', 'keep')


@dataclasses.dataclass(frozen=True)
class Options:
  """What `source.subset` may hold; None counts as not given.

  Attributes:
    fraction: share of the records, in (0, 1].
    num_images: number of records, instead of a fraction.
    seed: another one draws independently; subsets of one seed are nested.
    labels: 'imagenet', a file of names, or a list of names.
    unlabelled: records without one of the labels: 'drop', or 'keep' for
      evaluation sets.
    fill_in: labels that are dropped count as their kept ancestors.
    keep_ids: all labels keep their ids and outputs; those dropped never occur.
    other_pixels: what pixels of other labels are in masks: 'void', or
      'background' where the masks have one.
  """

  fraction: float | None = None
  num_images: int | None = None
  seed: int | None = None
  labels: str | Sequence[str] | None = None
  unlabelled: str | None = None
  fill_in: bool | None = None
  keep_ids: bool | None = None
  other_pixels: str | None = None


def _parse(options: Mapping[str, Any], where: str) -> Options:
  """Checked options; ValueError names key, value and what is valid."""
  names = [field.name for field in dataclasses.fields(Options)]
  for name in options:
    if name not in names:
      raise ValueError(
        f'{where}: unknown option {name!r}{plugins.suggest(name, names)}; '
        f'valid: {", ".join(names)}'
      )
  parsed = Options(**options)

  def refuse(name: str, valid: str) -> None:
    raise ValueError(f'{where}.{name}={getattr(parsed, name)!r} must {valid}')

  for name in ('num_images', 'seed'):
    value = getattr(parsed, name)
    if value is not None and type(value) is not int:
      refuse(name, 'be an integer')
  for name in ('fill_in', 'keep_ids'):
    if not isinstance(getattr(parsed, name), bool | None):
      refuse(name, 'be True or False')
  if parsed.num_images is not None and parsed.num_images < 1:
    refuse('num_images', 'be at least 1')
  check_fraction(parsed.fraction, f'{where}.fraction')
  if parsed.unlabelled not in (None, *_UNLABELLED):
    refuse('unlabelled', f'be one of {", ".join(_UNLABELLED)}')
  if parsed.other_pixels not in (None, *label_restriction.OTHER_PIXELS):
    valid = ', '.join(label_restriction.OTHER_PIXELS)
    refuse('other_pixels', f'be one of {valid}')
  labels = parsed.labels
  if labels is not None and not isinstance(labels, str):
    if isinstance(labels, Mapping) or not isinstance(labels, Sequence):
      refuse('labels', f"be '{label_restriction.IMAGENET}', a file or a list")
    if not labels or not all(isinstance(name, str) for name in labels):
      refuse('labels', 'be a list of names, at least one')
  given = {n: v for n, v in dataclasses.asdict(parsed).items() if v is not None}
  if 'fraction' in given and 'num_images' in given:
    raise ValueError(f'{where}: give fraction or num_images, not both')
  if 'seed' in given and not {'fraction', 'num_images'} & given.keys():
    raise ValueError(f'{where}.seed: needs fraction or num_images')
  for name in ('unlabelled', 'fill_in', 'keep_ids', 'other_pixels'):
    if name in given and 'labels' not in given:
      raise ValueError(f'{where}.{name}: needs labels')
  return parsed


def check_fraction(fraction: Any, where: str) -> None:
  """ValueError unless it is None or a number in (0, 1]."""
  number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
  if fraction is not None and not (number and 0 < fraction <= 1):
    raise ValueError(f'{where}={fraction!r} must be in (0, 1]')


class Subset:
  """Some records of a source, perhaps with fewer labels; itself a source.

  Attributes:
    vocabulary, hierarchy: those of the labels kept.
    background: of the masks, as the source says it; None where it does not.
    in_hash_order: records come in hash order, so a prefix is a random subset.
    description: what it is of the whole, for people.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None

  def __init__(
    self,
    source: Any,
    chosen: np.ndarray | range,
    restriction: Restriction | None,
    *,
    counts: np.ndarray | None,
    in_hash_order: bool,
    identity: str,
    description: str,
  ):
    self._source = source
    self._chosen = chosen
    self._restriction = restriction
    self._identity = identity
    self.background = getattr(source, 'background', None)
    self.keypoint_pairs = getattr(source, 'keypoint_pairs', None)
    self.has_truth = getattr(source, 'has_truth', True)
    self.external_ids = getattr(source, 'external_ids', None)
    if self.external_ids is not None and restriction is not None:
      self.external_ids = restriction.of_labels(self.external_ids)
    self.in_hash_order = in_hash_order
    self.description = description
    labels = source if restriction is None else restriction
    self.vocabulary = dataclasses.replace(labels.vocabulary, counts=counts)
    self.hierarchy = labels.hierarchy

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
    if hasattr(self._source, 'labels'):
      labels = self._source.labels(original)
    else:
      labels = np.asarray(self._source[original]['labels'], np.int32)
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
    return self._of_records('sizes')

  def image_ids(self) -> np.ndarray | None:
    """int64 [n] numbers of the images where they come from, where known."""
    return self._of_records('image_ids')

  def _of_records(self, name: str) -> np.ndarray | None:
    read = getattr(self._source, name, None)
    whole = None if read is None else read()
    return None if whole is None else whole[np.asarray(self._chosen)]

  def report_lines(self) -> list[str]:
    """What the whole source says of itself."""
    read = getattr(self._source, 'report_lines', None)
    lines = [] if read is None else read()
    return [f'of all {len(self._source):,} records: {line}' for line in lines]

  def fingerprint(self) -> str:
    """That of the whole source, and what was chosen of it."""
    return f'{self._source.fingerprint()}*{self._identity}'

  def _original(self, index: int) -> int:
    if not 0 <= index < len(self._chosen):
      raise IndexError(f'record {index} of {len(self._chosen)}')
    return int(self._chosen[int(index)])


def take(source: Any, fraction: float, where: str = 'input.fraction') -> Any:
  """The source, or the subset of it that a fraction in (0, 1] keeps.

  Raises:
    ValueError: a fraction outside (0, 1].
  """
  check_fraction(fraction, where)
  return _choose(source, Options(fraction=fraction), where)


def select(source: Any, options: Mapping[str, Any] | None, where: str) -> Any:
  """The records and labels of a source that `options` choose; see Options.

  Raises:
    ValueError: unknown option or invalid value, unknown label, more records
      asked for than there are; names `where`.
    FileNotFoundError: no such file of labels.
  """
  return _choose(source, _parse(dict(options or {}), where), where)


def _choose(source: Any, options: Options, where: str) -> Any:
  restriction, index = None, None
  chosen: np.ndarray | range = range(len(source))
  if options.labels is not None:
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
  num = _num_drawn(len(chosen), options, restriction, where)
  drawn = num < len(chosen)
  if not drawn and restriction is None:
    return source
  seed = options.seed or 0
  in_hash_order = getattr(source, 'in_hash_order', False)
  if drawn:
    available = len(chosen)
    chosen = hash_order.first(source, chosen, num, seed)
    in_hash_order = seed == 0
    share = num / available
    index = arrays.of(source) if index is None else index
  else:
    share = 1.0
  return Subset(
    source,
    chosen,
    restriction,
    counts=_counts(source, restriction, index, chosen, share),
    in_hash_order=in_hash_order,
    identity=_identity(
      num, seed if drawn else None, options, restriction, _has_masks(source)
    ),
    description=_describe(source, num, seed if drawn else None, restriction),
  )


def _restriction(source: Any, options: Options, where: str) -> Restriction:
  assert options.labels is not None
  kept = label_restriction.chosen_ids(
    source.vocabulary, options.labels, f'{where}.labels'
  )
  if options.fill_in and source.hierarchy is None:
    raise ValueError(f'{where}.fill_in: the data set has no hierarchy')
  background = getattr(source, 'background', None) is not False
  other_pixels = options.other_pixels or label_restriction.OTHER_PIXELS[0]
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
  source: Any,
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


def _has_masks(source: Any) -> bool:
  """Whether the source says that it has."""
  return getattr(source, 'background', None) is not None


def _identity(
  num: int,
  seed: int | None,
  options: Options,
  restriction: Restriction | None,
  masks: bool,
) -> str:
  """Changes with whatever changes the records or what is seen of them."""
  parts = [num, seed]
  if restriction is not None:
    parts += [options.unlabelled == 'keep', bool(options.fill_in)]
    parts += [bool(options.keep_ids), restriction.kept.tolist()]
    if masks or options.other_pixels is not None:
      parts.append(options.other_pixels or label_restriction.OTHER_PIXELS[0])
  digest = hashlib.blake2b(repr(parts).encode(), digest_size=6).hexdigest()
  return f'{num}:{digest}'


def _describe(
  source: Any, num: int, seed: int | None, restriction: Restriction | None
) -> str:
  before = getattr(source, 'description', '')
  text = f'{num:,} of {len(source):,} records'
  if seed is not None:
    text += f', drawn by hash with seed {seed}'
  if restriction is not None:
    of = len(source.vocabulary)
    text += f', {len(restriction.kept):,} of {of:,} labels'
  return f'{before}; of these {text}' if before else text
