"""masks source: layouts, ids, what does not belong together, preparing."""

import io
import os
import pathlib
import pickle
import types

import numpy as np
import pytest
from PIL import Image

from big_vision_like.config import plugins
from evaluators.harness.evaluation_set import EvalData
from input_pipeline import ops as example_ops
from input_pipeline import pipeline
from input_pipeline.examples.errors import BadExample
from input_pipeline.image_sets import holdout, mask_pairs
from input_pipeline.ops.context import OpContext
from input_pipeline.sources import detect, records
from input_pipeline.sources.masks import Source
from tests.evaluators import harness
from tools import prepare_images

HEIGHT, WIDTH = 6, 9


def jpeg(height=HEIGHT, width=WIDTH) -> bytes:
  file = io.BytesIO()
  Image.new('RGB', (width, height), (90, 120, 30)).save(file, 'JPEG')
  return file.getvalue()


def ids(*present, height=HEIGHT, width=WIDTH) -> np.ndarray:
  """A background of 0 with a row of each of these."""
  mask = np.zeros((height, width), np.uint8)
  for row, number in enumerate(present):
    mask[row] = number
  return mask


def png(mask: np.ndarray, mode='P') -> bytes:
  """A palette of colours that mean nothing, or another mode."""
  picture = Image.fromarray(mask)
  if mode == 'P':
    picture = Image.frombytes('P', picture.size, picture.tobytes())
    picture.putpalette(list(np.random.default_rng(0).bytes(768)))
  elif mode != 'L':
    picture = picture.convert(mode)
  file = io.BytesIO()
  picture.save(file, 'PNG')
  return file.getvalue()


CLASSES = {'classes.txt': b'cat\ndog\nbird\n'}
SPLITS = CLASSES | {
  'train/images/b.jpg': jpeg(),
  'train/masks/b.png': png(ids(3, 255, 1)),
  'train/images/deep/er/a.JPEG': jpeg(),
  'train/masks/deep/er/a.png': png(ids(2), 'L'),
  'train/images/.hidden.jpg': b'-',
  'val/images/a & $x;rm ä.png': jpeg(),
  'val/masks/a & $x;rm ä.png': png(ids(1)),
}
WHOLE = CLASSES | {
  f'{kind}/{i:03d}.{end}': data
  for i in range(40)
  for kind, end, data in (
    ('images', 'jpg', jpeg()), ('masks', 'png', png(ids(1))),
  )
}  # fmt: skip


def write(root, files) -> str:
  for name, data in files.items():
    path = pathlib.Path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
  return str(root)


def without(files, *parts):
  return {k: v for k, v in files.items() if not any(p in k for p in parts)}


def keys(source) -> list[str]:
  return [source.key(i) for i in range(len(source))]


def test_split_folders(tmp_path):
  source = Source(path=write(tmp_path, SPLITS))
  assert source.vocabulary.names == ('cat', 'dog', 'bird')
  assert source.hierarchy is None and source.background is True
  assert keys(source) == ['b.jpg', 'deep/er/a.JPEG']
  first, second = source[0], source[1]
  assert first['labels'].tolist() == [0, 2] and second['labels'].tolist() == [1]
  assert first['labels'].dtype == np.int32
  assert first['image'] == SPLITS['train/images/b.jpg']
  assert first['segmentation'] == SPLITS['train/masks/b.png']
  assert keys(Source(path=str(tmp_path), split='val')) == ['a & $x;rm ä.png']
  for index in (-1, 2):
    for call in (source.__getitem__, source.key):
      with pytest.raises(IndexError):
        call(index)


def test_ids_reach_the_batch_as_they_are(tmp_path):
  """Through the ops of a training chain, palette or grey."""
  source = Source(path=write(tmp_path, SPLITS))
  specs = [dict(op='decode'), dict(op='decode_segmentation')]
  chain = pipeline.build_ops(specs, source)
  for index, expected in ((0, ids(3, 255, 1)), (1, ids(2))):
    example = source[index]
    for op in chain:
      example = op(example, np.random.default_rng(0))
    np.testing.assert_array_equal(example['segmentation'], expected)


