"""Hashes, descriptors, verification and the search against brute force."""

import io
import itertools
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from tools.near_duplicates import (
  chunks,
  hashes,
  pairs,
  search,
  signatures,
  thumbnails,
  verify,
  windows,
)
from tools.near_duplicates.state import State


def photograph(seed: int, height: int = 120, width: int = 160) -> np.ndarray:
  """Smooth blobs, edges and texture: uint8 [height, width, 3]."""
  rng = np.random.default_rng(seed)
  image = np.zeros((height, width, 3))
  for cells in (3, 6, 12, 24):
    grid = rng.normal(size=(cells, cells, 3)) * 160 / cells**0.7
    layer = [
      Image.fromarray(grid[..., c].astype(np.float32)).resize((width, height))
      for c in range(3)
    ]
    image += np.stack([np.asarray(x) for x in layer], -1)
  return (image + 120).clip(0, 255).astype(np.uint8)


def recompressed(image: np.ndarray, quality: int) -> np.ndarray:
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, 'jpeg', quality=quality)
  return np.asarray(Image.open(io.BytesIO(buffer.getvalue())).convert('RGB'))


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
  return np.asarray(Image.fromarray(image).resize((width, height)))


COPIES = {
  'exact': lambda x: x,
  'resized': lambda x: resized(x, 60, 80),
  'squashed': lambda x: resized(x, 90, 90),
  'recompressed': lambda x: recompressed(x, 30),
  'cropped': lambda x: x[6:-6, 2:-14],
  'cropped and resized': lambda x: recompressed(
    resized(x[10:115, 20:], 128, 128), 60
  ),
}


class TestHashes:
  def test_by_hand(self):
    """One horizontal frequency: its bit, and none but those above zero."""
    wave = np.cos(np.pi * 3 * (2 * np.arange(32) + 1) / 64)
    image = np.repeat((128 + 100 * wave).astype(np.uint8)[None], 32, axis=0)
    image = np.repeat(image[..., None], 3, axis=2)
    plain, mirrored = hashes.phash(image)
    assert plain >> (63 - 3) & 1  # row 0, column 3
    assert not mirrored >> (63 - 3) & 1  # an odd frequency turns its sign
    assert plain >> 63 & mirrored >> 63 & 1  # the mean is always above

  def test_float64_cosine_transform(self):
    """The definition in full, from scipy's transform."""
    for seed in range(5):
      image = photograph(seed)
      grey = Image.fromarray(image).convert('L')
      small = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), float)
      low = np.asarray(dctn(small, type=2))[:8, :8]
      bits = (low > np.median(low)).ravel()
      expected = int(''.join('01'[int(b)] for b in bits), 2)
      assert hashes.phash(image)[0] == expected

  def test_mirror_image(self):
    for seed in range(5):
      image = photograph(seed)
      turned = np.ascontiguousarray(image[:, ::-1])
      assert hashes.phash(image) == hashes.phash(turned)[::-1]

  @pytest.mark.parametrize('limit', [0, 1, 4, 7, 11, 15])
  def test_index_finds_what_brute_force_finds(self, limit):
    rng = np.random.default_rng(limit)
    database = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    database[10:40] = database[5]  # a crowded value
    queries = np.concatenate([database[:300], database[:20]])
    for row in range(100, 300):
      for bit in rng.choice(64, rng.integers(0, 18), replace=False):
        queries[row] ^= np.uint64(1 << int(bit))
    found = []
    for q, d, bits in hashes.Index(database).near(queries, limit):
      found += zip(q.tolist(), d.tolist(), bits.tolist())
    expected = [
      (i, j, n)
      for i, q in enumerate(queries.tolist())
      for j, d in enumerate(database.tolist())
      if (n := (q ^ d).bit_count()) <= limit
    ]
    assert len(found) == len(set(found))
    assert sorted(found) == expected


