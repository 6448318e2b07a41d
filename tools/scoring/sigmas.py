"""How far off each keypoint may be: given, or known of the data."""

from typing import Any

from big_vision_like.metrics import oks

from .annotated import Annotated

FLAG = '--sigmas'


def choose(text: str | None, known: Annotated[Any]) -> list[float]:
  """K sigmas.

  Args:
    text: of the flag: one number for all keypoints or K, with commas between;
      None: those of the skeleton.
    known: truth of poses.

  Raises:
    ValueError: neither given nor known, no numbers above 0, or another number
      of them.
  """
  num = known.truth.keypoints.shape[1]
  if text is None:
    if known.skeleton is None or known.skeleton.sigmas is None:
      raise ValueError(
        f'{known.origin}: nothing says how far off its {num} keypoints may be: '
        f'{FLAG} with one number for all, such as .05, or {num} of them'
      )
    found = list(known.skeleton.sigmas)
  else:
    found = _parsed(text)
    found = found * num if len(found) == 1 else found
  try:
    return oks.check_sigmas(found, num).tolist()
  except ValueError as error:
    raise ValueError(f'{FLAG}: {error}') from None


def _parsed(text: str) -> list[float]:
  try:
    return [float(part) for part in text.split(',')]
  except ValueError:
    raise ValueError(
      f'{FLAG}={text!r}: expected numbers with commas between'
    ) from None
