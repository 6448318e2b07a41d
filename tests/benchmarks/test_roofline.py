"""Operations against hand, torch and XLA; bytes against hand."""

import functools
import math

import jax
import jax.numpy as jnp
import pytest

from benchmarks import roofline, train_step_kernels
from benchmarks.train_step_kernels import Net, kernels
from big_vision_like.models import resnet
from tests.peers import timm_peer

TIMM = 'first_unit_3x3'
RESNET_50 = Net(50, 224, 256, 'bfloat16', TIMM, 1000)
PRODUCTS = ('convolution', 'classifier')


def flops(work, *steps):
  """Of convolutions and the classifier."""
  return sum(
    k.flops for k in work if k.kind.startswith(PRODUCTS) and k.step in steps
  )


def work_of(work, layer, step):
  return [
    (k.flops, k.bytes) for k in work if (k.layer, k.step) == (layer, step)
  ]


def test_forward_of_resnet_50_by_hand():
  """Multiply-adds of He et al. 2016, table 1, stride in the 3x3."""
  macs = 112**2 * 7 * 7 * 3 * 64
  side, channels = 56, 64
  for units, width, stride in (
    (3, 64, 1),
    (4, 128, 2),
    (6, 256, 2),
    (3, 512, 2),
  ):
    for unit in range(units):
      before = side
      side //= stride if unit == 0 else 1
      macs += before**2 * channels * width
      macs += side**2 * 9 * width * width
      macs += side**2 * width * 4 * width
      if unit == 0:
        macs += side**2 * channels * 4 * width
      channels = 4 * width
  macs += 2048 * 1000
  assert round(macs / 1e9, 1) == 4.1  # what is commonly said
  assert flops(kernels(RESNET_50), 'forward') == 2 * macs


def test_number_of_parameters_is_the_published_one():
  _, backbone = train_step_kernels.trace(RESNET_50)
  assert backbone + 2049 * 1000 == 25_557_032


@pytest.mark.parametrize(('depth', 'size'), [(50, 224), (101, 299)])
def test_forward_and_backward_against_torch(depth, size):
  """Torch counts the products of timm's net; meta tensors compute nothing."""
  torch = pytest.importorskip('torch')
  from torch.utils.flop_counter import FlopCounterMode

  with torch.device('meta'):
    model = timm_peer.build(depth, num_classes=18_291)
    image = torch.empty(2, 3, size, size)
  with FlopCounterMode(display=False) as counter:
    loss = model(image).sum()
    forward = counter.get_total_flops()
    loss.backward()
  work = kernels(Net(depth, size, 2, 'float32', TIMM))
  assert forward == 2 * flops(work, 'forward')
  both = flops(work, 'forward', 'backward')
  assert counter.get_total_flops() == 2 * both


def test_forward_and_backward_against_xla():
  """XLA leaves out products with padding and adds the element-wise rest."""
  net = Net(50, 224, 1, 'float32', TIMM, 1000)
  model = resnet.Model(depth=50, stride_in=TIMM, conv='native')
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  variables = jax.eval_shape(
    functools.partial(model.init, train=True), jax.random.key(0), image
  )

  def loss(params, stats, image):
    out, _ = model.apply(
      {'params': params, 'batch_stats': stats},
      image,
      True,
      mutable=['batch_stats'],
    )
    return out['pooled'].sum()

  work = [k for k in kernels(net) if k.kind != 'classifier']
  args = variables['params'], variables['batch_stats'], image
  count = lambda f: jax.jit(f).lower(*args).cost_analysis()['flops']
  assert count(loss) == pytest.approx(flops(work, 'forward'), rel=0.03)
  both = flops(work, 'forward', 'backward')
  assert count(jax.value_and_grad(loss)) == pytest.approx(both, rel=0.03)


