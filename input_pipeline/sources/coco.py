"""COCO and data in its form, read directly: one split, unpacked or zipped.

What an example holds: input_pipeline/publishers/coco/source.py; where files
may lie: input_pipeline/publishers/coco/layout.py.
"""

import os

from big_vision_like import protocols
from input_pipeline.files import image_files
from input_pipeline.image_sets import holdout
from input_pipeline.publishers.coco import source as coco


class Source:
  """One split of COCO data.

  Args (options):
    path: folder of the data set.
    split: 'train', 'val', ...; 'test-dev' and other lists have no truth; 'all'
      reads one file of all images.
    task: 'instances', 'keypoints' or 'both'; see publishers/coco/source.py.
    year: of COCO's own releases, 2017 or 2014.
    annotations, images: where these lie below `path`, '{split}' for the
      split; default: where COCO and the usual programs put them.
    minival_ids: file of image ids of val, for the splits 'minival' and
      'trainval_minus_minival'.
    holdout_percent: one file of all images: the part that is 'val'; decided by
      each image's own name.
    scratch: folder for decompressed .tar.gz files.

  Raises (at construction):
    FileNotFoundError: nothing is there, or a file is missing.
    ValueError: bad option, a damaged file; names its line and column.
  """

  def __new__(
    cls,
    *,
    path: str,
    split: str = 'train',
    task: coco.Task = 'instances',
    year: coco.Year = 2017,
    annotations: str | None = None,
    images: str | None = None,
    minival_ids: str | None = None,
    holdout_percent: holdout.Percent | None = None,
    scratch: str | None = None,
  ) -> protocols.Source:
    path = image_files.check_path('path', path)
    if not os.path.isdir(path):
      raise FileNotFoundError(f'path={path!r}: no such folder')
    minival = split in (coco.MINIVAL, coco.TRAINVAL_MINUS_MINIVAL)
    found = coco.open_splits(
      path,
      task=task,
      year=year,
      splits=[split],
      # The same options serve training and evaluation.
      minival_ids=minival_ids if minival else None,
      annotations=annotations,
      images=images,
      holdout_percent=holdout_percent,
      scratch=scratch,
    )
    return found[split]
