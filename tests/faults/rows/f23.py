"""F23: two trainers in one workdir, and the lock of one that was killed."""

import random
import signal
import socket

from tests.faults.field import EVERY, STEPS, Field
from tests.faults.rows import Row


def trial(field: Field, number: int, rng: random.Random) -> str:
  run = field.run(f'f23-{number}')
  first = run.start()
  step = rng.randrange(1, STEPS - EVERY)
  run.wait_for_step(first, step)
  first.send(signal.SIGSTOP)  # it lives, and does not end meanwhile
  out = run.folder / 'out'
  out.rename(run.folder / 'first')
  second = run.start(ledger=run.folder / 'second.jsonl')
  code, said = second.wait(60), second.output()
  assert code == 2, said
  assert f'another trainer, pid {first.pid} on {socket.gethostname()}' in said
  assert not (run.folder / 'second.jsonl').exists()
  assert first.poll() is None
  if number % 2:  # undisturbed by the second, it reaches the end
    first.send(signal.SIGCONT)
    assert first.wait(120) == 0
    run.finish()
    return f'refused at step {step}, the first has finished'
  first.send_group(signal.SIGKILL)
  first.wait()
  lock = (run.workdir / '.lock').read_text()
  assert f'pid {first.pid}' in lock, lock
  run.finish()
  return f'refused at step {step}, then the first was killed'


ROW = Row(
  'F23',
  'a second trainer in the workdir of one that runs; one where the first was '
  'killed',
  'refused with pid and host of the first, which goes on undisturbed; the lock '
  'of a dead one is taken over',
  trial,
  trials=20,
  per_commit=0,
)
