"""Pascal VOC and folders in its form, read directly, unpacked or not.

For segmentation (default; Sun et al. 2017, section 5.3) the lists are those of
ImageSets/Segmentation, for detection (section 5.2) those of ImageSets/Main;
what an example holds: input_pipeline/publishers/voc/source.py. `trainaug`, the
augmented training set, is a split of its own, never what `train` means.
"""

import os
from typing import Any

from big_vision_like import protocols
from input_pipeline.files import archives, image_files
from input_pipeline.image_sets import holdout, truth_pairs
from input_pipeline.labels import vocabulary as vocabularies
from input_pipeline.publishers.voc import devkit
from input_pipeline.publishers.voc import source as voc

_NOT_KEPT = {
  'segmentation': 'masks only; boxes are read by task="detection"',
  'detection': 'boxes only; masks are read by task="segmentation"',
}


class Source:
  """One split of VOC; see publishers/voc.py.

  Args (options):
    path: VOCdevkit folder, folder of a year (VOC2012), a downloaded .tar, or a
      folder that holds one of these. Images of all years there are taken.
      For detection also any folder of images and XML in VOC's form with
      classes of its own (publishers/voc/own_folder.py).
    task: 'segmentation' (masks) or 'detection' (boxes); default: masks where a
      development kit has any.
    split: name of a list: 'train', 'val', 'trainval', ..., or 'trainaug'; of
      an own folder one of its splits; 'all' takes every image with XML.
    vocabulary: file of the classes, for detection; default: VOC's, or of an
      own folder its classes.txt, or the names in its XML files, sorted.
    holdout_percent: share of the images that is 'val', where detection data
      have no splits; decided by each image's own path.
    trainaug_list: file of the images of 'trainaug', one a line; default:
      ImageSets/Segmentation/trainaug.txt.
    trainaug_masks: folder or .zip of its masks, NAME.png; default: the folder
      SegmentationClassAug of the year, then SegmentationClass.
    scratch: folder for decompressed .tar.gz files.

  Raises (at construction):
    FileNotFoundError: nothing is there, or a file is missing.
    ValueError: bad option, unknown split, damaged list or annotation.
  """

  def __new__(
    cls,
    *,
    path: str,
    split: str = 'train',
    task: voc.Task | None = None,
    vocabulary: str | None = None,
    holdout_percent: holdout.Percent | None = None,
    trainaug_list: str | None = None,
    trainaug_masks: str | None = None,
    scratch: str | None = None,
  ) -> protocols.Source:
    path = image_files.check_path('path', path)
    if not os.path.exists(path):
      raise FileNotFoundError(f'path={path!r}: no such file or folder')
    if task is None:
      of_masks = trainaug_list is not None or trainaug_masks is not None
      task = 'segmentation' if of_masks else _task_of(path, scratch)
    voc.check_options(
      task, trainaug_list, trainaug_masks, vocabulary, holdout_percent
    )
    if trainaug_list is not None and split in ('train', 'trainval'):
      raise ValueError(
        f'trainaug_list={trainaug_list!r} makes the split {voc.TRAINAUG!r}; '
        f'split={split!r} is the list of that name: give one of the two'
      )
    undivided = holdout_percent is not None or split == truth_pairs.ALL
    if task == 'detection' and (undivided or not devkit.is_devkit([path])):
      folder = voc.own(path, vocabulary, scratch)
      return folder.split(split, holdout_percent)
    years = devkit.open_years([path], scratch)
    available = voc.split_names(years, task, trainaug_list, path)
    if split not in available:
      raise ValueError(_unknown(split, task, available, years))
    masks = None
    if split == voc.TRAINAUG and trainaug_masks is not None:
      masks = archives.open_files(trainaug_masks, scratch=scratch)
    classes = None if vocabulary is None else vocabularies.load(vocabulary)
    found = voc.open_split(
      years, split, task, trainaug_list, masks, classes=classes
    )
    found.add_note(_NOT_KEPT[task])
    return found


def _task_of(path: str, scratch: str | None) -> voc.Task:
  """What lies there is read for."""
  if not devkit.is_devkit([path]):
    return 'detection'
  years = devkit.open_years([path], scratch).values()
  lists = any(year.list_names()['Segmentation'] for year in years)
  masks = any(year.has('SegmentationClass') for year in years)
  return 'segmentation' if lists or masks else 'detection'


def _unknown(
  split: Any, task: str, available: list[str], years: dict[str, Any]
) -> str:
  """The message for a split that the task does not have."""
  text = (
    f'unknown split {split!r} for task={task!r}; lists in '
    f'ImageSets/{voc.LISTS[task]} of {", ".join(years)}: {", ".join(available)}'
  )
  other = next(other for other in voc.TASKS if other != task)
  lists = {n for y in years.values() for n in y.list_names()[voc.LISTS[other]]}
  if split == voc.TRAINAUG and task == 'segmentation':
    text += (
      '. The augmented training set is not part of the development kit: put '
      'its list at ImageSets/Segmentation/trainaug.txt, or give trainaug_list'
    )
  elif split in lists:
    text += f'; task={other!r} has one'
  return text
