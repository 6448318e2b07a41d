"""The last step of a preparation: what a data set has beside its shards.

Vocabulary with the counts of what is stored, hierarchy, list of bad images and
notes, and the manifest last: a folder with a manifest is finished.
"""

import collections
import dataclasses
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from big_vision_like.config import json_text
from big_vision_like.protocols import Reporting, Source, WithEdges
from input_pipeline.files import atomic
from input_pipeline.labels import stored_labels, text_lines
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.space import LabelSpace
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import progress, stored_images, stored_objects
from input_pipeline.prepared.preparation import TEMPORARY, Done

BAD_FILE = 'bad_images.jsonl'
_VOCABULARY_FILE = 'vocabulary.jsonl'
_HIERARCHY_FILE = 'hierarchy.tsv'


def finish(
  folder: str,
  hierarchy: str | None,
  sources: Mapping[str, Source],
  done: Mapping[str, Done],
  settings: Mapping[str, Any],
) -> None:
  """Writes the files of a data set whose shards are all there.

  Args:
    folder: the data set.
    hierarchy: file to copy where the sources name no edges themselves.
    sources: split -> source.
    done: its shards, by name.
    settings: how the data set was made, for the manifest.
  """
  shards: dict[str, list[Done]] = {split: [] for split in sources}
  for _, one in sorted(done.items()):
    shards[one.split].append(one)
  first = next(iter(sources.values()))
  labels = first.vocabulary
  counted = _counted_split(list(shards))
  if counted is not None:
    counts = stored_labels.images_per_label(
      _rows(folder, shards[counted]), len(labels)
    )
    labels = dataclasses.replace(labels, counts=counts, origin='')
  labels.save(os.path.join(folder, _VOCABULARY_FILE))
  name = _write_hierarchy(folder, hierarchy, first)
  _save_bad(os.path.join(folder, BAD_FILE), shards)
  manifests.Manifest(
    splits={s: tuple(d.shard for d in ones) for s, ones in shards.items()},
    labels={s: _num_labels(ones) for s, ones in shards.items()},
    options={**settings, **_said(first), 'order': manifests.ORDER},
    vocabulary=_VOCABULARY_FILE,
    hierarchy=name,
    # What was to be added is in the vocabulary now.
    hierarchy_unlisted='error' if name is None else 'traverse',
    label_index={s: _index(folder, s, ones) for s, ones in shards.items()},
    notes={s: tuple(_notes(source)) for s, source in sources.items()},
  ).save(folder)
  tidy(folder)


def _said(source: Source) -> dict[str, Any]:
  """What a source says of its keypoints, for the manifest's options."""
  keypoints = LabelSpace.of_source(source).keypoints
  return {} if keypoints is None else {'keypoints': keypoints.to_json()}


def tidy(folder: str) -> None:
  """Removes what a finished data set does not need any more."""
  progress.remove(folder)
  stored_labels.remove_sides(folder)
  stored_images.remove_sides(folder)
  stored_objects.remove_sides(folder)


def _num_labels(shards: Sequence[Done]) -> int:
  return sum(done.num_labels for done in shards)


def _rows(folder: str, shards: Sequence[Done]) -> Iterator[stored_labels.Rows]:
  for done in shards:
    path = stored_labels.side_path(folder, done.shard.name)
    yield stored_labels.read_side(path, done.shard.records)


def _index(
  folder: str, split: str, shards: Sequence[Done]
) -> dict[str, manifests.File]:
  """Writes the arrays beside the shards of a split; the manifest's entry."""
  num_records = sum(done.shard.records for done in shards)
  names = stored_labels.join(
    folder, split, _rows(folder, shards), num_records, _num_labels(shards)
  )
  sides = [stored_images.side_path(folder, done.shard.name) for done in shards]
  names |= stored_images.join(folder, split, sides, num_records)
  names |= stored_objects.join(
    folder,
    split,
    [
      (stored_objects.side_path(folder, d.shard.name), d.shard.records)
      for d in shards
    ],
  )
  return {
    kind: manifests.describe_file(folder, name) for kind, name in names.items()
  }


def _counted_split(splits: Sequence[str]) -> str | None:
  """The split whose images the vocabulary counts: that of training."""
  named = [split for split in splits if split.startswith('train')]
  for split in ('train', 'all', *named):
    if split in splits:
      return split
  return None


def _notes(source: Source) -> list[str]:
  return list(source.report_lines()) if isinstance(source, Reporting) else []


def _write_hierarchy(
  folder: str, given: str | None, source: Source
) -> str | None:
  """File name of the hierarchy in the folder, None where there is none.

  The edges that the source names, else the file given, else those of the
  source's closed hierarchy, so that no hierarchy is lost on the way. Parents
  in the vocabulary travel with it.
  """
  edges = source.hierarchy_edges if isinstance(source, WithEdges) else None
  if edges is None and given is not None:
    name = f'hierarchy.{os.path.basename(given).partition(".")[2]}'
    shutil.copyfile(given, os.path.join(folder, name))
    return name
  closed = source.hierarchy
  if edges is None and closed is not None and source.vocabulary.parents is None:
    edges = _direct_edges(closed, source.vocabulary.names)
  if not edges:
    return None
  lines = ['child\tparent']
  for child, parent in edges:
    for name in (child, parent):
      text_lines.check_name(name, 'hierarchy_edges')
    lines.append(f'{child}\t{parent}')
  path = os.path.join(folder, _HIERARCHY_FILE)
  text = ''.join(f'{line}\n' for line in lines)
  atomic.write_text(path, text, suffix=TEMPORARY)
  return _HIERARCHY_FILE


def _direct_edges(
  hierarchy: Hierarchy, names: Sequence[str]
) -> list[tuple[str, str]]:
  """The fewest edges with the same ancestors: those that no path replaces."""
  edges = []
  for label, every in enumerate(hierarchy.ancestors):
    longer = [hierarchy.ancestors[int(a)] for a in every]
    rest = np.setdiff1d(every, np.concatenate(longer)) if longer else every
    edges += [(names[label], names[int(parent)]) for parent in rest]
  return edges


def _save_bad(path: str, done: Mapping[str, Sequence[Done]]) -> None:
  """One object a line: split, key, reason."""
  with atomic.writing_text(path, suffix=TEMPORARY) as file:
    for split, shards in done.items():
      for key, reason in (b for d in shards for b in d.bad):
        row = {'split': split, 'key': key, 'reason': reason}
        file.write(f'{json.dumps(row)}\n')


def report(folder: str) -> Iterable[str]:
  """Lines about a finished data set: sizes, bad images, notes, classes."""
  manifest = manifests.load(folder)
  path = os.path.join(folder, BAD_FILE)
  with open(path, encoding='utf-8') as file:
    bad = collections.Counter(
      json_text.parse(line, path)['split'] for line in file
    )
  for split, shards in manifest.splits.items():
    images, labels = manifest.num_records(split), manifest.labels[split]
    yield (
      f'{split}: {images:,} images, {labels:,} labels '
      f'({labels / max(images, 1):.2f} an image), {bad[split]:,} bad, '
      f'{manifest.num_bytes(split) / 1e6:,.1f} MB in {len(shards)} shards'
    )
    yield from (f'  {note}' for note in manifest.notes.get(split, ()))
