"""Table 1 as a study, small, from the command to the page."""

import csv

import pytest

from tools import study


@pytest.mark.slow
def test_tiny_runs_end_to_end(tmp_path, capfd):
  folder = tmp_path / 'table1'
  command = [
    '--config', 'configs/studies/table1.py:tiny', '--workdir', str(folder),
    '--jobs', '2',
  ]  # fmt: skip
  assert study.main(command) == 0, capfd.readouterr()
  with (folder / 'results.csv').open(newline='') as file:
    runs = {row['run']: row for row in csv.DictReader(file)}
  assert set(runs) == {'jft', 'scratch', 'tuned_jft'}
  assert {row['status'] for row in runs.values()} == {'finished'}
  assert 0 <= float(runs['tuned_jft']['val/top1']) <= 100
  log = (folder / 'runs/tuned_jft/seed0/log.txt').read_text()
  start = folder / 'runs/jft/seed0/checkpoints/6'
  assert f'warm start from {start}' in log
  with (folder / 'table1.csv').open(newline='') as file:
    rows = {(row['row'], row['metric']): row for row in csv.DictReader(file)}
  tuned = rows['300M, fine-tuned', 'val/top1']
  assert tuned['mean'] == runs['tuned_jft']['val/top1']
  assert tuned['published'] == '79.2'
  assert rows['MSRA checkpoint', 'val/top5']['published'] == '92.9'
  page = (folder / 'report.html').read_text()
  assert 'All 3 runs have finished.' in page
  assert page.count('data:image/png;base64,') == 3
  # A second command has nothing to do.
  capfd.readouterr()
  assert study.main(command) == 0
  assert capfd.readouterr().out.count('had finished before') == 3
