"""Entries of images as flat arrays: their groups by image and class, and pairs.

An entry is a box or a pose, of a truth or detected; all that is shared here is
that it has an image and a label.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np


class Entries(Protocol):
  """n entries.

  Attributes:
    images: int [n] ids.
    labels: int [n] in [0, C).
  """

  @property
  def images(self) -> np.ndarray: ...
  @property
  def labels(self) -> np.ndarray: ...


def check(
  table: Any, name: str, shapes: Mapping[str, tuple[int, ...]], *finite: str
) -> None:
  """Raises a ValueError for lengths that differ and numbers that are none.

  Args:
    table: a dataclass of arrays, `images` among them.
    name: of the table, for messages.
    shapes: shape of an entry of those fields that are not one number.
    finite: fields whose numbers must be finite.
  """
  num = len(table.images)
  for field in dataclasses.fields(table):
    value = getattr(table, field.name)
    shape = (num, *shapes.get(field.name, ()))
    if value.shape != shape:
      raise ValueError(
        f'{name}: {field.name} must have shape {shape}, got {value.shape}'
      )
  for field in finite:
    value = getattr(table, field)
    rows = np.isfinite(value.reshape(num, int(np.prod(value.shape[1:]))))
    bad = np.flatnonzero(~rows.all(axis=1))
    if len(bad):
      raise ValueError(
        f'{name}: {field} of entry {bad[0]} are not finite: '
        f'{value[bad[0]].tolist()!s:.80} (image {table.images[bad[0]]})'
      )


def check_labels(truth: Entries, detections: Entries, num_classes: int) -> None:
  """Raises a ValueError for a label that is no class."""
  for name, table in (('truth', truth), ('detections', detections)):
    bad = (table.labels < 0) | (table.labels >= num_classes)
    if bad.any():
      raise ValueError(
        f'{name}: labels must lie in [0, {num_classes}), got '
        f'{table.labels[bad][0]}'
      )


def groups(
  truth: Entries, detections: Entries, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
  """Numbers of the (image, class) of truth [A] and detections [D].

  They rise with the class, then with the image's id.
  """
  ids = np.unique(np.concatenate([truth.images, detections.images]))
  number = lambda table: (
    table.labels.astype(np.int64) * len(ids)
    + np.searchsorted(ids, table.images)
  )
  return number(truth), number(detections)


def pairs(
  group: np.ndarray, truth_group: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """All (detection, truth) of one group, by detection and then by truth."""
  order = np.argsort(truth_group, kind='stable')
  ordered = truth_group[order]
  start = np.searchsorted(ordered, group, 'left')
  count = np.searchsorted(ordered, group, 'right') - start
  left = np.repeat(np.arange(len(group)), count)
  first = np.repeat(start - (np.cumsum(count) - count), count)
  return left, order[first + np.arange(len(left))]


def ranks(group: np.ndarray) -> np.ndarray:
  """Position of each entry within its run of equal values: 0, 1, ..."""
  first = np.ones(len(group), bool)
  first[1:] = group[1:] != group[:-1]
  place = np.arange(len(group))
  return place - np.maximum.accumulate(np.where(first, place, 0))
