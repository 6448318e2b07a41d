"""Figures of detections from files, of any program's detections.

  python -m tools.score --type boxes --truth instances_val2017.json \\
      --detections results.json --output score.json
  python -m tools.score --type voc --truth detect:VOCdevkit:test \\
      --detections results.json --output score.json
  python -m tools.score --type keypoints --output score.json \\
      --truth person_keypoints_val2017.json --detections results.json

boxes: COCO's figures; the truth is a COCO JSON or any data set with boxes.
voc: VOC's figures at an IoU of a half; the truth is any data set with boxes,
difficult ones included, or a COCO JSON.
keypoints: COCO's figures of poses; the truth is a COCO JSON or any data set
with keypoints. How far off each keypoint may be is known of COCO's 17 of
persons and of data sets that say it; otherwise --sigmas tells it.

Detections are COCO's results, a list of {image_id, category_id, bbox: [x, y,
width, height], score}; poses have keypoints: [x, y, v, ...] in place of the
box. Where the truth is a data set, image_id (or file_name) is the name of the
image file and category_id counts the classes from 1; the entry may have
`category`, the name, instead.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

from input_pipeline.files import atomic

from .cli import command

TYPES = ('boxes', 'voc', 'keypoints')
_OF_CLASS = {'boxes': 'ap/', 'voc': 'ap50/'}  # begin its figures


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.score'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--type', required=True, choices=TYPES)
  add(
    '--truth', required=True, help='COCO JSON, or a data set: detect:DIR:SPLIT'
  )
  add('--detections', required=True, help='results JSON')
  add('--output', help='JSON file for the figures')
  add(
    '--inclusive', action='store_true',
    help='voc: corners are pixels that belong to the box, as in its devkit',
  )  # fmt: skip
  add(
    '--sigmas',
    help='keypoints: tolerance of all, or of each, as .05 or .026,.025,...',
  )
  command.add_trust(p)
  return p


def main(argv: Sequence[str] | None = None) -> int:
  args = parser().parse_args(argv)
  return command.run(lambda: score(args))


def score(args: argparse.Namespace) -> dict[str, float]:
  """Prints the figures, writes them, and returns them.

  Raises:
    FileNotFoundError, ValueError: no such file, or not such a file.
  """
  if args.inclusive and args.type != 'voc':
    raise ValueError('--inclusive is for --type voc')
  if args.sigmas is not None and args.type != 'keypoints':
    raise ValueError('--sigmas is for --type keypoints')
  scored = _poses(args) if args.type == 'keypoints' else _boxes(args)
  if not scored.figures:
    raise ValueError(f'--truth {args.truth}: no {scored.what} in it counts')
  _show(scored.figures, scored.counts)
  missing = [key for key in scored.expected if key not in scored.figures]
  if missing:
    print(f'no {scored.what} counts for {", ".join(missing)}: left out')
  result = {**scored.figures, **scored.counts}
  if args.output:
    atomic.write_json(args.output, result)
  return result


@dataclasses.dataclass(frozen=True)
class _Scored:
  """Figures, counts, names of all figures that there may be, of what."""

  figures: dict[str, float]
  counts: dict[str, int]
  expected: tuple[str, ...]
  what: str


def _boxes(args: argparse.Namespace) -> _Scored:
  from big_vision_like.metrics import coco_detection, voc_detection

  from .scoring import coco_files, record_truth

  ignored = {'boxes': 'box_crowd', 'voc': 'box_difficult'}[args.type]
  if of_file := _of_file(args.truth):
    known = coco_files.truth(args.truth)
  else:
    known = record_truth.boxes(
      args.truth, ignored, '--truth', trusted=args.trust
    )
  found = coco_files.results(args.detections, known, by_name=not of_file)
  if args.type == 'boxes':
    figures = coco_detection.figures(known.truth, found, known.names)
  else:
    figures = voc_detection.figures(
      known.truth, found, known.names, inclusive=args.inclusive
    )
  counts = {
    'num_images': len(known.images),
    'num_boxes': int((~known.truth.ignored).sum()),
    'num_detections': len(found.images),
  }
  per_class = [f'{_OF_CLASS[args.type]}{name}' for name in known.names]
  summary = coco_detection.FIGURES if args.type == 'boxes' else ()
  return _Scored(figures, counts, (*summary, *per_class), 'box')


def _poses(args: argparse.Namespace) -> _Scored:
  from big_vision_like.metrics import coco_keypoints

  from .scoring import coco_keypoint_files, record_truth, sigmas

  if of_file := _of_file(args.truth):
    known = coco_keypoint_files.truth(args.truth)
  else:
    known = record_truth.poses(args.truth, '--truth', trusted=args.trust)
  found = coco_keypoint_files.results(
    args.detections, known, by_name=not of_file
  )
  figures = coco_keypoints.figures(
    known.truth, found, known.names, sigmas.choose(args.sigmas, known)
  )
  counts = {
    'num_images': len(known.images),
    'num_people': int((~known.truth.ignored).sum()),
    'num_detections': len(found.images),
  }
  return _Scored(figures, counts, coco_keypoints.FIGURES, 'pose')


def _of_file(truth: str) -> bool:
  return truth.endswith('.json') and os.path.isfile(truth)


def _show(figures: dict[str, float], counts: dict[str, Any]) -> None:
  print(', '.join(f'{n:,} {k.removeprefix("num_")}' for k, n in counts.items()))
  of_class = tuple(_OF_CLASS.values())
  for name, value in figures.items():
    indent = '  ' if name.startswith(of_class) else ''
    print(f'{indent}{name:<24} {value:6.2f}')


if __name__ == '__main__':
  sys.exit(main())
