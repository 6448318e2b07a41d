"""Pascal VOC 2007 and 2012: boxes for detection, masks for segmentation.

The lists of the development kit choose the images: ImageSets/Main for
detection, ImageSets/Segmentation for segmentation, of every year given, so that
07+12 trainval is one call (Sun et al. 2017, sections 5.2 and 5.3).

Detection: labels are the classes of all boxes, difficult ones included. Folders
of other names and classes: own_folder.py.
Segmentation: labels are the classes that have pixels in the mask. An id in a
mask is label + 1; 0 is the background, 255 is void and counts nowhere. Keys are
year and file name: 'VOC2012/2007_000027.jpg'.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from input_pipeline.examples import mask_files
from input_pipeline.examples.errors import BadExample
from input_pipeline.files import archives, retries
from input_pipeline.files.archives import Files
from input_pipeline.image_sets import fingerprint, truth_pairs
from input_pipeline.image_sets.boxed_files import BoxedFiles
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.publishers.voc import annotation_xml, devkit, own_folder
from input_pipeline.publishers.voc.devkit import Year

Task = Literal['detection', 'segmentation']
TASKS = get_args(Task)
TRAINAUG = 'trainaug'
LISTS = {'detection': 'Main', 'segmentation': 'Segmentation'}
VOC_CLASSES = Vocabulary(annotation_xml.CLASSES)
_DEFAULT_SPLITS = {
  'detection': ('trainval', 'test'),
  'segmentation': (TRAINAUG, 'train', 'val'),
}


@dataclasses.dataclass(frozen=True)
class Place:
  """An image: its key, and (files, name) of the image and of its mask."""

  key: str
  image: tuple[Files, str] | None
  mask: tuple[Files, str] | None = None


class Source:
  """Random access to the images and masks of a split (docs/add-a-source.md)."""

  hierarchy = None

  def __init__(
    self,
    places: Sequence[Place],
    notes: Sequence[str],
    *,
    grey: bool = False,
  ):
    """Takes images with masks.

    Args:
      places: of the images.
      notes: lines of the report.
      grey: masks are encoded anew, without a palette, for storage: many
        programs would read its colours.
    """
    self._grey = grey
    self.vocabulary = VOC_CLASSES
    self._places = tuple(places)
    self.background = True  # id 0 of the masks
    self._notes = list(notes)

  def __len__(self) -> int:
    return len(self._places)

  def key(self, index: int) -> str:
    """Year and file name."""
    return self._places[index].key

  def __getitem__(self, index: int) -> dict[str, Any]:
    """'image' bytes, 'labels', 'segmentation': bytes of a PNG.

    Raises:
      BadExample: image or mask is missing or damaged, they differ in size, or
        the mask has no class ids.
    """
    place = self._places[index]
    image = _read(place.image, 'the image is missing')
    encoded = _read(place.mask, 'the mask is missing')
    # 0 is the background, 1 to 20 are the classes (label + 1).
    num_ids = len(annotation_xml.CLASSES) + 1
    mask = mask_files.read(encoded, image, num_ids)
    present = mask.present[mask.present > 0]
    return {
      'image': image,
      'labels': present.astype(np.int32) - 1,
      'segmentation': mask_files.png(mask.ids) if self._grey else mask,
    }

  def fingerprint(self) -> str:
    """Changes with images, masks, and names and sizes of all files."""
    used = {
      id(files): files
      for place in self._places
      for files, _ in filter(None, (place.image, place.mask))
    }
    pieces: list[bytes | np.ndarray] = [
      files.fingerprint().encode() for files in used.values()
    ]
    names = [
      (place.key, *(found and found[1] for found in (place.image, place.mask)))
      for place in self._places
    ]
    pieces.append(repr(names).encode())
    return fingerprint.digest(pieces, self.vocabulary, None)

  def report_lines(self) -> list[str]:
    """Counts of what a reader might stumble over."""
    return self._notes

  def add_note(self, line: str) -> None:
    """One more of the `report_lines`."""
    self._notes.append(line)


def open_splits(
  inputs: Sequence[str],
  *,
  task: str = 'detection',
  splits: Sequence[str] | None = None,
  vocabulary: str | None = None,
  holdout_percent: float | None = None,
  trainaug_list: str | None = None,
  trainaug_masks: str | None = None,
  scratch: str | None = None,
) -> dict[str, Source | BoxedFiles]:
  """The splits of the years found, to be stored: masks are of 8-bit grey.

  Args:
    inputs: what `devkit.open_years` takes; or one folder of the user's own, for
      detection (own_folder.py).
    task: 'detection' or 'segmentation'.
    splits: names of lists; None for trainval and test (detection), or trainaug,
      or without a list of it train, and val (segmentation), where they exist.
      Of an own folder: its splits, None for all of them.
    vocabulary: file of the classes, for detection; None for VOC's, or for those
      in an own folder.
    holdout_percent: of an own folder without splits, the part that is val.
    trainaug_list: file of the images of the split `trainaug`, one a line.
    trainaug_masks: folder or .zip of its masks, NAME.png; masks that are not
      there come from SegmentationClassAug or SegmentationClass of the year.
    scratch: folder for decompressed .tar.gz files.

  Raises:
    FileNotFoundError: an input or annotation is missing.
    ValueError: unknown task or split, or a damaged list or annotation.
  """
  check_options(
    task, trainaug_list, trainaug_masks, vocabulary, holdout_percent
  )
  undivided = holdout_percent is not None or splits == [truth_pairs.ALL]
  if task == 'detection' and (undivided or not devkit.is_devkit(inputs)):
    return dict(
      _own_splits(inputs, splits, vocabulary, holdout_percent, scratch)
    )
  years = devkit.open_years(inputs, scratch)
  available = split_names(years, task, trainaug_list, ', '.join(inputs))
  if splits is None:
    splits = [name for name in _DEFAULT_SPLITS[task] if name in available]
    if TRAINAUG in splits and 'train' in splits:
      splits.remove('train')  # trainaug holds it
  if (
    not splits
    or len(set(splits)) < len(splits)
    or not {*splits} <= {*available}
  ):
    raise ValueError(
      f'splits must be some of {", ".join(available) or "none"}, the lists in '
      f'ImageSets/{LISTS[task]} of {", ".join(years)}; got '
      f'{", ".join(splits) or "none"}'
    )
  extra = None if trainaug_masks is None else archives.open_files(
    trainaug_masks, scratch=scratch
  )  # fmt: skip
  classes = None if vocabulary is None else vocabularies.load(vocabulary)
  return {
    split: open_split(
      years, split, task, trainaug_list, extra, classes=classes, grey=True
    )
    for split in splits
  }


def _own_splits(
  inputs: Sequence[str],
  splits: Sequence[str] | None,
  vocabulary: str | None,
  holdout_percent: float | None,
  scratch: str | None,
) -> dict[str, BoxedFiles]:
  if len(inputs) != 1:
    raise ValueError(
      f'{", ".join(inputs)}: several inputs are read of VOCdevkit only; give '
      f'one folder of images and XML'
    )
  folder = own(inputs[0], vocabulary, scratch)
  if splits is None:
    undivided = ['all'] if holdout_percent is None else ['train', 'val']
    splits = folder.splits or undivided
  return {split: folder.split(split, holdout_percent) for split in splits}


def own(
  path: str, vocabulary: str | None, scratch: str | None
) -> own_folder.Folder:
  """A folder of XML of any name; of VOC20xx the classes are VOC's."""
  voc = devkit.is_devkit([path]) and vocabulary is None
  classes = annotation_xml.CLASSES if voc else None
  return own_folder.Folder(path, vocabulary, classes, scratch)


