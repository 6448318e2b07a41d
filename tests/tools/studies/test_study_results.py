"""Statistics, fits, tables and figures of studies, against numpy and scipy."""

import csv
import html.parser
import json
import math

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from big_vision_like.config import loading
from big_vision_like.runtime import figures as metrics_file
from tests.tools.studies import studies_on_disk
from tools.studies import figures, fit, plan, record, report, results


def finish(job, values, metric='val/top1'):
  """A folder as a finished job leaves it; {step: value}."""
  job.workdir.mkdir(parents=True)
  lines = [json.dumps({'step': s, metric: v}) for s, v in values.items()]
  (job.workdir / 'metrics.jsonl').write_text('\n'.join(lines))
  done = record.new(job)
  done.finished, done.exit_code, done.seconds = True, 0, 61.0
  done.versions, done.machine = record.versions(), 'an abacus'
  record.write(job, done)


def build(folder, **given):
  path = studies_on_disk.write(folder, **given)
  config = loading.load(path, '--config')
  return plan.build(config, path, folder / 'out')


def read(path):
  with path.open(newline='') as file:
    return list(csv.DictReader(file))


TABLE = dict(
  name='main',
  rows=[
    dict(title='MSRA', published={'val/top1': 76.4}),
    dict(run='a', published={'val/top1': 77.5}),
    'b',
    'c',
  ],
  columns=[dict(metric='val/top1', title='top-1', digits=2)],
  baseline='a',
  published='the paper',
)
A, B = (51.25, 48.5, 53.0), (60.5, 64.25, 61.75)


@pytest.fixture
def study(tmp_path):
  """Arms a and b of three seeds; of c one of three has finished."""
  runs = [dict(name='a', title='arm <A>'), dict(name='b'), dict(name='c')]
  planned = build(
    tmp_path,
    runs=runs,
    seeds=[0, 1, 2],
    text='One.\n\nTwo.',
    tables=[TABLE],
    figures=[
      dict(name='bars', kind='bars', metric='val/top1', title='Bars'),
      dict(name='curves', kind='curves', metric='val/top1', runs=['a', 'b']),
    ],
  )
  for name, values in (('a', A), ('b', B), ('c', (7.0,))):
    for job, value in zip(planned.runs[name], values):
      finish(job, {0: 1.0, 5: value / 2, 10: value})
  return planned


class TestStatistics:
  """Over seeds, at the end of the runs."""

  def test_mean_and_sample_standard_deviation(self, study):
    found = results.summarise(results.collect(study, {}), 'a', 'val/top1')
    assert found.values == A
    assert found.mean == pytest.approx(np.mean(A))
    assert found.std == pytest.approx(np.std(A, ddof=1))
    assert (found.num, found.planned) == (3, 3)

  def test_one_seed_has_no_deviation_and_none_no_mean(self, study):
    found = results.collect(study, {})
    one = results.summarise(found, 'c', 'val/top1')
    assert (one.mean, one.num, one.planned) == (7.0, 1, 3)
    assert math.isnan(one.std)
    none = results.summarise(found, 'c', 'val/other')
    assert none.num == 0 and math.isnan(none.mean)

  def test_gain_is_that_of_welchs_test(self, study):
    found = results.collect(study, {})
    a, b = (results.summarise(found, n, 'val/top1') for n in 'ab')
    difference, error = results.gain(b, a)
    welch = scipy.stats.ttest_ind(B, A, equal_var=False)
    assert difference == pytest.approx(np.mean(B) - np.mean(A))
    assert difference / error == pytest.approx(welch.statistic)

  def test_the_last_line_of_a_step_counts(self, tmp_path):
    """After a resume a step may stand twice."""
    job = build(tmp_path, runs=[dict(name='a')]).jobs[0]
    finish(job, {0: 1.0, 10: 3.0})
    with (job.workdir / 'metrics.jsonl').open('a') as file:
      file.write('\n{"step": 10, "val/top1": 4.0}\n')
    assert results.of_job(job, {}).figure('val/top1') == 4.0

  def test_a_longer_training_before_does_not_count(self, tmp_path):
    job = build(tmp_path, runs=[dict(name='a')]).jobs[0]
    finish(job, {0: 1.0, 5: 2.0, 10: 3.0, 20: 9.0})
    note = {'step': 5, **metrics_file.note('x', anew_from=6)}
    with (job.workdir / 'metrics.jsonl').open('a') as file:
      file.write(f'\n{json.dumps(note)}\n')
      file.write('{"step": 10, "val/top1": 4.0}\n')
    found = results.of_job(job, {})
    assert (found.step, found.figure('val/top1')) == (10, 4.0)
    assert found.curves['val/top1'][1].tolist() == [1, 2, 4]


