"""Maps of a frozen net for all records of a data set, into a folder.

One map an image, and one of its reflection where training reflects images. The
net sees what it would see in training: the run's ops without chance, on the
canvas that the run gives the image. Before it is stored, each record is put
through the same ops with a blank in the place of its pixels, as training from
the maps will do it, and must give the same sizes.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from big_vision_like import protocols
from big_vision_like.config import json_text, redaction
from big_vision_like.parallel import mesh as mesh_lib
from big_vision_like.protocols import Source
from input_pipeline import device, feature_map_checks, pipeline
from input_pipeline import ops as example_ops
from input_pipeline.batch_fields import apply, record_rng
from input_pipeline.examples import annotations, stored_map
from input_pipeline.examples.errors import BadExample
from input_pipeline.feature_maps import folder
from input_pipeline.files import atomic, retries
from input_pipeline.labels.space import LabelSpace
from input_pipeline.ops import chains
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.decode import Decode
from input_pipeline.prepared import manifest as manifests
from input_pipeline.prepared import progress, records

FLIP = 'random_flip'
_SHARD_BYTES = 256e6
_NO_MAP = b'\0'
_LEFT_OUT = ('segmentation', 'box_outlines')  # detection reads neither
_DECODE = Decode(OpContext(where='decode'))


class Net(NamedTuple):
  """The frozen part of a run.

  Attributes:
    maps: (batch of 'image' [B, H, W, 3]) -> maps [B, h, w, D], compiled for
      each shape; to be called under the mesh.
    settings: 'checkpoint', 'net' and 'weights' of the manifest.
    mesh: devices that share a batch.
  """

  maps: Callable[[Mapping[str, Any]], jax.Array]
  settings: Mapping[str, Any]
  mesh: Any


def net_of(exp: Any, state: Any, checkpoint: str) -> Net:
  """The frozen part of an experiment in a state.

  Args:
    exp: an Experiment.
    state: its TrainState as training would start from it.
    checkpoint: what it is of, for messages.

  Raises:
    ValueError: the task has no such maps, or trains what makes them.
  """
  task = exp.task
  if not isinstance(task, protocols.WithFrozenMap):
    raise ValueError(
      f'--config: the task {exp.config.task.type!r} does not train from maps; '
      "'detection' does"
    )
  weights = task.map_weights(state.params, state.extra)
  run = jax.jit(
    lambda params, extra, batch: task.frozen_map(params, extra, batch).astype(
      'float32'
    )
  )

  maps = lambda batch: run(state.params, state.extra, batch)
  settings = {
    'checkpoint': checkpoint,
    'net': feature_map_checks.net(exp.config),
    'weights': feature_map_checks.digests(weights),
  }
  return Net(maps, settings, exp.mesh)


@dataclasses.dataclass(frozen=True)
class Job:
  """A data set whose maps are wanted.

  Attributes:
    source: open.
    config: of the source.
    specs: op configs of the run for it.
    where: their config key.
    path: folder to write.
    dtype: of the numbers in the files.
    batch_size: images at a time, a multiple of the devices.
    reading: threads and workers of the pipeline.
  """

  source: Source
  config: Mapping[str, Any]
  specs: Sequence[Mapping[str, Any]]
  where: str
  path: str
  dtype: str
  batch_size: int
  reading: Mapping[str, int]

  def variants(self) -> list[list[dict[str, Any]]]:
    """Op configs of the image as it is, and of its reflection if there is one.

    Raises:
      ValueError: an op whose results are without number.
    """
    specs = [dict(spec) for spec in self.specs]
    last = max(n for n, spec in enumerate(specs) if _makes_image(spec))
    specs = specs[: last + 1]
    plain = [spec for spec in specs if spec['op'] != FLIP]
    for op in pipeline.build_ops(plain, self.source, self.where):
      if not chains.deterministic(op):
        raise ValueError(
          f'{self.where}: {type(op).__name__} makes another image each time; '
          f'maps are stored of images and of their reflections ({FLIP})'
        )
    if len(plain) == len(specs):
      return [plain]
    always = lambda spec: spec | dict(probability=1.0)
    return [plain, [always(s) if s['op'] == FLIP else s for s in specs]]


def _makes_image(spec: Mapping[str, Any]) -> bool:
  op_class = example_ops.find('ops', spec['op'])
  return not chains.declared(op_class) or 'image' in op_class.makes


def extract(job: Job, net: Net, say: Callable[[str], None]) -> None:
  """Makes the folder of a job, or what is left of it.

  Raises:
    ValueError: the folder holds other maps; or see `Job.variants`.
  """
  variants = job.variants()
  shape = _largest(job, net, variants[0])
  size = stored_map.bytes_of(shape, job.dtype) * len(variants)
  num, each = len(job.source), max(1, int(_SHARD_BYTES // size))
  say(
    f'{job.path}: {num:,} records, {len(variants)} maps each of up to '
    f'{list(shape)} {job.dtype}, at most {num * size / 1e6:,.1f} MB'
  )
  settings = {
    'data': _plain(job.config),
    'data_fingerprint': job.source.fingerprint(),
    'records': num,
    'records_per_shard': each,
    'ops': feature_map_checks.preprocessing(job.specs),
    'variants': len(variants),
    'dtype': job.dtype,
    'channels': shape[2],
    'sizes_known': _sizes(job.source) is not None,
    'has_truth': not isinstance(job.source, protocols.WithTruth)
    or job.source.has_truth,
    'in_hash_order': isinstance(job.source, protocols.HashOrdered)
    and job.source.in_hash_order,
    **net.settings,
  }
  spans = [(first, min(first + each, num)) for first in range(0, num, each)]
  os.makedirs(job.path, exist_ok=True)
  done = _Done(job.path, settings)
  if done.finished:
    say(f'{job.path}: finished before')
    return
  for number, span in enumerate(spans):
    if number not in done.shards:
      names = folder.names(number, len(spans))
      done.add(number, *_write(job, net, variants, span, names))
      say(f'{job.path}: {span[1]:,} of {num:,}')
  _finish(job, settings, done)


def _largest(
  job: Job, net: Net, specs: Sequence[dict[str, Any]]
) -> tuple[int, int, int]:
  """(h, w, D) of a map on the largest canvas."""
  ops = pipeline.build_ops(specs, job.source, job.where)
  image = pipeline.example_spec(ops, job.where)['image']
  batch = {'image': jax.ShapeDtypeStruct((1, *image.shape), image.dtype)}
  with jax.set_mesh(net.mesh):
    height, width, channels = jax.eval_shape(net.maps, batch).shape[1:]
  return height, width, channels


class _Done:
  """The finished shards of a folder: number -> entry of progress.jsonl."""

  def __init__(self, path: str, settings: Mapping[str, Any]):
    self._path = os.path.join(path, progress.FILE_NAME)
    self.shards: dict[int, dict[str, Any]] = {}
    self.finished = os.path.exists(os.path.join(path, manifests.FILE_NAME))
    if self.finished:
      _check(path, folder.load(path).settings, settings)
      return
    lines = []
    if os.path.exists(self._path):
      with open(self._path, encoding='utf-8') as file:
        lines = [line for line in file if line.endswith('\n')]
    if len(lines) > 1:  # else nothing is done, whatever the settings were
      _check(path, json_text.parse(lines[0], self._path), settings)
    kept = [json.dumps(settings)]
    for line in lines[1:]:
      entry = json_text.parse(line, self._path)
      if folder.Shard.from_json(entry['shard']).problem(path) is None:
        self.shards[entry['number']] = entry
        kept.append(line.rstrip('\n'))
    text = ''.join(f'{line}\n' for line in kept)
    atomic.write_text(self._path, text, unique=False)

  def add(
    self,
    number: int,
    shard: folder.Shard,
    images: list[list[int]],
    bad: list[dict[str, Any]],
  ) -> None:
    """Notes a shard whose files are there."""
    entry = {
      'number': number,
      'shard': dataclasses.asdict(shard),
      'images': images,
      'bad': bad,
    }
    progress.append_line(self._path, json.dumps(entry))
    self.shards[number] = entry


def _check(path: str, before: Any, now: Mapping[str, Any]) -> None:
  """ValueError naming the settings that differ; of weights, the first array."""
  old, new = before['weights'], now['weights']
  other = [name for name in new if old.get(name) != new[name]][:1]
  short = lambda settings: {
    **settings,
    'weights': {name: settings['weights'].get(name) for name in other},
  }
  progress.check_settings(path, short(before), short(now))


def _write(
  job: Job,
  net: Net,
  variants: Sequence[Sequence[dict[str, Any]]],
  span: tuple[int, int],
  names: tuple[str, str],
) -> tuple[folder.Shard, list[list[int]], list[dict[str, Any]]]:
  """Writes the files of records [first, end)."""
  part = _Part(job.source, *span)
  bad: dict[int, str] = {}
  kept = [_kept(part, index, bad) for index in range(len(part))]
  maps = [[_NO_MAP] * len(variants) for _ in kept]
  images = [[*one.size, 0, 0, one.number] for one in kept]
  for variant, specs in enumerate(variants):
    ops = pipeline.build_ops(specs, job.source, job.where)
    for index, example, reason in _seen(job, net, part, ops):
      if reason:
        bad.setdefault(index, reason)
        continue
      _compare(kept[index], ops, example, job.where)
      numbers = example['map']
      maps[index][variant] = stored_map.to_bytes(numbers, job.dtype)
      images[index][2:4] = numbers.shape[:2]
  example_file, map_file = (os.path.join(job.path, name) for name in names)

  def write_examples() -> None:
    with atomic.renamed(example_file, unique=False) as temporary:
      records.write_shard(temporary, (one.record for one in kept))

  retries.call(write_examples)
  folder.write_maps(map_file, [one for of_image in maps for one in of_image])
  files = tuple(manifests.describe_file(job.path, name) for name in names)
  entries = [
    {'index': span[0] + i, 'key': kept[i].record.key, 'reason': bad[i]}
    for i in sorted(bad)
  ]
  return folder.Shard(*span, files), images, entries


def _seen(
  job: Job, net: Net, part: '_Part', ops: Sequence[Any]
) -> Iterator[tuple[int, dict[str, np.ndarray], str]]:
  """(index in the part, fields and 'map' of the record, why it is bad)."""
  batches = pipeline.evaluation(
    part, ops, batch_size=job.batch_size, strict=False, **job.reading
  )
  sharding = mesh_lib.batch_sharding(net.mesh)
  for batch in batches:
    image = device.to_global({'image': batch['image']}, sharding)
    with jax.set_mesh(net.mesh):
      maps = np.asarray(net.maps(image))
    for row, index in enumerate(batch['_id'].tolist()):
      if index >= 0:
        fields = {k: v[row] for k, v in batch.items() if k != 'image'}
        reason = ''
        if not batch['_mask'][row]:
          reason = batches.bad.get(part.key(index), 'unknown')
        yield index, fields | {'map': maps[row]}, reason


class _Kept(NamedTuple):
  """What is stored of a record besides its maps; number is COCO's or -1."""

  record: records.Record
  size: tuple[int, int]
  number: int


