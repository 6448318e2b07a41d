"""Contact sheet of a synthetic world.

python -m tools.synthetic_preview --out sheet.png num_classes=200 seed=3

Options of the source follow as name=value. --by_class draws one row of single
objects for each class instead of the images of a split, siblings under each
other; --truth marks boxes and keypoints.
"""

import argparse
import ast
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from big_vision_like.config import plugins
from input_pipeline.sources.synthetic import Source
from input_pipeline.synthetic_world.render import Rendered
from input_pipeline.synthetic_world.scene import single

from .cli import command

_LINE = 11  # pixels of a line of text


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    prog=command.as_called('python -m tools.synthetic_preview'),
    description=command.as_called(__doc__),
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--out', required=True, help='PNG to write')
  parser.add_argument('--rows', type=int, default=8)
  parser.add_argument('--columns', type=int, default=8)
  parser.add_argument('--start', type=int, default=0, help='first image')
  parser.add_argument('--by_class', action='store_true')
  parser.add_argument('--truth', action='store_true')
  parser.add_argument('options', nargs='*', metavar='name=value')
  flags = parser.parse_intermixed_args(arguments)
  if min(flags.rows, flags.columns) < 1 or flags.start < 0:
    parser.error('--rows and --columns must be positive, --start not negative')
  try:
    options = _parse(flags.options)
    options.setdefault('image_size', 128)
    source = Source(**options)
  except ValueError as error:
    parser.error(str(error))
  fill = _classes if flags.by_class else _images
  tiles = fill(source, flags.rows, flags.columns, flags.start, flags.truth)
  _sheet(tiles, flags.columns).save(flags.out)
  print(f'{flags.out}: {flags.rows} x {flags.columns} of {source.split}')


def _parse(pairs: Sequence[str]) -> dict:
  options = {}
  for pair in pairs:
    name, equals, value = pair.partition('=')
    if not equals:
      raise ValueError(f'{pair!r} is not of the form name=value')
    try:
      options[name] = ast.literal_eval(value)
    except (ValueError, SyntaxError):
      options[name] = value
  plugins.check_kwargs('options', Source, options)
  return options


def _images(
  source: Source, rows: int, columns: int, start: int, truth: bool
) -> list[Image.Image]:
  """The images of the split from `start` on, with their labels."""
  tiles = []
  stream = source.stream
  for index in range(start, min(start + rows * columns, len(source))):
    scene = source.world.scene(index, stream)
    drawn = source.world.render(scene, source.image_size)
    labels = source.labels(index)
    true = set(source.world.true_labels(scene).tolist())
    above = set(np.concatenate([_above(source, c) for c in labels]).tolist())
    lines = [
      ('' if c in true else 'not ') + source.vocabulary.names[c]
      for c in labels.tolist()
      if c not in above
    ]
    tiles.append(_tile(drawn, lines, truth))
  return tiles


def _above(source: Source, label: int) -> np.ndarray:
  return source.world.hierarchy.ancestors[label]


def _classes(
  source: Source, rows: int, columns: int, start: int, truth: bool
) -> list[Image.Image]:
  """One row of individuals for each leaf class from leaf `start` on."""
  tiles = []
  leaves = source.world.taxonomy.leaves
  for label in leaves[start : start + rows].tolist():
    for i in range(columns):
      scene = single(label, np.random.Generator(np.random.Philox(i)))
      drawn = source.world.render(scene, source.image_size)
      tiles.append(_tile(drawn, [source.vocabulary.names[label]], truth))
  return tiles


def _tile(drawn: Rendered, lines: list[str], truth: bool) -> Image.Image:
  image = Image.fromarray(drawn.image)
  size = image.width
  tile = Image.new('RGB', (size, size + 4 * _LINE), 'white')
  tile.paste(image)
  pen = ImageDraw.Draw(tile)
  for i, line in enumerate(lines[:4]):
    color = 'firebrick' if line.startswith('not ') else 'black'
    pen.text((1, size + i * _LINE - 1), line[: size // 6], fill=color)
  if truth:
    for y0, x0, y1, x1 in drawn.boxes.tolist():
      pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline='yellow')
    for y, x, seen in drawn.keypoints.reshape(-1, 3).tolist():
      if seen:
        pen.point((x, y), fill='lime' if seen == 2 else 'red')
  return tile


def _sheet(tiles: list[Image.Image], columns: int) -> Image.Image:
  width, height = tiles[0].width + 4, tiles[0].height + 4
  rows = -(-len(tiles) // columns)
  sheet = Image.new('RGB', (columns * width, rows * height), 'white')
  for i, tile in enumerate(tiles):
    sheet.paste(tile, (i % columns * width + 2, i // columns * height + 2))
  return sheet


if __name__ == '__main__':
  main()