def test_bytes_by_hand():
  """ResNet-50 at 224 in bfloat16: 2 bytes a value; batch 256."""
  work = kernels(RESNET_50)
  image, stem, pooled = 224**2 * 3, 112**2 * 64, 56**2 * 64
  weights = 7 * 7 * 3 * 64 / 256
  product = 2 * 112**2 * 64 * 7 * 7 * 3
  moved = 2 * (image + stem + weights)
  assert work_of(work, 'conv1', 'forward') == [(product, moved)]
  assert work_of(work, 'conv1', 'backward') == [(product, moved)]
  maps = [k[1] for k in work_of(work, 'bn1', 'forward')]
  assert maps == [2 * stem, 2 * 2 * stem]
  maps = [k[1] for k in work_of(work, 'bn1', 'backward')]
  assert maps == [2 * 2 * stem, 2 * 3 * stem]
  (pool,) = work_of(work, 'pool', 'backward')
  # The first unit gives two gradients: of conv1 and of the shortcut.
  assert pool[1] == 2 * (stem + 2 * pooled + stem)
  # A strided 1x1 reads a quarter of its input, but writes its whole gradient.
  into, out = 56**2 * 256, 28**2 * 512
  weights = 256 * 512 / 256
  moved = [k[1] for k in work_of(work, 'block2/unit1/shortcut', 'backward')]
  assert moved == [
    2 * (into // 4 + out + weights),
    2 * (into + out + weights),
  ]
  assert work_of(work, 'update', 'update')[0][1] == 25_557_032 * 34 / 256


def test_ends_of_units_by_hand():
  work = kernels(RESNET_50)
  n = 56**2 * 256
  ends = lambda unit, step: [k[1] for k in work_of(work, unit, step)]
  # Projection: two norms' statistics; then both, one output.
  assert ends('block1/unit1', 'forward') == [2 * n, 2 * n, 2 * 3 * n]
  # Two gradients, the output and two inputs in, one sum out; then three in,
  # two out.
  assert ends('block1/unit1', 'backward') == [2 * 6 * n, 2 * 5 * n]
  assert ends('block1/unit2', 'forward') == [2 * n, 2 * 3 * n]
  assert ends('block1/unit2', 'backward') == [2 * 5 * n, 2 * 3 * n]
  n = 7**2 * 2048  # the last unit's gradient is that of a mean
  assert ends('block4/unit3', 'backward') == [2 * 3 * n, 2 * 3 * n]


def test_roofline_between_its_limits():
  work = kernels(RESNET_50)
  total = sum(k.flops for k in work)
  moved = sum(k.bytes for k in work)
  endless = 1e30
  arithmetic = roofline.Machine(1e12, endless)
  assert roofline.images_per_s(work, arithmetic) == pytest.approx(1e12 / total)
  assert roofline.memory_share(work, arithmetic) == 0
  traffic = roofline.Machine(endless, 1e12)
  assert roofline.images_per_s(work, traffic) == pytest.approx(1e12 / moved)
  assert roofline.memory_share(work, traffic) == 1
  machine = roofline.Machine(989e12, 4800e9)
  assert machine.balance == pytest.approx(206, abs=0.1)
  rate = roofline.images_per_s(work, machine)
  assert rate < min(989e12 / total, 4800e9 / moved)
  assert rate > 1 / (total / 989e12 + moved / 4800e9)


def test_tables_add_up(capsys, monkeypatch):
  argv = 'roofline --depth 26 --size 64 --classes 10 --layers'
  monkeypatch.setattr('sys.argv', argv.split())
  roofline.main()
  lines = capsys.readouterr().out.splitlines()
  rows = [
    [c.strip() for c in s.split('|')[1:-1]] for s in lines if s[:2] == '| '
  ]
  body, last = rows[1:-1], rows[-1]
  assert last[0] == '**sum**' and len(body) > 26
  for column in (1, 2, 3, 4, 6):
    values = [float(row[column].rstrip('%')) for row in body]
    whole = float(last[column].rstrip('%'))
    assert math.fsum(values) == pytest.approx(whole, rel=0.05), rows[0][column]
