"""Images of one class by their distance to the centroids of its features.

What a class looks like has several modes; k-means finds them. An image far
from all of them is rare within its class, or wrong (Sun et al. 2017, figure 2,
which does not state feature, k or number of buckets).
"""

import dataclasses
from collections.abc import Sequence

import faiss
import numpy as np

_MIN_PER_CLUSTER = 4  # images on average; fewer would be centroids themselves
_ITERATIONS = 25
_RESTARTS = 3  # the best of so many
_MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class Clusters:
  """The n images of a class.

  Attributes:
    cluster: int64 [n], 0 being the largest cluster.
    distance: float32 [n] to the nearest centroid, between unit vectors.
    bucket: int64 [n], 0 being the nearest images; of equal counts.
    num_clusters: may be less than asked for, in small classes.
    num_buckets: likewise.
  """

  cluster: np.ndarray
  distance: np.ndarray
  bucket: np.ndarray
  num_clusters: int
  num_buckets: int

  def members(self, bucket: int) -> np.ndarray:
    """Images of a bucket, nearest first."""
    inside = np.flatnonzero(self.bucket == bucket)
    return inside[np.argsort(self.distance[inside], kind='stable')]


def find(
  features: np.ndarray,
  *,
  num_clusters: int = 8,
  num_buckets: int = 5,
  seed: int = 0,
) -> Clusters:
  """Clusters the images of a class.

  Args:
    features: float32 [n, D], n >= 1; they are divided by their lengths.
    num_clusters: k, at most a quarter of the images.
    num_buckets: at most one an image.
    seed: of the first centroids.

  Raises:
    ValueError: an argument out of range, or features that are not finite.
  """
  for name, value in (
    ('num_clusters', num_clusters), ('num_buckets', num_buckets),
  ):  # fmt: skip
    if value < 1:
      raise ValueError(f'{name}={value} must be at least 1')
  if not 0 <= seed <= _MAX_SEED:
    raise ValueError(f'seed={seed} must be in [0, {_MAX_SEED}]')
  points = unit_length(features)
  num = len(points)
  k = min(num_clusters, max(num // _MIN_PER_CLUSTER, 1))
  kmeans = faiss.Kmeans(
    points.shape[1],
    k,
    niter=_ITERATIONS,
    nredo=_RESTARTS,
    seed=seed,
    min_points_per_centroid=1,
    max_points_per_centroid=max(num, 1),  # of no image is left out
  )
  kmeans.train(points)
  squared, nearest = kmeans.index.search(points, 1)
  distance = np.sqrt(np.maximum(squared[:, 0], 0))
  return Clusters(
    cluster=_by_size(nearest[:, 0], k),
    distance=distance,
    bucket=equal_buckets(distance, num_buckets),
    num_clusters=k,
    num_buckets=min(num_buckets, num),
  )


def unit_length(features: np.ndarray) -> np.ndarray:
  """float32 [n, D] of length 1; a zero vector stays."""
  if not np.isfinite(features).all():
    bad = int(np.flatnonzero(~np.isfinite(features).all(1))[0])
    raise ValueError(f'the features of image {bad} are not finite')
  points = np.asarray(features, np.float64)
  lengths = np.linalg.norm(points, axis=1, keepdims=True)
  return np.ascontiguousarray(
    points / np.where(lengths > 0, lengths, 1), np.float32
  )


def equal_buckets(distance: np.ndarray, num_buckets: int) -> np.ndarray:
  """int64 [n] bucket of each image by rank; the first ones may hold one more.

  Equal distances keep the order that they are given in.
  """
  num = len(distance)
  bucket = np.empty(num, np.int64)
  order = np.argsort(distance, kind='stable')
  for number, part in enumerate(np.array_split(order, min(num_buckets, num))):
    bucket[part] = number
  return bucket


def spread(members: np.ndarray, num: int) -> Sequence[int]:
  """`num` members evenly spread over their order, the ends among them."""
  if len(members) <= num:
    return members.tolist()
  places = np.linspace(0, len(members) - 1, num).round().astype(int)
  return members[places].tolist()


def _by_size(labels: np.ndarray, k: int) -> np.ndarray:
  """Clusters numbered by falling size."""
  order = np.argsort(-np.bincount(labels, minlength=k), kind='stable')
  numbers = np.empty(k, np.int64)
  numbers[order] = np.arange(k)
  return numbers[labels]