class TestFit:
  """Least squares against scipy."""

  @pytest.mark.parametrize('log_x', [False, True])
  @pytest.mark.parametrize('seed', range(3))
  def test_line(self, log_x, seed):
    rng = np.random.default_rng(seed)
    x = 10 ** rng.uniform(1, 8, 6)
    y = 3 * np.log10(x) + rng.standard_normal(6)
    ours = fit.line(x, y, log_x=log_x)
    theirs = scipy.stats.linregress(np.log10(x) if log_x else x, y)
    assert ours.slope == pytest.approx(theirs.slope)
    assert ours.intercept == pytest.approx(theirs.intercept)
    assert ours.r2 == pytest.approx(theirs.rvalue**2)

  def test_what_has_no_line(self):
    assert fit.line([10, 10], [1, 2], log_x=True) is None
    assert fit.line([10], [1], log_x=True) is None
    level = fit.line([1, 10], [5, 5], log_x=True)
    assert level.slope == 0 and math.isnan(level.r2)


class TestTable:
  """CSV and HTML of a table."""

  def test_csv(self, study):
    report.write(study, {})
    rows = read(study.folder / 'main.csv')
    assert [r['row'] for r in rows] == ['MSRA', 'arm <A>', 'b', 'c']
    msra, a, b, c = rows
    assert (msra['mean'], msra['published']) == ('', '76.4')
    assert float(a['mean']) == pytest.approx(np.mean(A))
    assert float(a['std']) == pytest.approx(np.std(A, ddof=1))
    assert a['gain'] == '' and a['published'] == '77.5'
    assert float(b['gain']) == pytest.approx(np.mean(B) - np.mean(A))
    assert (c['seeds'], c['seeds_planned'], c['std']) == ('1', '3', '')

  def test_page_marks_what_is_published_and_what_is_missing(self, study):
    report.write(study, {})
    page = (study.folder / 'report.html').read_text()
    table = page[page.index('<table>') : page.index('</table>')]
    cells = [row.split('<td')[1:] for row in table.split('<tr>')[2:]]
    text = [[c.partition('>')[2].split('</td>')[0] for c in r] for r in cells]
    muted = '<span class="muted">{}</span>'.format
    assert text == [
      ['MSRA', '', '', muted('76.4'), ''],
      ['arm &lt;A&gt;', '50.92 ± 2.27', '', muted('77.5'), '3 of 3'],
      ['b', '62.17 ± 1.91', '+11.25 ± 1.71', '', '3 of 3'],
      ['c', '7.00', '-43.92', '', '1 of 3'],
    ]
    assert 'top-1, published' in table and 'Published: the paper.' in page
    assert '7 of 9 runs have finished; 2 not run.' in page

  def test_page_is_whole_and_tells_how(self, study):
    report.write(study, {})
    text = (study.folder / 'report.html').read_text()
    html.parser.HTMLParser().feed(text)
    for part in (
      '<p>One.</p>', '<p>Two.</p>', 'python -m tools.study --config',
      f'--workdir {study.folder}/runs/b/seed1', 'an abacus', '1m01s',
      '&quot;total_steps&quot;: 10', record.versions()['jax'],
    ):  # fmt: skip
      assert part in text, part
    assert text.count('data:image/png;base64,') == 2
    assert '<script' not in text and 'http' not in text

  def test_not_finite_is_said(self, tmp_path):
    table = dict(name='t', rows=['a'], columns=['val/top1'])
    planned = build(tmp_path, runs=[dict(name='a')], tables=[table])
    finish(planned.jobs[0], {0: 1.0, 10: None})
    report.write(planned, {})
    assert read(planned.folder / 't.csv')[0]['mean'] == 'not finite'
    assert '<td>not finite</td>' in (planned.folder / 'report.html').read_text()
    assert read(planned.folder / 'results.csv')[0]['val/top1'] == 'nan'


