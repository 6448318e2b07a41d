"""Data sets in the record format, quickly made, for rows that damage them."""

import functools
import io
import pathlib

import numpy as np
from PIL import Image

from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import records

NUM_CLASSES = 7
SIDE = 12  # pixels


@functools.cache
def _jpeg(number: int) -> bytes:
  pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3))
  out = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(out, 'JPEG')
  return out.getvalue()


def record(number: int) -> records.Record:
  """One of 50 pictures, with the label of its number."""
  return records.Record(
    f'image-{number:07}', _jpeg(number % 50), [number % NUM_CLASSES]
  )


def write(folder: pathlib.Path, num_records: int, num_shards: int) -> None:
  """Writes a whole data set of the split `train`."""
  folder.mkdir(parents=True, exist_ok=True)
  parts = np.array_split(np.arange(num_records), num_shards)
  shards = []
  for i, part in enumerate(parts):
    name = manifests.shard_name('train', i, num_shards)
    records.write_shard(str(folder / name), map(record, part.tolist()))
    shards.append(manifests.describe(str(folder), name, len(part)))
  names = tuple(f'class {i}' for i in range(NUM_CLASSES))
  Vocabulary(names=names).save(str(folder / 'vocabulary.jsonl'))
  labels = {'train': num_records}
  manifests.Manifest({'train': tuple(shards)}, labels, {}).save(str(folder))
