"""How alike two images are once one is laid over the other: a score in [0, 1].

Both are brought to one square size. Each is then searched for in the other, as
a crop of 60% to 100% of its height and width (apart, so that other aspect
ratios are found too) at any place: normalised cross-correlation by FFT, first
small, then finely about the best places. What is correlated is brightness
without its slow part: smooth gradients, which many photographs share, do not
count. The score is that correlation where it is best, less a tenth of the area
that is left out: the smaller the part, the likelier a chance agreement. Copies
that were resized, recompressed, cropped or recoloured lie near 1. Where the
small search finds less than _HOPELESS, that is the score: copies have more
there (0.69 at least, of 64x64 images at half their size), others rarely.
"""

import dataclasses
import functools

import numpy as np
from PIL import Image

VERSION = 3  # another one makes scores of earlier calls void
SIDE = 128  # pixels of the fine comparison
_COARSE = 48
_SCALES = np.linspace(0.6, 1.0, 8)
_COARSE_SIZES = [
  (round(h * _COARSE), round(w * _COARSE)) for h in _SCALES for w in _SCALES
]
_LEFT_OUT = 0.1  # taken off where nothing is covered
_NUM_REFINED = 3
_REFINE = np.linspace(-0.03, 0.03, 5)
_GOOD = 0.985  # where nothing finer need be looked for
_HOPELESS = 0.6  # of the small search; nothing finer is looked for either
_BLUR = 1 / 8  # window of the slow part, of the side
_FLAT = 1.5  # grey levels: standard deviation of no picture at all
_FLAT_COLOUR = 16.0  # grey levels apart: flat images that differ


@dataclasses.dataclass
class Prepared:
  """An image in the sizes that comparisons need.

  Attributes:
    grey: its brightness, a Pillow image.
    mean: float [3] mean colour.
  """

  grey: Image.Image
  mean: np.ndarray

  @functools.cached_property
  def mirrored(self) -> 'Prepared':
    """The mirror image."""
    turned = self.grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return Prepared(turned, self.mean)

  @functools.cached_property
  def fine(self) -> np.ndarray:
    """float32 [SIDE, SIDE] detail."""
    return self.detail(SIDE, SIDE, round(SIDE * _BLUR))

  @functools.cached_property
  def coarse_parts(self) -> list[np.ndarray]:
    """float32 [h, w] detail at each of the small sizes."""
    window = round(_COARSE * _BLUR)
    return [self.detail(h, w, window) for h, w in _COARSE_SIZES]

  @functools.cached_property
  def coarse(self) -> np.ndarray:
    """float32 [_COARSE, _COARSE] detail."""
    return self.detail(_COARSE, _COARSE, round(_COARSE * _BLUR))

  def detail(self, height: int, width: int, window: int) -> np.ndarray:
    """float32 [height, width]: brightness without its slow part."""
    small = self.grey.resize((width, height), Image.Resampling.BILINEAR)
    return _without_slow(np.asarray(small, np.float32), window)


def prepare(image: np.ndarray) -> Prepared:
  """From uint8 [H, W, 3]."""
  picture = Image.fromarray(image).convert('L')
  square = picture.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BILINEAR)
  return Prepared(square, image.reshape(-1, 3).mean(0))


def score(a: Prepared, b: Prepared) -> float:
  """How alike two images are, in [0, 1]; the order does not matter."""
  flat = [float(image.fine.std()) < _FLAT for image in (a, b)]
  if all(flat):
    apart = float(np.abs(a.mean - b.mean).max())
    return max(0.0, 1 - apart / _FLAT_COLOUR)
  if any(flat):
    return 0.0
  best = _correlation(a.fine, b.fine)
  if best < _GOOD:
    found = _coarse(a, b)
    if found[0][0] < _HOPELESS:
      return float(np.clip(max(best, found[0][0]), 0.0, 1.0))
    for _, whole, part, height, width in found:
      best = max(best, _refined(whole, part, height, width))
      if best >= _GOOD:
        break
  return float(np.clip(best, 0.0, 1.0))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
  a, b = a - a.mean(), b - b.mean()
  return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def _coarse(
  a: Prepared, b: Prepared
) -> list[tuple[float, Prepared, Prepared, float, float]]:
  """The best (score, whole, part, height, width), both ways round."""
  found = []
  for whole, part in ((a, b), (b, a)):
    values = _best_places(whole.coarse, part.coarse_parts)
    found += [
      (value, whole, part, h / _COARSE, w / _COARSE)
      for value, (h, w) in zip(values, _COARSE_SIZES)
    ]
  found.sort(key=lambda item: -item[0])
  return found[:_NUM_REFINED]


def _refined(
  whole: Prepared, part: Prepared, height: float, width: float
) -> float:
  """The best score at sizes close to this one, relative to the whole."""
  heights, widths = (
    sorted(set(np.clip((SIDE * (n + _REFINE)).round(), SIDE // 2, SIDE)))
    for n in (height, width)
  )
  window = round(SIDE * _BLUR)
  parts = [part.detail(int(h), int(w), window) for h in heights for w in widths]
  return max(_best_places(whole.fine, parts))


def _best_places(whole: np.ndarray, parts: list[np.ndarray]) -> list[float]:
  """For each part [h, w], its best score at any place in [N, N].

  The circular correlation of size N is the plain one wherever the part lies
  inside. Sums over windows come from summed-area tables.
  """
  side = len(whole)
  stack = np.zeros((len(parts), side, side), np.float32)
  for row, part in enumerate(parts):
    stack[row, : part.shape[0], : part.shape[1]] = part - part.mean()
  spectrum = np.fft.rfft2(stack)
  products = np.fft.irfft2(
    np.fft.rfft2(whole)[None] * spectrum.conj(), s=(side, side)
  )
  sums = [_summed_area(whole), _summed_area(whole * whole)]
  best = []
  for row, part in enumerate(parts):
    h, w = part.shape
    first, second = (
      table[h:, w:] - table[:-h, w:] - table[h:, :-w] + table[:-h, :-w]
      for table in sums
    )
    spread = np.maximum(second - first * first / (h * w), h * w)  # 1 level^2
    power = float((stack[row] ** 2).sum())
    inside = products[row, : side - h + 1, : side - w + 1]
    value = float((inside / np.sqrt(spread * max(power, h * w))).max())
    best.append(value - _LEFT_OUT * (1 - h * w / side**2))
  return best


def _summed_area(values: np.ndarray) -> np.ndarray:
  """float64 [N + 1, N + 1]."""
  table = np.zeros((len(values) + 1, values.shape[1] + 1))
  table[1:, 1:] = values.astype(np.float64).cumsum(0).cumsum(1)
  return table


def _without_slow(image: np.ndarray, window: int) -> np.ndarray:
  """[H, W] less its mean over windows of 2 * (window // 2) + 1 pixels."""
  half = window // 2
  table = _summed_area(np.pad(image, half, 'edge'))
  full = 2 * half + 1
  sums = (
    table[full:, full:]
    - table[:-full, full:]
    - table[full:, :-full]
    + table[:-full, :-full]
  )
  return (image - sums / full**2).astype(np.float32)
