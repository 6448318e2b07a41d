"""What a search must keep to: candidates that differ, images of their own.

A rate that was chosen by the figure that is reported makes that figure too
good. So the images that a search is scored on may be those of no evaluator that
a table or figure shows, nor those that the candidates are trained on.
"""

import functools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from big_vision_like.config import plugins, settings

from .jobs import IGNORED, START, Job, within

# Options of sources that say how examples look or how many there are, not of
# which images they are.
_NO_CHOICE = (
  'num_images', 'subset', 'image_size', 'annotations', 'single_label',
  'confidences', 'negatives', 'num_keypoints', 'background', 'vocabulary',
  'hierarchy', 'hierarchy_unlisted', 'fingerprint', 'task', 'dtype',
)  # fmt: skip
_PLACES = ('path', 'directory', 'data_dir', 'root')


def taken(configs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Candidate -> its values of the keys in which the candidates differ.

  Args:
    configs: complete configs of the candidates, without their starts.

  Returns:
    By candidate, dotted key -> value; where candidates do not have the same
    keys in a section, the whole section.
  """
  plain = [json.loads(settings.to_json(c)) for c in configs.values()]
  keys = differing(plain)
  return {
    name: {key: at(config.to_dict(), key) for key in keys}
    for name, config in configs.items()
  }


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
  """Dotted keys of what is trained in which complete configs differ."""
  others = (*IGNORED, 'seed', START)
  return [key for key in _differing(configs) if not within(key, others)]


def _differing(
  configs: Sequence[Mapping[str, Any]], prefix: str = ''
) -> Iterator[str]:
  for key in configs[0]:
    values = [config[key] for config in configs]
    if all(value == values[0] for value in values):
      continue
    sections = all(isinstance(value, Mapping) for value in values)
    if sections and all(value.keys() == values[0].keys() for value in values):
      yield from _differing(values, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}'


def at(config: Mapping[str, Any], key: str) -> Any:
  """The value of a dotted key."""
  value: Any = config
  for name in key.split('.'):
    value = value[name]
  return value


def evaluator_of(
  metric: str, valid: Iterable[str], run: str, where: str
) -> str:
  """The evaluator of a metric; ValueError where the run has no such one."""
  evaluator, valid = metric.partition('/')[0], list(valid)
  if evaluator not in valid:
    raise ValueError(
      f'{where}: metric {metric!r}: run {run!r} has no evaluator '
      f'{evaluator!r}{plugins.suggest(evaluator, valid)}; valid: '
      f'{", ".join(f"{name}/..." for name in valid)}'
    )
  return evaluator


def check(
  first: Mapping[str, Job], reported: Sequence[tuple[str, str, str]]
) -> None:
  """Refuses searches that could not tell, or would tell too much.

  Args:
    first: run -> its first job.
    reported: (table or figure, run, metric) of all that is shown.

  Raises:
    ValueError: naming the run and what is wrong with its search.
  """
  for name, job in first.items():
    if (best_of := job.run.best_of) is None:
      continue
    where = f'runs, {name!r}: best_of'
    candidates = [first[run] for run in best_of.runs]
    for candidate in candidates:
      evals = candidate.config['evals']
      evaluator_of(best_of.metric, evals, candidate.run.name, where)
    _check_differ(candidates, best_of.metric, where)
    _check_images(candidates[0], best_of.metric, first, reported, where)


def _check_differ(candidates: Sequence[Job], metric: str, where: str) -> None:
  """In what they train, and not in what decides between them."""
  evaluator = metric.partition('/')[0]
  seen: dict[str, str] = {}
  for job in candidates:
    training = {k: v for k, v in job.training.items() if k != 'seed'}
    same = seen.setdefault(json.dumps(training, sort_keys=True), job.run.name)
    if same != job.run.name:
      raise ValueError(
        f'{where}.runs: {same!r} and {job.run.name!r} are the same training'
      )
    if (
      job.config['evals'][evaluator] != candidates[0].config['evals'][evaluator]
    ):
      raise ValueError(
        f'{where}.metric={metric!r}: evals.{evaluator} of '
        f'{candidates[0].run.name!r} and of {job.run.name!r} differ, so that '
        'their figures cannot be compared'
      )


def _check_images(
  candidate: Job,
  metric: str,
  first: Mapping[str, Job],
  reported: Sequence[tuple[str, str, str]],
  where: str,
) -> None:
  evaluator = metric.partition('/')[0]
  data = _data(candidate, evaluator)
  ours = f'evals.{evaluator} of {candidate.run.name!r}'
  for place, run, shown in reported:
    other = shown.partition('/')[0]
    if other == 'train':
      continue
    others = _data(first[run], other)
    if data is None or others is None:
      same = other == evaluator and data is others
    else:
      same = _overlap(data, others)
    if same:
      raise ValueError(
        f'{where}.metric={metric!r}: {ours} and evals.{other} of {run!r}, '
        f'which {place} reports, score the same images. What is chosen by must '
        'not be reported: take another split, or the rest of a subset'
      )
  source = candidate.config['input']['source']
  if data is not None and _overlap(data, source):
    raise ValueError(
      f'{where}.metric={metric!r}: {ours} scores the images that it is trained '
      'on: take another split, or a part of this one with '
      'input.source.subset=dict(fraction=...) and for the evaluator the rest'
    )


def _data(job: Job, evaluator: str) -> Mapping[str, Any] | None:
  """The source of an evaluator; None of one without."""
  entry = job.config['evals'][evaluator]
  data = entry.get('data') if isinstance(entry, Mapping) else None
  return data if isinstance(data, Mapping) else None


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
  """Whether two sources are of the same images, in any number of them."""
  one, other = _innermost(one), _innermost(other)
  if _images(one) != _images(other):
    return False
  (part, rest), (other_part, other_rest) = map(_part, (one, other))
  return part != other_part or rest == other_rest


def _part(source: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
  """(subset, whether it is the rest of it)."""
  given = source.get('subset')
  given = given if isinstance(given, Mapping) else {}
  part = {k: v for k, v in given.items() if k != 'rest' and v is not None}
  return part, bool(given.get('rest'))


def _innermost(source: Mapping[str, Any]) -> Mapping[str, Any]:
  """The source of the images in one that makes other examples of them."""
  for value in source.values():
    if isinstance(value, Mapping) and 'type' in value:
      return _innermost(value)
  return source


def _images(source: Mapping[str, Any]) -> dict[str, Any]:
  """The options that say which images: place, split, world.

  Defaults do not count, since one place may be read by several sources.
  """
  default = _defaults(str(source.get('type', '')))
  found = {
    name: value
    for name, value in source.items()
    if name not in (*_NO_CHOICE, 'type')
    and value is not None
    and value != default.get(name)
  }
  found['split'] = source.get('split', default.get('split'))
  places = [name for name in _PLACES if isinstance(found.get(name), str)]
  for name in places:
    found[name] = os.path.realpath(os.path.expanduser(found[name]))
  if not places:
    found['type'] = source.get('type')
  return found


@functools.cache
def _defaults(kind: str) -> dict[str, Any]:
  """Those of the options of a type of source."""
  try:
    source_class = plugins.get('source', kind)
  except ValueError:  # said where the config itself is checked
    return {}
  names, _ = plugins.option_names(source_class)
  return {name: plugins.option(source_class, {}, name) for name in names}