def check_options(
  task: str,
  trainaug_list: str | None,
  trainaug_masks: str | None,
  vocabulary: str | None = None,
  holdout_percent: float | None = None,
) -> None:
  """ValueError for options that are not for a task."""
  for name, value in (
    ('trainaug_list', trainaug_list), ('trainaug_masks', trainaug_masks),
  ):  # fmt: skip
    if value is not None and task != 'segmentation':
      raise ValueError(f'{name} belongs to the task segmentation, not {task}')
  for name, value in (
    ('vocabulary', vocabulary), ('holdout_percent', holdout_percent),
  ):  # fmt: skip
    if value is not None and task != 'detection':
      raise ValueError(f'{name} belongs to the task detection, not {task}')
  if trainaug_masks is not None and trainaug_list is None:
    raise ValueError('trainaug_masks needs trainaug_list, the images it is for')


def split_names(
  years: Mapping[str, Year], task: str, trainaug_list: str | None, where: str
) -> list[str]:
  """Sorted names of the splits that a task has in these years.

  Args:
    years: from `devkit.open_years`.
    task: one of TASKS.
    trainaug_list: whether it is given decides on the split `trainaug`.
    where: what was opened, for messages.

  Raises:
    FileNotFoundError: none.
  """
  kind = LISTS[task]
  available = {n for y in years.values() for n in y.list_names()[kind]}
  if trainaug_list is not None:
    available.add(TRAINAUG)
  if not available:
    raise FileNotFoundError(
      f'{where}: no ImageSets/{kind}/*.txt in {", ".join(years)}; these lists '
      'say which images belong to which split'
    )
  return sorted(available)


def open_split(
  years: Mapping[str, Year],
  split: str,
  task: str,
  trainaug_list: str | None = None,
  trainaug_masks: Files | None = None,
  *,
  classes: Vocabulary | None = None,
  grey: bool = False,
) -> Source | BoxedFiles:
  """One of `split_names`; see `open_splits` and `Source`."""
  if split == TRAINAUG and trainaug_list is not None:
    chosen = _trainaug(years, trainaug_list)
  else:
    chosen = [
      (year, name)
      for year in years.values()
      for name in year.image_list(LISTS[task], split) or ()
    ]
  if task == 'detection':
    return _detection(split, chosen, classes or VOC_CLASSES)
  augmented = split == TRAINAUG
  extra = trainaug_masks if augmented else None
  return _segmentation(chosen, augmented, extra, grey)


