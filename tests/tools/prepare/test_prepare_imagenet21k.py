"""prepare_imagenet21k on small archives in the published forms."""

import gzip
import hashlib
import pathlib

import numpy as np
import pytest

from input_pipeline.files import decompress
from input_pipeline.sources.records import Source
from tests.input_pipeline.files.archives_made import tar_bytes
from tests.input_pipeline.publishers import imagenet_made
from tools import prepare_imagenet21k

IMAGES = imagenet_made.train(30, ('n01440764', 'n02123045', 'n02512053'))
IMAGES |= imagenet_made.train(3, ('n07739125',))
KEYS = {
  f'{wnid}/{name}': data
  for wnid, files in IMAGES.items()
  for name, data in files.items()
}
TARS = imagenet_made.class_tars(IMAGES)


def run(output, *args, **options) -> int:
  argv = ['--output', output, '--workers', 1, *args]
  for name, value in options.items():
    argv += [f'--{name}', value]
  return prepare_imagenet21k.main(list(map(str, argv)))


def write(path: pathlib.Path, data: bytes | str) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(data if isinstance(data, bytes) else data.encode())
  return path


def contents(output) -> dict[str, dict[str, bytes]]:
  found = {}
  for split in ('train', 'val'):
    source = Source(path=str(output), split=split)
    found[split] = {}
    for i in range(len(source)):
      example = source[i]
      (label,) = example['labels'].tolist()
      name = source.vocabulary.names[label]
      assert name == imagenet_made.wnid_of(example['image'])
      found[split][example['key']] = example['image']
  return found


def expected_val(percent: float) -> set[str]:
  """The rule of docs/preparing-data.md, written again."""

  def number(key: str) -> int:
    name = key.rpartition('/')[2].encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())

  return {key for key in KEYS if number(key) < percent / 100 * 2**64}


@pytest.mark.parametrize(
  'packing', ['winter21', 'fall11', 'class tars', 'folders']
)
def test_every_packing(tmp_path, monkeypatch, packing):
  options = dict(holdout_percent=20)
  if packing == 'winter21':
    monkeypatch.setattr(decompress, 'SMALL_COMPRESSED', 0)
    tars = {f'winter21_whole/{name}': files for name, files in TARS.items()}
    path = tmp_path / 'winter21_whole.tar.gz'
    write(path, gzip.compress(tar_bytes(tars), 1))
    options['scratch'] = tmp_path / 'scratch'
  elif packing == 'fall11':
    path = write(tmp_path / 'fall11_whole.tar', tar_bytes(TARS))
  else:
    path = tmp_path / 'in'
    for wnid, files in IMAGES.items():
      if packing == 'class tars':
        write(path / f'{wnid}.tar', tar_bytes(files))
      else:
        for name, data in files.items():
          write(path / wnid / name, data)
  out = tmp_path / 'out'
  assert run(out, input=path, **options) == 0
  val = expected_val(20)
  assert 8 < len(val) < 30
  assert contents(out) == {
    'train': {k: v for k, v in KEYS.items() if k not in val},
    'val': {k: v for k, v in KEYS.items() if k in val},
  }
  assert run(out, '--verify') == 0
  labels = Source(path=str(out)).vocabulary
  assert labels.names == tuple(sorted(IMAGES)) and labels.imagenet_ids is None
  assert labels.counts.tolist() == [
    sum(k.startswith(w) for k in KEYS if k not in val) for w in sorted(IMAGES)
  ]


def test_hierarchy_descriptions_and_imagenet_ids(tmp_path, capsys):
  """Ancestors are labels: those with images, and those without."""
  path = write(tmp_path / 'x.tar', tar_bytes(TARS))
  words = ''.join(f'{w}\t{text}\n' for w, text in imagenet_made.WORDS.items())
  options = dict(
    input=path,
    hierarchy=write(tmp_path / 'wordnet.is_a.txt', imagenet_made.IS_A),
    descriptions=write(tmp_path / 'words.txt', words),
    ilsvrc_synsets=write(
      tmp_path / '1k.txt', 'n01440764\nn02123045\nn04285008\n'
    ),
    holdout_percent=10,
  )
  assert run(tmp_path / 'out', **options) == 0
  text = capsys.readouterr().out
  assert '2 of the 3 synsets of' in text
  source = Source(path=str(tmp_path / 'out'))
  labels = source.vocabulary
  assert labels.names == (
    'n01440764', 'n02123045', 'n02512053', 'n07739125',  # with images
    'n00001740', 'n00015388',
  )  # fmt: skip
  assert labels.imagenet_ids == ('n01440764', 'n02123045', *[None] * 4)
  assert labels.descriptions == tuple(
    imagenet_made.WORDS[name] for name in labels.names
  )
  tench = source.hierarchy.close(np.int32([0])).tolist()
  assert [labels.names[i] for i in tench] == [
    'n01440764', 'n02512053', 'n00001740', 'n00015388',
  ]  # fmt: skip


