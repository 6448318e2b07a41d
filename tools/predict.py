"""Labels for images, or masks of them, by the model of a checkpoint.

  python -m tools.predict --checkpoint RUN --input photos/ --output out/
  python -m tools.predict --checkpoint RUN --input a.jpg b.png --output out/ \\
      --top 5 --vocabulary names.jsonl

Writes predictions.jsonl, a line an image in the order of the input, and
predictions.html, a sheet of some of them. Images that cannot be used are listed
in bad_images.jsonl.

Of a classifier: labels with scores. These are probabilities: over all classes
for single-label models (softmax), one by one for multi-label ones (sigmoid).

Of a segmentation: masks/NAME.png, the class of every pixel at the size of the
image file, as a palette PNG of VOC's colours; overlays/NAME.jpg, the same over
the image. NAME is the path below the folder given, without suffix; the second
of the same NAME is NAME_2.

Of a detector: boxes with classes and scores, in pixels of the image file:
detections.json, all of them as COCO's results, and overlays/NAME.jpg.

Of a pose net: keypoints of the people in boxes that --detector finds, a
checkpoint of a detector, or that --boxes lists, COCO results: poses.json, all
of them as COCO's keypoint results, and overlays/NAME.jpg.

A checkpoint of several tasks (docs/joint-training.md) needs --part, the name of
one of them.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from input_pipeline.files import atomic

from .cli import command, output_folder

_PREDICTIONS = 'predictions.jsonl'
_PAGE = 'predictions.html'
_BAD = 'bad_images.jsonl'
_SHOWN_ERRORS = 5
# Kind of prediction -> what the files have of it.
_GIVES = {
  'classes': 'labels', 'mask': 'masks', 'boxes': 'boxes', 'pose': 'poses',
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.predict'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--checkpoint', required=True, help='workdir of a run, or a checkpoint')
  add('--input', required=True, nargs='+', help='images, folders of images')
  add('--output', required=True, help='folder for what is written')
  add('--top', type=int, help='labels an image; default: 5')
  add(
    '--score', type=float,
    help='boxes or poses of a lower score are in detections.json or poses.json '
    'alone; default: 0.3',
  )  # fmt: skip
  add(
    '--no_overlays', action='store_true',
    help='masks or boxes alone; the page has its overlays all the same',
  )  # fmt: skip
  add(
    '--sheet', type=int, default=100,
    help='images on the page, evenly spread; 0: no page; default: %(default)s',
  )  # fmt: skip
  add(
    '--vocabulary',
    help='names of the classes (.jsonl, .txt), without the background; '
    'default: those of the training data, where these are here',
  )  # fmt: skip
  add('--detector', help='poses: workdir or checkpoint that finds the people')
  add('--boxes', help='poses: results JSON with the boxes of the people')
  add(
    '--people',
    help="poses: which class are people; default: 'person' of a detector that "
    'has it, or all',
  )  # fmt: skip
  add(
    '--batch_size', type=int,
    help='default: 64; of masks 8, of boxes 4, of poses 16',
  )  # fmt: skip
  add(
    '--workers', type=int, default=0,
    help='decode processes; 0: threads of this one; default: %(default)s',
  )  # fmt: skip
  command.add_part(p)
  command.add_trust(p)
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(lambda: predict(args))


def predict(args: argparse.Namespace) -> None:
  """Runs the command.

  Raises:
    FileNotFoundError: no checkpoint, or no such image or folder.
    ValueError: an option that cannot be, or none of the images can be used.
  """
  for name, least in (('top', 1), ('sheet', 0), ('workers', 0)):
    value = getattr(args, name)
    if value is not None and value < least:
      raise ValueError(f'--{name}={value} must be at least {least}')
  if args.score is not None and not 0 <= args.score <= 1:
    raise ValueError(f'--score={args.score} must be in [0, 1]')
  from .predictions import image_list

  found = image_list.find(args.input)
  output_folder.refuse_inside(args.output, args.input)

  from absl import logging

  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it reads
  num = len(found.source)
  predictor = _predictor(args, found)
  output_folder.make(args.output)
  folder = pathlib.Path(args.output)
  with atomic.writing_text(folder / _PREDICTIONS) as file:
    for line in predictor.lines(found):
      file.write(json.dumps(line, ensure_ascii=False) + '\n')
    bad = predictor.bad
    _write_bad(folder / _BAD, bad)
    if len(bad) == num:  # here, so that no file without a line is left
      key, reason = next(iter(bad.items()))
      raise ValueError(
        f'none of the {num:,} images can be used; the first is {key}: {reason}'
      )
  print(
    f'{folder / _PREDICTIONS}: {num - len(bad):,} images, {predictor.summary}'
  )
  if found.num_others:
    print(f'{found.num_others:,} files without an image suffix passed over')
  if bad:
    print(f'{len(bad):,} cannot be used ({folder / _BAD}):')
    for key, reason in list(bad.items())[:_SHOWN_ERRORS]:
      print(f'  {key}: {reason}')
  if args.sheet:
    num_shown = predictor.write_page(str(folder / _PAGE), found.source)
    print(f'{folder / _PAGE}: {num_shown:,} of them')


def _write_bad(path: pathlib.Path, bad: Mapping[str, str]) -> None:
  with atomic.writing_text(path) as file:
    for key, reason in bad.items():
      entry = {'image': key, 'reason': reason}
      file.write(json.dumps(entry, ensure_ascii=False) + '\n')


def _predictor(args: argparse.Namespace, found: Any) -> Any:
  """What predicts, by the task of the checkpoint.

  Args:
    args: of the command.
    found: image_list.Found, the images of the input.
  """
  from big_vision_like.inference import stored_model
  from big_vision_like.pages import prediction_sheet

  model = stored_model.load(
    args.checkpoint, '--checkpoint', trusted=args.trust, part=args.part
  )
  classes = model.classes(args.vocabulary, '--vocabulary')
  if classes is None:
    print(f'{model.why_unnamed}: give --vocabulary')
  options: dict[str, Any] = dict(
    on_sheet=prediction_sheet.spread(len(found.source), args.sheet),
    workers=args.workers,
  )
  task = model.config.task.type
  _, shown = model.prediction(*_GIVES)
  gives = _GIVES[shown.kind]
  if args.top is not None and shown.kind != 'classes':
    raise ValueError(f'--top: the task {task!r} gives {gives}, no labels')
  if args.score is not None and shown.kind not in ('boxes', 'pose'):
    raise ValueError(f'--score: the task {task!r} gives {gives}, no boxes')
  for flag in ('detector', 'boxes', 'people'):
    if getattr(args, flag) is not None and shown.kind != 'pose':
      raise ValueError(f'--{flag}: the task {task!r} gives {gives}, no poses')
  if shown.kind == 'pose':
    from .predictions import people, poses

    options['batch_size'] = _or(args.batch_size, poses.BATCH_SIZE)
    score = poses.SCORE if args.score is None else args.score
    return poses.Poses(
      model, *people.find(args, found), args.output,
      score=score, overlays=not args.no_overlays, **options,
    )  # fmt: skip
  if shown.kind == 'boxes':
    from .predictions import boxes

    options['batch_size'] = _or(args.batch_size, boxes.BATCH_SIZE)
    score = boxes.SCORE if args.score is None else args.score
    return boxes.Boxes(
      model, classes, args.output,
      score=score, overlays=not args.no_overlays, **options,
    )  # fmt: skip
  if shown.kind == 'mask':
    from .predictions import masks

    options['batch_size'] = _or(args.batch_size, masks.BATCH_SIZE)
    return masks.Masks(
      model, classes, args.output, overlays=not args.no_overlays, **options
    )
  from .predictions import labels

  if args.no_overlays:
    raise ValueError(f'--no_overlays: the task {task!r} gives labels, no masks')
  options['batch_size'] = _or(args.batch_size, labels.BATCH_SIZE)
  top = _or(args.top, labels.TOP)
  return labels.Labels(model, classes, top=top, **options)


def _or(given: int | None, default: int) -> int:
  return default if given is None else given


if __name__ == '__main__':
  sys.exit(main())
