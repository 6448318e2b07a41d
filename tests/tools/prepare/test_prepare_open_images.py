"""prepare_open_images on tiny files in the publisher's forms and names."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from input_pipeline.examples.errors import BadExample
from input_pipeline.prepared import manifest as manifests
from input_pipeline.publishers.open_images import classes, files
from input_pipeline.sources.records import Source
from tools import prepare_open_images

HEADER = 'ImageID,Source,LabelName,Confidence\n'
INFO = (
  'ImageID,Subset,OriginalURL,OriginalLandingURL,License,AuthorProfileURL,'
  'Author,Title,OriginalSize,OriginalMD5,Thumbnail300KURL,Rotation\n'
)
CAT, DOG, ANIMAL, CAR, WHEEL = (
  '/m/01yrx', '/m/0bt9lr', '/m/0jbk', '/m/0k4j', '/m/083wq',
)  # fmt: skip
NAMES = {
  ANIMAL: 'Animal', CAT: 'Cat', CAR: 'Car', DOG: 'Dog, domestic',
  WHEEL: 'Wheel',
}  # fmt: skip
IDS = [f'{n:016x}' for n in (0x0A, 0x26E7EE790996, 2**63 + 5, 2**64 - 1)]
TREE = {
  'LabelName': '/m/0bl9f',
  'Subcategory': [
    {
      'LabelName': ANIMAL,
      'Subcategory': [{'LabelName': CAT}, {'LabelName': DOG}],
    },
    {'LabelName': CAR, 'Part': [{'LabelName': WHEEL}]},
  ],
}


def jpeg(seed: int) -> bytes:
  """24 x 16 pixels, bright at the top left."""
  pixels = np.full((16, 24, 3), seed * 20, np.uint8)
  pixels[:8, :8] = 255
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'JPEG', quality=95)
  return file.getvalue()


def write_tar(path, names, mode='w'):
  with tarfile.open(path, mode) as tar:
    for number, name in enumerate(names):
      data = jpeg(number)
      member = tarfile.TarInfo(name)
      member.size = len(data)
      tar.addfile(member, io.BytesIO(data))


def rows(*given, source='verification') -> str:
  return HEADER + ''.join(f'{i},{source},{m},{c}\n' for i, m, c in given)


@pytest.fixture
def published(tmp_path):
  """Four train images in two tars, two of validation in a folder."""
  root = tmp_path / 'open images'
  root.mkdir()
  write_tar(
    root / 'train_0.tar.gz', [f'train_0/{i}.jpg' for i in IDS[:2]], 'w:gz'
  )
  write_tar(root / 'train_f.tar', [f'train_f/{i}.jpg' for i in IDS[2:]])
  (root / 'validation').mkdir()
  for number, image in enumerate(IDS[:2]):
    (root / 'validation' / f'{image}.jpg').write_bytes(jpeg(number))
  (root / 'oidv7-train-annotations-human-imagelabels.csv').write_text(rows(
    (IDS[0], CAT, 1), (IDS[0], DOG, 0), (IDS[0], CAR, 0), (IDS[1], CAR, 1),
    ('00000000000000ff', CAT, 1), (IDS[3], CAT, 1), (IDS[3], '/m/other', 1),
  ))  # fmt: skip
  (root / 'train-annotations-machine-imagelabels.csv').write_text(rows(
    (IDS[0], CAT, 0.6), (IDS[0], DOG, 0.9), (IDS[0], ANIMAL, 0.8),
    (IDS[1], DOG, 0.5), (IDS[1], CAT, 0.2), source='machine',
  ))  # fmt: skip
  (root / 'oidv7-val-annotations-human-imagelabels.csv').write_text(
    rows((IDS[0], CAT, 1), (IDS[1], CAT, 0))
  )
  (root / 'validation-annotations-machine-imagelabels.csv').write_text(
    rows((IDS[1], DOG, 0.7), source='machine')
  )
  (root / 'oidv7-class-descriptions.csv').write_text(
    'LabelName,DisplayName\n'
    + ''.join(
      f'{m},"{n}"\n' if ',' in n else f'{m},{n}\n' for m, n in NAMES.items()
    )
  )
  (root / 'bbox_labels_600_hierarchy.json').write_text(json.dumps(TREE))
  return root


def prepare(root, out, *args) -> int:
  argv = ['--input', root, '--output', out, '--workers', 1, *args]
  return prepare_open_images.main([str(arg) for arg in argv])


def by_key(out, split):
  """Image id -> (positive, confidences, negatives), by label name."""
  source = Source(path=str(out), split=split)
  names = source.vocabulary.names
  found = {}
  for i in range(len(source)):
    example = source[i]
    confidences = dict(zip(
      [names[k] for k in example['labels']],
      np.round(example['label_conf'].astype(float), 6).tolist(),
    ))  # fmt: skip
    negatives = {names[k] for k in example['negatives']}
    found[example['key'].removeprefix(f'{split}/')[:16]] = (
      confidences, negatives,
    )  # fmt: skip
  return found


def test_labels_by_people_and_machines(published, tmp_path, capsys):
  out = tmp_path / 'out'
  assert prepare(published, out) == 0
  assert by_key(out, 'train') == {
    IDS[0]: ({CAT: 1, ANIMAL: 0.8}, {DOG, CAR}),
    IDS[1]: ({CAR: 1, DOG: 0.5}, set()),
    IDS[2]: ({}, set()),
    IDS[3]: ({CAT: 1}, set()),
  }
  assert by_key(out, 'validation') == {
    IDS[0]: ({CAT: 1}, set()),
    IDS[1]: ({DOG: 0.7}, {CAT}),
  }
  source = Source(path=str(out))
  assert source.vocabulary.names == tuple(NAMES)
  assert source.vocabulary.descriptions == tuple(NAMES.values())
  cat, animal = (source.vocabulary.index(m) for m in (CAT, ANIMAL))
  assert source.hierarchy is not None
  assert source.hierarchy.close(np.array([cat])).tolist() == sorted(
    [cat, animal]
  )
  assert source.vocabulary.counts.tolist() == [1, 2, 1, 1, 0]
  text = capsys.readouterr().out
  assert (
    '12 label rows read; left out: 1 of other labels, 1 of machines' in text
  )
  assert '1 of 1 images that are not there' in text
  assert '2 of machines overruled by people' in text
  assert '5 positive and 2 negative labels; 1 images with neither' in text
  notes = manifests.load(str(out)).notes['train']
  assert any('overruled' in note for note in notes)


@pytest.mark.parametrize(
  ('args', 'expected'),
  [
    (['--labels', 'human'], ({CAT: 1}, {DOG, CAR})),
    (['--labels', 'machine'], ({CAT: 0.6, DOG: 0.9, ANIMAL: 0.8}, set())),
    (['--min_confidence', '0.85'], ({CAT: 1}, {DOG, CAR})),
    (['--min_images', '2'], ({CAT: 1}, set())),
  ],
)
def test_options_choose_labels(published, tmp_path, args, expected):
  out = tmp_path / 'out'
  assert prepare(published, out, *args, '--splits', 'train') == 0
  assert by_key(out, 'train')[IDS[0]] == expected


def test_classes_restrict_the_vocabulary(published, tmp_path):
  listed = tmp_path / 'oidv7-classes-trainable.txt'
  listed.write_text(f'{DOG}\n{CAT}\n')
  out = tmp_path / 'out'
  assert prepare(published, out, '--classes', listed) == 0
  assert Source(path=str(out)).vocabulary.names == (CAT, DOG)
  assert by_key(out, 'train')[IDS[0]] == ({CAT: 1}, {DOG})


def test_parts_are_children_on_request(published):
  path = str(published / 'bbox_labels_600_hierarchy.json')
  kinds = {(CAT, ANIMAL), (DOG, ANIMAL), (ANIMAL, '/m/0bl9f'),
           (CAR, '/m/0bl9f')}  # fmt: skip
  found = classes.read_hierarchy(path, parts=False)
  assert set(found) == kinds and len(found) == 4
  found = classes.read_hierarchy(path, parts=True)
  assert set(found) == kinds | {(WHEEL, CAR)} and len(found) == 5


def image_info(root, rotations):
  """A table as published: titles may hold commas, quotes and line breaks."""
  with (root / 'train-images-boxable-with-rotation.csv').open('w') as file:
    file.write(INFO)
    for image, rotation in rotations.items():
      file.write(
        f'{image},train,https://c1/x.jpg,https://f/x,https://l/,https://p/,'
        f'"A, ""B""","two\nlines",1,md5==,https://t/,{rotation}\n'
      )


