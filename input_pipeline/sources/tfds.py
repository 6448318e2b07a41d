"""Data sets prepared by tensorflow-datasets, read without TensorFlow.

They must have been prepared as array_record, which allows random access. The
prepared folder describes itself, so no builder code runs, nothing is
downloaded, and images come as the encoded bytes (docs/data.md). What is not
prepared yet `build=True` prepares, where its builder needs no TensorFlow.
"""

import copy
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from big_vision_like.config import plugins
from big_vision_like.config.option_types import Count
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import image_files, retries
from input_pipeline.image_sets import fingerprint, tfds_code, tfds_objects
from input_pipeline.labels import hierarchy as hierarchies
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary

_VERSION = re.compile(r'\d+\.\d+\.\d+')
_NAME = re.compile(r'[A-Za-z][\w.-]*(/[\w.-]+)?(:\d+\.\d+\.\d+)?')
UNLABELLED = -1  # what tfds writes where a test split has no labels


class Source:
  """A prepared data set; one label an image or several.

  Args (options):
    name: 'imagenet2012', 'coco/2017:1.1.0': data set, configuration, version
      (default: the highest prepared) under data_dir.
    directory: the prepared folder itself (with dataset_info.json), instead of
      a name.
    data_dir: where data sets are prepared; default: TFDS_DATA_DIR, else
      ~/tensorflow_datasets.
    build: download and prepare the data set `name` first, if it is not there;
      runs its builder's code.
    split: tfds split: 'train', 'train[:90%]', 'train+validation'.
    image_feature: feature with the image.
    label_feature: feature with the label or labels; 'objects/label' for a
      feature of a sequence. A missing label (-1) is no label.
    objects_feature: sequence of objects with 'bbox' and 'label', as 'objects'
      of coco and voc; examples then have boxes, and labels are theirs.
    vocabulary: file of the labels, which are then matched by name; default:
      the feature's class names. Integer features without names need it: the
      integer is the id.
    hierarchy, hierarchy_unlisted, hierarchy_max_depth: as in the folder source.

  Raises (at construction):
    FileNotFoundError: not prepared.
    ValueError: not array_record, unknown split, feature or label, it could
      not be built, or a stored config that is not trusted names it and its
      features are of a module of others.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None

  def __init__(
    self,
    *,
    name: str | None = None,
    directory: str | None = None,
    data_dir: str | None = None,
    build: bool = False,
    split: str = 'train',
    image_feature: str = 'image',
    label_feature: str = 'label',
    objects_feature: str | None = None,
    vocabulary: str | None = None,
    hierarchy: str | None = None,
    hierarchy_unlisted: hierarchies.Unlisted = 'error',
    hierarchy_max_depth: Count | None = None,
  ):
    if (name is None) == (directory is None):
      raise ValueError(
        f'give either name or directory, got name={name!r} and '
        f'directory={directory!r}'
      )
    if build and name is None:
      raise ValueError('build=True needs the name of a data set')
    if directory is None:
      directory = _find(str(name), data_dir, build)
    else:
      directory = image_files.check_path('directory', directory)
    builder = _open(directory)
    self._objects = objects_feature
    if objects_feature is not None:
      tfds_objects.check(builder.info.features, objects_feature, directory)
      label_feature = f'{objects_feature}/{tfds_objects.LABEL}'
    self._image, self._label = image_feature, label_feature
    labels = None if vocabulary is None else vocabularies.load(vocabulary)
    feature = _label_feature(builder, directory, image_feature, label_feature)
    labels, self._ids = _match(feature, labels, directory, label_feature)
    self.vocabulary, self.hierarchy = hierarchies.attach(
      labels,
      hierarchy,
      unlisted=hierarchy_unlisted,
      max_depth=hierarchy_max_depth,
    )
    self._directory, self._split = directory, split
    self._records = _data_source(builder, directory, split, image_feature)
    self._description = _description(builder, split, len(self._records))

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    """{'image': encoded bytes, 'labels': int32 [n] ascending ids}.

    With `objects_feature` also what the data set has of boxes, box_labels,
    box_crowd, box_difficult, box_area, box_ids and image_id.

    Raises:
      BadExample: a box that none can be.
    """
    record = self._record(index)
    image = record[self._image]
    example = {'image': image, 'labels': self._labels_of(record, index)}
    if self._objects is not None:
      example |= tfds_objects.fields(record, self._objects, image, self._ids)
    return example

  def labels(self, index: int) -> np.ndarray:
    """int32 [n] raw label ids of a record; its image is not decoded."""
    return self._labels_of(self._record(index), index)

  def _record(self, index: int) -> Mapping[str, Any]:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} is not in 0..{len(self) - 1}')
    return retries.call(self._read, index)

  def _read(self, index: int) -> Mapping[str, Any]:
    try:
      return self._records[index]
    except RuntimeError as error:
      reason = str(error).split(';')[0]
      if 'Corrupted' in reason:
        raise BadExample(f'corrupt record: {reason}') from None
      # A reader does not recover from a failed read: it is opened anew.
      self._records.data_source = copy.copy(self._records.data_source)
      raise retries.from_message(reason, self._directory) from None

  def _labels_of(self, record: Mapping[str, Any], index: int) -> np.ndarray:
    value: Any = record
    for part in self._label.split('/'):
      value = value[part]
    # Sequences come as lists of scalars; an empty one has no dtype.
    ids = np.unique(np.asarray(value, np.int64).reshape(-1))
    ids = ids[ids != UNLABELLED]
    if len(ids) and not 0 <= ids[0] <= ids[-1] < len(self._ids):
      raise ValueError(
        f'{self.key(index)}: labels {ids.tolist()} are not all in '
        f'0..{len(self._ids) - 1}'
      )
    return np.sort(self._ids[ids])

  def key(self, index: int) -> str:
    """'data set:split:record'."""
    return f'{os.path.basename(self._directory)}:{self._split}:{index}'

  def fingerprint(self) -> str:
    """16 hex digits of data set, version, split, shards, sizes and labels."""
    return fingerprint.digest(
      (
        self._description.encode(),
        self._image.encode(),
        self._label.encode(),
        (self._objects or '').encode(),
        self._ids,
      ),
      self.vocabulary,
      self.hierarchy,
    )


def _find(name: str, data_dir: str | None, build: bool) -> str:
  """Prepared folder DATA_DIR/NAME[/CONFIG]/VERSION of a data set's name."""
  if not _NAME.fullmatch(name):
    raise ValueError(
      f'name={name!r} is not of the form NAME[/CONFIG][:VERSION]'
    )
  default = os.path.expanduser(os.path.join('~', 'tensorflow_datasets'))
  root = data_dir or os.environ.get('TFDS_DATA_DIR') or default
  root = image_files.check_path('data_dir', root)
  stem, _, version = name.partition(':')
  folder = os.path.join(root, stem)
  found = _folders(folder)
  versions = [entry for entry in found if _VERSION.fullmatch(entry)]
  if versions and (not version or version in versions):
    highest = max(versions, key=lambda v: tuple(map(int, v.split('.'))))
    return os.path.join(folder, version or highest)
  if build:
    return _build(name, root)
  if version and versions:
    raise FileNotFoundError(
      f'name={name!r}: version {version} is not prepared in {folder}; '
      f'prepared: {", ".join(versions)}'
    )
  if found:
    raise ValueError(
      f'name={name!r}: {folder} holds configurations, choose one: '
      f'{", ".join(f"{stem}/{entry}" for entry in found)}'
    )
  raise FileNotFoundError(
    f'data set {name!r} is not prepared: no {folder}. Prepare it once, where '
    f'TensorFlow is installed, with `{_command(name, root)}`; or let the '
    f'option build=True try to do it here without TensorFlow; or give data_dir'
  )


