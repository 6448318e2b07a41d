"""prepare_imagenet on small files in exactly the publishers' forms."""

import json
import os
import pathlib
import zipfile

import numpy as np
import pytest

from input_pipeline.sources.records import Source
from tests.input_pipeline.files.archives_made import tar_bytes
from tests.input_pipeline.publishers import imagenet_made
from tools import prepare_imagenet

SORTED = tuple(sorted(imagenet_made.WNIDS))
VAL, VAL_WNIDS = imagenet_made.val()
ALL_TRAIN = {
  f'{wnid}/{name}': data
  for wnid, files in imagenet_made.train().items()
  for name, data in files.items()
}
ALL_VAL = {f'{w}/{n}': VAL[n] for n, w in zip(VAL, VAL_WNIDS)}


def run(output, *args, **options) -> int:
  argv = ['--output', output, '--workers', 1, *args]
  for name, value in options.items():
    argv += [f'--{name}', value]
  return prepare_imagenet.main(list(map(str, argv)))


def write(folder: pathlib.Path, content) -> pathlib.Path:
  for name, data in content.items():
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
  return folder


@pytest.fixture
def published(tmp_path):
  """The three files of image-net.org."""
  class_tars = imagenet_made.class_tars(imagenet_made.train())
  return write(
    tmp_path / 'published',
    {
      'ILSVRC2012_img_train.tar': tar_bytes(class_tars),
      'ILSVRC2012_img_val.tar': tar_bytes(VAL),
      'ILSVRC2012_devkit_t12.tar.gz': imagenet_made.devkit(VAL_WNIDS),
    },
  )


def kaggle() -> dict[str, bytes | str]:
  root = 'ILSVRC/Data/CLS-LOC'
  rows = [
    f'{name.removesuffix(".JPEG")},{wnid} 1 2 3 4 {wnid} 5 6 7 8 '
    for name, wnid in reversed(list(zip(VAL, VAL_WNIDS)))
  ]
  content = {f'{root}/train/{key}': data for key, data in ALL_TRAIN.items()}
  content |= {f'{root}/val/{name}': data for name, data in VAL.items()}
  return content | {
    f'{root}/test/ILSVRC2012_test_00000001.JPEG': b'of no class',
    'ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml': '<a/>',
    'LOC_val_solution.csv': '\n'.join(['ImageId,PredictionString', *rows]),
    'LOC_synset_mapping.txt': ''.join(
      f'{wnid} {imagenet_made.WORDS[wnid]}\n' for wnid in SORTED
    ),
  }


def contents(output) -> dict[str, dict[str, bytes]]:
  """split -> key -> image, each label checked against the pixels."""
  found = {}
  for split in ('train', 'val'):
    source = Source(path=str(output), split=split)
    found[split] = {}
    for i in range(len(source)):
      example = source[i]
      (label,) = example['labels'].tolist()
      wnid = imagenet_made.wnid_of(example['image'])
      assert source.vocabulary.names[label] == wnid
      assert example['key'].split('/')[0] == wnid
      found[split][example['key']] = example['image']
  return found


def shards(output) -> dict[str, bytes]:
  return {p.name: p.read_bytes() for p in output.glob('*.array_record')}


def test_as_published(published, tmp_path, capsys):
  out = tmp_path / 'out'
  assert run(out, input=published) == 0
  text = capsys.readouterr().out
  assert 'train: 24 images' in text and 'val: 9 images' in text
  assert contents(out) == {'train': ALL_TRAIN, 'val': ALL_VAL}
  labels = Source(path=str(out)).vocabulary
  assert labels.names == labels.imagenet_ids == SORTED
  assert labels.descriptions == tuple(imagenet_made.WORDS[w] for w in SORTED)
  assert labels.counts.tolist() == [6] * 4
  assert run(out, '--verify') == 0
  assert sorted(os.listdir(published)) == [
    'ILSVRC2012_devkit_t12.tar.gz', 'ILSVRC2012_img_train.tar',
    'ILSVRC2012_img_val.tar',
  ]  # fmt: skip