def _kept(part: '_Part', index: int, bad: dict[int, str]) -> _Kept:
  """Of a record; of one that cannot be read its key, and `bad` has why."""
  key = part.key(index)
  empty = records.Record(key, b'', np.zeros(0, np.int32))
  try:
    example = part[index]
    sizes, image = part.sizes(), example['image']
    if sizes is not None:
      size = sizes[index].tolist()
    else:
      decoded = (
        image if isinstance(image, np.ndarray) else _DECODE.decode(image)
      )
      size = list(decoded.shape[:2])
  except BadExample as error:
    bad[index] = error.reason
    return _Kept(empty, (1, 1), folder.NO_ID)
  fields = {
    name: example[name]
    for name in annotations.FIELDS
    if name in example and name not in _LEFT_OUT
  }
  record = records.Record(
    key,
    b'',
    np.asarray(example.get('labels', ()), np.int32),
    label_conf=example.get('label_conf'),
    negatives=example.get('negatives'),
    annotations=fields or None,
  )
  record = records.decode(records.encode(record))  # as it will be read
  number = int(fields['image_id'][0]) if 'image_id' in fields else folder.NO_ID
  return _Kept(record, (max(size[0], 1), max(size[1], 1)), number)


def _compare(
  kept: _Kept, ops: Sequence[Any], example: Mapping[str, Any], where: str
) -> None:
  """ValueError where a blank in the place of the pixels gives other fields."""
  blank = {
    'image': np.broadcast_to(np.uint8(127), (*kept.size, 3)),
    'key': kept.record.key,
    **(kept.record.annotations or {}),
  }
  found = apply(ops, blank, record_rng(0, 0, 0))
  for name, value in example.items():
    if name in found and not np.array_equal(found[name], value):
      raise ValueError(
        f'{where}: without the pixels of {kept.record.key!r} the ops give '
        f'{name}={np.asarray(found[name]).tolist()}, with them '
        f'{value.tolist()}; training from maps would see other boxes'
      )


