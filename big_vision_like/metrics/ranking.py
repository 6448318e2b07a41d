"""Mean average precision of ranked labels: mAP@100 and its relatives.

FastEval14k is scored by "the mean average precision for the top 100
predictions, each class weighted by how common it is" (Sun et al. 2017,
section 4; Chollet 2017, section 4.1). Neither text gives a formula, so every
open choice is an option here; docs/map-at-100.md defines them and works one
example through. The default: every image keeps its 100 best classes of the
annotated vocabulary, a class's average precision runs over the images that
kept it, and classes are averaged by weight.

Only the survivors of the cut are stored, 13 bytes each (class, score, image,
hit), so 14,000 images with 100 predictions take 18 MB whatever the number of
classes. One sort and segment sums make the figure.
"""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from big_vision_like.metrics.average_precision import (
  RankedEntries,
  RankingOptions,
  average_precision,
  segment_starts,
)

WEIGHTS = ('uniform', 'gt_frequency', 'log1p_frequency')
# cut='none' holds every score on the host; about 40 bytes each while sorting.
MAX_FULL_SCORES = 2**25
_SCRATCH_CELLS = 2**22


@dataclasses.dataclass(frozen=True)
class RankingResult:
  """What the ranking scored.

  Attributes:
    value: the metric, in percent.
    average_precision: float64, in [0, 1]: [C] of each class for axis='class',
      [num_images] in ascending image id for 'image', [1] for 'pooled'; NaN
      where there is no positive.
    class_weights: float64 [C], as used (before normalisation).
    class_counts: int64 [C], positives of each class.
    num_images, num_labels, num_classes: images scored, positive labels among
      them, classes with a positive.
    num_negatives: pairs of image and class verified as absent; 0 where all
      that is not labelled is a negative.
  """

  value: float
  average_precision: np.ndarray
  class_weights: np.ndarray
  class_counts: np.ndarray
  num_images: int
  num_labels: int
  num_classes: int
  num_negatives: int = 0

  def over(self, classes: np.ndarray) -> float | None:
    """Weighted mean AP in percent over a bool mask [C] of classes.

    Weights are normalised within the mask. None where no class of the mask
    has a positive of positive weight.
    """
    keep = classes & (self.class_counts > 0) & (self.class_weights > 0)
    if not keep.any():
      return None
    weights = self.class_weights[keep]
    return float(100 * weights @ self.average_precision[keep] / weights.sum())


