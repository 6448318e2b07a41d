"""Shows what the model sees: examples of a config after its whole pipeline.

  python -m tools.inspect_data --config configs/x.py[:args]
      [--key input | input.also.NAME | evals.NAME] [--num 32] [--classes a,b]
      [--epoch 0] [--seed 0] [--repeats 1] [--side 256] [--anchors]
      [--output sheet.html | sheet.png]

Images as they are in the batch, with labels before and after fill-in, boxes,
masks and keypoints, in the order and with the random crops and flips of the
run. Crops of people have the discs about their keypoints, of the task's radius,
and crosses at those of others. Nothing is trained and no net runs. --anchors
draws, thinly, the anchors that a detector takes for positives, before it
samples some of them.
docs/inspect-data.md explains the page.

Exit codes: 0 done; 2 a mistake in the command or its input; 130 interrupted.
"""

import functools
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.examples import annotations
from input_pipeline.examples.fields import ANNOTATIONS, FIELDS

from .cli import (
  command,
  config_feed,
  config_flags,
  output_folder,
  positive_anchors,
)

_DISC_RADIUS = 25.0  # pixels of a crop, where the config's task says none
_SIDES = (16, 2048)  # pixels of a picture; some dozens are on a page
_LEGEND = [
  ('label of the record  ', 'plain'),
  ('+ added by fill-in  ', 'good'),
  ('! in the record or in the batch, not in both  ', 'bad'),
  ('not: known to be absent  ', 'muted'),
]


def caption(
  found: config_feed.Look, feed: config_feed.Feed
) -> list[list[tuple[str, str]]]:
  """Lines below a picture; tones are those of contact_sheet.py."""
  lines = [[(found.key, 'muted')]]
  if feed.seed is not None:
    lines = [[(f'{found.key}  epoch {found.epoch}', 'muted')]]
  if found.reason:
    lines.append([(f'_mask False: {found.reason}', 'bad')])
  lines += _label_lines(found, feed)
  if isinstance(found.example.get('segmentation'), np.ndarray):
    lines.append(
      [(_mask_classes(found.example['segmentation'], feed), 'muted')]
    )
  if 'person_keypoints' in found.example:
    lines.append([(_person(found.example), 'muted')])
  if 'image_size' in found.example:
    sizes = ' of '.join(
      'x'.join(map(str, np.asarray(found.example[name]).tolist()))
      for name in ('image_size', 'original_size')
    )
    lines.append([(f'height x width {sizes}', 'muted')])
  return lines


def _person(example: Mapping[str, Any]) -> str:
  """What a crop says of its person and of those beside them."""
  labelled = np.count_nonzero(example['person_keypoints'][:, 2])
  others = np.asarray(example['other_keypoints'])[..., 2].any(axis=1).sum()
  y0, x0, y1, x1 = np.asarray(example['person_box']).round(1).tolist()
  return (
    f'box {y0:g} {x0:g} {y1:g} {x1:g} (y0 x0 y1 x1), score '
    f'{float(example["person_score"]):.2f}; {labelled} keypoints, {others} '
    'other people'
  )


def _mask_classes(ids: np.ndarray, feed: config_feed.Feed) -> str:
  """Names of the classes in a segmentation, but of the background."""
  vocabulary, first = feed.source.vocabulary, int(feed.background)
  found = np.unique(ids[(ids != annotations.IGNORE) & (ids >= first)]).tolist()
  names = [
    vocabulary.readable_name(i - first)
    if i - first < len(vocabulary)
    else f'class {i}'
    for i in found
  ]
  unknown = (ids == annotations.IGNORE).mean()
  none = 'background only' if first else 'no class'
  return f'mask: {", ".join(names) or none}; {unknown:.0%} unknown'