class TestVerification:
  @pytest.mark.parametrize('kind', COPIES)
  def test_copies_score_high(self, kind):
    for seed in range(4):
      image = photograph(seed)
      a, b = verify.prepare(image), verify.prepare(COPIES[kind](image))
      assert verify.score(a, b) > 0.85, (kind, seed)
      assert verify.score(b, a) > 0.85, (kind, seed)

  def test_others_score_low(self):
    prepared = [verify.prepare(photograph(seed)) for seed in range(6)]
    for i in range(6):
      assert verify.score(prepared[i], prepared[(i + 1) % 6]) < 0.6

  def test_what_a_crop_leaves_out_costs_a_tenth_of_it(self):
    whole = np.random.default_rng(0).normal(size=(48, 48)).astype(np.float32)
    parts = [40 * whole, 40 * whole[4:40, 9:45]]  # 36 of 48: 9 / 16
    found = verify._best_places(40 * whole, parts)
    assert found == pytest.approx([1, 1 - 0.1 * 7 / 16], abs=1e-4)

  def test_mirror_images_only_when_asked(self):
    image = photograph(0)
    a, b = verify.prepare(image), verify.prepare(image[:, ::-1].copy())
    assert verify.score(a, b) < 0.6
    assert verify.score(a.mirrored, b) > 0.99

  def test_flat_images_are_told_apart_by_colour(self):
    def flat(colour):
      return verify.prepare(np.full((40, 50, 3), colour, np.uint8))

    assert verify.score(flat(90), flat(90)) == 1
    assert verify.score(flat(90), flat((90, 90, 98))) == pytest.approx(0.5)
    assert verify.score(flat(90), flat(200)) == 0
    assert verify.score(flat(90), verify.prepare(photograph(0))) == 0


def test_thumbnails_of_copies_and_mirror_images():
  image = photograph(1)
  vector = thumbnails.describe(image)
  assert vector.shape == (thumbnails.DIM,)
  assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
  for kind in ('resized', 'recompressed', 'squashed'):
    assert vector @ thumbnails.describe(COPIES[kind](image)) > 0.98
  turned = thumbnails.describe(image[:, ::-1].copy())
  np.testing.assert_allclose(
    thumbnails.mirror(vector[None])[0], turned, atol=1e-2
  )
  assert vector @ thumbnails.describe(photograph(2)) < 0.6


class TestWindows:
  def test_means_over_parts_of_pixels_by_hand(self):
    third = 1 / 3
    np.testing.assert_allclose(
      windows._averages(4, 2, 0.25, 0.5), [[0, 1, 0, 0], [0, 0, 1, 0]]
    )
    np.testing.assert_allclose(
      windows._averages(4, 2, 0, 0.75),
      [[2 * third, third, 0, 0], [0, third, 2 * third, 0]],
      rtol=1e-6,
    )

  @pytest.mark.parametrize('window', [(0, 0, 1.0), *windows.WINDOWS[::5]])
  def test_a_window_is_described_as_the_crop(self, window):
    top, left, share = window
    y, x, side = (round(400 * part) for part in (top, left, share))
    for seed in range(3):
      image = photograph(seed, 400, 400)
      crop = thumbnails.describe(image[y : y + side, x : x + side])
      (found,) = windows.describe(windows.sketch(image)[None], window)
      assert found @ crop > 0.98
      assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)

  def test_mirror_images_and_images_that_are_none(self):
    top, left, share = window = windows.WINDOWS[5]
    turned_window = (top, 1 - share - left, share)
    image = photograph(0, 128, 128)
    images = [image, np.ascontiguousarray(image[:, ::-1])]
    sketches = np.stack([windows.sketch(x) for x in images])
    sketches = np.concatenate([sketches, np.zeros_like(sketches[:1])])
    mirrored = windows.WindowVectors(sketches, window, True)
    plain = windows.WindowVectors(sketches, turned_window, False)
    assert len(mirrored) == 3 and mirrored[:].dtype == np.float16
    np.testing.assert_allclose(mirrored[:1], plain[1:2], atol=2e-2)
    assert not plain[np.array([2])].any()
    black = windows.sketch(np.zeros((9, 9, 3), np.uint8))
    assert black.any()  # black is a picture


