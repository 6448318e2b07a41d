"""Chains of ops by what the ops say of themselves, on the synthetic world."""

import functools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from input_pipeline import batch_fields, pipeline
from input_pipeline import ops as example_ops
from input_pipeline.examples import fields
from input_pipeline.ops import chains, labels
from input_pipeline.ops.declared import Declared

WORLD = dict(
  type='synthetic', annotations=True, confidences=True, negatives=3,
  num_images=4, num_classes=9, image_size=64,
)  # fmt: skip
DECODE = dict(op='decode')
MASKS = dict(op='decode_segmentation')
FULL = dict(op='full_segmentation', max_size=700)
BOXES = dict(op='boxes', max_boxes=5)


@functools.cache
def world():
  return pipeline.open_source(WORLD)


def build(*specs):
  return pipeline.build_ops(specs, world())


def batch_of(*specs):
  ops = build(*specs)
  (batch,) = pipeline.evaluation(world(), ops, batch_size=4)
  return {k: v for k, v in batch.items() if not k.startswith('_')}


def keep(*names):
  return dict(op='keep', fields=list(names))


def test_a_full_mask_without_the_mask_that_it_is_made_of():
  size = dict(op='resize', size=32)
  kept = keep('image', 'full_segmentation', 'full_size')
  batch = batch_of(DECODE, MASKS, FULL, size, kept)
  assert sorted(batch) == ['full_segmentation', 'full_size', 'image']
  whole = batch_of(DECODE, MASKS, FULL, size)
  np.testing.assert_array_equal(
    batch['full_segmentation'], whole['full_segmentation']
  )
  assert (whole['full_segmentation'][:, :64, :64] != 255).all()


@pytest.mark.parametrize('names', [('box_mask',), ()])
def test_boxes_without_their_labels(names):
  size = dict(op='resize', size=32)
  batch = batch_of(DECODE, size, BOXES, keep('image', 'boxes', *names))
  assert sorted(batch) == sorted(['image', 'boxes', *names])
  whole = batch_of(DECODE, size, BOXES)
  assert whole['box_mask'].any()
  np.testing.assert_array_equal(batch['boxes'], whole['boxes'])


def test_confidences_that_no_op_pads_stay_behind():
  batch = batch_of(DECODE, dict(op='resize', size=32))
  assert sorted(batch) == ['image']


def test_confidences_may_be_kept_for_the_op_that_reads_them():
  op = dict(op='labels', max_labels=20, confidence=True)
  size = dict(op='resize', size=32)
  batch = batch_of(DECODE, size, keep('image', 'labels', 'label_conf'), op)
  np.testing.assert_array_equal(
    batch['label_conf'], batch_of(DECODE, size, op)['label_conf']
  )


def test_noise_after_keep_still_knows_the_record():
  specs = [
    dict(op='label_noise', kind='symmetric', rate=0.5),
    dict(op='labels', max_labels=20),
  ]
  size = dict(op='resize', size=32)
  kept = batch_of(DECODE, size, keep('image', 'labels'), *specs)
  np.testing.assert_array_equal(
    kept['label_ids'], batch_of(DECODE, size, *specs)['label_ids']
  )


@pytest.mark.parametrize('name', example_ops.OPS)
def test_ops_speak_of_fields_of_the_table(name):
  op_class = example_ops.find('x', name)
  assert issubclass(op_class, Declared)
  assert chains.declared(op_class)
  assert op_class.reads | op_class.makes <= fields.FIELDS.keys()
  assert op_class.options_for.keys() <= op_class.makes


@pytest.mark.parametrize(
  'field,hint',
  [
    ('label_ids', " (the op 'labels' makes it)"),
    ('label_conf', " (set confidence=True of the op 'labels')"),
    ('negative_ids', " (set max_negatives of the op 'labels')"),
    ('label', " (the op 'single_label' makes it)"),
    ('full_size', " (the op 'full_segmentation' makes it)"),
    ('keypoints', " (set num_keypoints of the op 'boxes')"),
    ('box_area', " (set extras=['box_area'] of the op 'boxes')"),
    ('nothing', ''),
  ],
)
def test_hints(field, hint):
  assert example_ops.hint(field) == hint