@pytest.mark.parametrize('rotation', ['keep', 'drop', 'rotate'])
def test_rotation(published, tmp_path, capsys, rotation):
  image_info(published, {IDS[0]: '90.0', IDS[1]: '0.0', IDS[2]: ''})
  out = tmp_path / 'out'
  assert prepare(published, out, '--rotation', rotation) == 0
  source = Source(path=str(out))
  found = {
    source[i]['key'][6:22]: source[i]['image'] for i in range(len(source))
  }
  assert set(found) == set(IDS[1:] if rotation == 'drop' else IDS)
  assert found[IDS[1]] == jpeg(1)  # the file as it is
  action = {'keep': 'kept as they', 'drop': 'left out', 'rotate': 'turned'}
  text = capsys.readouterr().out
  assert f'1 images do not stand upright: {action[rotation]}' in text
  assert '2 with unknown rotation kept' in text
  if rotation == 'rotate':
    with Image.open(io.BytesIO(found[IDS[0]])) as picture:
      pixels = np.asarray(picture.convert('RGB'), int)
    assert pixels.shape == (24, 16, 3)
    # Counterclockwise: what was at the top left is at the bottom left.
    assert pixels[-8:, :8].min() > 200 and pixels[:8].max() < 60


def test_turning_a_broken_image_spoils_that_image_alone():
  with pytest.raises(BadExample, match='to turn it'):
    files.turned(b'\xff\xd8 not a JPEG', 1)