class Crops:
  """24 photographs, and crops of 16 of them: 4 chunks of sketches."""

  def __init__(self, folder):
    self.state = State(str(folder))
    rng = np.random.default_rng(0)
    images = [photograph(seed) for seed in range(24)]
    self.originals = rng.permutation(24)[:16]
    self.shares = np.resize([0.95, 0.9, 0.85, 0.8], 16)
    for number, share in zip(self.originals, self.shares):
      height, width = round(120 * share), round(160 * share)
      y, x = rng.integers(0, 121 - height), rng.integers(0, 161 - width)
      images.append(images[number][y : y + height, x : x + width])
    edges = (0, 12, 24, 30, 40)
    self.chunks = [
      chunks.Chunk(0, a, b, f'{a}-{b}') for a, b in itertools.pairwise(edges)
    ]
    self.made = signatures.Signatures(
      self.state, signatures.Vectors('thumbnail', thumbnails.DIM),
      hashed=False, mirrored=True, sketched=True,
    )  # fmt: skip
    self.sketches = np.stack([windows.sketch(image) for image in images])
    self.vectors = np.stack([thumbnails.describe(image) for image in images])
    for chunk in self.chunks:
      part = slice(chunk.start, chunk.stop)
      self.made._save_vectors(chunk, self.vectors[part])
      self.state.save_array(self.sketches[part], *self.made._sketch_file(chunk))
    self.made.unreadable = lambda chunk: {}

  def find(self, queries, database, **options):
    """{(query, found, mirrored)} by windows, rows of all images."""
    chosen = search.Options(None, 0.85, **{'crops': True, **options})
    finder = search.Search(self.state, self.made, chosen)
    finder.run(queries, database)
    found = finder.candidates(queries, database)
    joint = pairs.Pairs.join([v for k, v in found.items() if k != 'cosine'])
    first, second = joint.query, joint.found
    if not chosen.within:
      first = first + queries[0].start
    return set(zip(first.tolist(), second.tolist(), joint.mirrored.tolist()))

  def closeness(self, mirrored):
    """float64 [40, 40]: of the best window of a row and a whole image."""
    wholes = self.vectors.astype(np.float16).astype(np.float64)
    best = np.full((40, 40), -1.0)
    for window in windows.WINDOWS:
      vectors = windows.describe(self.sketches, window)
      vectors = thumbnails.mirror(vectors) if mirrored else vectors
      best = np.maximum(best, vectors.astype(np.float16) @ wholes.T)
    return best


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
  return Crops(tmp_path_factory.mktemp('crops'))


