"""Every plug-in held against its protocol; `make types` compares them.

A plug-in stands in the table of its kind, under its module; test_protocols.py
fails where one does not. What a plug-in offers besides has tables of its own.
"""

from collections.abc import Callable
from typing import Concatenate, Protocol

from big_vision_like import protocols
from big_vision_like.models import resnet
from big_vision_like.tasks import (
  detection,
  joint,
  multilabel,
  pose,
  segmentation,
  softmax,
)
from evaluators import (
  classification,
  coco_detection,
  coco_keypoints,
  fewshot,
  knn,
  linear_probe,
  multilabel_map,
  semantic_segmentation,
  voc_detection,
)
from evaluators.harness.context import EvalContext
from input_pipeline.image_sets.boxed_files import BoxedFiles
from input_pipeline.labels.hierarchy import Hierarchy
from input_pipeline.labels.space import LabelSpace, Skeleton
from input_pipeline.labels.subset import Subset
from input_pipeline.labels.vocabulary import Vocabulary
from input_pipeline.ops import (
  canvas,
  crop_person,
  decode,
  feature_map,
  geometry,
  labels,
  noise,
  targets,
)
from input_pipeline.ops.context import OpContext
from input_pipeline.publishers.coco import source as coco
from input_pipeline.publishers.open_images import source as open_images
from input_pipeline.publishers.voc import source as voc_kit
from input_pipeline.sources import coco as coco_files
from input_pipeline.sources import (
  detect,
  feature_maps,
  folder,
  masks,
  people,
  records,
  synthetic,
  table,
  tfds,
  voc,
  webdataset,
  yolo,
)
from tests.fixtures import (
  box_source,
  broken_evaluator,
  colour_model,
  faulty_evaluator,
  flaky_source,
  full_board,
  mask_files,
  mask_source,
  people_of,
  pose_source,
  scripted_evaluator,
  secret_source,
  small_net,
  stalling_source,
  stepping_clock,
  tiny_source,
)
from tests.fixtures.my_package import (
  my_evaluator,
  my_model,
  my_ops,
  my_source,
  my_streams_task,
  my_task,
)


class DeclaredOp(protocols.Declaring, protocols.Deterministic, Protocol):
  """An op that says all of itself, as those of the project do."""


class LabelledSource(protocols.Source, Protocol):
  """A source, as protocols.py cannot say it: that imports nothing of ours."""

  @property
  def vocabulary(self) -> Vocabulary: ...
  @property
  def hierarchy(self) -> Hierarchy | None: ...


class WithSkeleton(protocols.WithKeypoints, Protocol):
  """What a source says of keypoints, likewise."""

  @property
  def keypoints(self) -> Skeleton | None: ...


# How they are built; the rest of the arguments are options.
SourceClass = Callable[..., LabelledSource]
ModelClass = Callable[..., protocols.Backbone]
TaskClass = Callable[
  Concatenate[protocols.Backbone, LabelSpace, ...], protocols.Task
]
EvaluatorClass = Callable[
  Concatenate[dict[str, protocols.Prediction], EvalContext, ...],
  protocols.Evaluator,
]
OpClass = Callable[Concatenate[OpContext, ...], DeclaredOp]

