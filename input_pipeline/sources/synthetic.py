"""A synthetic stand-in for JFT-300M and FastEval14k, drawn as it is read.

Images of coloured shapes whose classes form a hierarchy, with long-tailed
counts and raw labels as noisy and incomplete as the paper's; the evaluation
splits are clean and complete (Sun et al. 2017, sections 3 and 4). Nothing is
stored: any number of images, any one of them at once. docs/synthetic-world.md.
"""

import dataclasses
import hashlib
import io
import json
from typing import Annotated, Any

import numpy as np
from PIL import Image

from big_vision_like.config.option_types import Between, OneOf
from big_vision_like.protocols import Objects
from input_pipeline.examples import annotations as annotation_fields
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.synthetic_world.options import Options
from input_pipeline.synthetic_world.render import (
  MAX_SIZE,
  MIN_SIZE,
  Rendered,
  largest_class,
  skeleton,
)
from input_pipeline.synthetic_world.scene import Scene
from input_pipeline.synthetic_world.world import World

# split -> (stream of images, raw labels?, default number of images)
SPLITS = {
  'train': ('train', True, 100_000),
  'train_clean': ('train', False, 100_000),
  'val': ('val', False, 4_000),
  'fasteval': ('fasteval', False, 4_000),
}
MAX_IMAGES = 2**40
_VERSION = 1  # of what images look like; part of the fingerprint