class TestCrops:
  @pytest.mark.parametrize('memory_mb', [0, 1024])
  def test_brute_force_both_ways(self, crops, memory_mb):
    """Originals are the database, their crops the queries."""
    found = crops.find(
      crops.chunks[2:], crops.chunks[:2], mirrored=True, memory_mb=memory_mb
    )
    for mirrored in (False, True):
      best = crops.closeness(mirrored)
      best = np.maximum(best[24:, :24], best[:24, 24:].T)
      some = {(i - 24, j) for i, j, m in found if m == mirrored}
      sure = set(map(tuple, np.argwhere(best > 0.851).tolist()))
      near = set(map(tuple, np.argwhere(best > 0.849).tolist()))
      assert sure <= some <= near
      assert mirrored or len(sure) >= 12

  def test_crops_of_photographs_are_candidates(self, crops):
    found = crops.find(crops.chunks[2:], crops.chunks[:2])
    for share in np.unique(crops.shares):
      rows = np.flatnonzero(crops.shares == share)
      hits = [(24 + r, crops.originals[r], False) in found for r in rows]
      assert sum(hits) >= (4 if share >= 0.9 else 3), share

  def test_within_a_set_each_pair_is_found_from_either_side(self, crops):
    found = crops.find(crops.chunks, crops.chunks, within=True)
    between = crops.find(crops.chunks[2:], crops.chunks[:2])
    either = found | {(j, i, m) for i, j, m in found}
    assert between <= either
    assert all(i != j for i, j, _ in found)

  # No room at all, and room for the members but not for the queries.
  @pytest.mark.parametrize('memory_mb', [0, 0.05])
  def test_cells_and_growth(self, tmp_path, monkeypatch, memory_mb):
    crops = Crops(tmp_path)
    monkeypatch.setattr('tools.near_duplicates.cells._MEMBERS', 8)
    exact = crops.find(crops.chunks[2:], crops.chunks[:2], method='exact')
    options = dict(method='cells', probes=1000)
    crops.find(crops.chunks[3:], crops.chunks[1:2], **options)
    grown = crops.find(
      crops.chunks[2:], crops.chunks[:2], memory_mb=memory_mb, **options
    )
    assert grown == exact


class Tables:
  """A search over given vectors and hashes, without images."""

  def __init__(self, folder, sizes, vectors, words, mirrored=False):
    self.state = State(str(folder))
    edges = np.cumsum([0, *sizes])
    self.chunks = [
      chunks.Chunk(0, int(a), int(b), f'{a}-{b}')
      for a, b in itertools.pairwise(edges)
    ]
    about = signatures.Vectors(
      'files', vectors.shape[1], files=[('x', vectors)]
    )
    self.made = signatures.Signatures(
      self.state, about, hashed=True, mirrored=False
    )
    for chunk in self.chunks:
      part = slice(chunk.start, chunk.stop)
      arrays = {
        'hash': words[part],
        'mirrored': ~words[part],
        'bad': np.empty(0, np.int64),
        'reason': np.empty(0, np.str_),
      }
      self.state.save_arrays(arrays, *self.made._image_file(chunk))
      self.made._save_vectors(chunk, vectors[part])

  def find(self, queries, database, **options):
    """{kind: {(query, found, mirrored)}} over the rows of two lists."""
    chosen = search.Options(3, 0.8, **{'within': False, **options})
    self.search = search.Search(self.state, self.made, chosen)
    self.search.run(queries, database)
    found = self.search.candidates(queries, database)
    return {
      kind: set(zip(p.query.tolist(), p.found.tolist(), p.mirrored.tolist()))
      for kind, p in found.items()
    }


@pytest.fixture
def table(tmp_path):
  """300 records in 7 chunks, a third of them near to another one."""
  rng = np.random.default_rng(3)
  vectors = rng.normal(size=(300, 16)).astype(np.float32)
  words = rng.integers(0, 2**64, 300, dtype=np.uint64)
  for row in range(200, 300):
    other = rng.integers(0, 200)
    noise = rng.normal(size=16) * rng.uniform(0, 0.9)
    vectors[row] = vectors[other] + noise
    words[row] = words[other] ^ np.uint64(1 << int(rng.integers(0, 63)))
  vectors[17] = 0  # no image
  return Tables(tmp_path, [50, 25, 75, 50, 1, 49, 50], vectors, words)


def _brute_force(table, queries, database, within):
  def rows(side):
    return np.concatenate([np.arange(c.start, c.stop) for c in side])

  def vectors(side):
    return np.concatenate([table.made.load(c) for c in side]).astype(np.float64)

  def words(side):
    return np.concatenate([table.made.hashes(c) for c in side]).tolist()

  near = vectors(queries) @ vectors(database).T >= 0.8
  apart = [
    [(a ^ b).bit_count() for b in words(database)] for a in words(queries)
  ]
  close = np.array(apart) <= 3
  if within:
    same = rows(queries)[:, None] == rows(database)
    near, close = near & ~same, close & ~same
  pair_set = lambda m: {(i, j, False) for i, j in np.argwhere(m).tolist()}
  return {'hash': pair_set(close), 'cosine': pair_set(near)}


