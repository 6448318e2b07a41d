"""Forty image files, good and bad, against the outcome stated for each."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from input_pipeline import ops
from input_pipeline.examples.errors import BadExample
from input_pipeline.ops.context import OpContext
from input_pipeline.ops.decode import Decode

HEIGHT, WIDTH = 120, 160


def photo() -> np.ndarray:
  """A smooth coloured picture with some noise, uint8 [120,160,3]."""
  y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
  waves = [np.sin(y / 17) * 100 + 120, np.cos(x / 9) * 100 + 120, (x + y) / 2]
  noise = np.random.default_rng(0).normal(0, 4, (HEIGHT, WIDTH, 3))
  return (np.stack(waves, -1) + noise).clip(0, 255).astype(np.uint8)


def encode(image: Image.Image, fmt: str = 'JPEG', **options) -> bytes:
  out = io.BytesIO()
  image.save(out, fmt, **options)
  return out.getvalue()


def png(width, height, bit_depth, colour_type, rows: bytes, extra=b'') -> bytes:
  """A PNG written chunk by chunk; `rows` holds the filter bytes too."""

  def chunk(kind: bytes, body: bytes) -> bytes:
    crc = zlib.crc32(kind + body)
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', crc)

  header = struct.pack(
    '>IIBBBBB', width, height, bit_depth, colour_type, 0, 0, 0
  )
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + extra
    + chunk(b'IDAT', zlib.compress(rows))
    + chunk(b'IEND', b'')
  )


def exif(orientation: int) -> bytes:
  tags = Image.Exif()
  tags[0x0112] = orientation
  return tags.tobytes()


def ycck() -> bytes:
  """A CMYK JPEG relabelled as Adobe YCCK (transform flag 2)."""
  data = bytearray(encode(Image.fromarray(photo()).convert('CMYK')))
  data[data.find(b'Adobe') + 11] = 2
  return bytes(data)


def bomb_png() -> bytes:
  """30,000 x 30,000 grey pixels in about 110 kB."""
  body = zlib.compressobj(9)
  row = bytes(1 + 30_000 // 8)
  packed = b''.join(body.compress(row) for _ in range(30_000)) + body.flush()
  header = struct.pack('>IIBBBBB', 30_000, 30_000, 1, 0, 0, 0, 0)
  out = b'\x89PNG\r\n\x1a\n'
  for kind, part in ((b'IHDR', header), (b'IDAT', packed), (b'IEND', b'')):
    crc = struct.pack('>I', zlib.crc32(kind + part))
    out += struct.pack('>I', len(part)) + kind + part + crc
  return out


def bomb_jpeg() -> bytes:
  """A header of 10,000 x 10,000 pixels and no more than 1 kB in all."""
  data = bytearray(encode(Image.fromarray(photo())))
  frame = data.find(b'\xff\xc0')
  struct.pack_into('>HH', data, frame + 5, 10_000, 10_000)
  return bytes(data[:1000])


def flat(picture: Image.Image) -> np.ndarray:
  """Pillow's own RGB pixels."""
  return np.asarray(picture.convert('RGB'))


