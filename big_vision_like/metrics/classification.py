"""Accuracy of single-label classification, from the rank of the true class."""

import numpy as np


def figures(rank: np.ndarray, loss: np.ndarray) -> dict[str, float]:
  """'top1' and 'top5' in percent, 'loss', 'num_images'.

  Args:
    rank: int [n], how many classes are ranked before the true one.
    loss: float [n], in nats.
  """
  return {
    'top1': float(100 * (rank < 1).mean()),
    'top5': float(100 * (rank < 5).mean()),
    'loss': float(loss.mean(dtype=np.float64)),
    'num_images': len(rank),
  }
