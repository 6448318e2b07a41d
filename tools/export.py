"""A checkpoint's model for other programs: timm's weights, or StableHLO.

  python -m tools.export --checkpoint RUN --format safetensors --output DIR
  python -m tools.export --checkpoint RUN --format stablehlo --output DIR

safetensors: model.safetensors, the weights of a ResNet under timm's names.
stablehlo: model.stablehlo, the program with its weights: uint8 images
[b, H, W, 3] -> logits [b, C] and features [b, D], for any b, on CPU, NVIDIA
GPU and TPU; jax.export reads it without this code base. Of a segmentation the
logits are [b, h, w, C], on the grid of features. Of a detector it takes images
on their canvas, their sizes there and those of the files -> boxes, scores,
labels and mask, suppression included; of a pose net crops and where they are in
the image, crop_to_image [b, 2, 3] -> keypoints and scores.

Either is read back and compared with the model before it gets its name. Beside
it, model.FORMAT.json says what goes in and comes out, and vocabulary.jsonl has
the names of the classes, where they are known (docs/weights.md).

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from input_pipeline.files import atomic

from .cli import command, output_folder

FORMATS = ('safetensors', 'stablehlo')
_VOCABULARY = 'vocabulary.jsonl'


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.export'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--checkpoint', required=True, help='workdir of a run, or a checkpoint')
  add('--output', required=True, help='folder for the files')
  add('--format', required=True, choices=FORMATS)
  add(
    '--vocabulary',
    help='names of the classes (.jsonl, .txt); default: those of the training '
    'data, where these are here',
  )  # fmt: skip
  command.add_part(p)
  command.add_trust(p)
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(
    lambda: export(
      args.checkpoint,
      args.output,
      args.format,
      args.vocabulary,
      trusted=args.trust,
      part=args.part,
    )
  )


def export(
  checkpoint: str,
  output: str,
  kind: str,
  vocabulary: str | None = None,
  *,
  trusted: bool = False,
  part: str | None = None,
) -> dict[str, Any]:
  """Writes one format; returns the content of model.FORMAT.json.

  Args:
    checkpoint: workdir of a run, or the folder of one checkpoint.
    output: folder; files of the same names in it are replaced.
    kind: one of FORMATS.
    vocabulary: file of the classes' names.
    trusted: whether the checkpoint may name modules of others.
    part: of a joint task, the one that is exported; None of other tasks.

  Raises:
    FileNotFoundError: no checkpoint there.
    ValueError: the format cannot express the model, its weights are not
      finite, or what was written does not compute what the model does.
  """
  import jax
  import numpy as np
  from absl import logging

  from big_vision_like.checkpoints import torch_weights
  from big_vision_like.inference import stored_model
  from big_vision_like.parallel import mesh
  from input_pipeline import ops as example_ops
  from input_pipeline import pipeline
  from input_pipeline.ops.context import OpContext
  from input_pipeline.prepared import manifest

  from .weights import export_safetensors, export_stablehlo

  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it reads
  model = stored_model.load(
    checkpoint, '--checkpoint', trusted=trusted, part=part
  )
  classes = model.classes(vocabulary, '--vocabulary')
  ops = _ops(model)
  spec = pipeline.example_spec(example_ops.build(ops, OpContext()))
  state = model.state(jax.sharding.SingleDeviceSharding(jax.devices()[0]))
  # Compiled programs may hide a NaN: max(NaN, 0) need not be one.
  arrays = jax.tree_util.tree_leaves_with_path((state.params, state.extra))
  torch_weights.check_finite(
    {mesh.path_name(path[1:]): np.asarray(array) for path, array in arrays},
    f'--checkpoint={checkpoint!r}',
  )
  write: Callable[..., Mapping[str, Any]] = {
    'safetensors': export_safetensors.write,
    'stablehlo': export_stablehlo.write,
  }[kind]

  folder = pathlib.Path(output)
  output_folder.make(output)
  name = f'model.{kind}'
  with atomic.renamed(
    folder / name, suffix='.unchecked', unique=False
  ) as unchecked:
    found = write(pathlib.Path(unchecked), model, state, spec['image'].shape)
  file = manifest.describe_file(str(folder), name)
  content = {
    'format': kind,
    'file': name,
    'bytes': file.bytes,
    'sha256': file.sha256,
    'num_classes': model.space.num_classes,
    **_of_kind(model),
    'image_size': list(spec['image'].shape[:2]),
    'preprocessing': ops,
    'step': model.step,
    **({'part': part} if part else {}),
    'vocabulary': _VOCABULARY if classes else None,
    **found,
  }
  if classes:
    classes.save(folder / _VOCABULARY)
  atomic.write_json(folder / f'{name}.json', content)
  print(
    f'{folder / name}: {file.bytes / 1e6:,.1f} MB, {content["num_classes"]:,} '
    f'classes{"" if classes else " (names not known: give --vocabulary)"}\n'
    f'read back: {_differences(content["largest_difference"])}'
  )
  if 'note' in found:
    print(found['note'])
  return content


def _has(model: Any, kind: str) -> bool:
  """Whether the task has predictions of this kind."""
  return any(p.kind == kind for p in model.task.predictions.values())


def _ops(model: Any) -> list[dict[str, Any]]:
  """Op configs from an encoded image to what the file takes."""
  from big_vision_like.inference import detector, embedder, poses

  if _has(model, 'boxes'):
    return detector.default_ops(model.config)
  if _has(model, 'pose'):
    return poses.default_ops(model)
  return embedder.deterministic_ops(model.config.input.ops)


def _of_kind(model: Any) -> dict[str, Any]:
  """What the outputs mean."""
  if _has(model, 'boxes'):
    return {'boxes': 'y0, x0, y1, x1 in pixels of the original image'}
  if _has(model, 'pose'):
    from big_vision_like.inference import poses

    return {
      'crop_to_image': '(y, x) of the image = it @ (y, x, 1) of the crop',
      'keypoints': 'y, x in pixels of the image, confidence',
      'keypoint_names': list(poses.skeleton(model).names),
    }
  scores = {'scores': model.scores}
  if _has(model, 'mask'):
    return {**scores, 'background': model.background}
  return scores


def _differences(largest: Mapping[str, Mapping[str, float]]) -> str:
  """One line on how far the file is from the model."""
  return '; '.join(
    f'{name} differ by at most {row["difference"]:.3g}, the largest is '
    f'{row["largest"]:.3g}'
    for name, row in largest.items()
  )


if __name__ == '__main__':
  sys.exit(main())
