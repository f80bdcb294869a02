"""Curves of a run that was resumed, and what its logs say."""

import json

from mmtransxnet.report.history import merge, read_starts

LINE = '2026/01/02 03:0{}:00 - mmengine - INFO - {}\n'


def start(work_dir, name, records, log=''):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    text = ''.join(f'{json.dumps(record)}\n' for record in records)
    (folder / 'scalars.json').write_text(text)
    (folder.parent / f'{name}.log').write_text(log)
    return folder / 'scalars.json'


def train(step, loss):
    return dict(iter=step, step=step, loss=loss, lr=0.1)


def test_resumed_run_has_no_point_twice(tmp_path):
    """Killed after 40, resumed from 20: 30 and 40 are the second's."""
    first = [train(step, 1.0) for step in (10, 20, 30, 40)]
    second = [train(step, 2.0) for step in (30, 40, 50)]
    start(tmp_path, '1', [*first[:2], dict(mIoU=5.0, step=20), *first[2:]])
    resumed = LINE.format(1, 'resumed epoch: 0, iter: 20')
    start(tmp_path, '2', [*second, dict(mIoU=7.0, step=50)], resumed)
    starts = read_starts(tmp_path)
    assert starts[1].resumed == 20
    curves = merge(starts)
    assert curves['train']['loss'].steps == [10, 20, 30, 40, 50]
    assert curves['train']['loss'].values == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert curves['val']['mIoU'].steps == [20, 50]


def test_run_started_anew_replaces_the_former(tmp_path):
    start(tmp_path, '1', [train(10, 1.0), train(20, 1.0)])
    start(tmp_path, '2', [train(10, 3.0)])
    assert merge(read_starts(tmp_path))['train']['loss'].values == [3.0]


def test_start_without_a_point_replaces_nothing(tmp_path):
    start(tmp_path, '1', [train(10, 1.0)])
    start(tmp_path, '2', [])
    assert merge(read_starts(tmp_path))['train']['loss'].values == [1.0]


def test_epochs_are_put_at_their_iterations(tmp_path):
    """Two epochs of 30 iterations, logged every 20."""
    log = LINE.format(1, 'Epoch(train)  [1][20/30]  loss: 1.0')
    start(
        tmp_path, '1',
        [train(20, 1.0), dict(ap=0.1, step=1), dict(ap=0.2, step=2)], log,
    )  # fmt: skip
    assert merge(read_starts(tmp_path))['val']['ap'].steps == [30, 60]


def test_validation_without_its_iteration(tmp_path):
    """Loops of iterations may say epoch 0."""
    start(tmp_path, '1', [train(20, 1.0), dict(top1=50.0, step=0)])
    assert merge(read_starts(tmp_path))['val']['top1'].steps == [20]


def test_damaged_lines_and_values_that_are_no_numbers(tmp_path):
    file = start(tmp_path, '1', [train(10, float('nan')), train(20, 1.0)])
    file.write_text(file.read_text() + '{"loss": 0.')
    (found,) = read_starts(tmp_path)
    assert (found.unreadable, found.not_finite) == (1, 1)
    assert merge([found])['train']['loss'].steps == [20]
    assert merge([found])['train']['lr'].steps == [10, 20]


def test_log(tmp_path):
    log = (
        LINE.format(1, '')
        + 'System environment:\n    Python: 3.11\n    seed: 7\n'
        + LINE.format(2, 'This run:')
        + '  data      CocoDataset, 4 samples\n  device    cpu, 1 threads\n'
        + LINE.format(3, 'Saving checkpoint')
    )
    start(tmp_path, '1', [], log)
    (found,) = read_starts(tmp_path)
    assert found.environment == {'Python': '3.11', 'seed': '7'}
    assert found.summary['device'] == 'cpu, 1 threads'
    assert found.seconds == 120