def _label_lines(
  found: config_feed.Look, feed: config_feed.Feed
) -> list[list[tuple[str, str]]]:
  """Raw and final labels and known negatives."""
  source, example = feed.source, found.example
  name = source.vocabulary.readable_name
  raw = np.unique(np.asarray(found.raw.get('labels', ()), np.int64)).tolist()
  sure = _confidences(found.raw.get('labels', ()), found.raw.get('label_conf'))
  final = raw
  if 'label_ids' in example:
    final = [i for i in example['label_ids'].tolist() if i >= 0]
    sure |= _confidences(example['label_ids'], example.get('label_conf'))
  elif 'label' in example:
    final = [int(example['label'])]
  above: set[int] = set()
  if source.hierarchy is not None and raw:
    above = set(source.hierarchy.close(np.array(raw)).tolist()) - set(raw)

  def text(label: int) -> str:
    confidence = f' {sure[label]:.2f}' if label in sure else ''
    return f'{name(label)}{confidence}'

  lines = []
  for label in [i for i in final if i in raw]:
    lines.append([(text(label), 'plain')])
  for label in [i for i in final if i not in raw]:
    filled = label in above
    lines.append(
      [
        (
          f'+ {text(label)}'
          if filled
          else f'! {text(label)}, not in the record',
          'good' if filled else 'bad',
        )
      ]
    )
  for label in [i for i in raw if i not in final]:
    lines.append([(f'! {text(label)}, not in the batch', 'bad')])
  if not lines:
    lines.append([('no labels', 'muted')])
  negatives = example.get('negative_ids', found.raw.get('negatives'))
  if negatives is not None:
    names = [name(i) for i in np.asarray(negatives).tolist() if i >= 0]
    unused = '' if 'negative_ids' in feed.spec else ' (not in the batch)'
    shown = ', '.join(names) or 'none known'
    lines.append([(f'not: {shown}{unused}', 'muted')])
  return lines


def _confidences(labels: Any, given: Any) -> dict[int, float]:
  """label -> confidence, the largest where it is there twice."""
  if given is None:
    return {}
  pairs = zip(np.asarray(labels).tolist(), np.asarray(given).tolist())
  return {i: c for c, i in sorted((c, i) for i, c in pairs)}


def header(
  feed: config_feed.Feed, looks: Sequence[config_feed.Look], note: str
) -> list[tuple[str, str]]:
  """What the sheet is of."""
  source = feed.source
  rows = [(name, _plain(value)) for name, value in feed.described.items()]
  drawn = sorted(
    {
      name
      for one in looks
      for name in ANNOTATIONS
      if name in one.example
      and name not in feed.spec
      and FIELDS[name].kind == 'pixels'
    }
  )
  rows += [
    ('records', f'{len(source):,}, fingerprint {source.fingerprint()}'),
    ('labels', f'{len(source.vocabulary):,} names'),
    (
      'fields of a batch',
      ', '.join(
        f'{name} {value.dtype}{list(value.shape)}'
        for name, value in feed.spec.items()
      ),
    ),
  ]
  if drawn:
    rows.append(('drawn, not in the batch', ', '.join(drawn)))
  if feed.seed is not None:
    rows.append(('seed of order and chance', str(feed.seed)))
  bad = sum(bool(one.reason) for one in looks)
  rows.append(('shown', f'{note}; {bad} that cannot be used (_mask False)'))
  return rows


def _plain(value: Any) -> str:
  """Options as a config writes them."""
  if isinstance(value, Mapping):
    return ', '.join(f'{k}={v!r}' for k, v in value.items())
  return '; '.join(
    f'{op["op"]}({_plain({k: v for k, v in op.items() if k != "op"})})'
    for op in value
  )


def run(
  config: Any,
  *,
  key: str = 'input',
  num: int = 32,
  classes: str | None = None,
  epoch: int = 0,
  seed: int | None = None,
  repeats: int = 1,
  side: int = 256,
  anchors: bool = False,
  output: str = 'sheet.html',
) -> list[config_feed.Look]:
  """Writes the sheet of a config; see the command's flags.

  Returns:
    the looks that are on it, those of one record together.

  Raises:
    ValueError, FileNotFoundError: a mistake in an argument or in the config.
  """
  from big_vision_like.pages import contact_sheet

  for name, value, least in (
    ('num', num, 1), ('repeats', repeats, 1), ('epoch', epoch, 0),
  ):  # fmt: skip
    if value < least:
      raise ValueError(f'--{name}={value} must be at least {least}')
  low, high = _SIDES
  if not low <= side <= high:
    raise ValueError(f'--side={side} must be in {low} to {high} pixels')
  _check_output(output)
  feed = config_feed.open_feed(config, key, seed)
  for where, given in feed.described.items():
    if isinstance(given, Mapping):  # the source; the ops are a list
      output_folder.refuse_inside(
        output, output_folder.places(given), of=f'{where}.path'
      )
  if feed.seed is None and (repeats > 1 or epoch):
    name = 'repeats' if repeats > 1 else 'epoch'
    raise ValueError(f'--{name}: an evaluation sees every record in one way')
  scanned = min(len(feed.source), config_feed.MAX_SCANNED)
  places = config_feed.positions(feed, epoch, num)
  if classes is not None:
    wanted = config_feed.find_classes(classes, feed.source.vocabulary)
    places = config_feed.with_classes(feed, places, wanted)
  chosen = list(itertools.islice(places, num))
  if not chosen:
    raise ValueError(
      f'--classes={classes}: none of the first '
      f'{scanned:,} records has such a label'
    )
  looks = [
    config_feed.look(feed, first + repeat, index)
    for first, index in chosen
    for repeat in range(repeats)
  ]
  find = positive_anchors.PositiveAnchors(config, feed) if anchors else None
  radius = float(config.task.get('radius') or _DISC_RADIUS)
  tiles = [_tile(one, feed, side, find, radius) for one in looks]
  note = f'{len(chosen)} records'
  if feed.seed is not None:
    last = epoch + repeats - 1
    note += f', epoch {epoch}' + (f' to {last}' if repeats > 1 else '')
  if classes is not None:
    note += f', with {classes}'
  save = (
    contact_sheet.save_page
    if output.endswith('.html')
    else contact_sheet.save_image
  )
  title = f'{feed.key}: what the model sees'
  save(output, title, header(feed, looks, note), _LEGEND, tiles)
  return looks


