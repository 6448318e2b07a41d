"""People as examples: a view of any source with boxes and keypoints.

The record of a person is that of their image, with `person`, `person_box` and
`person_score` beside it; the op `crop_person` makes the crop. The boxes are
those of the truth or of a file: results of a detector (Sun et al. 2017, section
5.4, after Papandreou et al. 2017).

Who trains is not said by either paper: people with a labelled keypoint that are
no crowd, unless options say otherwise.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from big_vision_like import protocols
from big_vision_like.config.option_types import (
  Above,
  AtLeast,
  Distinct,
  Finite,
  NonEmpty,
)
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.labels import arrays
from input_pipeline.labels.space import LabelSpace, Skeleton
from input_pipeline.people import box_file, choice
from input_pipeline.truth import objects as all_objects
from input_pipeline.truth import true_boxes

TRUTH = 'truth'
_Number = Annotated[int, AtLeast(0)]
_Names = Annotated[Sequence[str], NonEmpty(), Distinct()]


class Source:
  """Random access to people, in the order of their images.

  No image is read at the start: COCO's form, the synthetic world and prepared
  records know their objects. Other sources have all records read once, and
  `report_lines` says so.

  Attributes:
    images: the source beneath.
    vocabulary, hierarchy, space: its own, with the keypoints of the options.
    has_truth: whether it has annotations.
    has_all_boxes: whether boxes of a file that show nobody are among them.
  """

  def __init__(
    self,
    *,
    of: Mapping[str, Any],
    boxes: str = TRUTH,
    classes: _Names | None = None,
    min_keypoints: _Number = 1,
    min_side: Annotated[float, AtLeast(0)] = 0.0,
    min_score: Annotated[float, Finite()] = 0.0,
    unmatched: Literal['drop', 'keep'] = 'drop',
    keypoint_names: _Names | None = None,
    keypoint_pairs: Sequence[tuple[_Number, _Number]] | None = None,
    sigmas: Sequence[Annotated[float, Above(0)]] | None = None,
    default_sigma: Annotated[float, Above(0)] | None = None,
  ):
    """Chooses the people.

    Args:
      of: config of the source of the images.
      boxes: 'truth', the annotated boxes; or a file of COCO results, whose
        image and category ids are those of the source.
      classes: names of those that count as people. Default: all that have a
        labelled keypoint, or all where there is no truth.
      min_keypoints: people with fewer labelled keypoints are left out.
      min_side: boxes of which a side is shorter, in pixels of the original
        image, are left out.
      min_score: boxes of a file with a lower score are left out.
      unmatched: boxes of a file that overlap no person by half (IoU), or whose
        person has too few keypoints: 'drop' them, for training, or 'keep' them,
        for evaluation. Where there is no truth all are kept.
      keypoint_names, keypoint_pairs, sigmas: of the keypoints, in place of what
        the data say: names, numbers that are each other's left and right, and
        COCO's tolerances, one a keypoint.
      default_sigma: tolerance of all keypoints where neither says any.

    Raises:
      ValueError: naming the option, its value and what is valid; or no person
        is left.
      FileNotFoundError: no such file or data.
    """
    config = _plain(of)
    self.images = pipeline.open_source(config, 'of')
    if isinstance(self.images, protocols.WithPeople):
      raise ValueError("of: type='people' is of people already")
    self.has_truth = (
      not isinstance(self.images, protocols.WithTruth) or self.images.has_truth
    )
    known = LabelSpace.of_source(self.images)
    skeleton = _skeleton(
      known.keypoints, keypoint_names, keypoint_pairs, sigmas
    )
    if skeleton.sigmas is None and default_sigma is not None:
      same = (float(default_sigma),) * len(skeleton.names)
      skeleton = dataclasses.replace(skeleton, sigmas=same)
    self.space = dataclasses.replace(known, keypoints=skeleton)
    self.vocabulary, self.hierarchy = known.vocabulary, known.hierarchy
    self._read_labels = arrays.reader(self.images)
    self._of_truth = boxes == TRUTH
    self.has_all_boxes = (
      self._of_truth or unmatched == 'keep' or not self.has_truth
    )
    found, self._how = self._objects()
    limits = choice.Limits(
      _chosen(classes, found, self.vocabulary),
      min_keypoints, float(min_side), float(min_score),
    )  # fmt: skip
    self._kinds = np.array(limits.labels, np.int64)
    digest = ''
    if self._of_truth:
      if found is None:
        raise ValueError(
          f'boxes={TRUTH!r}: the {len(self.images):,} images have no truth; '
          'give a file of COCO results'
        )
      self._people = choice.of_truth(found, limits)
    else:
      listed = box_file.read(
        boxes,
        true_boxes.image_numbers(self.images),
        known.external_ids or range(1, known.num_classes + 1),
        known.names,
      )
      digest = listed.digest
      self._people = choice.of_file(listed, found, limits, unmatched == 'keep')
    self._boxes_from = boxes
    if not len(self._people.image):
      raise ValueError(f'boxes={boxes!r}: nobody is left: {self._report()}')
    options = [
      boxes == TRUTH, digest, list(limits.labels), min_keypoints,
      limits.min_side, limits.min_score, unmatched, skeleton.to_json(),
    ]  # fmt: skip
    self._options = json.dumps(options)

  def _objects(self) -> tuple[protocols.Objects | None, str]:
    """(what there is in the images, how that was found); None: no truth.

    Raises:
      ValueError: no object has a keypoint.
    """
    if not self.has_truth:
      return None, ''
    found, how = all_objects.of(self.images)
    if not (found.num_keypoints > 0).any():
      raise ValueError(
        f'of: none of the {len(found.image):,} objects of the source has a '
        'labelled keypoint; of COCO, the task must be keypoints or both'
      )
    return found, how

  def __len__(self) -> int:
    return len(self._people.image)

  def _image(self, index: int) -> int:
    if not 0 <= index < len(self):
      raise IndexError(f'person {index} of {len(self)}')
    return int(self._people.image[index])

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The record of the image with 'person', 'person_box', 'person_score'.

    Raises:
      BadExample: the image's, or keypoints are not as the data say.
    """
    example = self.images[self._image(index)]
    person = self._place(example, int(self._people.person[index]))
    box, seen = self._people.boxes[index], person != choice.NOBODY
    if self._of_truth and seen and 'box_numbers' in example:
      box = np.asarray(example['boxes'][person], np.float32)
    return example | {
      'key': self.key(index),
      'person': np.int32(person),
      'person_box': box,
      'person_score': self._people.scores[index],
    }

  def _place(self, example: Mapping[str, Any], number: int) -> int:
    """The place of a person's box among those of the record.

    Who is hidden behind others is nobody: no keypoint of theirs is known.
    """
    keypoints = example.get('keypoints')
    if keypoints is not None and len(keypoints):
      skeleton = self.space.keypoints
      assert skeleton is not None
      try:
        all_objects.check_keypoints(keypoints, len(example['boxes']))
      except ValueError as error:
        raise BadExample(str(error)) from None
      if keypoints.shape[1] != len(skeleton.names):
        raise BadExample(
          f'{keypoints.shape[1]} keypoints, the data have '
          f'{len(skeleton.names)} names of them'
        )
    if number == choice.NOBODY:
      return number
    if 'box_numbers' in example:
      places = np.flatnonzero(example['box_numbers'] == number)
      return int(places[0]) if len(places) else choice.NOBODY
    if number >= len(example.get('boxes', ())):
      raise BadExample(f'object {number} of the image is not in its record')
    return number

  def key(self, index: int) -> str:
    """That of the image, '#' and the number of the box in it."""
    image = self._image(index)
    return f'{self.images.key(image)}#{self._people.number[index]}'

  def labels(self, index: int) -> np.ndarray:
    """int32 [n] labels of the image."""
    return self._read_labels(self._image(index))

  def image_index(self) -> np.ndarray:
    """int64 [n] record of `images` that each person is in."""
    return self._people.image

  def kinds(self) -> np.ndarray:
    """int64 [k] labels of the objects that count as people, ascending."""
    return self._kinds

  def sizes(self) -> np.ndarray | None:
    """int32 [n, 2] height and width of the stored images, where known."""
    images = self.images
    sized = isinstance(images, protocols.WithSizes)
    return self._of_images(images.sizes() if sized else None)

  def image_ids(self) -> np.ndarray | None:
    """int64 [n] numbers of the images where they come from, where known."""
    images = self.images
    numbered = isinstance(images, protocols.WithImageIds)
    return self._of_images(images.image_ids() if numbered else None)

  def _of_images(self, whole: np.ndarray | None) -> np.ndarray | None:
    return None if whole is None else whole[self._people.image]

  def fingerprint(self) -> str:
    """Changes with the images, the options and the file of boxes."""
    text = f'{self.images.fingerprint()}\n{self._options}'
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

  def report_lines(self) -> list[str]:
    """Of the images, and how many people there are and are not."""
    images = self.images
    told = isinstance(images, protocols.Reporting)
    lines = list(images.report_lines()) if told else []
    lines += [self._how] if self._how else []
    return [*lines, self._report()]

  def _report(self) -> str:
    people = self._people
    num = len(np.unique(people.image))
    source = '' if self._of_truth else f' by {self._boxes_from}'
    text = (
      f'{len(people.image):,} people{source} in {num:,} of '
      f'{len(self.images):,} images'
    )
    nobodies = int((people.person == choice.NOBODY).sum())
    if nobodies and self.has_truth:
      text += f', {nobodies:,} of them of no person of the truth'
    out = [f'{n:,} {reason}' for reason, n in people.left_out.items()]
    return f'{text}; left out: {", ".join(out) or "none"}'