def test_every_packing_gives_the_same_bytes(published, tmp_path):
  assert run(tmp_path / 'a', input=published) == 0
  expected = shards(tmp_path / 'a')
  folders = {f'train/{key}': data for key, data in ALL_TRAIN.items()}
  folders |= {f'val/{key}': data for key, data in ALL_VAL.items()}
  places = {'folders': dict(input=write(tmp_path / 'folders', folders))}
  unpacked = write(tmp_path / 'kaggle', kaggle())
  places['kaggle'] = dict(input=unpacked)
  packed = tmp_path / 'kaggle.zip'
  with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, data in kaggle().items():
      archive.writestr(name, data)
  places['zip'] = dict(input=packed)
  tars = {
    f'{w}.tar': tar_bytes({f'images/{n}': d for n, d in files.items()})
    for w, files in imagenet_made.train().items()
  }
  text = write(tmp_path, {'val.txt': '\n'.join(VAL_WNIDS) + '\n'}) / 'val.txt'
  places['folder of class tars'] = dict(
    train=write(tmp_path / 'class tars', tars),
    val=write(tmp_path / 'flat', VAL),
    val_labels=text,
  )
  for name, options in places.items():
    assert run(tmp_path / 'out' / name, **options) == 0, name
    assert shards(tmp_path / 'out' / name) == expected, name
  described = Source(path=str(tmp_path / 'out' / 'zip')).vocabulary.descriptions
  assert described == tuple(imagenet_made.WORDS[w] for w in SORTED)


def test_hierarchies(published, tmp_path):
  """The paper's fill-in from ImageNet's own list, which has parents first."""
  path = tmp_path / 'wordnet.is_a.txt'
  path.write_text(imagenet_made.IS_A)
  assert run(tmp_path / 'a', input=published, hierarchy=path) == 0
  source = Source(path=str(tmp_path / 'a'))
  assert source.vocabulary.names == SORTED
  assert source.hierarchy.close(np.int32([0])).tolist() == [0]
  options = dict(hierarchy=path, hierarchy_unlisted='add')
  assert run(tmp_path / 'b', input=published, **options) == 0
  source = Source(path=str(tmp_path / 'b'))
  labels = source.vocabulary
  assert labels.names[4:] == ('n00001740', 'n00015388', 'n02512053')
  assert labels.counts.tolist() == [6] * 4 + [0] * 3
  assert labels.imagenet_ids == (*SORTED, None, None, None)
  assert labels.descriptions[4:] == tuple(
    imagenet_made.WORDS[name] for name in labels.names[4:]
  )  # the development kit knows the inner nodes too
  tench = source.hierarchy.close(np.int32([0]))
  assert [labels.descriptions[i].split(',')[0] for i in tench] == [
    'tench', 'entity', 'animal', 'fish',
  ]  # fmt: skip
  assert contents(tmp_path / 'b')['val'] == ALL_VAL


def test_limit_damage_and_files_that_are_no_images(tmp_path, capsys):
  images = imagenet_made.class_tars(imagenet_made.train())
  images['n01440764.tar']['n01440764_0.JPEG'] = b'not a JPEG'
  images['n01440764.tar']['._n01440764_7.JPEG'] = b'what macOS leaves'
  images['n01440764.tar']['list.txt'] = b'some list'
  folder = write(
    tmp_path / 'in',
    {'train.tar': tar_bytes(images), **{f'val/{k}': v for k, v in VAL.items()}},
  )
  labels = write(tmp_path, {'val.txt': '\n'.join([*VAL_WNIDS, SORTED[0]])})
  options = dict(input=folder, val_labels=labels / 'val.txt')
  assert run(tmp_path / 'strict', **options) == 1
  assert 'n01440764/n01440764_0.JPEG: ' in capsys.readouterr().err
  assert run(tmp_path / 'out', **options, max_bad_fraction=0.1) == 0
  text = capsys.readouterr().out
  assert 'train: 23 images, 23 labels (1.00 an image), 1 bad' in text
  assert '2 files of ' in text and 'are no images: n01440764.tar/._n01' in text
  assert '1 of 10 labels have no image' in text
  (bad,) = (tmp_path / 'out' / 'bad_images.jsonl').read_text().splitlines()
  assert json.loads(bad)['key'] == 'n01440764/n01440764_0.JPEG'
  expected = {k: v for k, v in ALL_TRAIN.items() if 'n01440764_0.' not in k}
  assert contents(tmp_path / 'out') == {'train': expected, 'val': ALL_VAL}
  assert run(tmp_path / 'few', '--limit', 5, input=folder, splits='train') == 0
  assert len(Source(path=str(tmp_path / 'few'))) == 5