class Source:
  """Random access to a synthetic world.

  Splits: 'train' has raw labels; 'train_clean' the same images with all true
  labels, closed under the hierarchy; 'val' and 'fasteval' other images, clean.
  Image i is the same scene for any image_size and num_images, so a smaller
  training set is a subset of a larger one.
  """

  vocabulary: Vocabulary
  hierarchy: Hierarchy | None
  in_hash_order = True  # images are independent: any prefix is a random subset

  def __init__(
    self,
    *,
    split: Annotated[str, OneOf(tuple(SPLITS))] = 'train',
    num_images: Annotated[int, Between(1, MAX_IMAGES)] | None = None,
    image_size: Annotated[int, Between(MIN_SIZE, MAX_SIZE)] = 64,
    annotations: bool = False,
    single_label: bool = False,
    confidences: bool = False,
    negatives: Annotated[int, Between(0, 1000)] = 0,
    num_classes: int = 100,
    depth: int | None = None,
    groups: int | None = None,
    fan_out: float | None = None,
    broadest: int = 0,
    traits: int = 0,
    spread: float = 1.0,
    seed: int = 0,
    zipf: float = 1.0,
    tail: float = 0.0,
    theme: float = 0.7,
    max_objects: int = 4,
    clutter: float = 1.0,
    noise: float = 0.2,
    neighbour_noise: float = 0.8,
    coarse: float = 0.05,
    labels_per_image: float | None = None,
    recall: float | None = None,
    num_keypoints: int = 17,
  ):
    """Builds the world; under a second for 18,291 classes.

    Args:
      split: one of SPLITS.
      num_images: length; None: 100,000 for training, 4,000 for evaluation.
      image_size: side of the square images, in pixels.
      annotations: examples also hold 'boxes', 'box_labels' and 'keypoints'
        (see Rendered) of the objects that can be seen, 'instance_map', and for
        up to 254 classes 'segmentation'.
      single_label: the labels of an image are just the class with the largest
        visible area at this image_size: the world's stand-in for ImageNet.
      confidences: examples also hold 'label_conf': of raw labels as a machine
        would give them, 1 for clean ones.
      negatives: examples also hold 'negatives', up to so many labels verified
        as absent.
      num_classes ... num_keypoints: see Options in synthetic_world/options.py.

    Raises:
      ValueError: naming the option, its value and what is valid.
    """
    self.stream, self._raw, default_length = SPLITS[split]
    if num_images is None:
      num_images = default_length
    options = Options(
      num_classes=num_classes,
      depth=depth,
      groups=groups,
      fan_out=fan_out,
      broadest=broadest,
      traits=traits,
      spread=spread,
      seed=seed,
      zipf=zipf,
      tail=tail,
      theme=theme,
      max_objects=max_objects,
      clutter=clutter,
      noise=noise,
      neighbour_noise=neighbour_noise,
      coarse=coarse,
      labels_per_image=labels_per_image,
      recall=recall,
      num_keypoints=num_keypoints,
    )
    self.split = split
    self.image_size = int(image_size)
    self.annotations = annotations
    self.background = True if annotations else None  # id 0 of the masks
    self.keypoints = skeleton(int(num_keypoints)) if annotations else None
    self._single_label = single_label
    self._states = {'confidences': confidences, 'negatives': negatives}
    self._length = int(num_images)
    self.world = World(options)
    self.hierarchy = self.world.hierarchy
    kind = 'single' if single_label else 'raw' if self._raw else 'true'
    self.vocabulary = self.world.vocabulary(self._length, kind)

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, index: int) -> dict[str, Any]:
    """Draws example `index`.

    Returns:
      'image' uint8 [S, S, 3], 'labels' int32 [n] ascending, and with
      annotations 'boxes' float32 [N, 4], 'box_labels' int32 [N],
      'box_numbers' int32 [N], of the objects in the scene, 'instance_map'
      int16 [S, S], 'keypoints' float32 [N, K, 3] and
      'segmentation', a PNG: 0 background, else label id + 1; with confidences
      'label_conf' float32 [n], with negatives 'negatives' int32 [k] ascending.

    Raises:
      IndexError: index outside 0..len-1.
    """
    index = self._checked(index)
    scene = self.world.scene(index, self.stream)
    if self.annotations:
      drawn = self.world.render(scene, self.image_size)
      image, instances = drawn.image, drawn.instance_map
    else:
      drawn = None
      image, instances = self.world.image(scene, self.image_size)
    labels = self._labels(scene, index, instances)
    example = {'image': image, 'labels': labels}
    if drawn is not None:
      example |= self._annotated(drawn)
    return example | self._label_states(scene, labels, index)

  def _annotated(self, drawn: Rendered) -> dict[str, Any]:
    """The truth about the objects; those hidden are left out."""
    seen = drawn.boxes[:, 2] > drawn.boxes[:, 0]
    place = np.append(0, np.cumsum(seen) * seen).astype(np.int16)
    example: dict[str, Any] = {
      'boxes': drawn.boxes[seen],
      'box_numbers': np.flatnonzero(seen).astype(np.int32),
      'box_labels': drawn.classes[seen],
      'instance_map': place[drawn.instance_map],
      'keypoints': drawn.keypoints[seen],
    }
    if len(self.vocabulary) < annotation_fields.IGNORE:
      ids = np.append(0, drawn.classes + 1).astype(np.uint8)
      picture = Image.fromarray(ids[drawn.instance_map])
      encoded = io.BytesIO()
      picture.save(encoded, 'PNG', compress_level=1)
      example['segmentation'] = encoded.getvalue()
    return example

  def labels(self, index: int) -> np.ndarray:
    """Labels of example `index` without drawing it: int32 [n].

    With single_label it is drawn: what is largest is seen only then.
    """
    index = self._checked(index)
    return self._labels(self.world.scene(index, self.stream), index)

  def key(self, index: int) -> str:
    return f'synthetic/{self.split}/{self._checked(index):09d}'

  def sizes(self) -> np.ndarray:
    """int32 [n, 2] height and width of the images; takes no memory."""
    size = np.int32(self.image_size)
    return np.broadcast_to(size, (self._length, 2))

  def objects(self) -> Objects | None:
    """The objects of all scenes, nothing drawn; None without annotations.

    Boxes are about whole outlines, and who is hidden is here too: records
    have what can be seen. About a fifth of a millisecond an image.
    """
    if not self.annotations:
      return None
    scenes = [self.world.scene(i, self.stream) for i in range(self._length)]
    found = [self.world.objects(s, self.image_size) for s in scenes]
    counts = np.array([len(s.objects) for s in scenes])
    boxes = np.concatenate([boxes for boxes, _ in found])
    return Objects(
      image=np.repeat(np.arange(len(scenes)), counts),
      number=np.concatenate([np.arange(n, dtype=np.int32) for n in counts]),
      boxes=boxes,
      labels=np.array([t.label for s in scenes for t in s.objects], np.int32),
      crowd=np.zeros(len(boxes), bool),
      num_keypoints=np.concatenate([inside for _, inside in found]),
      area=(boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
    )

  def fingerprint(self) -> str:
    """16 hex digits of everything that decides the examples."""
    what = dataclasses.asdict(self.world.options)
    if not what['tail']:
      del what['tail']  # data from before there was one
    what.update(
      version=_VERSION,
      split=self.split,
      num_images=self._length,
      image_size=self.image_size,
      single_label=self._single_label,
    )
    what.update({k: v for k, v in self._states.items() if v})
    if self._single_label:
      what['label'] = 'largest visible area'  # once: nominal radius
    text = json.dumps(what, sort_keys=True, default=float)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

  def _labels(
    self, scene: Scene, index: int, instances: np.ndarray | None = None
  ) -> np.ndarray:
    """Labels of a scene, of which the instance map is drawn if needed."""
    if self._single_label:
      if instances is None:
        _, instances = self.world.image(scene, self.image_size)
      return np.array([largest_class(scene, instances)], np.int32)
    if self._raw:
      return self.world.raw_labels(scene, index, self.stream)
    return self.world.true_labels(scene)

  def _label_states(
    self, scene: Scene, labels: np.ndarray, index: int
  ) -> dict[str, np.ndarray]:
    """What is known besides the labels, of what the options ask for."""
    found = {}
    if self._states['confidences']:
      found['label_conf'] = np.ones(len(labels), np.float32)
      if self._raw and not self._single_label:
        found['label_conf'] = self.world.confidences(
          scene, labels, index, self.stream
        )
    if number := self._states['negatives']:
      found['negatives'] = self.world.absent_labels(
        scene, labels, number, index, self.stream
      )
    return found

  def _checked(self, index: int) -> int:
    if not 0 <= index < self._length:
      raise IndexError(
        f'synthetic/{self.split}: index {index} is outside '
        f'0..{self._length - 1}'
      )
    return int(index)
