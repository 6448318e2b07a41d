"""Label rows of Open Images, on tiny files in the publisher's form."""

import csv
import gzip
import io
import pickle

import numpy as np
import pytest

from input_pipeline.publishers.open_images import labels as open_images_labels
from input_pipeline.publishers.open_images import packed

HEADER = 'ImageID,Source,LabelName,Confidence\n'
MIDS = ['/m/01yrx', '/m/0bt9lr', '/g/11k2xz7mr', '/m/0199g', '/m/04hgtk']
IDS = [f'{number:016x}' for number in (7, 0x26E7EE790996, 2**63 + 5, 2**64 - 1)]


def rows_text(rows, source='verification') -> str:
  return HEADER + ''.join(f'{i},{source},{m},{c}\n' for i, m, c in rows)


def read(tmp_path, text, *, human=True, ids=IDS, names=MIDS, minimum=0.5):
  """(packed numbers, counts) of one file."""
  path = tmp_path / 'labels.csv'
  path.write_bytes(text.encode() if isinstance(text, str) else text)
  reader = open_images_labels.Reader(
    open_images_labels.LabelNames(names),
    np.array(sorted(int(i, 16) for i in ids), np.uint64),
    minimum,
  )
  reader.read(str(path), human=human)
  return reader.finished(), reader.counts


def triples(keys) -> list[tuple[int, int, int]]:
  image = (keys >> np.uint64(packed.IMAGE_SHIFT)).tolist()
  labels, states = packed.labels_of(keys), packed.states_of(keys)
  return list(zip(image, labels.tolist(), states.tolist()))


# Rows -> numbers


def test_rows_become_numbers(tmp_path):
  text = rows_text([
    (IDS[3], MIDS[2], '1'), (IDS[0], MIDS[4], '0'), (IDS[0], MIDS[0], '1.0'),
  ])  # fmt: skip
  keys, counts = read(tmp_path, text)
  assert triples(keys) == [
    (0, 0, packed.PRESENT), (0, 4, packed.ABSENT), (3, 2, packed.PRESENT),
  ]  # fmt: skip
  assert counts.rows == 3 and counts.other_labels == counts.other_images == 0


def test_machine_confidences_keep_four_decimals(tmp_path):
  texts = ['0.5', '0.8', '.73125'.replace('.', '0.'), '1.0', '0', '0.4999']
  rows = [(IDS[0], mid, c) for mid, c in zip(MIDS, texts)]
  rows.append((IDS[1], MIDS[0], texts[5]))
  keys, counts = read(tmp_path, rows_text(rows, 'machine'), human=False)
  assert [state for *_, state in triples(keys)] == [5000, 8000, 7312, 10000]
  assert counts.low_confidence == 2  # 0 and 0.4999


@pytest.mark.parametrize('ending', ['\n', '\r\n'])
@pytest.mark.parametrize('last_newline', [True, False])
@pytest.mark.parametrize('zipped', [False, True])
def test_line_endings_and_gzip(tmp_path, ending, last_newline, zipped):
  text = rows_text([(IDS[0], MIDS[0], '1'), (IDS[1], MIDS[1], '0')])
  text = text if last_newline else text.rstrip('\n')
  data = ('\ufeff' + text.replace('\n', ending)).encode()
  path = tmp_path / ('l.csv.gz' if zipped else 'l.csv')
  path.write_bytes(gzip.compress(data) if zipped else data)
  reader = open_images_labels.Reader(
    open_images_labels.LabelNames(MIDS), np.array([7], np.uint64), 0
  )
  reader.read(str(path), human=True)
  assert triples(reader.finished()) == [(0, 0, packed.PRESENT)]
  assert reader.counts.images_missing.tolist() == [0x26E7EE790996]


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ('00000000000000g7,verification,/m/01yrx,1', '16 hexadecimal digits'),
    ('0007,verification,/m/01yrx,1', '16 hexadecimal digits'),
    ('0000000000000007,verification,/m/01yrx', 'expected ImageID,Source'),
    ('0000000000000007,a,b,/m/01yrx,1', 'expected ImageID,Source'),
    ('', 'expected ImageID,Source'),
    ('0000000000000007,verification,,1', 'LabelName must be 1 to 24'),
    (f'0000000000000007,v,{"m" * 25},1', 'LabelName must be 1 to 24'),
    ('0000000000000007,verification,/m/01yrx,', 'Confidence must be 1 to 16'),
    ('0000000000000007,verification,/m/01yrx,0.5', "0 or 1, got '0.5'"),
    ('0000000000000007,verification,/m/01yrx,nan', "0 or 1, got 'nan'"),
    ('0000000000000007,verification,/m/01yrx,=1', "0 or 1, got '=1'"),
    ('0000000000000007,verification,/m/01yrx,-0', "0 or 1, got '-0'"),
  ],
)
def test_bad_rows_are_refused_with_their_line(
  tmp_path, monkeypatch, row, message
):
  monkeypatch.setattr(open_images_labels, '_BLOCK_BYTES', 100)
  good = [(IDS[0], MIDS[0], '1')] * 9
  with pytest.raises(ValueError, match=message) as error:
    read(
      tmp_path, rows_text(good) + row + '\n' + rows_text(good)[len(HEADER) :]
    )
  assert f'{tmp_path}/labels.csv:11: ' in str(error.value)


