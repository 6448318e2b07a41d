"""The hook of reads that fail: what it drops, and that it goes again."""

import gc
import pathlib
import sys
import threading
import types
import warnings

import pytest

from big_vision_like.checkpoints import folders, late_answers, reading

PLACE = pathlib.Path('some/checkpoints/7')


@pytest.fixture
def said(monkeypatch):
  """What reaches the hook that was there before."""
  heard = []
  monkeypatch.setattr(sys, 'unraisablehook', heard.append)
  return heard


def met(exc_value, thing=None):
  return types.SimpleNamespace(exc_value=exc_value, object=thing)


@pytest.mark.parametrize(
  ('error', 'raised'),
  [
    (None, None),
    (RuntimeError('no device'), RuntimeError),
    (MemoryError(), MemoryError),
    (OSError('cut short'), folders.DamagedError),
    (ValueError('no key'), folders.DamagedError),
    (KeyboardInterrupt(), KeyboardInterrupt),
    (SystemExit(1), SystemExit),
  ],
)
def test_the_hook_is_as_before_however_a_read_ends(error, raised, said):
  before = sys.unraisablehook
  try:
    with reading.damage_named(PLACE):
      assert sys.unraisablehook is not before
      if error is not None:
        raise error
  except BaseException as found:
    assert type(found) is raised
  else:
    assert raised is None
  assert sys.unraisablehook is before


def test_only_late_answers_are_dropped(said):
  with late_answers.dropped():
    sys.unraisablehook(met(RuntimeError('Event loop is closed')))
    other = met(RuntimeError('in a finalizer of the user'))
    sys.unraisablehook(other)
  assert said == [other]
  after = met(RuntimeError('Event loop is closed'))
  sys.unraisablehook(after)
  assert said == [other, after]


def test_an_answer_shortly_after_the_failure_is_dropped_too(said):
  late = met(RuntimeError('Event loop is closed'))
  hook = []
  answering = threading.Timer(0.1, lambda: hook[0](late))
  before = sys.unraisablehook
  with (
    pytest.raises(folders.DamagedError, match='cut short'),
    reading.damage_named(PLACE),
  ):
    hook.append(sys.unraisablehook)
    answering.start()
    raise OSError('cut short')
  answering.join()
  assert not said
  assert sys.unraisablehook is before


def test_what_the_frames_of_the_failure_hold_ends_before_the_hook_goes(said):
  async def read():
    try:
      await never()
    finally:
      raise RuntimeError('unawaited')

  @types.coroutine
  def never():
    yield

  def failing():
    begun = read()
    begun.send(None)
    held = {'begun': begun}
    held['self'] = held
    raise OSError('cut short')

  with warnings.catch_warnings(), pytest.raises(folders.DamagedError) as error:
    warnings.simplefilter('ignore')
    with reading.damage_named(PLACE):
      failing()
  del error
  gc.collect()
  assert not said


def test_nested_and_concurrent_reads_share_one_hook(said):
  before = sys.unraisablehook
  inside, go_on = threading.Event(), threading.Event()

  def other():
    with late_answers.dropped():
      inside.set()
      assert go_on.wait(10)

  thread = threading.Thread(target=other)
  with late_answers.dropped():
    first = sys.unraisablehook
    with late_answers.dropped():
      assert sys.unraisablehook is first
    assert sys.unraisablehook is first
    thread.start()
    assert inside.wait(10)
  assert sys.unraisablehook is first  # the other thread still reads
  sys.unraisablehook(met(RuntimeError('Event loop is closed')))
  assert not said
  go_on.set()
  thread.join()
  assert sys.unraisablehook is before


def test_a_hook_that_others_put_over_it_stays(said, monkeypatch):
  above = []
  with late_answers.dropped():
    ours = sys.unraisablehook

    def theirs(what):
      above.append(what)
      ours(what)

    sys.unraisablehook = theirs
  assert sys.unraisablehook is theirs
  with late_answers.dropped():
    sys.unraisablehook(met(RuntimeError('Event loop is closed')))
    assert not above
  assert sys.unraisablehook is theirs
  late = met(RuntimeError('Event loop is closed'))
  sys.unraisablehook(late)
  assert above == said == [late]


def test_the_wait_is_short(said, monkeypatch):
  """A fifth of a second by a clock that only the waiting moves."""
  now = [0.0]
  clock = types.SimpleNamespace(
    monotonic=lambda: now[0],
    sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
  )
  monkeypatch.setattr(late_answers, 'time', clock)
  with pytest.raises(RuntimeError), reading.damage_named(PLACE):
    raise RuntimeError
  assert 0.2 <= now[0] < 0.25