SOURCES: dict[str, SourceClass] = {
  'input_pipeline.image_sets.boxed_files': BoxedFiles,
  'input_pipeline.labels.subset': Subset,
  'input_pipeline.publishers.coco.source': coco.Source,
  'input_pipeline.publishers.open_images.source': open_images.Source,
  'input_pipeline.publishers.voc.source': voc_kit.Source,
  'input_pipeline.sources.coco': coco_files.Source,
  'input_pipeline.sources.detect': detect.Source,
  'input_pipeline.sources.feature_maps': feature_maps.Source,
  'input_pipeline.sources.folder': folder.Source,
  'input_pipeline.sources.masks': masks.Source,
  'input_pipeline.sources.people': people.Source,
  'input_pipeline.sources.records': records.Source,
  'input_pipeline.sources.synthetic': synthetic.Source,
  'input_pipeline.sources.table': table.Source,
  'input_pipeline.sources.tfds': tfds.Source,
  'input_pipeline.sources.voc': voc.Source,
  'input_pipeline.sources.webdataset': webdataset.Source,
  'input_pipeline.sources.yolo': yolo.Source,
  'tests.fixtures.box_source': box_source.Source,
  'tests.fixtures.flaky_source': flaky_source.Source,
  'tests.fixtures.full_board': full_board.Source,
  'tests.fixtures.secret_source': secret_source.Source,
  'tests.fixtures.stepping_clock': stepping_clock.Source,
  'tests.fixtures.mask_files': mask_files.Source,
  'tests.fixtures.mask_source': mask_source.Source,
  'tests.fixtures.my_package.my_source': my_source.Source,
  'tests.fixtures.people_of': people_of.Source,
  'tests.fixtures.pose_source': pose_source.Source,
  'tests.fixtures.stalling_source': stalling_source.Source,
  'tests.fixtures.tiny_source': tiny_source.Source,
}
MODELS: dict[str, ModelClass] = {
  'big_vision_like.models.resnet': resnet.Model,
  'tests.fixtures.colour_model': colour_model.Model,
  'tests.fixtures.my_package.my_model': my_model.Model,
  'tests.fixtures.small_net': small_net.Model,
}
TASKS: dict[str, TaskClass] = {
  'big_vision_like.tasks.detection': detection.Task,
  'big_vision_like.tasks.joint': joint.Task,
  'big_vision_like.tasks.multilabel': multilabel.Task,
  'big_vision_like.tasks.pose': pose.Task,
  'big_vision_like.tasks.segmentation': segmentation.Task,
  'big_vision_like.tasks.softmax': softmax.Task,
  'tests.fixtures.my_package.my_streams_task': my_streams_task.Task,
  'tests.fixtures.my_package.my_task': my_task.Task,
}
EVALUATORS: dict[str, EvaluatorClass] = {
  'evaluators.classification': classification.Evaluator,
  'evaluators.coco_detection': coco_detection.Evaluator,
  'evaluators.coco_keypoints': coco_keypoints.Evaluator,
  'evaluators.fewshot': fewshot.Evaluator,
  'evaluators.knn': knn.Evaluator,
  'evaluators.linear_probe': linear_probe.Evaluator,
  'evaluators.multilabel_map': multilabel_map.Evaluator,
  'evaluators.semantic_segmentation': semantic_segmentation.Evaluator,
  'evaluators.voc_detection': voc_detection.Evaluator,
  'tests.fixtures.broken_evaluator': broken_evaluator.Evaluator,
  'tests.fixtures.faulty_evaluator': faulty_evaluator.Evaluator,
  'tests.fixtures.my_package.my_evaluator': my_evaluator.Evaluator,
  'tests.fixtures.scripted_evaluator': scripted_evaluator.Evaluator,
}
OPS: dict[str, OpClass] = {
  'decode': decode.Decode,
  'resize': geometry.Resize,
  'resize_small': geometry.ResizeSmall,
  'resize_long': geometry.ResizeLong,
  'shrink_to_fit': geometry.ShrinkToFit,
  'random_crop': geometry.RandomCrop,
  'random_resized_crop': geometry.RandomResizedCrop,
  'center_crop': geometry.CenterCrop,
  'central_crop': geometry.CentralCrop,
  'random_flip': geometry.RandomFlip,
  'crop_person': crop_person.CropPerson,
  'pad': targets.Pad,
  'canvas': canvas.Canvas,
  'image_size': targets.ImageSize,
  'decode_segmentation': targets.DecodeSegmentation,
  'full_segmentation': targets.FullSegmentation,
  'boxes': targets.Boxes,
  'labels': labels.Labels,
  'single_label': labels.SingleLabel,
  'feature_map': feature_map.FeatureMap,
  'keep': labels.Keep,
  'label_noise': noise.LabelNoise,
  'tests.fixtures.my_package.my_ops.RandomGrey': my_ops.RandomGrey,
}

