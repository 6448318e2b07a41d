"""Labels for images, by the model of a checkpoint.

  python -m tools.predict --checkpoint RUN --input photos/ --output out/
  python -m tools.predict --checkpoint RUN --input a.jpg b.png --output out/ \\
      --top 5 --vocabulary names.jsonl

Writes predictions.jsonl, a line an image in the order of the input, and
predictions.html, a sheet of some of them. Scores are probabilities: over all
classes for single-label models (softmax), one by one for multi-label ones
(sigmoid). Images that cannot be used are listed in bad_images.jsonl.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from tools import command, output_folder

_PREDICTIONS = 'predictions.jsonl'
_PAGE = 'predictions.html'
_BAD = 'bad_images.jsonl'
_SHOWN_ERRORS = 5


def parser() -> argparse.ArgumentParser:
  p = argparse.ArgumentParser(
    prog='python -m tools.predict',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  add = p.add_argument
  add('--checkpoint', required=True, help='workdir of a run, or a checkpoint')
  add('--input', required=True, nargs='+', help='images, folders of images')
  add('--output', required=True, help='folder for what is written')
  add(
    '--top', type=int, default=5, help='labels an image; default: %(default)s'
  )
  add(
    '--sheet', type=int, default=100,
    help='images on the page, evenly spread; 0: no page; default: %(default)s',
  )  # fmt: skip
  add(
    '--vocabulary',
    help='names of the classes (.jsonl, .txt); default: those of the training '
    'data, where these are here',
  )  # fmt: skip
  add('--batch_size', type=int, default=64, help='default: %(default)s')
  add(
    '--workers', type=int, default=0,
    help='decode processes; 0: threads of this one; default: %(default)s',
  )  # fmt: skip
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
    if getattr(args, name) < least:
      raise ValueError(
        f'--{name}={getattr(args, name)} must be at least {least}'
      )
  from tools import image_list

  found = image_list.find(args.input)
  output_folder.refuse_inside(args.output, args.input)

  from absl import logging

  from big_vision_like import features
  from tools import prediction_sheet

  logging.set_verbosity(logging.ERROR)  # Orbax tells of every file it reads
  embedder = features.Embedder(
    args.checkpoint,
    batch_size=args.batch_size,
    predict_fn='logits',
    workers=args.workers,
  )
  classes = embedder.model.classes(args.vocabulary, '--vocabulary')
  output_folder.make(args.output)
  folder = pathlib.Path(args.output)
  num = len(found.source)
  on_sheet = prediction_sheet.spread(num, args.sheet)
  shown: list[tuple[int, dict[str, Any]]] = []
  counts: collections.Counter[str] = collections.Counter()
  with _whole_file(folder / _PREDICTIONS) as file:
    for index, line in lines(embedder, found.source, args.top, classes):
      file.write(json.dumps(line, ensure_ascii=False) + '\n')
      counts[line['predictions'][0]['name']] += 1
      if index in on_sheet:
        shown.append((index, line))
  bad = embedder.bad
  with _whole_file(folder / _BAD) as file:
    for key, reason in bad.items():
      entry = {'image': key, 'reason': reason}
      file.write(json.dumps(entry, ensure_ascii=False) + '\n')
  if len(bad) == num:
    key, reason = next(iter(bad.items()))
    raise ValueError(
      f'none of the {num:,} images can be used; the first is {key}: {reason}'
    )
  print(
    f'{folder / _PREDICTIONS}: {num - len(bad):,} images, '
    f'{embedder.model.scores} over {embedder.model.task.num_classes:,} classes'
  )
  if classes is None:
    print('names of the classes are not known here: give --vocabulary')
  if found.num_others:
    print(f'{found.num_others:,} files without an image suffix passed over')
  if bad:
    print(f'{len(bad):,} cannot be used ({folder / _BAD}):')
    for key, reason in list(bad.items())[:_SHOWN_ERRORS]:
      print(f'  {key}: {reason}')
  if args.sheet:
    prediction_sheet.write(
      str(folder / _PAGE), found.source, shown, embedder, counts, num
    )
    print(f'{folder / _PAGE}: {len(shown):,} of them')


def lines(
  embedder: Any, source: Any, top: int, classes: Any
) -> Iterator[tuple[int, dict[str, Any]]]:
  """(index, line) of every image that can be used, in order.

  A line is {'image': key, 'predictions': [{'id', 'name', 'score'}, ...]},
  highest score first, equal ones by id; 'label' too where the name is a
  description of it.
  """
  import numpy as np

  from big_vision_like import stored_model

  task, scores = embedder.model.task, embedder.model.scores
  names = [_name(classes, i) for i in range(task.num_classes)]
  for indices, logits in embedder.embed(source):
    logits = logits[:, : task.num_classes]  # no padding
    likely = stored_model.probabilities(logits, scores)
    # By logits: probabilities of 0 and 1 are equal before their logits are.
    order = np.argsort(-logits, axis=1, kind='stable')[:, :top]
    for index, row, best in zip(indices.tolist(), likely, order.tolist()):
      entries = [
        {'id': i, **names[i], 'score': float(f'{row[i]:.6g}')} for i in best
      ]
      yield index, {'image': source.key(index), 'predictions': entries}


def _name(classes: Any, label: int) -> dict[str, str]:
  if classes is None:
    return {'name': f'class {label}'}
  readable, name = classes.readable_name(label), classes.names[label]
  return {'name': readable, **({'label': name} if name != readable else {})}


@contextlib.contextmanager
def _whole_file(path: pathlib.Path) -> Iterator[TextIO]:
  """A text file that is there whole or not: written aside, then renamed."""
  aside = path.with_name(f'{path.name}.tmp')
  try:
    with open(aside, 'w', encoding='utf-8') as file:
      yield file
    os.replace(aside, path)
  finally:
    aside.unlink(missing_ok=True)


if __name__ == '__main__':
  sys.exit(main())