def _tile(
  one: config_feed.Look,
  feed: config_feed.Feed,
  side: int,
  find: positive_anchors.PositiveAnchors | None,
  radius: float,
) -> Any:
  """A picture and its caption, with positive anchors where they are found."""
  from big_vision_like.pages import annotated_picture, contact_sheet
  from input_pipeline.labels.space import LabelSpace

  skeleton = LabelSpace.of_source(feed.source).keypoints
  lines, faint = caption(one, feed), []
  if find is not None and one.example:
    found = find(one.example)
    lines.append([found.line()])
    faint = list(zip(found.anchors, found.owners.tolist()))
  picture = annotated_picture.draw(
    one.example or _blank(feed),
    feed.source.vocabulary.readable_name,
    side,
    background=feed.background,
    faint=faint,
    pairs=None if skeleton is None else skeleton.pairs,
    radius=radius,
  )
  return contact_sheet.Tile(picture, lines)


def _blank(feed: config_feed.Feed) -> dict[str, Any]:
  """What the batch has in place of a record that cannot be used."""
  return {'image': feed.spec['image']}


def _check_output(path: str) -> None:
  if not path.endswith(('.html', '.png')):
    raise ValueError(f'--output={path} must end in .html or .png')
  folder = os.path.dirname(path) or '.'
  if not os.path.isdir(folder):
    raise FileNotFoundError(f'--output={path}: no folder {folder!r}')


def _define(values: Any) -> None:
  from absl import flags

  text = functools.partial(flags.DEFINE_string, flag_values=values)
  number = functools.partial(flags.DEFINE_integer, flag_values=values)
  text('key', 'input', 'input, input.also.NAME or evals.NAME')
  number('num', 32, 'records to show')
  text('classes', None, 'only records with one of these labels: a,b')
  number('epoch', 0, 'which look of the training records')
  number('seed', None, 'in place of config.seed')
  number('repeats', 1, 'looks of each record, one an epoch')
  number('side', 256, "pixels of a picture's longer side, about: 16 to 2048")
  flags.DEFINE_bool(
    'anchors', False, 'mark the anchors that are positives of a detector',
    flag_values=values,
  )  # fmt: skip
  text('output', 'sheet.html', 'page (.html) or image (.png) to write')


def main(argv: Sequence[str]) -> None:
  """Runs the command; a mistake of the user ends it with one message."""
  config_flags.run(lambda: _inspect(argv))


def _inspect(argv: Sequence[str]) -> None:
  values = config_flags.parse(argv, command.as_called(__doc__), _define)
  looks = run(
    values.config,
    key=values.key,
    num=values.num,
    classes=values.classes,
    epoch=values.epoch,
    seed=values.seed,
    repeats=values.repeats,
    side=values.side,
    anchors=values.anchors,
    output=values.output,
  )
  bad = [one for one in looks if one.reason]
  print(f'{values.output}: {len(looks)} examples, {len(bad)} cannot be used')
  for one in bad:
    print(f'  {one.key}: {one.reason}')


if __name__ == '__main__':
  main(sys.argv)