def test_only_val(published, tmp_path, capsys):
  options = dict(val=published / 'ILSVRC2012_img_val.tar', splits='val')
  devkit = published / 'ILSVRC2012_devkit_t12.tar.gz'
  assert run(tmp_path / 'a', **options, val_labels=devkit) == 0
  source = Source(path=str(tmp_path / 'a'), split='val')
  assert source.vocabulary.names == SORTED and len(source) == 9
  text = write(tmp_path, {'val.txt': '\n'.join(VAL_WNIDS)}) / 'val.txt'
  assert run(tmp_path / 'b', **options, val_labels=text) == 2
  assert 'give --synsets' in capsys.readouterr().err
  names = write(tmp_path, {'synsets.txt': '\n'.join(imagenet_made.WORDS)})
  options |= dict(val_labels=text, synsets=names / 'synsets.txt')
  assert run(tmp_path / 'c', **options) == 0
  assert '3 classes have no images: n00001740' in capsys.readouterr().out
  source = Source(path=str(tmp_path / 'c'), split='val')
  assert source.vocabulary.names == tuple(sorted(imagenet_made.WORDS))


def lists(**changed) -> dict[str, bytes]:
  return {
    'ILSVRC2012_devkit_t12.tar.gz': imagenet_made.devkit(VAL_WNIDS, **changed)
  }


