"""Runs of the standard table: processes, and the file they end in."""

import pytest

import mmtransxnet
from mmtransxnet.benchmark.speed.bench import bench, expected_minutes
from mmtransxnet.benchmark.speed.cases import Case, Shape
from mmtransxnet.benchmark.speed.records import Record
from mmtransxnet.benchmark.speed.standard import (
    FLOPS,
    LABELS,
    STANDARD,
    Comparison,
    Work,
)
from mmtransxnet.utils.errors import UserError

OURS = 'transxnet-t'
TINY = Work(
    'tiny',
    'a tiny image',
    mode='inference',
    shape='1x32x32',
    comparisons=(Comparison('folded', f'{OURS}+folded', (OURS,)),),
    rounds=2,
    memory=False,
    seconds=6,
)


def test_every_run_is_kept(tmp_path):
    lines = []
    path = bench(
        [TINY],
        runs=2,
        threads=1,
        keep_memory=True,
        scratch=tmp_path / 'scratch',
        folder=tmp_path / 'benchmarks',
        report=lines.append,
    )
    assert lines == [f'run {i} of 2: a tiny image' for i in (1, 2)]
    record = Record(path)
    assert record.version == mmtransxnet.__version__
    assert '-1-threads-' in path.name
    assert len(record.speed_ratios('tiny', f'{OURS}+folded', OURS)) == 2
    assert record.memory_ratios('tiny', f'{OURS}+folded', OURS) == []
    for result in record.results('tiny', OURS):
        assert len(result['seconds']) == 2


def test_a_failure_writes_nothing(tmp_path, monkeypatch):
    program = tmp_path / 'speed.py'
    program.write_text('raise SystemExit(3)')
    monkeypatch.setattr('mmtransxnet.benchmark.speed.bench._SPEED', program)
    folder = tmp_path / 'benchmarks'
    with pytest.raises(UserError, match=r'speed\.py ended with status 3'):
        bench([TINY], 1, 1, False, tmp_path / 'scratch', folder, report=print)
    assert not folder.exists()


def test_expected_time_grows_with_runs_and_slower_machines():
    assert expected_minutes([TINY, TINY], 5, FLOPS) == 1
    assert expected_minutes([TINY], 10, FLOPS / 2) == 2


@pytest.mark.parametrize('work', STANDARD, ids=lambda work: work.name)
def test_the_standard_table_is_measurable(work):
    Shape.parse(work.shape)
    for name in work.cases:
        assert Case.parse(name).does(work.mode)
    for comparison in work.comparisons:
        assert set(comparison.others) <= LABELS.keys()