@pytest.mark.parametrize('confidence', ['1.01', '-0.1', 'inf', '0.5.5', '1_0'])
def test_bad_confidences_of_machines(tmp_path, confidence):
  rows = [(IDS[0], MIDS[0], '0.7'), (IDS[0], MIDS[1], confidence)]
  with pytest.raises(ValueError, match=r'csv:3: .* a number in \[0, 1\]'):
    read(tmp_path, rows_text(rows), human=False)


def test_wrong_files(tmp_path):
  with pytest.raises(ValueError, match=r'csv:1: expected the header ImageID'):
    read(tmp_path, 'ImageID,LabelName\n1,2\n')
  with pytest.raises(FileNotFoundError, match=r'none\.csv: no such file'):
    open_images_labels.Reader(
      open_images_labels.LabelNames(MIDS), np.zeros(1, np.uint64), 0
    ).read(str(tmp_path / 'none.csv'), human=True)
  cut = gzip.compress(rows_text([(IDS[0], MIDS[0], '1')] * 500).encode())[:-20]
  (tmp_path / 'cut.csv.gz').write_bytes(cut)
  with pytest.raises(ValueError, match=r'cut\.csv\.gz: damaged'):
    open_images_labels.Reader(
      open_images_labels.LabelNames(MIDS), np.zeros(1, np.uint64), 0
    ).read(str(tmp_path / 'cut.csv.gz'), human=True)


def reference(human, machine, known, minimum):
  """image -> label -> state, row by row with the csv module."""
  found, low = {}, 0
  for row in csv.DictReader(io.StringIO(machine)):
    conf = float(row['Confidence'])
    if row['LabelName'] in known and conf < minimum:
      low += 1
    elif row['LabelName'] in known:
      labels = found.setdefault(row['ImageID'], {})
      before = labels.get(row['LabelName'], 0)
      labels[row['LabelName']] = max(before, conf)
  verdicts = {}
  for row in csv.DictReader(io.StringIO(human)):
    if row['LabelName'] in known:
      pair = row['ImageID'], row['LabelName']
      verdicts.setdefault(pair, []).append(row['Confidence'])
  for (image, label), given in verdicts.items():
    present = '1' in given
    found.setdefault(image, {})[label] = 1 if present else None
  return found, low


