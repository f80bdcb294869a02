"""Tables of the docs from files of figures, and files that are broken."""

import copy
import json

import pytest

from mmtransxnet.benchmark.speed.records import (
    file_name,
    machine_title,
    read_records,
)
from mmtransxnet.benchmark.speed.standard import STANDARD
from mmtransxnet.benchmark.speed.tables import (
    NOT_MEASURED,
    details,
    ratios,
    summary,
)
from mmtransxnet.utils.errors import UserError

WORK = STANDARD[1]
OURS, PEER, PUBLISHED = 'transxnet-t+folded', 'convnext_tiny', 'reference-t'


def a_result(case, seconds, peak):
    return dict(
        work=WORK.name, case=case, mode=WORK.mode, shape=WORK.shape,
        seconds=seconds, flops=1e9, peak_share=0.5, page_faults=7,
        system_share=0.25, peak_mib=peak,
    )  # fmt: skip


def a_record(
    *scales, device='AMD EPYC, AVX512', version='0.1.0', environment=None
):
    """A run for each scale, the times of the others."""
    runs = [
        [
            a_result(OURS, [1.0, 1.0], 100.0),
            a_result(PEER, [2 * scale, 2 * scale], 200.0),
            a_result(PUBLISHED, [4 * scale, 4 * scale], 800.0),
        ]
        for scale in scales
    ]
    machine = dict(
        device=device,
        threads=2,
        environment=environment or dict(OMP_NUM_THREADS='2'),
        torch='2.14.1',
        libc='glibc 2.36',
        matmul_flops=dict(fp32=2e11),
    )
    return dict(version=version, machine=machine, runs=runs)


def write(folder, *records):
    for record in records:
        (folder / file_name(record)).write_text(json.dumps(record))
    return read_records(folder)


def rows_of(table):
    return [
        [cell.strip() for cell in line.split('|')[1:-1]]
        for line in table.splitlines()
        if line.startswith('|')
    ]


def row_of(table, *first):
    (row,) = (row for row in rows_of(table) if row[: len(first)] == [*first])
    return row[len(first) :]


def test_a_column_for_each_file_with_the_range_of_its_runs(tmp_path):
    other = a_record(1.0, device='Intel(R) Xeon(R) Processor @ 2.1GHz, AVX512')
    table = ratios(write(tmp_path, a_record(1.0, 1.1, 0.9), other))
    assert rows_of(table)[0] == [
        'TransXNet-T',
        'compared with',
        'AMD EPYC, AVX512, 2 threads (0.1.0)',
        'Intel Xeon, AVX512, 2 threads (0.1.0)',
    ]
    name = f'{WORK.title}, folded'
    assert row_of(table, name, 'ConvNeXt-T') == [
        '1.80x to 2.20x; memory 0.50x',
        '2.00x; memory 0.50x',
    ]
    assert row_of(table, name, 'published formula') == [
        '3.60x to 4.40x; memory 0.12x',
        '4.00x; memory 0.12x',
    ]
    # What was not measured is empty.
    name = STANDARD[0].title
    assert row_of(table, f'{name}, folded', 'ConvNeXt-T') == ['', '']


def test_the_summary_has_the_range_over_all_machines(tmp_path):
    records = write(
        tmp_path,
        a_record(1.0),
        a_record(1.5, device='another'),
        a_record(9.0, version='0.0.9'),
        a_record(8.0, environment=dict(MALLOC_TRIM_THRESHOLD_='4096')),
    )
    table = summary(records)
    assert rows_of(table)[0] == [
        'TransXNet-T',
        'ConvNeXt-T',
        'published formula',
    ]
    assert row_of(table, f'{WORK.title}, folded') == [
        '2.00x to 3.00x; memory 0.50x',
        '4.00x to 6.00x; memory 0.12x',
    ]


def test_details_of_each_case(tmp_path):
    table = details(write(tmp_path, a_record(1.0, 1.1)))
    assert 'runs: 2; matrix products: 200 GFLOP/s in fp32' in table
    figures = ['2 to 2.2', '50%', '7', '25%', '200']
    assert row_of(table, WORK.title, PEER) == figures


def test_nothing_measured(tmp_path):
    assert {f(read_records(tmp_path)) for f in (ratios, summary, details)} == {
        NOT_MEASURED
    }


def test_settings_are_part_of_the_name():
    record = a_record(1.0)
    assert file_name(record) == 'amd-epyc-avx512-2-threads-0.1.0.json'
    record = a_record(1.0, environment=dict(MALLOC_TRIM_THRESHOLD_='4096'))
    title = machine_title(record['machine'])
    assert title.endswith('2 threads, MALLOC_TRIM_THRESHOLD_=4096')
    assert file_name(record) == (
        'amd-epyc-avx512-2-threads-malloc-trim-threshold-4096-0.1.0.json'
    )


def without(record, *path):
    for key in path[:-1]:
        record = record[key]
    del record[path[-1]]


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda r: without(r, 'version'), "KeyError: 'version'"),
        (lambda r: without(r, 'machine', 'device'), "KeyError: 'device'"),
        (lambda r: without(r, 'runs', 0, 0, 'seconds'), "KeyError: 'seconds'"),
        (lambda r: r['runs'].clear(), 'it has no results'),
        (lambda r: r['runs'][0].pop(), 'its runs have different cases'),
        (lambda r: r['runs'][0][0].update(seconds=[0.0]), 'not above zero'),
        (lambda r: r['runs'][0][0].update(seconds=[]), 'not above zero'),
        (lambda r: r['runs'][0][0].update(flops='many'), 'TypeError'),
        (
            lambda r: r['runs'][0][0]['seconds'].pop(),
            'different numbers of rounds',
        ),
        (lambda r: r['machine'].update(threads=4), 'its name should be amd'),
    ],
)
def test_broken_files_are_named(tmp_path, spoil, message):
    record = a_record(1.0, 1.1)
    broken = copy.deepcopy(record)
    spoil(broken)
    path = tmp_path / file_name(record)
    path.write_text(json.dumps(broken))
    with pytest.raises(UserError, match='measure again') as error:
        read_records(tmp_path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_a_file_that_is_not_json(tmp_path):
    (tmp_path / 'half.json').write_text('{"version": ')
    with pytest.raises(UserError, match=r'half\.json is not a file of'):
        read_records(tmp_path)
