"""Resampled rectangles against sums written out in float64."""

import numpy as np
import pytest

from input_pipeline.ops import windows
from input_pipeline.ops.windows import Span

FILL = np.array([10, 200, 90], np.uint8)


def weights(span, length):
  """float64 [count, length + 2 P]: triangles about the pixels' centres.

  As wide as the pitch where that reduces, and one pixel where it enlarges; the
  image has P pixels of filling on either side.
  """
  reach = max(span.pitch, 1)
  pad = pad_of(span)
  centres = span.start + (np.arange(span.count) + 0.5) * span.pitch
  pixels = np.arange(-pad, length + pad) + 0.5
  far = np.abs(pixels - centres[:, None]) / reach
  found = np.maximum(1 - far, 0)
  return found / found.sum(axis=1, keepdims=True)


def pad_of(span):
  return int(abs(span.start) + span.count * span.pitch + 3 * span.pitch + 9)


def expected(image, rows, columns):
  pads = [(pad_of(s), pad_of(s)) for s in (rows, columns)]
  whole = np.stack(
    [
      np.pad(image[..., c], pads, constant_values=FILL[c]).astype(np.float64)
      for c in range(3)
    ]
  )
  up, across = weights(rows, image.shape[0]), weights(columns, image.shape[1])
  return np.moveaxis(up @ whole @ across.T, 0, -1)


@pytest.mark.parametrize(
  'rows,columns',
  [
    (Span(2.0, 1.0, 9), Span(3.0, 1.0, 7)),
    (Span(2.3, 0.4, 20), Span(3.7, 0.31, 9)),
    (Span(-4.2, 1.7, 23), Span(-6.1, 1.9, 21)),
    (Span(-9.5, 3.3, 14), Span(11.2, 2.2, 12)),
    (Span(-40.0, 0.7, 100), Span(5.5, 0.9, 100)),
    (Span(-100.0, 9.5, 30), Span(-100.0, 9.5, 30)),
  ],
)
def test_upright_is_a_sum_of_triangles(rows, columns):
  rng = np.random.default_rng(3)
  image = rng.integers(0, 256, (31, 27, 3), np.uint8)
  found = windows.upright(image, rows, columns, FILL)
  # Pillow rounds after either direction.
  assert np.abs(found - expected(image, rows, columns)).max() < 1.1


def test_nothing_of_the_image():
  image = np.zeros((8, 8, 3), np.uint8)
  found = windows.upright(image, Span(50, 2, 4), Span(-90, 1, 5), FILL)
  assert (found == FILL).all() and found.shape == (4, 5, 3)


@pytest.mark.parametrize('angle', [0.0, 25.0, -70.0, 180.0])
@pytest.mark.parametrize('pitch', [0.5, 1.0, 3.0])
def test_turned_ramps_are_ramps(angle, pitch):
  """A linear image stays linear under any filter that is symmetric."""
  y, x = np.mgrid[:120, :150] + 0.5
  image = np.stack([y * 1.5, x * 1.5, 40 + y + x * 0.4], -1)
  image = image.round().astype(np.uint8)
  c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
  linear = pitch * np.array([[c, s], [-s, c]])
  size = 21, 15
  to_image = np.column_stack(
    [linear, np.array([60.0, 75.0]) - linear @ (np.array(size) / 2)]
  )
  found = windows.turned(image, to_image, size, (pitch, pitch), FILL)
  grid = np.mgrid[: size[0], : size[1]].reshape(2, -1) + 0.5
  at_y, at_x = (linear @ grid + to_image[:, 2:]).reshape(2, *size)
  exact = np.stack([at_y * 1.5, at_x * 1.5, 40 + at_y + at_x * 0.4], -1)
  assert np.abs(found - exact).max() < 1.6  # rounded three times


@pytest.mark.parametrize('angle', [0.0, 45.0])
def test_reduction_does_not_alias(angle):
  """Stripes of one pixel, 5 to 1, are grey; four neighbours would flicker."""
  image = np.zeros((400, 400, 3), np.uint8)
  image[:, ::2] = 255
  c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
  linear = 5 * np.array([[c, s], [-s, c]])
  to_image = np.column_stack([linear, 200 - linear @ np.array([20.0, 20.0])])
  found = windows.turned(image, to_image, (40, 40), (5, 5), FILL)
  assert np.abs(found[5:-5, 5:-5].astype(int) - 127.5).max() < 8