def test_files_given_by_flags(published, tmp_path):
  elsewhere = tmp_path / 'elsewhere'
  elsewhere.mkdir()
  names = {}
  for name in ('train_f.tar', 'oidv7-class-descriptions.csv',
               'oidv7-train-annotations-human-imagelabels.csv'):  # fmt: skip
    names[name] = elsewhere / f'my {name}'
    (published / name).rename(names[name])
  out = tmp_path / 'out'
  tar, descriptions, labels = names.values()
  code = prepare_open_images.main([
    '--output', str(out), '--workers', '1', '--labels', 'human',
    '--images', f'train={tar}', '--human_labels', f'train={labels}',
    '--class_descriptions', str(descriptions),
  ])  # fmt: skip
  assert code == 0
  assert set(by_key(out, 'train')) == set(IDS[2:])


def break_descriptions(root):
  path = root / 'oidv7-class-descriptions.csv'
  path.write_text(path.read_text() + f'{CAT},Cat again\n')


def remove(name):
  return lambda root: (root / name).unlink()


@pytest.mark.parametrize(
  ('change', 'args', 'message'),
  [
    (None, ['--splits', 'test'], "no images of split 'test'"),
    (None, ['--min_confidence', '1.5'], 'min_confidence must be in [0, 1]'),
    (None, ['--min_images', '9'], 'the most frequent has 2'),
    (None, ['--rotation', 'drop'], 'needs a table of image information'),
    (None, ['--images', 'dev=x'], 'expected SPLIT=PATH'),
    (None, ['--classes', 'nowhere.txt'], 'nowhere.txt: no such file'),
    (
      remove('oidv7-class-descriptions.csv'), [],
      'no oidv7-class-descriptions.csv',
    ),
    (
      remove('train-annotations-machine-imagelabels.csv'), [],
      "split 'train' has images but no machine labels",
    ),
    (
      lambda root: (root / 'train_f').mkdir(), [], 'train_f.tar: move one away',
    ),
    (
      lambda root: write_tar(root / 'train_1.tar', [f'{IDS[0]}.jpg']), [],
      f'image {IDS[0]}.jpg is in',
    ),
    (break_descriptions, [], f":7: '{CAT}' is already at line 3"),
    (
      lambda root: (root / 'bbox_labels_600_hierarchy.json').write_text('{"a"'),
      [], 'not JSON',
    ),
    (
      lambda root: image_info(root, {IDS[0]: '45'}), [],
      'boxable-with-rotation.csv:2: expected an ImageID',
    ),
    (
      lambda root: (root / 'train_f.tar').write_bytes(b'x' * 700), [],
      'train_f.tar',
    ),
  ],
)  # fmt: skip
def test_mistakes_are_one_line(
  published, tmp_path, capsys, change, args, message
):
  if change is not None:
    change(published)
  assert prepare(published, tmp_path / 'out', *args) == 2
  errors = capsys.readouterr().err
  assert errors.startswith('error: ') and message in errors
  assert 'Traceback' not in errors


def test_labels_of_another_release(published, tmp_path, capsys):
  for path in published.glob('*train-annotations*'):
    path.write_text(rows((IDS[0], '/m/x', 1)))
  assert prepare(published, tmp_path / 'out') == 2
  assert 'no row of the label files has a label' in capsys.readouterr().err


def test_workers_give_the_same_bytes(published, tmp_path):
  first, second = tmp_path / 'a', tmp_path / 'b'
  common = ['--num_shards', 2, '--splits', 'train', '--long_side', 20]
  assert prepare(published, first, *common) == 0
  args = [*common, '--scratch', tmp_path / 'scratch', '--workers', 2]
  assert prepare(published, second, *args) == 0
  one, two = (
    manifests.load(str(out)).splits['train'] for out in (first, second)
  )
  assert [s.sha256 for s in one] == [s.sha256 for s in two]
  assert prepare_open_images.main(['--output', str(second), '--verify']) == 0
