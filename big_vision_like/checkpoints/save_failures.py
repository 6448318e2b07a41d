"""What ends a run whose saves fail; a module of its own, quick to import."""


class SaveFailed(Exception):
  """The storage does not take checkpoints; one line says where and why."""