class _Part:
  """Records [first, end) of a source, as a source without labels."""

  def __init__(self, source: Source, first: int, end: int):
    self._source, self._first, self._end = source, first, end

  def __len__(self) -> int:
    return self._end - self._first

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self._source[self._first + int(index)]

  def key(self, index: int) -> str:
    """Name of the record in the source."""
    return self._source.key(self._first + int(index))

  def sizes(self) -> np.ndarray | None:
    """int32 [n, 2] of the images, where known."""
    whole = _sizes(self._source)
    return None if whole is None else whole[self._first : self._end]


def _sizes(source: Source) -> np.ndarray | None:
  return source.sizes() if isinstance(source, protocols.WithSizes) else None


def _finish(job: Job, settings: Mapping[str, Any], done: _Done) -> None:
  """Writes what goes with the shards, the manifest last."""
  entries = [done.shards[number] for number in sorted(done.shards)]
  images = [row for entry in entries for row in entry['images']]
  place = lambda name: os.path.join(job.path, name)
  with atomic.writing(place(folder.IMAGES)) as file:
    np.save(file, np.array(images, np.int64).reshape(-1, 5), allow_pickle=False)
  space = LabelSpace.of_source(job.source).to_json()
  atomic.write_json(place(folder.SPACE), space)
  bad = [row for entry in entries for row in entry['bad']]
  atomic.write_text(
    place(folder.BAD), ''.join(f'{json.dumps(row)}\n' for row in bad)
  )
  content = {
    'format': folder.FORMAT,
    'version': folder.VERSION,
    'settings': settings,
    'shards': [entry['shard'] for entry in entries],
  }
  atomic.write_json(place(manifests.FILE_NAME), content)
  progress.remove(job.path)


def _plain(config: Any) -> dict[str, Any]:
  """A source config as JSON has it, without secrets."""
  plain = config.to_dict() if hasattr(config, 'to_dict') else dict(config)
  return redaction.plain(json.loads(json.dumps(plain)))
