"""Where trials are done: a small config, its undisturbed run, folders."""

import json
import pathlib
import random
import time
from collections.abc import Sequence
from typing import Any

from big_vision_like.checkpoints import folders
from tests import tiny
from tests.faults import ledger
from tests.faults.trainers import Trainer, Trainers, free_port

STEPS, EVERY = 24, 4
_TIMEOUT_S = 120.0


class Run:
  """A run that is hurt and goes on, in a workdir of its own."""

  def __init__(self, field: 'Field', folder: pathlib.Path):
    self._field = field
    self.config = field.config
    self._trust: list[str] = field.trust
    self.folder = folder
    self.workdir = folder / 'w'
    self.ledger = folder / 'ledger.jsonl'

  def start(
    self, *args: str, inject: Sequence[Sequence[Any]] = (), **options: Any
  ) -> Trainer:
    """The same command each time, but for `args`."""
    return self._field.trainers.start(
      [
        f'--config={self.config}',
        f'--workdir={self.workdir}',
        *self._trust,
        *args,
      ],
      self.folder / 'out',
      inject=[('no_plot',), *inject],
      **{'ledger': self.ledger, **options},
    )

  def start_several(
    self, num: int, *args: str, **options: Any
  ) -> list[Trainer]:
    """As `start`, in several processes; each has a ledger of its own."""
    world = [f'--coordinator=127.0.0.1:{free_port()}', f'--num_processes={num}']
    return [
      self._field.trainers.start(
        [
          f'--config={self.config}',
          f'--workdir={self.workdir}',
          *self._trust,
          *world,
          f'--process_id={i}',
          *args,
        ],
        self.folder / f'out{i}',
        ledger=self.ledger_of(i),
        **options,
      )
      for i in range(num)
    ]

  def ledger_of(self, process: int) -> pathlib.Path:
    return self.folder / f'ledger{process}.jsonl'

  def change(self, **changes: Any) -> None:
    """Its config is another from here on: values by dotted key.

    It may name fixtures of the tests.
    """
    self._trust = ['--trust']
    content = json.loads(self._field.config.read_text())
    for name, value in changes.items():
      *parents, key = name.split('.')
      section = content
      for parent in parents:
        section = section[parent]
      section[key] = value
    self.config = self.folder / 'config.json'
    self.config.write_text(json.dumps(content))

  def saved(self) -> int:
    """The step of the newest whole checkpoint; 0: there is none."""
    try:
      return int(folders.find(self.workdir).name)
    except FileNotFoundError:
      return 0

  def last_step(self) -> int:
    return max((line['step'] for line in ledger.read(self.ledger)), default=0)

  def finish(
    self, *args: str, oracle: 'Run | None' = None, **options: Any
  ) -> Trainer:
    """The same command again: to the end, and all as in the oracle's ledger."""
    oracle = oracle or self._field.oracle
    run = self.start(*args, **options)
    assert run.wait(_TIMEOUT_S) == 0, run.output()[-3000:]
    different = ledger.differences(oracle.ledger, self.ledger)
    assert not different, '\n'.join(different[:3])
    assert self.saved() == oracle.last_step()
    return run

  def wait_for_step(self, trainer: Trainer, step: int) -> None:
    """Until it has computed so many steps, or has ended."""
    deadline = time.monotonic() + _TIMEOUT_S
    while self.last_step() < step and trainer.poll() is None:
      assert time.monotonic() < deadline, trainer.output()[-3000:]
      time.sleep(0.002)


class Field:
  """The oracle and what trials need.

  Args:
    folder: where all of it lies; made.
    trainers: starts the runs.
    simple: of a net of one layer, which not all rows can use.
  """

  def __init__(
    self, folder: pathlib.Path, trainers: Trainers, *, simple: bool = False
  ):
    self.trainers = trainers
    self.trust = ['--trust'] * simple  # the net is a fixture of the tests
    self.folder = folder
    folder.mkdir(parents=True, exist_ok=True)
    self.config = folder / 'config.json'
    made = tiny.simple if simple else tiny.config
    config = made(total_steps=STEPS)
    config.ckpt.every_steps = EVERY
    config.evals.fasteval.every_steps = 2 * EVERY
    self.config.write_text(config.to_json())
    self._others: dict[str, Run] = {}
    self.oracle = self.run('oracle')
    trainer = self.oracle.start()
    assert trainer.wait(_TIMEOUT_S) == 0, trainer.output()
    self.num_examples = config.input.source.num_images
    self.batch_size = config.input.batch_size

  def run(self, name: str) -> Run:
    folder = self.folder / name
    folder.mkdir()
    return Run(self, folder)

  def undisturbed(
    self, name: str, changes: dict[str, Any], **options: Any
  ) -> Run:
    """A whole run of a changed config; the first of a name is kept."""
    if name not in self._others:
      run = self.run(f'oracle-{name}')
      run.change(**changes)
      trainer = run.start(**options)
      assert trainer.wait(_TIMEOUT_S) == 0, trainer.output()[-3000:]
      self._others[name] = run
    return self._others[name]

  def moment(self, rng: random.Random, run: Run, trainer: Trainer) -> str:
    """Waits until some moment of the run, in its beginning or at a step."""
    step = rng.randrange(-3, STEPS)
    if step <= 0:
      seconds = rng.uniform(0, 1.5)
      time.sleep(seconds)
      return f'{seconds:.2f} s after the start'
    run.wait_for_step(trainer, step)
    milliseconds = rng.uniform(0, 60)
    time.sleep(milliseconds / 1000)
    return f'{milliseconds:.0f} ms after step {step}'


def checkpoints(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Folders of whole ones, the newest first."""
  return folders.by_step(workdir / folders.FOLDER)