def _detection(
  split: str, chosen: Sequence[tuple[Year, str]], classes: Vocabulary
) -> BoxedFiles:
  places, objects, origins = [], [], []
  for year, name in chosen:
    found = year.read_text(f'Annotations/{name}.xml')
    if found is None:
      raise FileNotFoundError(
        f'{year.name}: no Annotations/{name}.xml, which the list '
        f'ImageSets/Main/{split}.txt names; boxes of the test set of 2012 are '
        f'not public: leave that split out'
      )
    objects.append(annotation_xml.parse(*found))
    origins.append(found[1])
    places.append(_place(year, name))
  _refuse_imageless(places)
  stores = {id(p.image[0]): p.image[0] for p in places if p.image}
  numbers = {key: number for number, key in enumerate(stores)}
  rows = [
    (numbers[id(p.image[0])], p.image[0].names.find(p.image[1]))
    if p.image
    else (0, -1)
    for p in places
  ]
  return BoxedFiles(
    [*stores.values()],
    np.array(rows, np.int64),
    [place.key for place in places],
    own_folder.truth(objects, origins, classes),
    classes,
    [_years_line(chosen)],
  )


def _segmentation(
  chosen: Sequence[tuple[Year, str]],
  augmented: bool,
  extra: Files | None,
  grey: bool,
) -> Source:
  """Masks of the augmented set come first from where that set has its own."""
  folders = ('SegmentationClass',)
  if augmented:
    folders = ('SegmentationClassAug', *folders)
  under = {} if extra is None else _by_file_name(extra)
  places: list[Place] = []
  counts = dict.fromkeys([*(['trainaug_masks'] if under else []), *folders], 0)
  for year, name in chosen:
    place = _place(year, name)
    file_name = f'{name}.png'
    if extra is not None and file_name in under:
      mask, origin = (extra, under[file_name]), 'trainaug_masks'
    else:
      found = ((f, year.find(f'{f}/{file_name}')) for f in folders)
      origin, mask = next(((f, m) for f, m in found if m), ('', None))
    if origin:
      counts[origin] += 1
    places.append(dataclasses.replace(place, mask=mask))
  _refuse_imageless(places)
  missing = len(places) - sum(counts.values())
  if missing == len(places):
    raise FileNotFoundError(
      f'none of the {missing:,} masks is there, for example '
      f'{folders[0]}/{chosen[0][1]}.png of {chosen[0][0].name}; masks of the '
      'extended set are given by --trainaug_list and --trainaug_masks'
    )
  masks = ', '.join(f'{n:,} from {origin}' for origin, n in counts.items())
  notes = [_years_line(chosen), f'masks: {masks}; {missing:,} missing']
  return Source(places, notes, grey=grey)


def _trainaug(years: Mapping[str, Year], path: str) -> list[tuple[Year, str]]:
  """The images of a list, from whichever year has them, the latest first."""
  try:
    with retries.open_binary(path) as file:
      names = devkit.names_in(file.read(), path)
  except FileNotFoundError:
    raise FileNotFoundError(f'{path}: no such file') from None
  chosen = []
  for line, name in names.items():
    jpeg = f'JPEGImages/{name}.jpg'
    year = next((y for y in [*years.values()][::-1] if y.find(jpeg)), None)
    if year is None:
      raise ValueError(
        f'{path}:{line}: no {jpeg} in {", ".join(years)}; the list is of '
        f'VOC2012'
      )
    chosen.append((year, name))
  return chosen


def _place(year: Year, name: str) -> Place:
  image = year.find(f'JPEGImages/{name}.jpg')
  return Place(f'{year.name}/{name}.jpg', image)


def _refuse_imageless(places: Sequence[Place]) -> None:
  if not any(place.image for place in places):
    raise FileNotFoundError(
      f'none of the {len(places):,} images of the list is there, for example '
      f'{places[0].key} in JPEGImages'
    )


def _years_line(chosen: Sequence[tuple[Year, str]]) -> str:
  counts: dict[str, int] = {}
  for year, _ in chosen:
    counts[year.name] = counts.get(year.name, 0) + 1
  return ', '.join(f'{n:,} images of {year}' for year, n in counts.items())


def _by_file_name(files: Files) -> dict[str, str]:
  """Last part -> name of the PNGs; archives wrap them in folders of any name.

  What a Mac adds to a zip (__MACOSX/._NAME.png) is passed over.
  """
  found: dict[str, str] = {}
  for name in files.names:
    last = os.path.basename(name)
    if not last.endswith('.png') or last.startswith('.'):
      continue
    if found.setdefault(last, name) != name:
      raise ValueError(f'{files.path}: both {found[last]} and {name}')
  return found


def _read(place: tuple[Files, str] | None, problem: str) -> bytes:
  if place is None:
    raise BadExample(problem)
  files, name = place
  return files.read(name)
