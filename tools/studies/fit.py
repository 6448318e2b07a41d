"""Least squares line of a metric against a number or its logarithm.

How performance grows with the amount of data (Sun et al. 2017, section 5.2:
"logarithmically").
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Line:
  """y = intercept + slope u, with u = log10(x) or x.

  Attributes:
    slope: change of y per factor of ten of x, or per unit of x.
    intercept: y at u = 0.
    r2: share of the variance of y that the line explains; NaN where y is
      constant.
    num: number of points.
  """

  slope: float
  intercept: float
  r2: float
  num: int


def line(x: Sequence[float], y: Sequence[float], *, log_x: bool) -> Line | None:
  """The line of least squares; None with fewer than two different x."""
  u = np.log10(np.asarray(x, np.float64)) if log_x else np.asarray(x, float)
  v = np.asarray(y, np.float64)
  if len(np.unique(u)) < 2:
    return None
  du, dv = u - u.mean(), v - v.mean()
  slope = (du @ dv) / (du @ du)
  rest = dv - slope * du
  total = dv @ dv
  r2 = 1 - (rest @ rest) / total if total > 0 else np.nan
  return Line(
    float(slope), float(v.mean() - slope * u.mean()), float(r2), len(u)
  )