class TestFigures:
  """Pictures and the numbers in them."""

  def test_curves_of_the_steps_that_all_seeds_have(self):
    curves = [
      (np.array([0, 5, 10]), np.array([1.0, 2.0, 3.0])),
      (np.array([0, 10, 15]), np.array([2.0, 7.0, 9.0])),
    ]
    steps, mean, std = figures.mean_curve(curves)
    assert steps.tolist() == [0, 10] and mean.tolist() == [1.5, 5.0]
    np.testing.assert_allclose(std, [np.std([1, 2], ddof=1), 8**0.5])

  def test_bars_and_curves(self, study):
    report.write(study, {})
    bars = read(study.folder / 'bars.csv')
    assert [r['run'] for r in bars] == ['a', 'b', 'c']
    assert float(bars[1]['std']) == pytest.approx(np.std(B, ddof=1))
    curve = read(study.folder / 'curves.csv')
    half = [r for r in curve if (r['run'], r['step']) == ('b', '5')]
    assert float(half[0]['mean']) == pytest.approx(np.mean(B) / 2)
    for name in ('bars', 'curves'):
      image = np.asarray(Image.open(study.folder / f'{name}.png').convert('L'))
      assert image.shape == (600, 960) and image.std() > 10

  def test_sweep_over_data_with_a_fit_for_each_group(self, tmp_path):
    rng = np.random.default_rng(0)
    runs, values = [], {}
    for size in (3000, 1000, 30_000, 10_000):
      for mode, slope in (('tuned', 6.0), ('frozen', 2.0)):
        name = f'{mode}{size}'
        runs.append(dict(name=name, axes=dict(images=size, mode=mode)))
        values[name] = slope * math.log10(size) + rng.standard_normal(2)
    planned = build(
      tmp_path,
      runs=[dict(name='other'), *runs],
      seeds=[0, 1],
      figures=[
        dict(
          name='size',
          kind='sweep',
          metric='val/top1',
          x='images',
          group='mode',
          log_x=True,
          fit=True,
        )
      ],
    )
    for name, many in values.items():
      for job, value in zip(planned.runs[name], many):
        finish(job, {10: float(value)})
    sizes = np.array([1000, 3000, 10_000, 30_000])
    drawn = figures.draw(
      planned,
      planned.figures[0],
      results.collect(planned, {}),
      planned.folder,
    )
    for mode in ('tuned', 'frozen'):
      means = [np.mean(values[f'{mode}{size}']) for size in sizes]
      theirs = scipy.stats.linregress(np.log10(sizes), means)
      assert drawn.fits[mode].slope == pytest.approx(theirs.slope)
      assert drawn.fits[mode].r2 == pytest.approx(theirs.rvalue**2)
    rows = read(planned.folder / 'size.csv')
    tuned = [r for r in rows if r['mode'] == 'tuned']
    assert [float(r['images']) for r in tuned] == sizes.tolist()

  def test_nothing_finished_is_drawn_as_that(self, tmp_path):
    planned = build(
      tmp_path,
      runs=[dict(name='a')],
      figures=[dict(name='f', kind='bars', metric='val/top1')],
    )
    report.write(planned, {})
    page = (planned.folder / 'report.html').read_text()
    assert '0 of 1 runs have finished; 1 not run.' in page
    assert 'missing: a' in page
