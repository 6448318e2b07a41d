"""Forty image files, good and bad, with the outcome stated for each."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

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


def bomb(kind: str, height: int, width: int) -> bytes:
  """A small file of a Pillow format whose header claims this size."""
  options = {'lossless': True} if kind == 'WEBP' else {}
  data = bytearray(encode(Image.fromarray(photo()[:40, :50]), kind, **options))
  if kind == 'PNG':
    struct.pack_into('>II', data, 16, width, height)
    struct.pack_into('>I', data, 29, zlib.crc32(data[12:29]))
  elif kind == 'JPEG':
    struct.pack_into('>HH', data, data.find(b'\xff\xc0') + 5, height, width)
  elif kind == 'GIF':
    struct.pack_into('<HH', data, 6, width, height)
  elif kind == 'BMP':
    struct.pack_into('<ii', data, 18, width, height)
  elif kind == 'WEBP':
    (bits,) = struct.unpack_from('<I', data, 21)
    bits = bits >> 28 << 28 | (height - 1) << 14 | width - 1
    struct.pack_into('<I', data, 21, bits)
  else:
    assert kind == 'TIFF'
    (start,) = struct.unpack_from('<I', data, 4)
    for tag, value in ((256, width), (257, height)):
      at = data.index(struct.pack('<H', tag), start + 2)
      struct.pack_into('<HII', data, at + 2, 4, 1, value)
  return bytes(data)


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


def check(name: str) -> None:
  """AssertionError: the outcome of a file is not the stated one."""
  data, expected = FIXTURES[name]
  if isinstance(expected, str):
    with pytest.raises(BadExample, match=expected):
      decode(data)
    return
  assert isinstance(expected, np.ndarray)
  image = decode(data)
  assert image.dtype == np.uint8 and image.flags['C_CONTIGUOUS']
  assert image.shape == expected.shape
  inexact = (
    'cmyk' in name or 'ycck' in name or 'alpha' in name or 'rgba' in name
  )
  difference = np.abs(image.astype(int) - expected).max()
  assert difference <= (1 if inexact else 0)