def _plain(config: Any) -> dict[str, Any]:
  return config.to_dict() if hasattr(config, 'to_dict') else dict(config)


def _skeleton(
  known: Skeleton | None,
  names: Sequence[str] | None,
  pairs: Sequence[tuple[int, int]] | None,
  sigmas: Sequence[float] | None,
) -> Skeleton:
  """The keypoints of the data, or as options have them.

  Raises:
    ValueError: they do not fit each other, or nothing says them.
  """
  if known is not None and known.names:
    if names is not None and len(names) != len(known.names):
      raise ValueError(
        f'keypoint_names={list(names)}: {len(names)} names, the data have '
        f'{len(known.names)} keypoints: {", ".join(known.names)}'
      )
    names = known.names if names is None else names
    sigmas = known.sigmas if sigmas is None else sigmas
  if names is None:
    raise ValueError(
      'keypoint_names=None, but the data do not say what their keypoints are: '
      'name them, in their order'
    )
  if pairs is None:
    pairs = () if known is None else known.pairs
  num = len(names)
  used = [i for pair in pairs for i in pair]
  if len(set(used)) < len(used) or max(used, default=0) >= num:
    raise ValueError(
      f'keypoint_pairs={[list(p) for p in pairs]} must name each of the '
      f'keypoints 0 to {num - 1} at most once'
    )
  if sigmas is not None and len(sigmas) != num:
    raise ValueError(
      f'sigmas={list(sigmas)}: {len(sigmas)} numbers for {num} keypoints'
    )
  return Skeleton(
    tuple(names),
    tuple((int(a), int(b)) for a, b in pairs),
    None if sigmas is None else tuple(map(float, sigmas)),
  )


def _chosen(
  classes: Sequence[str] | None, found: protocols.Objects | None, known: Any
) -> list[int]:
  """Label ids of the people.

  Raises:
    ValueError: an unknown name.
  """
  if classes is not None:
    try:
      return sorted(known.index(name) for name in classes)
    except ValueError as error:
      raise ValueError(f'classes={list(classes)}: {error}') from None
  if found is None:
    return list(range(len(known)))
  return np.unique(found.labels[found.num_keypoints > 0]).tolist()