# What some offer besides, by the protocol.
SPACES: list[Callable[..., protocols.WithSpace]] = [
  box_source.Source,
  feature_maps.Source,
  people.Source,
  Subset,
  people_of.Source,
  pose_source.Source,
]
MASKS: list[Callable[..., protocols.WithMasks]] = [
  mask_source.Source,
  masks.Source,
  records.Source,
  segmentation.Task,
  Subset,
  synthetic.Source,
  voc_kit.Source,
]
KEYPOINTS: list[Callable[..., WithSkeleton]] = [
  coco.Source,
  records.Source,
  synthetic.Source,
  pose_source.Source,
]
EXTERNAL_IDS: list[Callable[..., protocols.WithExternalIds]] = [
  box_source.Source,
  coco.Source,
  records.Source,
  pose_source.Source,
]
TRUTH: list[Callable[..., protocols.WithTruth]] = [
  box_source.Source,
  coco.Source,
  feature_maps.Source,
  people.Source,
  records.Source,
  Subset,
  pose_source.Source,
]
SIZES: list[Callable[..., protocols.WithSizes]] = [
  BoxedFiles,
  coco.Source,
  feature_maps.Source,
  people.Source,
  records.Source,
  Subset,
  synthetic.Source,
]
IMAGE_IDS: list[Callable[..., protocols.WithImageIds]] = [
  box_source.Source,
  coco.Source,
  feature_maps.Source,
  people.Source,
  records.Source,
  Subset,
  pose_source.Source,
]
OBJECTS: list[Callable[..., protocols.WithObjects]] = [
  coco.Source,
  records.Source,
  Subset,
  synthetic.Source,
]
PEOPLE: list[Callable[..., protocols.WithPeople]] = [
  people.Source,
  people_of.Source,
]
COMPUTED_BY: list[Callable[..., protocols.ComputedBy]] = [
  feature_maps.Source,
  Subset,
]
FROZEN_MAPS: list[Callable[..., protocols.WithFrozenMap]] = [detection.Task]
LABEL_READERS: list[Callable[..., protocols.LabelReader]] = [
  BoxedFiles,
  coco.Source,
  feature_maps.Source,
  folder.Source,
  mask_files.Source,
  my_source.Source,
  open_images.Source,
  people.Source,
  records.Source,
  Subset,
  synthetic.Source,
  table.Source,
  tfds.Source,
  tiny_source.Source,
  webdataset.Source,
]
LABEL_INDEXED: list[Callable[..., protocols.LabelIndexed]] = [
  folder.Source,
  records.Source,
  Subset,
  table.Source,
]
HASH_ORDERED: list[Callable[..., protocols.HashOrdered]] = [
  feature_maps.Source,
  records.Source,
  Subset,
  synthetic.Source,
]
DESCRIBED: list[Callable[..., protocols.Described]] = [Subset]
REPORTING: list[Callable[..., protocols.Reporting]] = [
  BoxedFiles,
  coco.Source,
  masks.Source,
  open_images.Source,
  people.Source,
  voc_kit.Source,
  webdataset.Source,
  records.Source,
  Subset,
]
WITH_EDGES: list[Callable[..., protocols.WithEdges]] = [open_images.Source]
STORED_KEYS: list[Callable[..., protocols.StoredKeys]] = [records.Source]
RECORD_READERS: list[Callable[..., protocols.RecordReader]] = [records.Source]
SIZING: list[Callable[..., protocols.Sizing]] = [
  canvas.Canvas,
  crop_person.CropPerson,
  decode.Decode,
  feature_map.FeatureMap,
  geometry.CenterCrop,
  geometry.CentralCrop,
  geometry.RandomCrop,
  geometry.RandomFlip,
  geometry.RandomResizedCrop,
  geometry.Resize,
  geometry.ResizeLong,
  geometry.ResizeSmall,
  geometry.ShrinkToFit,
  labels.Keep,
  labels.Labels,
  labels.SingleLabel,
  noise.LabelNoise,
  targets.Boxes,
  targets.DecodeSegmentation,
  targets.FullSegmentation,
  targets.ImageSize,
  targets.Pad,
]
SELECTIVE: list[Callable[..., protocols.Selective]] = [labels.Labels]
WITHOUT_CHANCE: list[protocols.WithoutChance] = [
  crop_person.CropPerson,
  geometry.RandomCrop,
  geometry.RandomFlip,
  geometry.RandomResizedCrop,
  my_ops.RandomGrey,
]
SHOWING_WHOLE: list[Callable[..., protocols.ShowingWhole]] = [
  canvas.Canvas,
  decode.Decode,
  geometry.Resize,
  geometry.ResizeLong,
  geometry.ResizeSmall,
  geometry.ShrinkToFit,
  targets.Pad,
]
FREEZING: list[Callable[..., protocols.Freezing]] = [resnet.Model]
COMPUTE_TYPES: list[Callable[..., protocols.WithComputeType]] = [resnet.Model]
CONVOLUTIONS: list[Callable[..., protocols.WithConv]] = [resnet.Model]
LAYOUTS: list[Callable[..., protocols.WithLayout]] = [
  detection.Task,
  joint.Task,
  multilabel.Task,
  my_streams_task.Task,
  my_task.Task,
  pose.Task,
  resnet.Model,
  segmentation.Task,
  softmax.Task,
]
ANCHORS: list[Callable[..., protocols.WithAnchors]] = [detection.Task]
STARTS: list[Callable[..., protocols.NeedingStart]] = [
  detection.Task,
  joint.Task,
]
PARTS: list[Callable[..., protocols.WithParts]] = [joint.Task]