def _folders(path: str) -> list[str]:
  """Sorted sub-folders that are finished; tfds calls others 'incomplete'."""
  if not os.path.isdir(path):
    return []
  return sorted(
    entry.name
    for entry in os.scandir(path)
    if entry.is_dir() and '.incomplete' not in entry.name
  )


def _build(name: str, root: str) -> str:
  """Downloads and prepares a data set; its folder.

  Raises:
    ValueError: unknown, or its builder fails, for want of TensorFlow perhaps.
  """
  import tensorflow_datasets as tfds

  tfds_code.check_build(name)
  elsewhere = f'prepare it elsewhere with `{_command(name, root)}`'
  try:
    builder = tfds.builder(name, data_dir=root)
    builder.download_and_prepare(file_format='array_record')
  except ImportError as error:
    raise ValueError(
      f'build=True: the builder of {name!r} needs {error.name or error}, which '
      f'is not installed here; {elsewhere}'
    ) from error
  except Exception as error:
    reason = ' '.join(str(error).split())
    raise ValueError(
      f'build=True: {name!r} cannot be prepared here: '
      f'{type(error).__name__}: {reason:.300}; {elsewhere}'
    ) from error
  return str(builder.data_dir)


def _command(name: str, root: str) -> str:
  return f'tfds build {name} --file_format=array_record --data_dir={root}'


