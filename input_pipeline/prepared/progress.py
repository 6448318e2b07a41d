"""Which shards of a data set are finished, so that work can be resumed.

progress.jsonl holds the settings in its first line, then a line a shard. Only
the main process writes it. Workers that share nothing with it but the folder
(beam_runner.py) leave a note a shard in the sub-folder `.notes`; the main
process takes these over while it runs, and at the next start if it was killed.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from big_vision_like.config import json_text
from input_pipeline.files import atomic
from input_pipeline.prepared.preparation import TEMPORARY, Done

FILE_NAME = 'progress.jsonl'
NOTES_FOLDER = '.notes'
_NOTE = '.json'


class Progress:
  """The finished shards; `done` maps their names to what is known of them.

  Raises (at construction):
    ValueError: the folder holds work begun with other settings; names them.
  """

  def __init__(self, folder: str, settings: Mapping[str, Any]):
    self._folder = folder
    self._path = os.path.join(folder, FILE_NAME)
    self.done: dict[str, Done] = {}
    lines = self._complete_lines()
    notes = [note for _, note in read_notes(folder) if isinstance(note, Done)]
    found = [*map(Done.from_json, lines[1:]), *(notes if lines else ())]
    if found:  # else nothing is done yet, whatever the settings were
      check_settings(folder, json_text.parse(lines[0], self._path), settings)
      self.done = {d.shard.name: d for d in found if d.is_whole(folder)}
    for name in os.listdir(folder):
      if name.endswith(TEMPORARY):
        os.unlink(os.path.join(folder, name))
    rest = [done.to_json() for done in self.done.values()]
    with atomic.writing_text(self._path, suffix=TEMPORARY) as file:
      file.writelines(f'{line}\n' for line in [json.dumps(settings), *rest])
    remove_notes(folder)

  def _complete_lines(self) -> list[str]:
    """Lines of the file; one cut short by a kill is left out."""
    if not os.path.exists(self._path):
      return []
    with open(self._path, encoding='utf-8') as file:
      return [line for line in file if line.endswith('\n')]

  def add(self, done: Done) -> None:
    self.done[done.shard.name] = done
    append_line(self._path, done.to_json())


def append_line(path: str, line: str) -> None:
  """Adds a line to a file of lines; it is on disk when this returns."""
  with open(path, 'a', encoding='utf-8') as file:
    file.write(f'{line}\n')
    file.flush()
    os.fsync(file.fileno())


def remove(folder: str) -> None:
  """Removes the file, if it is there: the data set is finished."""
  with contextlib.suppress(FileNotFoundError):
    os.unlink(os.path.join(folder, FILE_NAME))


def check_settings(
  folder: str, before: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
  """ValueError naming the settings in which two preparations differ."""
  differ = [
    f'  {key}: {before.get(key)!r} before, {now.get(key)!r} now'
    for key in sorted({*before, *now})
    if before.get(key) != now.get(key)
  ]
  if differ:
    raise ValueError(
      f'{folder!r} holds a data set prepared with other settings:\n'
      + '\n'.join(differ)
      + '\nrepeat the command with the old settings, or choose another output'
    )


def leave_note(folder: str, name: str, outcome: Done | Exception) -> None:
  """Says in the folder how a shard ended, whole or not at all."""
  path = os.path.join(folder, NOTES_FOLDER, f'{name}{_NOTE}')
  if isinstance(outcome, Done):
    text = outcome.to_json()
  else:
    kind = 'OSError' if isinstance(outcome, OSError) else 'ValueError'
    text = json.dumps({'failed': kind, 'message': str(outcome)})
  atomic.write_text(path, text, suffix=TEMPORARY)


def read_notes(folder: str) -> Iterator[tuple[str, Done | Exception]]:
  """(path, how the shard ended) of each note."""
  notes = os.path.join(folder, NOTES_FOLDER)
  if not os.path.isdir(notes):
    return
  for name in sorted(os.listdir(notes)):
    if not name.endswith(_NOTE):
      continue
    path = os.path.join(notes, name)
    with open(path, encoding='utf-8') as file:
      text = file.read()
    content = json_text.parse(text, path)
    if 'failed' in content:
      kind = OSError if content['failed'] == 'OSError' else ValueError
      yield path, kind(content['message'])
    else:
      yield path, Done.from_json(text)


def remove_notes(folder: str) -> None:
  shutil.rmtree(os.path.join(folder, NOTES_FOLDER), ignore_errors=True)