def test_the_ops_that_labels_come_from():
  specs = [
    DECODE,
    dict(op='label_noise', kind='symmetric', rate=0.5),
    dict(op='resize', size=32),
    dict(op='random_flip'),
    dict(op='labels', max_labels=20, confidence=True, max_negatives=5),
    keep('image', 'label_ids', 'label_conf', 'negative_ids'),
  ]
  ops = build(*specs)
  found = chains.making(ops, ['label_ids', 'label'])
  assert [type(op).__name__ for op in found] == ['LabelNoise', 'Labels']
  assert found[1].makes == {'label_ids'}
  assert chains.needed(found) == {'labels', 'key', 'image'}
  del specs[1]
  found = chains.making(build(*specs), ['label_ids', 'label'])
  assert chains.needed(found) == {'labels', 'image'}
  assert 'negatives' in chains.needed(ops)
  own = build(*specs[:4], dict(op=f'{__name__}.Undeclared'), *specs[4:])
  assert chains.making(own, ['label_ids']) == own


class Undeclared:
  """An op that says nothing: what it may read is not known."""

  def __init__(self, context):
    del context

  def __call__(self, example, rng):
    del rng
    return example | {'label': np.int32(len(example.get('boxes', ())))}


class CountBoxes(Undeclared):
  """The same, and it says so."""

  reads = frozenset({'boxes'})
  makes = frozenset({'label'})

  def deterministic(self):
    return True


class Draws(CountBoxes):
  def __call__(self, example, rng):
    return example | {'label': np.int32(rng.integers(1000))}

  def deterministic(self):
    return False


class LabelsAndMore(labels.Labels):
  """Extends an op of ours, and reads what that does not."""

  def __call__(self, example, rng):
    example = super().__call__(example, rng)
    return example | {'label': np.int32(len(example['boxes']))}


@pytest.mark.parametrize(
  'name,needed',
  [
    ('Undeclared', None),
    ('CountBoxes', {'image', 'original_size', 'boxes'}),
  ],
)
def test_ops_of_ones_own(name, needed):
  own = dict(op=f'{__name__}.{name}')
  specs = [DECODE, dict(op='resize', size=32), own, keep('image', 'label')]
  assert chains.needed(build(*specs)) == needed
  batch = batch_of(*specs)
  expected = [len(world()[i]['boxes']) for i in range(4)]
  assert batch['label'].tolist() == expected and max(expected) > 0
  ops = build(*specs[:3])
  if needed is not None:
    assert chains.making(ops, ['label']) == [ops[2]]
  else:
    assert chains.making(ops, ['label']) == ops


def test_an_op_that_draws_needs_the_draws_before_it():
  specs = [DECODE, dict(op='resize', size=32), dict(op='random_flip')]
  ops = build(*specs, dict(op=f'{__name__}.Draws'))
  assert chains.making(ops, ['label']) == ops


def test_what_an_op_inherits_is_not_believed_of_what_it_computes_anew():
  op = dict(op=f'{__name__}.LabelsAndMore', max_labels=20)
  specs = [DECODE, dict(op='resize', size=32), op]
  assert chains.needed(build(*specs)) is None
  assert max(batch_of(*specs)['label']) > 0


class NoNames(CountBoxes):
  reads = 'boxes'


class Half(Undeclared):
  makes = frozenset({'label'})


def test_declarations_that_are_none():
  with pytest.raises(
    ValueError, match=r"NoNames\): reads must be a set .*'box"
  ):
    build(dict(op=f'{__name__}.NoNames'))
  with pytest.raises(ValueError, match='both reads and makes, or neither'):
    build(dict(op=f'{__name__}.Half'))


class FloatLabel(CountBoxes):
  def __call__(self, example, rng):
    return example | {'label': np.zeros(2, np.float32)}


def test_fields_of_another_form_than_the_table_has():
  ops = build(dict(op='resize', size=8), dict(op=f'{__name__}.FloatLabel'))
  with pytest.raises(ValueError, match=r"'label' is int32 \[\] .* float32 \[2"):
    pipeline.example_spec(ops, 'input.ops')
  example = {'image': np.zeros((4, 5, 3), np.uint8)}
  masks = {'segmentation': np.zeros((4, 4), np.uint8)}
  with pytest.raises(ValueError, match=r"x: 'segmentation' has W=4.*'image' 5"):
    fields.check(example | masks, 'x')
  with pytest.raises(ValueError, match=r'uint8 \[H, W, 3\].* \[4, 5, 4\]'):
    fields.check({'image': np.zeros((4, 5, 4), np.uint8)}, 'x')


# What the ops leave in a batch, for random chains: by hand, from the docs.
MADE = {
  'decode_segmentation': {'segmentation'},
  'full_segmentation': {'full_segmentation', 'full_size'},
  'image_size': {'image_size', 'original_size'},
  'boxes': {'boxes', 'box_labels', 'box_mask'},
  'labels': {'label_ids'},
}
ALSO = {'num_keypoints': 'keypoints', 'confidence': 'label_conf',
        'max_negatives': 'negative_ids'}  # fmt: skip


