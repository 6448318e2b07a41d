"""Durations in steps, epochs, examples and percent."""

import ml_collections
import pytest

from big_vision_like.config import durations

KNOWN = dict(batch_size=32, num_examples=1_281_167, total_steps=5_000_000)


@pytest.mark.parametrize(
  'config, expected',
  [
    ({'decay_steps': 3_000_000}, 3_000_000),
    ({'decay_steps': 7.0}, 7),
    ({'decay_steps': 0}, 0),
    ({'decay_examples': 3_000_000}, 93_750),  # Xception's unit, at batch 32
    ({'decay_epochs': 30}, 1_201_094),  # 30 * 1,281,167 / 32 = 1,201,094.06
    ({'decay_epochs': 0.5}, 20_018),  # 20,018.23
    ({'decay_percent': 10}, 500_000),
    ({'decay_percent': 100}, 5_000_000),
    ({'decay_percent': 1e-9}, 1),  # above zero: at least one step
    ({'decay_examples': 0}, 0),
    ({'decay_steps': None, 'decay_percent': 1}, 50_000),
  ],
)
def test_units(config, expected):
  steps = durations.steps(config, 'decay', **KNOWN)
  assert steps == expected and isinstance(steps, int)


def test_reads_a_locked_config():
  config = ml_collections.ConfigDict({'every_epochs': 2, 'other': 1}).lock()
  assert durations.steps(config, 'every', batch_size=4, num_examples=10) == 5


def test_default_only_when_absent():
  assert durations.steps({}, 'warmup', batch_size=1, default=None) is None
  assert durations.steps({}, 'warmup', batch_size=1, default=7) == 7
  config = {'warmup_steps': 3}
  assert durations.steps(config, 'warmup', batch_size=1, default=7) == 3


@pytest.mark.parametrize(
  'config, message',
  [
    ({}, 'warmup_steps, warmup_epochs, warmup_examples, warmup_percent'),
    ({'warmup_steps': 1, 'warmup_epochs': 1}, 'warmup_steps and warmup_epochs'),
    ({'warmup_steps': -1}, 'warmup_steps must be'),
    ({'warmup_steps': 1.5}, 'warmup_steps must be a whole'),
    ({'warmup_steps': '9'}, "warmup_steps must be .*'9'"),
    ({'warmup_steps': True}, 'warmup_steps must be'),
    ({'warmup_epochs': float('nan')}, 'warmup_epochs must be'),
    ({'warmup_percent': 101}, 'warmup_percent must be at most 100'),
  ],
)
def test_mistakes_name_the_key(config, message):
  with pytest.raises(ValueError, match=message):
    durations.steps(config, 'warmup', **KNOWN)


@pytest.mark.parametrize('unit', ['epochs', 'percent'])
def test_unit_that_cannot_be_converted(unit):
  with pytest.raises(ValueError, match=f'total_{unit} .*not known'):
    durations.steps({f'total_{unit}': 3}, 'total', batch_size=8)