class RankingAccumulator:
  """Collects ranked predictions batch by batch, in any order.

  Args:
    num_classes: number of output classes C.
    options: the definition.
    weights: 'uniform', 'gt_frequency' (positives of the class per image of
      the scored set), 'log1p_frequency' (log(1 + positives)), or float [C].
    annotated: bool [C], the annotated vocabulary; required if
      options.vocab is 'annotated'. Labels outside it are ignored.
    close: maps an image's label ids to those that count (hierarchy closure);
      not with options.unknown='ignore'.
  """

  def __init__(
    self,
    num_classes: int,
    options: RankingOptions | None = None,
    *,
    weights: str | np.ndarray = 'gt_frequency',
    annotated: np.ndarray | None = None,
    close: Callable[[np.ndarray], np.ndarray] | None = None,
  ):
    self.options = options or RankingOptions()
    self.num_classes = num_classes
    self._weights = _checked_weights(weights, num_classes)
    if self.options.vocab == 'all':
      annotated = np.ones(num_classes, bool)
    if annotated is None or annotated.shape != (num_classes,):
      raise ValueError(
        f"vocab='annotated' needs annotated, a bool mask of {num_classes} "
        'classes'
      )
    if close is not None and self.options.unknown == 'ignore':
      raise ValueError(
        "unknown='ignore' needs labels and negatives that are complete: close "
        'them before'
      )
    self._allowed = np.asarray(annotated, bool)
    self._close = close
    self._entries: list[tuple[np.ndarray, ...]] = []  # class, score, row, hit
    self._labels: list[tuple[np.ndarray, np.ndarray]] = []  # class, row
    self._ids: list[np.ndarray] = []
    self._num_absent: list[np.ndarray] = []  # verified negatives of each row
    self._num_rows = 0
    self._num_entries = 0
    self._floor = np.full(num_classes, -np.inf)  # k-th best score of a class
    rows = max(1, min(256, _SCRATCH_CELLS // num_classes))
    self._truth = np.zeros((rows, num_classes), bool)

  def add(
    self,
    scores: np.ndarray,
    class_ids: np.ndarray,
    label_ids: np.ndarray,
    ids: np.ndarray,
  ) -> None:
    """Adds n images that were already cut to their best classes.

    Args:
      scores: float [n, m], m <= k.
      class_ids: int [n, m], the classes scored; entries outside the
        vocabulary, and -1, are dropped.
      label_ids: int [n, L] true labels, padded with -1.
      ids: int [n], the images' numbers: they name images and break ties.

    Raises:
      ValueError: a cut other than 'per_image', NaN scores (naming the
        images), or a label that is no class.
    """
    self._check_unknown('negative')
    if self.options.cut != 'per_image':
      raise ValueError(f'cut={self.options.cut!r} needs add_full: all scores')
    if scores.shape != class_ids.shape or scores.shape[1] > self.options.k:
      raise ValueError(
        f'scores {scores.shape} and class_ids {class_ids.shape} must be '
        f'[n, at most k={self.options.k}]'
      )
    _check_scores(scores, ids)
    for first, truth in self._register(label_ids, ids):
      part = slice(first, first + len(truth))
      chosen = class_ids[part]
      kept = (chosen >= 0) & self._allowed[np.maximum(chosen, 0)]
      row, col = np.nonzero(kept)
      chosen = chosen[row, col].astype(np.int32)
      hit = truth[row, chosen]
      self._store(chosen, scores[part][row, col], first + row, hit)

  def add_full(
    self, scores: np.ndarray, label_ids: np.ndarray, ids: np.ndarray
  ) -> None:
    """Adds n images with all their scores, float [n, >= C]; see `add`.

    Needed for cut='per_class' (a running best k of each class is kept) and
    cut='none' (everything is kept, up to MAX_FULL_SCORES scores).
    """
    self._check_unknown('negative')
    scores = np.asarray(scores)[:, : self.num_classes]
    _check_scores(scores, ids)
    columns = np.flatnonzero(self._allowed).astype(np.int32)
    if self.options.cut == 'per_image':
      k = min(self.options.k, len(columns))
      best = np.argsort(-scores[:, columns], axis=1, kind='stable')[:, :k]
      best = columns[best]
      self.add(np.take_along_axis(scores, best, 1), best, label_ids, ids)
      return
    total = self._num_entries + len(ids) * len(columns)
    if self.options.cut == 'none':
      check_full_scores(total, 1)
    for first, truth in self._register(label_ids, ids):
      part = scores[first : first + len(truth)]
      row, col = np.nonzero((part >= self._floor)[:, columns])
      col = columns[col]
      hit = truth[row, col]
      self._store(col, part[row, col], first + row, hit)
      self._cut_if_full()

  def add_known(
    self,
    scores: np.ndarray,
    class_ids: np.ndarray,
    label_ids: np.ndarray,
    ids: np.ndarray,
  ) -> None:
    """Adds n images with the scores of what is known of them.

    For unknown='ignore', with any cut; no other scores are needed.

    Args:
      scores: float [n, m].
      class_ids: int [n, m], the labels and the verified negatives of each
        image, in any order, padded with -1.
      label_ids: int [n, L] those that are true, padded with -1.
      ids: int [n], the images' numbers: they name images and break ties.

    Raises:
      ValueError: unknown is not 'ignore', shapes that do not fit, NaN scores,
        a class twice in a row, or an id that is no class.
    """
    self._check_unknown('ignore')
    if scores.shape != class_ids.shape:
      raise ValueError(
        f'scores {scores.shape} and class_ids {class_ids.shape} must be [n, m]'
      )
    self._check_class_ids(class_ids, ids)
    ordered = np.sort(class_ids, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
      raise ValueError(
        f'classes given twice for images {_some(ids[twice.any(1)])}'
      )
    known = (class_ids >= 0) & self._allowed[np.maximum(class_ids, 0)]
    scores = np.where(known, scores, -np.inf)
    _check_scores(scores, ids)
    order = np.lexsort((class_ids, -scores, ~known), axis=1)
    scores, class_ids, known = (
      np.take_along_axis(a, order, 1) for a in (scores, class_ids, known)
    )
    for first, truth in self._register(label_ids, ids):
      part = slice(first, first + len(truth))
      row, position = np.nonzero(known[part])
      cls = class_ids[part][row, position].astype(np.int32)
      score, hit = scores[part][row, position], truth[row, cls]
      self._num_absent.append(np.bincount(row[~hit], minlength=len(truth)))
      keep = score >= self._floor[cls]
      if self.options.cut == 'per_image':
        keep &= position < self.options.k
      elif self.options.cut == 'none':
        check_full_scores(self._num_entries + len(cls), 1)
      self._store(cls[keep], score[keep], first + row[keep], hit[keep])
      self._cut_if_full()

  def result(self, *, exclude: Iterable[int] = ()) -> RankingResult:
    """The metric over all images added, without those whose id is excluded.

    Raises:
      ValueError: no image, an image added twice, no label in the vocabulary,
        or no weight on the classes that have one.
    """
    if not self._num_rows:
      raise ValueError('mean average precision of an empty set: no images')
    if self.options.cut == 'per_class':
      self._cut_per_class()
    ids = np.concatenate(self._ids)
    unique, image_of_row = np.unique(ids, return_inverse=True)
    if len(unique) != len(ids):
      twice = unique[np.bincount(image_of_row) > 1]
      raise ValueError(f'images added more than once: {_some(twice)}')
    counted = ~np.isin(unique, np.fromiter(exclude, np.int64))
    if not counted.any():
      raise ValueError('mean average precision: every image is excluded')
    classes, score, row, hit = _concatenate(self._entries)
    label_class, label_row = _concatenate(self._labels)
    image, label_image = image_of_row[row], image_of_row[label_row]
    if not counted.all():
      keep = counted[image]
      classes, score, hit = classes[keep], score[keep], hit[keep]
      image = image[keep]
      keep = counted[label_image]
      label_class, label_image = label_class[keep], label_image[keep]
    if not len(label_class):
      raise ValueError(
        'mean average precision: no image has a label in the vocabulary of '
        f'{int(self._allowed.sum())} classes'
      )
    counts = np.bincount(label_class, minlength=self.num_classes)
    weights = self._class_weights(counts, int(counted.sum()))
    table = RankedEntries(classes, score, image, hit, label_class, label_image)
    axis = self.options.axis
    gains = None if axis == 'class' else weights
    precision = average_precision(
      table, self.options, gains, (self.num_classes, len(unique))
    )
    valid = ~np.isnan(precision)
    if axis == 'class':
      valid &= weights > 0
      if not valid.any():
        raise ValueError('no class with a positive has a weight above 0')
      mass = weights[valid].sum() if self.options.normalise_weights else 1.0
      value = weights[valid] @ precision[valid] / mass
    else:
      if not valid.any():
        raise ValueError('no image has a label with a weight above 0')
      value = precision[valid].mean()
    return RankingResult(
      value=float(100 * value),
      average_precision=precision[counted] if axis == 'image' else precision,
      class_weights=weights,
      class_counts=counts,
      num_images=int(counted.sum()),
      num_labels=len(label_class),
      num_classes=int((counts > 0).sum()),
      num_negatives=self._count_absent(counted[image_of_row]),
    )

  def _count_absent(self, counted: np.ndarray) -> int:
    if not self._num_absent:
      return 0
    return int(np.concatenate(self._num_absent)[counted].sum())

  def _check_unknown(self, expected: str) -> None:
    if self.options.unknown != expected:
      raise ValueError(
        "unknown='ignore' takes add_known, 'negative' add and add_full; it is "
        f'{self.options.unknown!r}'
      )

  def _check_class_ids(self, class_ids: np.ndarray, ids: np.ndarray) -> None:
    wrong = (class_ids >= self.num_classes) | (class_ids < -1)
    if wrong.any():
      raise ValueError(
        f'label ids {_some(class_ids[wrong])} of images '
        f'{_some(ids[wrong.any(1)])} are not in 0..{self.num_classes - 1}'
      )

  def _register(self, label_ids, ids):
    """Stores labels; yields (first row, truth bool [rows, C]) by chunks."""
    label_ids, ids = np.asarray(label_ids), np.asarray(ids)
    if label_ids.ndim != 2 or ids.shape != label_ids.shape[:1]:
      raise ValueError(
        f'label_ids {label_ids.shape} and ids {ids.shape} must be [n, L], [n]'
      )
    self._check_class_ids(label_ids, ids)
    self._ids.append(ids.astype(np.int64))
    for first in range(0, len(ids), len(self._truth)):
      part = label_ids[first : first + len(self._truth)]
      if self._close is None:
        row, col = np.nonzero(part >= 0)
        cls = part[row, col]
      else:
        closed = [self._close(labels[labels >= 0]) for labels in part]
        row = np.repeat(np.arange(len(part)), [len(c) for c in closed])
        cls = np.concatenate([np.zeros(0, np.int32), *closed])
      keep = self._allowed[cls]
      pairs = np.unique(row[keep] * self.num_classes + cls[keep])
      row, cls = np.divmod(pairs, self.num_classes)
      self._labels.append(
        (cls.astype(np.int32), (self._num_rows + first + row).astype(np.int32))
      )
      truth = self._truth[: len(part)]
      truth[row, cls] = True
      yield first, truth
      truth[row, cls] = False
    self._num_rows += len(ids)

  def _store(self, classes, scores, rows, hits):
    scores = scores if scores.dtype == np.float64 else scores.astype(np.float32)
    rows = (self._num_rows + rows).astype(np.int32)
    self._entries.append((classes, scores + 0, rows, hits))
    self._num_entries += len(classes)

  def _cut_if_full(self) -> None:
    full = 2 * self.options.k * int(self._allowed.sum()) + self._truth.size
    if self.options.cut == 'per_class' and self._num_entries > full:
      self._cut_per_class()

  def _cut_per_class(self) -> None:
    """Drops all but the k best images of each class; raises the floors."""
    classes, score, row, hit = _concatenate(self._entries)
    ids = np.concatenate(self._ids)
    order = np.lexsort((ids[row], -score, classes))
    start = segment_starts(classes[order])
    rank = np.arange(len(order)) - start
    last = order[rank == self.options.k - 1]
    self._floor[classes[last]] = score[last]
    order = order[rank < self.options.k]
    self._entries = [(classes[order], score[order], row[order], hit[order])]
    self._num_entries = len(order)

  def _class_weights(self, counts: np.ndarray, num_images: int) -> np.ndarray:
    if isinstance(self._weights, np.ndarray):
      missing = np.isnan(self._weights) & (counts > 0)
      if missing.any():
        raise ValueError(
          f'no weight for classes {_some(np.flatnonzero(missing))}, which '
          'have labels'
        )
      return np.nan_to_num(self._weights)
    if self._weights == 'uniform':
      return np.ones(self.num_classes)
    if self._weights == 'gt_frequency':
      return counts / num_images
    return np.log1p(counts)


def mean_average_precision(
  scores: np.ndarray,
  label_ids: np.ndarray,
  options: RankingOptions | None = None,
  *,
  weights: str | np.ndarray = 'gt_frequency',
  annotated: np.ndarray | None = None,
  negative_ids: np.ndarray | None = None,
) -> float:
  """The metric in percent, of scores [n, C] and label ids [n, L] (-1 pads).

  Without `annotated` (bool [C]) the classes that occur in label_ids are the
  annotated vocabulary. `negative_ids` [n, N] (-1 pads) are the verified
  negatives that unknown='ignore' needs. See RankingOptions for the definition.
  """
  num_images, num_classes = scores.shape
  occurs = np.zeros(num_classes, bool)
  occurs[label_ids[label_ids >= 0]] = True
  ranking = RankingAccumulator(
    num_classes,
    options,
    weights=weights,
    annotated=occurs if annotated is None else annotated,
  )
  ids = np.arange(num_images)
  if ranking.options.unknown == 'negative':
    ranking.add_full(scores, label_ids, ids)
  else:
    if negative_ids is None:
      raise ValueError("unknown='ignore' needs negative_ids")
    known = np.concatenate([label_ids, negative_ids], axis=1)
    picked = np.take_along_axis(scores, np.maximum(known, 0), axis=1)
    ranking.add_known(picked, known, label_ids, ids)
  return ranking.result().value


def check_full_scores(num_images: int, num_classes: int) -> None:
  """Raises ValueError where cut='none' would hold too many scores."""
  if num_images * num_classes > MAX_FULL_SCORES:
    raise ValueError(
      f"cut='none' keeps every score, {num_images * num_classes:,} here, more "
      f"than {MAX_FULL_SCORES:,}; use cut='per_class' or 'per_image', or "
      'fewer images'
    )


def _concatenate(parts: list[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
  return [np.concatenate(column) for column in zip(*parts)]


def _check_scores(scores: np.ndarray, ids: np.ndarray) -> None:
  broken = np.isnan(scores).any(axis=1)
  if broken.any():
    raise ValueError(
      f'scores of {int(broken.sum())} images are NaN: ids '
      f'{_some(np.asarray(ids)[broken])}'
    )


def _checked_weights(weights, num_classes: int):
  if isinstance(weights, str):
    if weights not in WEIGHTS:
      raise ValueError(
        f'weights must be one of {", ".join(WEIGHTS)} or an array of '
        f'{num_classes} numbers, got {weights!r}'
      )
    return weights
  weights = np.asarray(weights, np.float64)
  if weights.shape != (num_classes,):
    raise ValueError(
      f'weights must have shape ({num_classes},), got {weights.shape}'
    )
  wrong = (weights < 0) | np.isinf(weights)  # NaN: no weight given
  if wrong.any():
    raise ValueError(
      f'weights of classes {_some(np.flatnonzero(wrong))} are negative or '
      'infinite'
    )
  return weights


def _some(values: np.ndarray, limit: int = 5) -> str:
  """'3, 7, 9, ...': the first few values, for a message."""
  shown = ', '.join(str(v) for v in values[:limit])
  return shown + (', ...' if len(values) > limit else '')