def _open(directory: str) -> Any:
  """The read-only builder of a prepared folder, array_record checked."""
  import tensorflow_datasets as tfds

  if not os.path.isfile(os.path.join(directory, 'dataset_info.json')):
    raise FileNotFoundError(
      f'{directory}: no dataset_info.json, so it is not the folder of a '
      f'prepared data set (NAME/CONFIG/VERSION)'
    )
  try:
    with tfds_code.own_only(directory):
      builder = tfds.builder_from_directory(directory)
  except tfds_code.ForeignCodeError:
    raise
  except Exception as error:
    reason = str(error).splitlines()
    raise ValueError(
      f'{directory}: cannot be opened by tensorflow-datasets: '
      f'{type(error).__name__}: {reason[0] if reason else ""}'
    ) from error
  file_format = builder.info.file_format
  if file_format is None or file_format.value != 'array_record':
    kind = 'unknown' if file_format is None else file_format.value
    raise ValueError(
      f'{directory}: prepared as {kind}, which has no random access; prepare '
      f'it with `{_command(builder.name, "DIR")}`'
    )
  return builder


def _label_feature(
  builder: Any, directory: str, image_feature: str, label_feature: str
) -> Any:
  """The feature at a path like 'objects/label', sequences unwrapped."""
  features = builder.info.features
  if image_feature not in features:
    raise ValueError(
      f'{directory}: no feature image_feature={image_feature!r}'
      f'{plugins.suggest(image_feature, features)}; features: '
      f'{", ".join(features)}'
    )
  feature: Any = features
  for part in str(label_feature).split('/'):
    feature = getattr(feature, 'feature', feature)  # of a Sequence
    if not hasattr(feature, 'keys') or part not in feature:
      inside = ', '.join(feature) if hasattr(feature, 'keys') else 'none'
      raise ValueError(
        f'{directory}: no feature label_feature={label_feature!r}: {part!r} '
        f'is not among: {inside}'
      )
    feature = feature[part]
  return getattr(feature, 'feature', feature)


def _match(
  feature: Any, labels: Vocabulary | None, directory: str, name: str
) -> tuple[Vocabulary, np.ndarray]:
  """The vocabulary, and int32 [classes of the feature] its ids."""
  dtype = getattr(feature, 'np_dtype', None)
  scalar = getattr(feature, 'shape', None) == ()
  if dtype is None or not scalar or not np.issubdtype(dtype, np.integer):
    raise ValueError(
      f'{directory}: label_feature={name!r} must hold class numbers, it is '
      f'{feature!r:.120}'
    )
  classes = getattr(feature, 'names', None)
  if classes is None:
    if labels is None:
      raise ValueError(
        f'{directory}: label_feature={name!r} has no class names; give the '
        f'option vocabulary'
      )
    return labels, np.arange(len(labels), dtype=np.int32)
  if labels is None:
    labels = Vocabulary(tuple(classes))
  ids = np.array([labels.index(each) for each in classes], np.int32)
  return labels, ids


def _data_source(
  builder: Any, directory: str, split: str, image_feature: str
) -> Any:
  import tensorflow_datasets as tfds

  sizes = {
    name: info.num_examples for name, info in builder.info.splits.items()
  }
  decoders = {image_feature: tfds.decode.SkipDecoding()}
  try:
    records = builder.as_data_source(split, decoders=decoders)
  except (ValueError, KeyError, TypeError, AssertionError) as error:
    listed = ', '.join(f'{name} ({n:,})' for name, n in sizes.items())
    raise ValueError(
      f'{directory}: cannot read split {split!r}; splits: {listed or "none"}, '
      f'and parts such as train[:90%] ({str(error).splitlines()[0]:.120})'
    ) from error
  if not len(records):
    raise ValueError(f'{directory}: split {split!r} has no records')
  _check_shards(builder, split)
  return records


def _check_shards(builder: Any, split: str) -> None:
  """Opens every shard of the split once: reading would find out much later.

  Raises:
    ValueError: shards missing, damaged or of another size; lists them.
  """
  from array_record.python import array_record_data_source as shards

  expected: dict[str, int] = {}
  for info in builder.info.splits.values():
    expected.update(zip(map(str, info.filepaths), info.shard_lengths))
  bad = []
  for path in map(str, builder.info.splits[split].filepaths):
    try:
      found = len(shards.ArrayRecordDataSource([path]))
    except (RuntimeError, OSError, ValueError) as error:
      reason = (str(error).splitlines() or [''])[0]
      missing = not os.path.exists(path)
      bad.append(f'{path}: {"missing" if missing else reason:.160}')
    else:
      if found != expected[path]:
        bad.append(f'{path}: {found} records instead of {expected[path]}')
  if bad:
    raise ValueError(
      f'{len(bad)} of the shards of split {split!r} cannot be used:\n  '
      + '\n  '.join(bad[:10])
    )


def _description(builder: Any, split: str, size: int) -> str:
  """Everything that identifies the records, as text."""
  shards = {
    name: (list(info.shard_lengths), info.num_bytes)
    for name, info in sorted(builder.info.splits.items())
  }
  return repr((str(builder.info.full_name), split, size, shards))