def test_without_background_label_and_id_are_the_same(tmp_path):
  files = SPLITS | {'train/masks/b.png': png(ids(2, 255, 1))}
  source = Source(path=write(tmp_path, files), background=False)
  assert source[0]['labels'].tolist() == [0, 1, 2]
  files = CLASSES | {
    f'train/{k}/{n}.png': png(m)
    for n, m in (('a', ids(1)), ('b', ids(3)))
    for k in ('images', 'masks')
  }
  source = Source(path=write(tmp_path / 'b', files), background=False)
  with pytest.raises(BadExample) as caught:
    source[1]
  assert caught.value.reason == (
    'masks/b.png: the mask has the class id 3; valid: 0 to 2 and 255'
  )


@pytest.mark.parametrize(
  'mask, message',
  [
    (png(ids(4)), 'class id 4; valid: 0 to 3 and 255'),
    (png(ids(1), 'RGB'), 'of mode RGB; expected a palette or 8-bit grey'),
    (png(ids(1), '1'), 'of mode 1; expected a palette or 8-bit grey'),
    (png(ids(1, height=5)), 'the mask is 9x5 pixels, the image 9x6'),
    (png(ids(1))[:60], 'cannot be decoded'),
    (b'', 'cannot be decoded'),
  ],
  ids=['id', 'colours', 'bits', 'size', 'cut', 'empty'],
)
def test_masks_that_cannot_be_used(tmp_path, mask, message):
  files = SPLITS | {'train/masks/b.png': mask}
  source = Source(path=write(tmp_path, files))
  with pytest.raises(BadExample, match=f'masks/b.png: .*{message}'):
    source[0]
  assert source[1]['labels'].tolist() == [1]


def test_files_that_vanish(tmp_path):
  source = Source(path=write(tmp_path, SPLITS))
  os.remove(tmp_path / 'train/masks/b.png')
  os.remove(tmp_path / 'train/images/deep/er/a.JPEG')
  with pytest.raises(BadExample, match=r'masks/b\.png: cannot be opened'):
    source[0]
  with pytest.raises(BadExample, match=r'^cannot be opened'):
    source[1]


def test_holdout_is_a_function_of_each_path(tmp_path):
  path = write(tmp_path, WHOLE)

  def held(split, **options):
    return keys(Source(path=path, split=split, **options))

  train, val = (held(s, holdout_percent=25) for s in ('train', 'val'))
  assert held('all') == held('all', holdout_percent=25) == sorted(train + val)
  assert val == [
    key for key in held('all') if holdout.held_out(key.encode(), 25)
  ]
  assert 2 < len(val) < 20  # 10 expected, standard deviation 2.7
  with pytest.raises(ValueError, match=r'holdout_percent=1e-06 leaves none'):
    held('val', holdout_percent=1e-6)


@pytest.mark.parametrize(
  'move, options',
  [
    (lambda s, k: f'{k}/{s}', {}),
    (lambda s, k: f'left/{s}_x/{k}/8', dict(
      images='left/{split}_x/images/8', masks='left/{split}_x/masks/8',
    )),
    (lambda s, k: f'{s}/{dict(images="img", masks="ann/ids")[k]}', dict(
      images='img', masks='ann/ids',
    )),
  ],
)  # fmt: skip
def test_other_layouts(tmp_path, move, options):
  files = dict(CLASSES)
  for name, data in SPLITS.items():
    if (parts := name.split('/', 2))[2:]:
      files[f'{move(*parts[:2])}/{parts[2]}'] = data
  path = write(tmp_path, files)
  assert keys(Source(path=path, **options)) == ['b.jpg', 'deep/er/a.JPEG']
  assert len(Source(path=path, split='val', **options)) == 1
  with pytest.raises(ValueError, match=r"'test'; splits there: train, val$"):
    Source(path=path, split='test', **options)


def test_suffixes(tmp_path):
  """Names as those of Cityscapes; other files are counted, not lost."""
  files = {'ids.txt': b'road\nsky\n', 'left/train/x/notes.txt': b'-'}
  for name in ('x/1_2', 'x/1_3'):
    files[f'left/train/{name}_left.png'] = jpeg()
    files[f'fine/train/{name}_fine_ids.png'] = png(ids(1, 255))
    files[f'fine/train/{name}_fine_colour.png'] = png(ids(1), 'RGB')
  source = Source(
    path=write(tmp_path, files), images='left/{split}', masks='fine/{split}',
    image_suffix='_left', mask_suffix='_fine_ids', background=False,
    vocabulary=str(tmp_path / 'ids.txt'),
  )  # fmt: skip
  assert keys(source) == ['x/1_2_left.png', 'x/1_3_left.png']
  assert source[0]['labels'].tolist() == [0, 1]
  assert source.report_lines() == [
    "2 images of left/train with masks of fine/train; id 0 is 'road'",
    '3 other files passed over, for example x/notes.txt',
  ]


