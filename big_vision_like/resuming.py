"""Which checkpoint a run goes on from, and the state that is in it.

The newest whole one: damaged ones are set aside. All processes come to the same
answer; the first one looks.
"""

import contextlib
import pathlib
from typing import Any

from big_vision_like.checkpoints import (
  compatibility,
  folders,
  manager,
  place,
  preflight,
  reading,
)
from big_vision_like.config import settings, stream_names
from big_vision_like.experiment import Experiment
from big_vision_like.runtime import distributed, writers
from big_vision_like.training.state import TrainState
from input_pipeline import streams


def early_proof(workdir: str, console: writers.Console) -> folders.Proof | None:
  """A proof of what will probably be the newest checkpoint, under way.

  It reads in the background while data are opened and the net is built. The
  workdir is not locked yet, nor looked at: what stands in the way of reading it
  is said later, where that is done.
  """
  if not distributed.is_first():
    return None
  with contextlib.suppress(OSError, ValueError, ImportError):
    for step in folders.by_step(folders.of_workdir(workdir))[:1]:
      proof = folders.Proof(step, console.say)
      return None if proof.first else proof
  return None


def checkpoints(
  exp: Experiment,
  workdir: pathlib.Path,
  early: folders.Proof | None,
  console: writers.Console,
) -> tuple[pathlib.Path, folders.Proof | None]:
  """(folder of the checkpoints; proof of the newest, under way).

  The first process looks into them, before any other does. The proof, the early
  one where it is of this checkpoint, goes on in the background while evaluators
  and the state are built and arrays are read.
  """
  proof = None
  if distributed.is_first():
    fresh = not (workdir / settings.FILE).exists()
    folder = place.settle(workdir, exp.config.ckpt.dir, fresh)
    folders.check_names(folder)
    for step in folders.by_step(folder)[:1]:
      if early is not None and early.step == step:
        proof = early
      else:
        proof = folders.Proof(step, console.say)
      if proof.first:
        _set_damaged_aside(folder, console, proof)
        proof = None
  distributed.decide(True)  # done
  return folders.of_workdir(workdir), proof


def try_saving(folder: pathlib.Path, state: TrainState) -> None:
  """Before the first step, and after all that a mistake in the config stops."""
  if distributed.is_first():
    preflight.check_folder(folder, state)
  if not distributed.decide(bool(folders.by_step(folder))):
    preflight.check_saving(folder, state)


def _set_damaged_aside(
  folder: pathlib.Path, console: writers.Console, found: folders.Proof
) -> None:
  """Sets aside what is newer than the newest whole one.

  Raises:
    DamagedError: nothing is, though `found` was not whole: storage that gives
      one answer now and another then.
  """
  done = False
  for old, new, problem in folders.set_damaged_aside(folder, console.say):
    done = True
    console.say(
      f'checkpoint {old} is damaged or incomplete ({problem}): it is now '
      f'called {new.name}, and the run goes on from the one before'
    )
  if not done:
    raise folders.DamagedError(
      f'checkpoint {found.step} is damaged or incomplete: {found.problem()}; '
      'looked at again it is not: its storage does not give the same twice'
    )


def check_best(folder: pathlib.Path, console: writers.Console) -> None:
  """Sets the best checkpoint aside where it is damaged, for another.

  Its arrays are read where another checkpoint was damaged; else its names,
  sizes and small files are compared. The first process does it.

  Args:
    folder: of the checkpoints.
    console: is told.
  """
  told = folders.read_best(folder) if distributed.is_first() else None
  if told is None:
    return
  best = folder / str(told['step'])
  if best.is_dir():
    proof = folders.Proof(best, console.say)
    entries = [path.name for path in folder.iterdir()]
    suspect = any(folders.ASIDE in name for name in entries)
    problem = proof.problem() if suspect else proof.first
    proof.cancel()
    if not problem:
      return
    aside = folders.set_aside(best, problem)
    what = (
      f'is damaged or incomplete ({problem}): it is now called {aside.name}'
    )
  else:
    what = 'is not there any more'
  (folder / folders.BEST_FILE).unlink(missing_ok=True)
  console.say(
    f'the best checkpoint {best} {what}, and the best of the others takes its '
    'place where ckpt.best is set'
  )


