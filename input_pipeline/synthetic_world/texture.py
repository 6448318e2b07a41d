"""Two-colour patterns on an object's surface, in its own frame."""

import math

import numpy as np

from input_pipeline.synthetic_world.appearance import TEXTURES, Look
from input_pipeline.synthetic_world.scene import Thing

_PI = np.float32(np.pi)


def colors(
  look: Look,
  thing: Thing,
  u: np.ndarray,
  v: np.ndarray,
  t: np.ndarray,
  theta: np.ndarray,
) -> np.ndarray:
  """RGB planes of the surface: float32 [3, h, w].

  Args:
    look: attributes of the class.
    thing: the individual.
    u, v: coordinates in the object's frame, in radii, float32 [h, w].
    t: distance from the centre, 1 on the outline, float32 [h, w].
    theta: angle in the object's frame, float32 [h, w].
  """
  wave = _wave(look, thing, u, v, t, theta)  # about -1 .. 1
  soft = np.float32(1.0 if TEXTURES[look.texture] == 'shaded' else 2.5)
  wave -= np.float32(look.duty)
  wave *= soft
  wave += np.float32(0.5)
  np.maximum(wave, 0, out=wave)
  mix = np.minimum(wave, 1, out=wave)
  first = (look.first * thing.tint)[:, None, None]
  second = (look.second * thing.tint)[:, None, None]
  return second + mix * (first - second)


def _wave(
  look: Look,
  thing: Thing,
  u: np.ndarray,
  v: np.ndarray,
  t: np.ndarray,
  theta: np.ndarray,
) -> np.ndarray:
  kind = TEXTURES[look.texture]
  f = np.float32(look.frequency * thing.zoom) * _PI
  phase = np.float32(thing.phase)
  if kind == 'ringed':
    return np.sin(f * t + phase)
  if kind == 'rayed':
    arms = np.float32(round(2 + 1.6 * look.frequency))
    return np.sin(arms * theta + phase)
  if kind == 'spiral':
    arms = np.float32(1 + round(look.frequency / 1.6))
    return np.sin(f * t + arms * theta + phase)
  c, s = np.float32(math.cos(look.slant)), np.float32(math.sin(look.slant))
  a, b = u * c + v * s, v * c - u * s
  if kind == 'striped':
    return np.sin(f * a + phase)
  if kind == 'spotted':
    return np.sin(f * a + phase) + np.sin(f * b) - np.float32(0.6)
  if kind == 'checked':
    return np.sin(f * a + phase) * np.sin(f * b) * 2
  if kind == 'zigzag':
    fold = np.abs((b * f * np.float32(0.4)) % 2 - 1)
    return np.sin(f * a + 3 * fold + phase)
  if kind == 'marbled':
    bend = np.float32(1.7) * np.sin(np.float32(0.6) * f * b + phase)
    return np.sin(f * a + bend) + np.float32(0.4) * np.sin(f * b + 2 * phase)
  return a * np.float32(1.1)  # shaded: one colour fades into the other