def test_one_folder_for_both(tmp_path):
  files = CLASSES | {
    'train/all/a.png': jpeg(), 'train/all/a_mask.png': png(ids(2)),
    'train/all/b.jpg': jpeg(), 'train/all/b_mask.png': png(ids(1)),
  }  # fmt: skip
  source = Source(
    path=write(tmp_path, files), images='all', masks='all', mask_suffix='_mask'
  )
  assert keys(source) == ['a.png', 'b.jpg']
  assert source[0]['labels'].tolist() == [1]
  assert len(source.report_lines()) == 1


def test_fingerprint_sees_files_classes_and_background(tmp_path):
  path = write(tmp_path, SPLITS)
  found = [Source(path=path).fingerprint()]
  write(tmp_path, {'train/images/.DS_Store': b'1', 'train/masks/x.txt': b'1'})
  assert Source(path=path).fingerprint() == found[0]
  write(tmp_path, {'train/masks/b.png': png(ids(1, 2, 1, 2), 'L')})
  found.append(Source(path=path).fingerprint())
  write(tmp_path, {'classes.txt': b'cat\ndog\ncow\n'})
  found.append(Source(path=path).fingerprint())
  found.append(Source(path=path, background=False).fingerprint())
  os.rename(tmp_path / 'train/images/b.jpg', tmp_path / 'train/images/c.jpg')
  os.rename(tmp_path / 'train/masks/b.png', tmp_path / 'train/masks/c.png')
  found.append(Source(path=path).fingerprint())
  assert len({*found}) == 5


def test_pickles_to_the_same_source(tmp_path):
  source = Source(path=write(tmp_path, SPLITS))
  copy = pickle.loads(pickle.dumps(source))  # noqa: S301
  assert copy.fingerprint() == source.fingerprint() and copy.background
  assert copy[0]['segmentation'] == source[0]['segmentation']


BINARY = {
  k: png(ids(255)) if 'masks' in k else v for k, v in SPLITS.items()
}  # fmt: skip
COLOURS = {
  k: png(ids(1), 'RGB') if 'masks' in k else v for k, v in SPLITS.items()
}  # fmt: skip