class TestSearch:
  @pytest.mark.parametrize('within', [False, True])
  @pytest.mark.parametrize('memory_mb', [0, 1024])
  def test_brute_force(self, table, within, memory_mb):
    queries = table.chunks if within else table.chunks[4:]
    database = table.chunks if within else table.chunks[:4]
    expected = _brute_force(table, queries, database, within)
    found = table.find(queries, database, within=within, memory_mb=memory_mb)
    assert found == expected
    assert all(len(some) > 20 for some in expected.values())

  def test_all_cells_are_the_exact_search(self, table, monkeypatch):
    monkeypatch.setattr('tools.near_duplicates.cells._MEMBERS', 20)
    some = table.chunks[2:]
    exact = table.find(some, some, within=True, method='exact')
    every = table.find(
      some, some, within=True, method='cells', probes=1000,
      memory_mb=0,
    )  # fmt: skip
    assert every == exact
    assert table.search.methods == {'cells'}
    few = table.find(some, some, within=True, method='cells', probes=1)
    assert few['cosine'] < exact['cosine']  # some lie across a border
    assert len(few['cosine']) > 0.5 * len(exact['cosine'])

  def test_mirrored_hashes_are_those_of_the_mirror_image(self, table):
    a, b = table.chunks[0], table.chunks[3]
    arrays = table.state.load_arrays(*table.made._image_file(a))
    arrays['mirrored'][7] = table.made.hashes(b)[11] ^ np.uint64(5)
    table.state.save_arrays(arrays, *table.made._image_file(a))
    found = table.find([a], [b], mirrored=True)
    assert (7, 11, True) in found['hash']
    assert (7, 11, True) not in table.find([a], [b])['hash']

  @pytest.mark.parametrize('method', ['exact', 'cells'])
  def test_a_grown_set_gives_what_a_fresh_search_gives(
    self, table, monkeypatch, method
  ):
    options = dict(within=True, method=method, probes=2)
    monkeypatch.setattr('tools.near_duplicates.cells._MEMBERS', 50)
    some, every = table.chunks[1:4], table.chunks
    table.find(some, some, **options)
    first = table.search.num_compared
    grown = table.find(every, every, **options)
    size = sum(map(len, some))
    assert first == 2 * size**2  # hashes and vectors
    assert table.search.num_compared == 2 * (300**2 - size**2)
    again = table.find(every, every, **options)
    assert table.search.num_compared == 0 and again == grown
    shutil.rmtree(table.state.path('searches'))
    fresh = table.find(every, every, **options)  # the same cells
    assert fresh == grown

  def test_a_stopped_search_goes_on(self, table, monkeypatch):
    expected = table.find(table.chunks, table.chunks, within=True)
    with pytest.MonkeyPatch.context() as patch:
      calls = []
      save = State.save_arrays

      def save_and_stop(state, arrays, *names):
        save(state, arrays, *names)
        calls.append(names)
        if len(calls) == 3:
          raise KeyboardInterrupt

      patch.setattr(State, 'save_arrays', save_and_stop)
      with pytest.raises(KeyboardInterrupt):
        table.find(
          table.chunks, table.chunks, within=True, memory_mb=0, mirrored=True
        )
    made = []
    patched = search.Search._near_hashes

    def counted(self, unit, queries, database):
      made.append(unit)
      return patched(self, unit, queries, database)

    monkeypatch.setattr(search.Search, '_near_hashes', counted)
    found = table.find(
      table.chunks, table.chunks, within=True, memory_mb=0, mirrored=True
    )
    assert len(made) == 49 - 3  # 7 x 7 units, three of them were there
    plain = {p for p in found['hash'] if not p[2]}
    assert plain == expected['hash']