@pytest.mark.parametrize(
  'files, options, message',
  [
    ({}, {}, r'none of ILSVRC2012_img_train\.tar, .* is there'),
    ({}, {'input': None}, '--input is missing, or --train and --val'),
    ({}, {'input': 'none'}, "--input 'none': no such file or folder"),
    ({}, {'input': None, 'train': 'x.tar'}, r'x\.tar: no such file or folder'),
    ({}, {'splits': 'train,test'}, "--splits 'train,test': expected one or"),
    ({'val.tar': tar_bytes(VAL)}, {}, 'no images of split .train.: give --tra'),
    ({'train.tar': tar_bytes(VAL)}, {}, r'val_00000001\.JPEG. is in no class'),
    ({'train.tar': tar_bytes({'a.txt': b'1'})}, {}, 'no images in it'),
    ({'train.tar': b'12'}, {}, r'train\.tar: cut short'),
    (
      {'train/n00000001/1.jpg': b'1', 'train/n00000001/a/1.jpg': b'2'},
      {'splits': 'train'},
      r"two images of one name in one class: 'n00000001/(a/)?1\.jpg'",
    ),
    (
      {'val.tar': tar_bytes(VAL)},
      {'splits': 'val'},
      'give their labels as --v',
    ),
    (
      {'val.tar': tar_bytes(VAL), 'l.txt': b'n01440764\n' * 8},
      {'val_labels': 'l.txt', 'splits': 'val'},
      r"no label for image 'ILSVRC2012_val_00000009\.JPEG': the list has 8",
    ),
    (
      {'val.tar': tar_bytes({'a.jpg': b'1'}), 'l.txt': b'n01440764\n'},
      {'val_labels': 'l.txt', 'splits': 'val'},
      r"no label for image 'a\.jpg'",
    ),
    (
      {'val.tar': tar_bytes(VAL), 'l.txt': b'n01440764\ntench\n'},
      {'val_labels': 'l.txt', 'splits': 'val'},
      r"l\.txt:2: expected an image such as .*'tench'",
    ),
    (
      {'val.tar': tar_bytes(VAL), 'l.txt': b'490\n361\n'},
      {'val_labels': 'l.txt', 'splits': 'val'},
      r'l\.txt:1: class numbers mean nothing without meta\.mat',
    ),
    (
      {'val.tar': tar_bytes(VAL), 'l.csv': b'a,b\n'},
      {'val_labels': 'l.csv', 'splits': 'val'},
      r"l\.csv:1: expected the header 'ImageId,PredictionString'",
    ),
    (
      {'val.tar': b'', 'l.txt': b'_00000001 n01440764\n_00000001 n01440764'},
      {'val_labels': 'l.txt', 'splits': 'val'},
      r'l\.txt:2: a second label for image 1',
    ),
    (
      {'val.tar': tar_bytes(VAL), **lists(truth=b'1\n5\n')},
      {'splits': 'val'},
      r"ground_truth\.txt:2: '5' is no number of a class in .* \(1 to 4\)",
    ),
    (
      {'val.tar': b'', **lists(meta=b'MATLAB')},
      {'splits': 'val'},
      r'meta\.mat: not the meta\.mat of ILSVRC2012 .* not a MATLAB file',
    ),
    (
      {'val.tar': b'', 'ILSVRC2012_devkit_t12/data/x.txt': b''},
      {'splits': 'val'},
      r'devkit_t12: no data/meta\.mat in it; expected the development kit',
    ),
    (
      {'train/n00000001/1.jpg': b'1', 'val/n00000002/1.jpg': b'1'},
      {},
      r'val: 1 of its classes are not among the 1 synsets: n00000002',
    ),
    (
      {'train/n00000001/1.jpg': b'1', 'words.txt': b'tench n01440764\n'},
      {'splits': 'train'},
      r"words\.txt:1: expected a wnid such as 'n01440764' first",
    ),
    (
      {'train/n00000001/1.jpg': b'1', 's.txt': b'n00000001\nn00000001\n'},
      {'splits': 'train', 'synsets': 's.txt'},
      r's\.txt:2: n00000001 is already in line 1',
    ),
    (
      {'train/n00000001/1.jpg': b'1', 's.txt': b'\n'},
      {'splits': 'train', 'synsets': 's.txt'},
      r's\.txt: no synsets in it',
    ),
    (
      {'train/n00000001/1.jpg': b'1', 's.txt': b'n\xff'},
      {'splits': 'train', 'synsets': 's.txt'},
      r's\.txt:1: not UTF-8',
    ),
    (
      {'train/n00000001/1.jpg': b'1'},
      {'splits': 'train', 'descriptions': 'none.txt'},
      r'none\.txt: no such file',
    ),
  ],
)
def test_mistakes(tmp_path, monkeypatch, capsys, files, options, message):
  (tmp_path / 'in').mkdir()
  write(tmp_path / 'in', files)
  monkeypatch.chdir(tmp_path / 'in')
  options = {'input': '.', **options}
  options = {k: v for k, v in options.items() if v is not None}
  assert run(tmp_path / 'out', **options) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and error.count('\n') == 1
  with pytest.raises(ValueError, match=message):
    raise ValueError(error)


def test_kaggles_zip_takes_no_other_parts(tmp_path, capsys):
  path = tmp_path / 'k.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('a.txt', 'nothing of it')
  assert run(tmp_path / 'out', input=path, val='x') == 2
  assert '--val goes with a folder as --input, not with' in (
    capsys.readouterr().err
  )
  assert run(tmp_path / 'out', input=path) == 2
  assert 'no images in ILSVRC/Data/CLS-LOC/train/' in capsys.readouterr().err