@pytest.mark.parametrize(
  'files, options, message',
  [
    (SPLITS, {'split': 'test'}, "'test'; splits there: train, val"),
    (SPLITS, {'split': 'all'}, 'has splits of its own .train, val.: give one'),
    (SPLITS, {'holdout_percent': 10}, 'has splits of its own'),
    (WHOLE, {}, 'splits there: none. Where images and masks are not divided'),
    (WHOLE, {'holdout_percent': 0}, r'percent=0 must be float in'),
    (WHOLE, {'holdout_percent': 5, 'split': 'x'}, 'valid with holdout_percent'),
    (CLASSES, {'split': 'all'}, 'no folders images and masks in it'),
    (
      {'pics/a.jpg': b'', 'masks/a.png': b''} | CLASSES, {},
      r'for train/images and train/masks, or .*; folders there: masks, pics$',
    ),
    (
      SPLITS | {'images/train/a.jpg': b'', 'masks/train/a.png': b''}, {},
      "split 'train' lies both in .*train/images and in .*images/train",
    ),
    (SPLITS, {'images': 'x/{split}'}, 'both must say where {split} stands'),
    (SPLITS, {'images': ''}, "images must be a path, got ''"),
    (SPLITS, {'path': '/no/such/folder'}, "'/no/such/folder': no such folder"),
    (without(SPLITS, 'classes'), {}, r'classes\.txt: no such file; it names'),
    (SPLITS, {'vocabulary': '/none.txt'}, r'/none\.txt: no such file'),
    (
      SPLITS | {'classes.txt': b'__background__\ncat\n'}, {},
      r"classes\.txt:1: '__background__': id 0 .* remove the line",
    ),
    (SPLITS | {'classes.txt': b'Void\ncat\n'}, {}, r"classes\.txt:1: 'Void'"),
    (
      SPLITS | {'classes.txt': b'\n'.join(b'%d' % i for i in range(255))}, {},
      '255 classes; a mask of 8 bits has at most 254, since 255 is void and 0',
    ),
    (SPLITS | {'classes.txt': b'cat\ncat\n'}, {}, r"txt:2: name 'cat' is alre"),
    (
      without(SPLITS, 'masks/b'), {},
      r'1 image in .*train/images without a mask: b\.jpg. The mask of b\.jpg '
      r'is b\.png$',
    ),
    (
      without(SPLITS, 'images/b'), {},
      r'1 mask in .*train/masks without an image: b\.png$',
    ),
    (
      {k.replace('masks/', 'masks/x/'): v for k, v in WHOLE.items()},
      {'split': 'all'},
      r'40 images in .*: 000\.jpg, 001.* 004\.jpg, \.\.\.; 40 masks in ',
    ),
    (
      {k.replace('.png', '_m.png'): v for k, v in WHOLE.items()},
      {'split': 'all'}, r"is it 000_m\.png, with mask_suffix='_m'\?",
    ),
    (
      WHOLE, {'split': 'all', 'mask_suffix': '_m'},
      r"is 000_m\.png; is it 000\.png, with mask_suffix=''\?",
    ),
    (
      {k.replace('.png', '.gif'): v for k, v in WHOLE.items()},
      {'split': 'all'}, r'000\.gif is no PNG: masks are PNGs',
    ),
    (
      WHOLE | {'images/000.png': b''}, {'split': 'all'},
      r"both 000\.jpg and 000\.png are '000'; a mask belongs to one image",
    ),
    (
      CLASSES | {'images/a.txt': b'', 'masks/a.txt': b''}, {'split': 'all'},
      'no images in it .*, and no masks in',
    ),
    (BINARY, {}, "hold no ids but 0 .* and 255 .* class, 'cat', has the id 1"),
    (COLOURS, {}, r'none of 2 pairs looked at can be used; .*b\.png: .* RGB'),
  ],
)  # fmt: skip
def test_mistakes(tmp_path, files, options, message):
  path = write(tmp_path, files)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    pipeline.open_source({'type': 'masks', 'path': path, **options})


def test_void_alone_is_a_class_less_mask_not_a_mistake(tmp_path):
  """0 and 255 are fine where 0 is a class, or where others have classes."""
  path = write(tmp_path, BINARY)
  source = Source(path=path, background=False)
  assert source[0]['labels'].tolist() == [0]
  write(tmp_path, {'train/masks/b.png': png(ids(1))})
  assert Source(path=path)[1]['labels'].tolist() == []


def test_hint_names_no_other_image(tmp_path):
  """'1.jpg' is not '10.png' with the suffix '0'."""
  assert mask_pairs._hint('1', ['10.png', '1_ids.png']).endswith("'_ids'?")
  assert mask_pairs._hint('1', ['10.png', '11.png']) == ''


@pytest.mark.parametrize(
  'files, kind',
  [
    (SPLITS, 'masks'),
    (without(SPLITS, 'classes'), 'masks'),  # the error says what is missing
    (WHOLE, 'masks'),
    (CLASSES | {'images/train/a.jpg': b'', 'masks/train/a.png': b''}, 'masks'),
    # Classes of images that happen to have these names.
    ({'train/images/a.jpg': b'1', 'train/masks/a.jpg': b'1'}, 'folder'),
    ({'train/images/a.jpg': b'1', 'train/masks/a.png': b'1'}, 'folder'),
    ({'images/a.jpg': b'1', 'masks/a.png': png(ids(1), 'RGB')}, 'folder'),
    (
      {f'train/{c}/a.png': png(ids(1), 'L') for c in ('images', 'masks', 'x')},
      'folder',
    ),
    ({'train/images/a.jpg': b'1', 'classes.txt': b'images'}, 'folder'),
  ],
)
def test_detect(tmp_path, files, kind):
  assert detect.kind_of(write(tmp_path, files)) == kind


def test_detected_source(tmp_path):
  path = write(tmp_path, SPLITS)
  assert len(detect.Source(path=path).hierarchy.close(np.array([1]))) == 1
  assert detect.Source(path=path).background is True
  assert detect.Source(path=path, background=False).background is False
  with pytest.raises(ValueError, match=r'masks at .*unknown option .hierarchy'):
    detect.Source(path=path, hierarchy='x.tsv')
  assert 'masks' in plugins.names('source')