@pytest.mark.parametrize(('block', 'chunk'), [(1 << 20, 1 << 20), (97, 7)])
def test_against_row_by_row(tmp_path, monkeypatch, block, chunk):
  """Random rows, with repetitions, contradictions, unknown ids and labels."""
  monkeypatch.setattr(open_images_labels, '_BLOCK_BYTES', block)
  monkeypatch.setattr(packed, '_CHUNK', chunk)
  rng = np.random.default_rng(1)
  ids = [f'{n:016x}' for n in rng.integers(0, 2**63, 12)]
  labels = [*MIDS, '/m/unknown']

  def rows(values):
    return [
      (ids[rng.integers(12)], labels[rng.integers(6)], rng.choice(values))
      for _ in range(150)
    ]

  human = rows_text(rows(['0', '1']))
  machine = rows_text(rows(['0.3', '0.5', '0.6', '0.9']), 'machine')
  here = sorted(ids[:8])
  expected, low = reference(human, machine, MIDS, 0.5)
  (tmp_path / 'h.csv').write_text(human)
  (tmp_path / 'm.csv').write_text(machine)
  reader = open_images_labels.Reader(
    open_images_labels.LabelNames(MIDS),
    np.array([int(i, 16) for i in here], np.uint64),
    0.5,
  )
  reader.read(str(tmp_path / 'h.csv'), human=True)
  reader.read(str(tmp_path / 'm.csv'), human=False)
  table = packed.PackedLabels(reader.finished(), len(here), None)
  for row, image in enumerate(here):
    found, conf, negatives = table.of(row)
    wanted = expected.get(image, {})
    positive = {MIDS.index(k): c for k, c in wanted.items() if c is not None}
    assert found.tolist() == sorted(positive)
    np.testing.assert_allclose(conf, [positive[i] for i in sorted(positive)])
    assert negatives.tolist() == sorted(
      MIDS.index(k) for k, c in wanted.items() if c is None
    )
    assert not set(found) & set(negatives)
  counts = reader.counts
  missing = {int(i, 16) for i in expected if i not in here}
  assert counts.images_missing.tolist() == sorted(missing)
  assert counts.low_confidence == low
  assert counts.rows == 300
  kept = sum(len(labels) for i, labels in expected.items() if i in here)
  assert kept == 300 - (
    counts.other_labels + counts.low_confidence + counts.other_images
    + counts.overruled + counts.contradictory + counts.repeated
  )  # fmt: skip


def test_counts_of_pairs_that_occur_again(tmp_path):
  text = rows_text([
    (IDS[0], MIDS[0], '1'), (IDS[0], MIDS[0], '0'),  # contradictory
    (IDS[0], MIDS[1], '0'), (IDS[0], MIDS[1], '0'),  # repeated
  ])  # fmt: skip
  keys, counts = read(tmp_path, text)
  assert (counts.contradictory, counts.repeated) == (1, 1)
  assert triples(keys) == [(0, 0, packed.PRESENT), (0, 1, packed.ABSENT)]


def test_labels_are_counted_and_renumbered(monkeypatch):
  monkeypatch.setattr(packed, '_CHUNK', 2)
  rows = [(0, 0, 9000), (0, 1, packed.ABSENT), (1, 0, packed.PRESENT),
          (1, 3, packed.ABSENT), (2, 3, 6000)]  # fmt: skip
  keys = np.array(
    [i << 36 | label << 16 | s for i, label, s in rows], np.uint64
  )
  counts = packed.label_counts(keys, 4)
  assert counts.tolist() == [[2, 0, 0, 1], [0, 1, 0, 1]]
  again = packed.relabelled(keys, np.array([0, -1, -1, 1]))
  assert triples(again) == [
    (0, 0, 9000), (1, 0, packed.PRESENT), (1, 1, packed.ABSENT), (2, 1, 6000),
  ]  # fmt: skip


def test_workers_share_the_labels_by_a_file(tmp_path):
  keys = np.arange(1000, dtype=np.uint64) << np.uint64(packed.IMAGE_SHIFT)
  alone = packed.PackedLabels(keys, 1000, None)
  shared = packed.PackedLabels(keys, 1000, str(tmp_path / 'scratch'))
  small, large = pickle.dumps(shared), pickle.dumps(alone)
  assert len(large) - len(small) > 7000
  for copy in (pickle.loads(small), pickle.loads(large)):  # noqa: S301
    np.testing.assert_array_equal(copy.keys(), keys)
    assert copy.of(3)[0].tolist() == [0]
  assert isinstance(pickle.loads(small).keys(), np.memmap)  # noqa: S301