def made_by(spec):
  names = MADE.get(spec['op'], set()) | set(spec.get('extras', ()))
  return names | {ALSO[option] for option in spec.keys() & ALSO.keys()}


@st.composite
def geometry(draw, side):
  """Resizes, crops and flips that an image of this side passes."""
  specs = []
  for _ in range(draw(st.integers(0, 3))):
    size = draw(st.integers(20, 44))
    kind = draw(
      st.sampled_from(
        ['resize', 'resize_small', 'resize_long', 'shrink_to_fit',
         'random_crop', 'center_crop', 'central_crop', 'random_resized_crop',
         'random_flip'],
      )
    )  # fmt: skip
    spec = dict(op=kind, size=size)
    if kind == 'random_flip':
      spec = dict(op=kind)
    elif kind == 'central_crop':
      spec = dict(op=kind, fraction=0.75)
      side -= 2 * int((side - side * 0.75) / 2)
    elif kind in ('random_crop', 'center_crop'):
      side = spec['size'] = min(size, side)
    elif kind == 'shrink_to_fit':
      side = min(size, side)
    else:
      side = size
    specs.append(spec)
  return specs


@st.composite
def legal_chains(draw):
  """Chains that the images of the world pass, with a `keep` somewhere."""
  flag = functools.partial(draw, st.booleans())
  specs = [MASKS] if flag() else []
  if specs and flag():
    specs.append(FULL)
  specs += draw(geometry(64))
  if flag():
    specs += [dict(op='image_size'), dict(op='pad', size=80)]
  else:
    specs.append(dict(op='resize', size=24))
  if flag():
    extras = ['box_crowd', 'box_difficult', 'box_area', 'box_ids']
    extras = draw(st.lists(st.sampled_from(extras), unique=True))
    keypoints = dict(num_keypoints=17) if flag() else {}
    specs.append(dict(op='boxes', max_boxes=8, extras=extras, **keypoints))
  if flag():
    spec = dict(op='labels', max_labels=30, fill_in=flag())
    spec |= dict(confidence=True) if flag() else {}
    spec |= dict(max_negatives=9) if flag() else {}
    specs.insert(draw(st.integers(0, len(specs))), spec)
  if flag():
    place = draw(st.integers(0, len(specs)))
    here = available(specs[:place])
    read = set().union(*(op.reads for op in single_ops(specs[place:])))
    chosen = draw(st.sets(st.sampled_from(sorted(here)))) | (read & here)
    if place < len(specs):
      chosen |= {'image'}
    specs.insert(place, keep(*sorted(chosen | {'image'})))
  return [DECODE, *specs]


def single_ops(specs):
  return [op for spec in specs for op in build(spec)]


def available(specs):
  """Fields that can be kept behind decode and some ops."""
  names = {n for n in world()[0] if n in fields.FIELDS} | {'original_size'}
  for spec, op in zip(specs, single_ops(specs)):
    moves = 'image' in op.makes and spec['op'] != 'pad'
    if moves and MASKS not in specs:
      names.discard('segmentation')  # of the size of the stored image
    if spec['op'] == 'boxes':
      names -= set(fields.PER_BOX)
    if spec['op'] == 'labels':
      names.discard('label_conf')
    names |= op.makes & fields.FIELDS.keys()
  return names


def in_batch(specs):
  names = {'image'}
  for spec in specs:
    names |= made_by(spec)
    if spec['op'] == 'keep':
      names &= set(spec['fields'])
  return names


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(specs=legal_chains(), index=st.integers(0, 3))
def test_real_examples_have_the_shapes_promised(specs, index):
  ops = build(*specs)
  spec = pipeline.example_spec(ops)
  assert spec.keys() == in_batch(specs)
  # With everything that the record has, whether a chain reads it or not.
  whole = {'key': world().key(index), **world()[index]}
  rng = batch_fields.record_rng(0, 0, index)
  for op in ops:
    before, whole = whole, op(whole, rng)
    assert whole.keys() - before.keys() <= op.makes
  found = batch_fields.select(whole, chains.finished(ops))
  assert found.keys() == spec.keys()
  for name, value in found.items():
    assert (value.shape, value.dtype) == (spec[name].shape, spec[name].dtype)
  (batch,) = pipeline.evaluation(world(), ops, batch_size=4)
  for name, value in found.items():
    np.testing.assert_array_equal(batch[name][index], value, err_msg=name)
