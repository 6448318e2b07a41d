"""Figures of detections from files, of any program's detections.

  python -m tools.score --type boxes --truth instances_val2017.json \\
      --detections results.json --output score.json
  python -m tools.score --type voc --truth detect:VOCdevkit:test \\
      --detections results.json --output score.json

boxes: COCO's figures; the truth is a COCO JSON or any data set with boxes.
voc: VOC's figures at an IoU of a half; the truth is any data set with boxes,
difficult ones included, or a COCO JSON.

Detections are COCO's results, a list of {image_id, category_id, bbox: [x, y,
width, height], score}. Where the truth is a data set, image_id (or file_name)
is the name of the image file and category_id counts the classes from 1; the
entry may have `category`, the name, instead.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from input_pipeline.files import atomic

from .cli import command

TYPES = ('boxes', 'voc')
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
  from big_vision_like.metrics import coco_detection, voc_detection

  from .scoring import coco_files, record_boxes

  if args.inclusive and args.type != 'voc':
    raise ValueError('--inclusive is for --type voc')
  ignored = {'boxes': 'box_crowd', 'voc': 'box_difficult'}[args.type]
  of_file = args.truth.endswith('.json') and os.path.isfile(args.truth)
  if of_file:
    known = coco_files.truth(args.truth)
  else:
    known = record_boxes.truth(
      args.truth, ignored, '--truth', trusted=args.trust
    )
  found = coco_files.results(args.detections, known, by_name=not of_file)
  if args.type == 'boxes':
    figures = coco_detection.figures(known.truth, found, known.names)
  else:
    figures = voc_detection.figures(
      known.truth, found, known.names, inclusive=args.inclusive
    )
  if not figures:
    raise ValueError(f'--truth {args.truth}: no box in it counts')
  counts = {
    'num_images': len(known.images),
    'num_boxes': int((~known.truth.ignored).sum()),
    'num_detections': len(found.images),
  }
  _show(figures, counts)
  per_class = [f'{_OF_CLASS[args.type]}{name}' for name in known.names]
  summary = coco_detection.FIGURES if args.type == 'boxes' else ()
  missing = [key for key in (*summary, *per_class) if key not in figures]
  if missing:
    print(f'no box counts for {", ".join(missing)}: left out')
  result = {**figures, **counts}
  if args.output:
    atomic.write_json(args.output, result)
  return result


def _show(figures: dict[str, float], counts: dict[str, Any]) -> None:
  print(', '.join(f'{n:,} {k.removeprefix("num_")}' for k, n in counts.items()))
  of_class = tuple(_OF_CLASS.values())
  for name, value in figures.items():
    indent = '  ' if name.startswith(of_class) else ''
    print(f'{indent}{name:<24} {value:6.2f}')


if __name__ == '__main__':
  sys.exit(main())