def fixtures() -> dict[str, tuple[bytes, object]]:
  """name -> (file, expected): pixels, or the text of the refusal."""
  rgb = photo()
  im = Image.fromarray(rgb)
  grey, cmyk = im.convert('L'), im.convert('CMYK')
  base, prog = encode(im), encode(im, progressive=True)
  big_png = encode(im, 'PNG')
  table: dict[str, tuple[bytes, object]] = {}

  def jpeg_like(name, data):  # Pillow is the independent decoder
    table[name] = (data, flat(Image.open(io.BytesIO(data))))

  jpeg_like('baseline', base)
  jpeg_like('progressive', prog)
  jpeg_like('444', encode(im, subsampling=0, quality=97))
  jpeg_like('422', encode(im, subsampling=1))
  jpeg_like('grey jpeg', encode(grey))
  jpeg_like('cmyk jpeg', encode(cmyk))
  jpeg_like('ycck jpeg', ycck())
  jpeg_like('restart markers', encode(im, restart_marker_rows=1))
  jpeg_like('one pixel', encode(im.crop((0, 0, 1, 1))))
  jpeg_like('jpeg with junk after its end', base + b'junk' * 30)
  jpeg_like('exif orientation 6', encode(im, exif=exif(6)))
  jpeg_like('exif orientation 3', encode(im, exif=exif(3)))

  table['png named .JPEG'] = (big_png, rgb)
  table['grey png'] = (encode(grey, 'PNG'), flat(grey))
  palette = im.quantize(64)
  table['palette png'] = (encode(palette, 'PNG'), flat(palette))
  table['bilevel png'] = (encode(im.convert('1'), 'PNG'), flat(im.convert('1')))
  ramp = np.arange(256 * 4, dtype=np.uint16).reshape(4, 256) * 64
  ramp[-1, -1] = 65535
  table['16-bit grey png'] = (
    encode(Image.fromarray(ramp), 'PNG'),
    np.repeat(np.rint(ramp / 257).astype(np.uint8)[..., None], 3, 2),
  )
  deep = (rgb.astype(np.uint16) * 257).astype('>u2')
  rows = b''.join(b'\0' + row.tobytes() for row in deep)
  table['16-bit rgb png'] = (png(WIDTH, HEIGHT, 16, 2, rows), rgb)
  alpha = np.linspace(0, 255, WIDTH).astype(np.uint8)[None].repeat(HEIGHT, 0)
  a = alpha[..., None] / 255
  table['rgba png'] = (
    encode(Image.fromarray(np.dstack([rgb, alpha])), 'PNG'),
    np.rint(rgb * a + 255 * (1 - a)).astype(np.uint8),
  )
  table['grey and alpha png'] = (
    encode(Image.merge('LA', [grey, Image.fromarray(alpha)]), 'PNG'),
    np.rint(flat(grey) * a + 255 * (1 - a)).astype(np.uint8),
  )
  hole = flat(palette).copy()
  hole[np.asarray(palette) == 5] = 255
  table['palette png with a transparent entry'] = (
    encode(palette, 'PNG', transparency=5),
    hole,
  )
  table['bmp'] = (encode(im, 'BMP'), rgb)
  table['tiff'] = (encode(im, 'TIFF', compression='tiff_lzw'), rgb)
  table['lossless webp'] = (encode(im, 'WEBP', lossless=True), rgb)
  table['gif'] = (encode(palette, 'GIF'), flat(palette))
  other = Image.fromarray(255 - rgb).quantize(64)
  table['animated gif, first frame'] = (
    encode(palette, 'GIF', save_all=True, append_images=[other]),
    flat(palette),
  )
  table['animated png, first frame'] = (
    encode(
      im, 'PNG', save_all=True, append_images=[Image.fromarray(255 - rgb)]
    ),
    rgb,
  )

  table['zero bytes'] = (b'', 'empty image')
  table['text'] = (b'<html>404 not found</html>', 'not an image')
  table['jpeg marker only'] = (b'\xff\xd8\xff', 'JPEG cannot be decoded')
  table['half a jpeg'] = (base[: len(base) // 2], 'Premature end')
  table['jpeg without its last bytes'] = (base[:-40], 'Premature end')
  table['half a jpeg, end marker put back'] = (
    base[: len(base) // 2] + b'\xff\xd9',
    'premature end of data segment',
  )
  table['half a progressive jpeg'] = (prog[: len(prog) // 2], 'Premature end')
  table['half a png'] = (big_png[: len(big_png) // 2], 'cannot be decoded')
  flipped = bytearray(big_png)
  flipped[len(flipped) // 2] ^= 1
  table['png with a wrong checksum'] = (bytes(flipped), 'cannot be decoded')
  gif = encode(palette, 'GIF')
  table['half a gif'] = (gif[: len(gif) // 2], 'cannot be decoded')
  table['half a bmp'] = (encode(im, 'BMP')[:20_000], 'cannot be decoded')
  table['image bomb, png'] = (bomb_png(), 'above the limit')
  table['image bomb, jpeg'] = (bomb_jpeg(), 'above the limit')
  return table


FIXTURES = fixtures()


def decode(data, **options) -> np.ndarray:
  op = Decode(OpContext(), **options)
  return op({'image': data}, np.random.default_rng(0))['image']


def test_there_are_forty_fixtures():
  assert len(FIXTURES) == 40


@pytest.mark.parametrize('name', FIXTURES)
def test_outcome_is_the_stated_one(name):
  data, expected = FIXTURES[name]
  if isinstance(expected, str):
    with pytest.raises(BadExample, match=expected):
      decode(data)
    return
  image = decode(data)
  assert image.dtype == np.uint8 and image.flags['C_CONTIGUOUS']
  assert image.shape == expected.shape
  inexact = (
    'cmyk' in name or 'ycck' in name or 'alpha' in name or 'rgba' in name
  )
  difference = np.abs(image.astype(int) - expected).max()
  assert difference <= (1 if inexact else 0)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_floating_point_that_is_not_finite_is_bad(value):
  """Clipped it would be black or white, without a word."""
  pixels = np.full((6, 9), 300.0, np.float32)
  pixels[0] = [-5.0, 0.0, 1.0, 7.0, 99.0, 128.0, 254.0, 255.0, 256.0]

  def tiff():
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, 'TIFF')
    return out.getvalue()

  found = Decode(OpContext()).decode(tiff())
  wanted = np.repeat(np.clip(pixels, 0, 255)[:, :, None], 3, axis=2)
  np.testing.assert_array_equal(found, wanted)
  pixels[3, 4] = value
  with pytest.raises(BadExample, match='TIFF has values that are not finite'):
    Decode(OpContext()).decode(tiff())


def test_arrays_pass_through_and_wrong_ones_are_refused():
  image = photo()
  assert decode(image) is image
  with pytest.raises(ValueError, match=r'uint8 \[H,W,3\].*float32'):
    decode(image.astype(np.float32))


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('fmt', ['JPEG', 'PNG'])
def test_exif_orientation_on_request(orientation, fmt):
  data = encode(Image.fromarray(photo()), fmt, exif=exif(orientation))
  upright = flat(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
  np.testing.assert_array_equal(decode(data, apply_exif=True), upright)


def test_limits_are_options():
  data = encode(Image.fromarray(photo()))
  assert decode(data, max_megapixels=0.0192).shape == (HEIGHT, WIDTH, 3)
  with pytest.raises(BadExample, match='120x160 pixels is above the limit'):
    decode(data, max_megapixels=0.0191)
  with pytest.raises(BadExample, match=f'image of {len(data)} bytes'):
    decode(data, max_megabytes=len(data) / 2**20 * 0.99)
  for options in (
    dict(max_megapixels=0), dict(max_megapixels=1000), dict(max_megabytes=0),
    dict(min_size=0.5), dict(min_size=0), dict(max_megabytes=float('inf')),
  ):  # fmt: skip
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f'{name}={value} must be'):
      ops.build([dict(op='decode', **options)], OpContext())


def test_min_size_reduces_jpegs_but_not_below():
  data = encode(Image.fromarray(photo()).resize((800, 600)))
  reduced = decode(data, min_size=150)
  assert reduced.shape == (150, 200, 3)  # 2/8 of 600x800
  mean = decode(data).reshape(150, 4, 200, 4, 3).mean((1, 3))
  assert np.abs(reduced - mean).mean() < 2
  assert decode(data, min_size=601).shape == (600, 800, 3)


_MEASURE = """
import resource, sys, time
from tests.input_pipeline.ops import test_decode as t
from input_pipeline.examples.errors import BadExample
op = t.Decode(t.OpContext())
warm = [t.FIXTURES['half a png'][0], t.FIXTURES['half a jpeg'][0]]
def refused(data):
  try:
    op.decode(data)
  except BadExample:
    return
  sys.exit('decoded')
for data in warm:
  refused(data)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
worst = 0
for name in ('image bomb, png', 'image bomb, jpeg'):
  times = []
  for _ in range(5):
    start = time.perf_counter()
    refused(t.FIXTURES[name][0])
    times.append(time.perf_counter() - start)
  worst = max(worst, sorted(times)[2])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, worst)
"""


def test_image_bombs_cost_neither_memory_nor_time(project_root):
  env = dict(os.environ, PYTHONPATH=str(project_root))
  out = subprocess.run(
    [sys.executable, '-c', _MEASURE],
    env=env,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert int(out[0]) <= 50 * 1024  # KiB
  assert float(out[1]) <= 0.010  # seconds
