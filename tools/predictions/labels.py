"""Labels with scores, by a classifier's checkpoint: a part of tools.predict."""

import collections
from collections.abc import Iterator
from typing import Any

import numpy as np

from big_vision_like.inference import embedder, stored_model
from big_vision_like.pages import prediction_sheet
from big_vision_like.protocols import Source

from . import image_list

BATCH_SIZE = 64
TOP = 5


class Labels:
  """Predicts the labels of images.

  Args:
    model: stored_model.StoredModel.
    classes: names of its classes, or None.
    top: labels an image.
    on_sheet: indices of the images to show.
    reading: batch_size and workers of `embedder.Embedder`.

  Attributes:
    bad: key -> reason of the images that cannot be used.
    summary: what was predicted, for the last lines.
  """

  def __init__(
    self,
    model: stored_model.StoredModel,
    classes: Any,
    *,
    top: int,
    on_sheet: frozenset[int],
    **reading: Any,
  ):
    self._embedder = embedder.Embedder(model, predict_fn='logits', **reading)
    self._model = model
    self._top = top
    self._on_sheet = on_sheet
    self._shown: list[tuple[int, dict[str, Any]]] = []
    self._firsts: collections.Counter[str] = collections.Counter()
    num = model.space.num_classes
    self._names = [stored_model.name_of(classes, i) for i in range(num)]
    self.summary = f'{model.scores} over {num:,} classes'

  @property
  def bad(self) -> dict[str, str]:
    return self._embedder.bad

  def lines(self, found: image_list.Found) -> Iterator[dict[str, Any]]:
    """The line of every image that can be used, in order.

    A line is {'image': key, 'predictions': [{'id', 'name', 'score'}, ...]},
    highest score first, equal ones by id; 'label' too where the name is a
    description of it.
    """
    for indices, logits in self._embedder.embed(found.source):
      logits = logits[:, : self._model.space.num_classes]  # no padding
      likely = stored_model.probabilities(logits, self._model.scores)
      # By logits: probabilities of 0 and 1 are equal before their logits are.
      order = np.argsort(-logits, axis=1, kind='stable')[:, : self._top]
      for index, row, best in zip(indices.tolist(), likely, order.tolist()):
        entries = [
          {'id': i, **self._names[i], 'score': float(f'{row[i]:.6g}')}
          for i in best
        ]
        line = {'image': found.source.key(index), 'predictions': entries}
        self._firsts[entries[0]['name']] += 1
        if index in self._on_sheet:
          self._shown.append((index, line))
        yield line

  def write_page(self, path: str, source: Source) -> int:
    """Writes the sheet; returns how many images are on it."""
    prediction_sheet.write(
      path, source, self._shown, self._embedder, self._firsts, len(source)
    )
    return len(self._shown)