def restore(
  exp: Experiment,
  ckpt: manager.Checkpointer,
  proof: folders.Proof | None,
  data_id: str,
  console: writers.Console,
) -> TrainState | None:
  """The state of the workdir's newest whole checkpoint; None without any.

  The first process compares its files with the manifest while they are read.

  Args:
    exp, ckpt: of the run.
    proof: of the newest checkpoint, if one is under way.
    data_id: fingerprint of the data.
    console: of the run.
  """
  while (step := distributed.decide(ckpt.latest_step())) is not None:
    first = distributed.is_first()
    if first and (proof is None or proof.step != ckpt.path(step)):
      proof = folders.Proof(ckpt.path(step), console.say)
    state = error = None
    try:
      state = _restore_step(exp, ckpt, step, data_id, console)
    except folders.DamagedError as met:
      error = met
    finally:
      if proof is not None and state is error is None:
        proof.cancel()
    if not distributed.decide(proof.problem() if proof is not None else ''):
      if error is not None:
        raise error
      return state
    if first:
      assert proof is not None
      _set_damaged_aside(ckpt.folder, console, proof)
    distributed.decide(True)  # done
    ckpt.reload()
    proof = None
  return None


def _restore_step(
  exp: Experiment,
  ckpt: manager.Checkpointer,
  step: int,
  data_id: str,
  console: writers.Console,
) -> TrainState:
  """The state of a step, if it is one of this run."""
  path = ckpt.path(step)
  try:
    meta = ckpt.meta(step)
    if meta['data'] != data_id and not exp.config.resume.accept_data_change:
      changed = '\n'.join(streams.differences(meta['data'], data_id))
      raise ValueError(
        f'the data set is not the one that {path} was trained on; '
        '--config.resume.accept_data_change=True goes on with the new one, in '
        f'its own order. Fingerprints:\n{changed}'
      )
    _check_resume(exp, meta, step, path, console)
    for name, told in reading.by_stream(meta).items():
      space = exp.spaces.get(name)
      if space is not None and compatibility.classes_differ(told, space):
        of = f' of {stream_names.config_key(name)}' if name else ''
        console.say(
          f'the classes{of} have other names, or another order, than those '
          f'that {path} was trained on'
        )
    console.say(f'resuming from step {step} of {path}')
    return ckpt.restore(exp.abstract_state, step)
  except folders.DamagedError as error:
    before = [s for s in ckpt.steps() if s < step]
    then = f'step {before[-1]}' if before else 'the start'
    error.add_note(f'without that folder the same command goes on from {then}')
    raise


def _check_resume(
  exp: Experiment,
  meta: dict[str, Any],
  step: int,
  path: pathlib.Path,
  console: writers.Console,
) -> None:
  """What shapes alone do not tell apart."""
  before, now = meta['config']['optim']['type'], exp.config.optim.type
  if before != now:
    raise ValueError(
      f'checkpoint {path} holds the slots of optim.type={before!r}, not of '
      f'{now!r}; start from it with init_from.path in another workdir'
    )
  if step > exp.total_steps:
    raise ValueError(
      f'checkpoint {path} is past the end of the run, total_steps='
      f'{exp.total_steps}'
    )
  if meta['total_steps'] != exp.total_steps:
    console.say(
      f'the run was planned for {meta["total_steps"]} steps and is now for '
      f'{exp.total_steps}: a schedule that follows the length changes'
    )
  # Padded heads of equal width may still hold different classes.
  for name, told in reading.by_stream(meta).items():
    before, space = told['num_classes'], exp.spaces.get(name)
    if space is not None and before != space.num_classes:
      key = stream_names.config_key(name)
      raise ValueError(
        f'checkpoint {path} has {before} classes, the config '
        f'{space.num_classes} ({key if name else "task"}.num_classes, or those '
        f'of {key}.source)'
      )
