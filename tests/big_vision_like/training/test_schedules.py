"""Schedules against float64, with the paper's constants."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from big_vision_like.training import schedules

TOTAL = 1000
PAPER = dict(type='staircase', lr=1e-3, factor=0.9, decay_steps=3_000_000)
IMAGENET = dict(type='staircase', lr=0.05, factor=0.1, decay_steps=1_200_000)


def build(total=TOTAL, **cfg):
  return schedules.build(cfg, total, batch_size=32, num_examples=3200)


@pytest.mark.parametrize(
  'step, expected',
  [(0, 1e-3), (36_000_000, 2.8243e-4), (90_000_000, 4.2391e-5)],
)
def test_papers_learning_rates(step, expected):
  lr = build(total=90_000_000, **PAPER)(step)
  assert lr.dtype == jnp.float32
  assert float(lr) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize('stair', [1, 2, 5, 6, 11, 12, 29, 30])
def test_stairs_at_the_exact_step(stair):
  """Beyond 2^24 float32 counters lose single steps: 35,999,999 is one."""
  fn = jax.jit(build(total=90_000_000, **PAPER))
  step = 3_000_000 * stair
  before, at = fn(jnp.int32(step - 1)), fn(jnp.int32(step))
  assert float(before) == pytest.approx(1e-3 * 0.9 ** (stair - 1), rel=2e-6)
  assert float(at) == pytest.approx(1e-3 * 0.9**stair, rel=2e-6)


def test_imagenet_learning_rates():
  fn = build(total=5_000_000, **IMAGENET)
  for stair in range(1, 5):  # 1.2, 2.4, 3.6, 4.8 million
    step = 1_200_000 * stair
    assert float(fn(step - 1)) == pytest.approx(
      0.05 * 0.1 ** (stair - 1), rel=1e-6
    )
    assert float(fn(step)) == pytest.approx(0.05 * 0.1**stair, rel=1e-6)


@pytest.mark.parametrize(
  'unit, value, stairs',
  [
    ('steps', 100, 100),
    ('epochs', 2, 200),  # 3,200 examples at batch 32: 100 steps an epoch
    ('examples', 3200, 100),
    ('percent', 5, 50),
  ],
)
def test_decay_units(unit, value, stairs):
  fn = build(type='staircase', lr=1.0, factor=0.5, **{f'decay_{unit}': value})
  assert [float(fn(s)) for s in (0, stairs - 1, stairs, 2 * stairs)] == [
    1.0,
    1.0,
    0.5,
    0.25,
  ]


def exact_cosine(t):
  return 0.1 + 0.4 * 0.5 * (1 + math.cos(math.pi * min(t, TOTAL) / TOTAL))


def exact_piecewise(t):
  return 0.5 if t < 100 else (0.05 if t < 900 else 0.005)


CASES = [
  (dict(type='constant'), lambda t: 0.5),
  (
    dict(type='exponential', factor=0.9, decay_steps=70),
    lambda t: 0.5 * 0.9 ** (t / 70),
  ),
  (
    dict(type='staircase', factor=0.9, decay_steps=70),
    lambda t: 0.5 * 0.9 ** (t // 70),
  ),
  (
    dict(type='piecewise', factors=[0.1, 0.01], boundaries_percent=[10, 90]),
    exact_piecewise,
  ),
  (
    dict(type='piecewise', factors=[0.1, 0.01], boundaries_epochs=[1, 9]),
    exact_piecewise,
  ),
  (
    dict(type='poly', power=0.9),
    lambda t: 0.5 * (1 - min(t, TOTAL) / TOTAL) ** 0.9,
  ),
  (
    dict(type='poly', power=2.0, end_lr=0.1, total_steps=500),
    lambda t: 0.1 + 0.4 * (1 - min(t, 500) / 500) ** 2,
  ),
  (dict(type='cosine', end_lr=0.1), exact_cosine),
]


@pytest.mark.parametrize('cfg, exact', CASES)
def test_against_float64(cfg, exact):
  fn = jax.jit(jax.vmap(build(lr=0.5, **cfg)))
  steps = np.arange(1200, dtype=np.int32)  # also beyond the end
  expected = [exact(int(t)) for t in steps]
  np.testing.assert_allclose(fn(steps), expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize(
  'cfg, theirs',
  [
    (
      dict(type='poly', power=0.9, end_lr=0.01),
      optax.polynomial_schedule(0.5, 0.01, 0.9, TOTAL),
    ),
    (
      dict(type='cosine', end_lr=0.05),
      optax.cosine_decay_schedule(0.5, TOTAL, alpha=0.1),
    ),
    (
      dict(type='cosine', end_lr=0.05, warmup_steps=50, warmup_from=0.2),
      optax.warmup_cosine_decay_schedule(0.2, 0.5, 50, TOTAL, 0.05),
    ),
    (
      dict(type='staircase', factor=0.5, decay_steps=300),
      optax.exponential_decay(0.5, 300, 0.5, staircase=True),
    ),
  ],
)
def test_agrees_with_optax(cfg, theirs):
  ours = build(lr=0.5, **cfg)
  for step in (0, 1, 49, 50, 299, 300, 301, 500, 998, 1000, 1001):
    assert float(ours(step)) == pytest.approx(
      float(theirs(step)), rel=1e-5, abs=2e-7
    )


def test_end_of_a_long_poly_is_not_lost_to_rounding():
  """At step 35,999,999 of 36 million, 1 / 36e6 of the way remains."""
  fn = build(total=36_000_000, type='poly', lr=1.0)
  assert float(fn(35_999_999)) == pytest.approx(1 / 36e6, rel=1e-6)


@pytest.mark.parametrize(
  'cfg',
  [
    dict(type='constant'),
    dict(type='staircase', factor=0.5, decay_steps=400),
    dict(type='exponential', factor=0.5, decay_steps=400),
    dict(type='poly'),
    dict(type='cosine'),
  ],
)
def test_warmup_is_a_line_to_the_peak(cfg):
  plain = build(lr=0.4, **cfg)
  fn = build(lr=0.4, warmup_percent=10, warmup_from=0.1, **cfg)
  for t in (0, 1, 50, 99):
    assert float(fn(t)) == pytest.approx(0.1 + 0.3 * t / 100, rel=1e-6)
  if cfg['type'] in ('poly', 'cosine'):  # these start at the peak
    assert float(fn(100)) == pytest.approx(0.4)
  else:  # these count all steps, warm-up included
    assert float(fn(100)) == float(plain(100))
    assert float(fn(777)) == float(plain(777))


STAIRS = dict(type='staircase', lr=0.1, factor=0.5, decay_steps=5)
PIECES = dict(type='piecewise', lr=0.1, factors=[0.1], boundaries_steps=[5])


@pytest.mark.parametrize(
  'cfg, message',
  [
    (dict(type='stairs', lr=1), r'schedule.type.*staircase'),
    (dict(lr=1), r'schedule.type'),
    (dict(type='constant'), r'schedule.lr is missing'),
    (dict(type='constant', lr=-1), r'schedule.lr=-1 must be float of at lea'),
    (dict(type='constant', lr='1'), r"schedule.lr='1' must be float"),
    (STAIRS | dict(facotr=1), r"schedule.facotr.*did you mean 'factor'"),
    (dict(type='staircase', lr=1, decay_steps=1), r'schedule.factor is miss'),
    (dict(type='staircase', lr=1, factor=1), r'schedule: missing.*decay_steps'),
    (STAIRS | dict(decay_steps=0), r'decay period'),
    (STAIRS | dict(decay_epochs=1), r'decay_steps and decay_epochs'),
    (STAIRS | dict(power=1), r'schedule.power.*a staircase schedule takes'),
    (STAIRS | dict(warmup_from=-1), r'schedule.warmup_from'),
    (STAIRS | dict(decay_steps=2**31), r'int32'),
    (PIECES | dict(factors=[0.1, 0.2]), r'1 boundaries but 2 factors'),
    (PIECES | dict(factors=0.1), r'schedule.factors=0.1 must be list of float'),
    (PIECES | dict(boundaries_steps=5), r'boundaries_steps must be a list'),
    (
      PIECES | dict(factors=[0.1, 0.2], boundaries_steps=[5, 5]),
      r'boundaries must rise',
    ),
    (dict(type='cosine', lr=1, warmup_steps=1000), r'within its warm-up'),
    (dict(type='poly', lr=1, total_percent=101), r'total_percent'),
  ],
)
def test_mistakes_are_named(cfg, message):
  with pytest.raises(ValueError, match=message):
    build(**cfg)