def test_classes_left_out_are_counted(tmp_path, capsys):
  path = write(tmp_path / 'x.tar', tar_bytes(TARS))
  options = dict(input=path, holdout_percent=20)
  assert run(tmp_path / 'a', **options, min_images=4) == 0
  text = capsys.readouterr().out
  assert '1 classes with 3 images left out: they have fewer than 4' in text
  source = Source(path=str(tmp_path / 'a'))
  assert source.vocabulary.names == tuple(sorted(IMAGES))[:3]
  names = write(tmp_path / 'wanted.txt', 'n01440764\nn07739125\nn99999999\n')
  assert run(tmp_path / 'b', **options, min_images=4, synsets=names) == 0
  text = capsys.readouterr().out
  assert '2 classes with 60 images left out: they are not among the 3' in text
  assert '1 of these have no images' in text
  assert '1 classes with 3 images left out' in text
  source = Source(path=str(tmp_path / 'b'))
  assert source.vocabulary.names == ('n01440764',)
  assert run(tmp_path / 'c', **options, min_images=31) == 2
  assert 'no class is left: 4 classes with 93 images' in (
    capsys.readouterr().err
  )


def test_limit_and_damage(tmp_path, capsys):
  tars = {name: dict(files) for name, files in TARS.items()}
  tars['n01440764.tar']['n01440764_7.JPEG'] = b''
  path = write(tmp_path / 'x.tar', tar_bytes(tars))
  options = dict(input=path, holdout_percent=20, max_bad_fraction=0.2)
  assert run(tmp_path / 'a', **options) == 0
  assert ', 1 bad,' in capsys.readouterr().out
  found = contents(tmp_path / 'a')
  assert len(found['train']) + len(found['val']) == len(KEYS) - 1
  assert run(tmp_path / 'b', **options, limit=7) == 0
  found = contents(tmp_path / 'b')
  assert len(found['train']) == len(found['val']) == 7
  assert not set(found['train']) & expected_val(20)


@pytest.mark.parametrize(
  'options, message',
  [
    ({}, '--input is missing'),
    ({'input': 'none.tar'}, "--input 'none.tar': no such file or folder"),
    (
      {'input': 'x.tar', 'holdout_percent': 0},
      r'holdout_percent=0.0 must be float in \(0, 100\)',
    ),
    (
      {'input': 'x.tar', 'min_images': 0},
      'min_images=0 must be int of at leas',
    ),
    ({'input': 'x.tar', 'synsets': 'no.txt'}, r'no\.txt: no such file'),
    ({'input': 'x.tar', 'hierarchy': 'no.txt'}, r'no\.txt: no such file'),
    ({'input': 'empty.tar'}, r'empty\.tar: no images in it'),
    ({'input': 'flat.tar'}, r"flat\.tar: image 'a\.jpg' is in no class"),
    ({'input': 'big.tar.gz'}, r'big\.tar\.gz: .* give --scratch DIR with more'),
  ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, options, message):
  monkeypatch.setattr(decompress, 'SMALL_COMPRESSED', 0)
  monkeypatch.chdir(tmp_path)
  write(tmp_path / 'x.tar', tar_bytes(TARS))
  write(tmp_path / 'empty.tar', tar_bytes({'n01440764.tar': {}}))
  write(tmp_path / 'flat.tar', tar_bytes({'a.jpg': b'1'}))
  write(tmp_path / 'big.tar.gz', gzip.compress(tar_bytes({})))
  assert run('out', **options) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and error.count('\n') == 1
  with pytest.raises(ValueError, match=message):
    raise ValueError(error)
