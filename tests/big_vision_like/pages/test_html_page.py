"""Reports as one HTML file: text stays text, pictures are inside."""

import base64
import html.parser
import io

import numpy as np
from PIL import Image

from big_vision_like.pages import html_page


class Reader(html.parser.HTMLParser):
  """Collects the tags, text and pictures of a page."""

  def __init__(self):
    super().__init__()
    self.tags, self.text, self.sources, self.open = [], [], [], []

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    if tag not in ('img', 'meta'):
      self.open.append(tag)
    self.sources += [v for k, v in attrs if k == 'src']

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text.append(data)


def test_names_of_files_and_labels_are_text(tmp_path):
  hostile = '<script>alert("x")</script>&amp;\'"'
  small = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
  large = np.full((100, 90, 3), 77, np.uint8)
  html_page.save(
    str(tmp_path / 'p.html'),
    hostile,
    html_page.figure(small, hostile, scale=2),
    html_page.figure(large, 'second'),
    html_page.table(['a', hostile], [[1, hostile], [2.5, True]]),
    hostile,
  )
  page = Reader()
  page.feed((tmp_path / 'p.html').read_text('utf-8'))
  assert not page.open and 'script' not in page.tags
  assert ''.join(page.text).count(hostile) == 6  # title, h1, 2 cells, ...
  png, jpeg = page.sources
  kind, _, data = png.partition(',')
  assert kind == 'data:image/png;base64'
  back = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
  np.testing.assert_array_equal(back, small)
  assert jpeg.startswith('data:image/jpeg;base64,')
  assert 'width="16" height="16"' in (tmp_path / 'p.html').read_text('utf-8')