def block(number, height, width):
  """A mask of big areas, which resizing keeps."""
  mask = np.zeros((height, width), np.uint8)
  mask[:, : width // 2] = number
  return mask


@pytest.mark.parametrize('background', [True, False])
def test_prepared_records_say_the_same(tmp_path, background, capsys):
  """Image and mask stay together, and the meaning of id 0 goes with them."""
  classes = b'cat\ndog\nbird\n'
  files = {'classes.txt': classes}
  for i, number in enumerate((1, 2, 1, 2)):
    for split in ('train', 'val'):
      files[f'{split}/images/{i}.jpg'] = jpeg(40, 60)
      files[f'{split}/masks/{i}.png'] = png(block(number, 40, 60))
  path, out = write(tmp_path / 'in', files), tmp_path / 'out'
  argv = ['--input', path, '--output', out, '--workers', 1, '--long_side', 30]
  argv += ['--option', f'background={background}']
  assert prepare_images.main(list(map(str, argv))) == 0
  assert 'id 0 is ' in capsys.readouterr().out
  same = detect.Source(path=str(out), background=background)
  assert same.background is background
  with pytest.raises(ValueError, match='was prepared with background='):
    detect.Source(path=str(out), background=not background)
  given = Source(path=path, background=background)
  for split in ('train', 'val'):
    source = records.Source(path=str(out), split=split)
    assert source.vocabulary.names == given.vocabulary.names
    assert source.background is background
    by_key = {source[i]['key']: source[i] for i in range(len(source))}
    assert sorted(by_key) == keys(given)
    chain = example_ops.build(
      [dict(op='decode'), dict(op='decode_segmentation')],
      OpContext(source.vocabulary),
    )
    for i, number in enumerate((1, 2, 1, 2)):
      example = by_key[f'{i}.jpg']
      np.testing.assert_array_equal(example['labels'], given[i]['labels'])
      assert example['original_size'].tolist() == [40, 60]
      for op in chain:
        example = op(example, np.random.default_rng(0))
      assert example['image'].shape == (20, 30, 3)
      np.testing.assert_array_equal(
        example['segmentation'], block(number, 20, 30)
      )


def test_task_must_agree_about_the_background(tmp_path):
  path = write(tmp_path, SPLITS)

  def config(task, **source):
    return types.SimpleNamespace(
      input=types.SimpleNamespace(
        source=dict(type='masks', path=path, **source), fraction=1.0, ops=[]
      ),
      task=FakeTask(task),
    )

  segmentation = dict(type='segmentation')
  assert len(pipeline.open_train(config(segmentation))) == 2
  assert len(pipeline.open_train(config(dict(type='multilabel')))) == 2
  # The task takes the background of the data where it is not told of one.
  assert len(pipeline.open_train(config(segmentation, background=False))) == 2
  told = segmentation | {'background': True}
  with pytest.raises(ValueError, match=r'background=True, but .* first class'):
    pipeline.open_train(config(told, background=False))
  with pytest.raises(ValueError, match=r'background=False, but .* the backgr'):
    pipeline.open_train(config(segmentation | {'background': False}))
  part = dict(background=False, subset=dict(num_images=1))
  with pytest.raises(ValueError, match='background=True, but'):
    pipeline.open_train(config(told, **part))


def test_masks_of_the_synthetic_world_have_a_background():
  world = dict(type='synthetic', num_images=4, num_classes=5, image_size=32)
  config = types.SimpleNamespace(
    input=types.SimpleNamespace(
      source=world | {'annotations': True}, fraction=1.0, ops=[]
    ),
    task=FakeTask(type='segmentation', background=False),
  )
  with pytest.raises(ValueError, match=r'background=False, but .* the backgr'):
    pipeline.open_train(config)
  config.input.source = world
  assert pipeline.open_train(config).background is None


def test_evaluation_set_must_agree_about_the_background(tmp_path):
  path = write(tmp_path, SPLITS)
  ctx = harness.context(3, train_source=lambda: Source(path=path))
  data = dict(type='masks', path=path, split='val')
  EvalData(ctx, data, harness.IMAGE_OPS, 2)
  with pytest.raises(
    ValueError, match=r'\.data: background=False of its masks'
  ):
    EvalData(ctx, data | {'background': False}, harness.IMAGE_OPS, 2)


class FakeTask(dict):
  """A mapping with its type as an attribute, as a ConfigDict is."""

  @property
  def type(self) -> str:
    return self['type']
