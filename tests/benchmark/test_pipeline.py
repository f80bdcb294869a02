"""Tools run one after the other, with their progress on the terminal."""

import pytest

from mmtransxnet.benchmark.pipeline import Steps
from mmtransxnet.benchmark.progress import read_state


@pytest.mark.parametrize(
    ('line', 'expected'),
    [
        (
            '11/28 12:00:00 - mmengine - INFO - Iter(train) [ 20/140]  lr: '
            '1.0000e-03  eta: 0:01:40  time: 0.83  loss: 2.3026',
            (20, 140, 100, 'training 20/140, loss 2.30'),
        ),
        (
            'INFO - Epoch(train)  [1][ 40/200]  lr: 3e-04  eta: 1 day, '
            '0:00:02  loss: 1.5000  loss_rpn_cls: 0.1000',
            (40, 200, 86402, 'training 40/200, loss 1.50'),
        ),
        (
            'INFO - Epoch(test) [ 50/160]    eta: 0:00:06  time: 0.06',
            (50, 160, None, 'evaluation 50/160'),
        ),
        ('INFO - Epoch(val) [2][160/160]  coco/bbox_mAP: 0.5',
         (160, 160, None, 'validation 160/160')),
        ('INFO - Saving checkpoint at 140 iterations', None),
        ('', None),
    ],
)  # fmt: skip
def test_state_of_a_line(line, expected):
    assert read_state(line) == expected


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """Steps with tools of the test."""
    tools = tmp_path / 'root/tools'
    tools.mkdir(parents=True)
    (tools / 'talks.py').write_text(
        'import sys\n'
        'for i in range(100): print("INFO - Epoch(test) [", i, "/100]")\n'
        'sys.exit(int(sys.argv[1]))\n'
    )
    monkeypatch.setattr(
        'mmtransxnet.benchmark.pipeline.ROOT', tmp_path / 'root'
    )
    monkeypatch.chdir(tmp_path)
    return Steps(tmp_path / 'work', [])


def test_output_goes_to_the_log(steps, capsys):
    steps.run('speaking', 'talks.py', '0', comes='says much')
    shown = capsys.readouterr().out
    assert 'speaking: says much' in shown
    assert 'root/tools/talks.py 0' in shown
    assert 'Epoch' not in shown
    assert steps.log.read_text().count('Epoch(test)') == 100
    assert list(steps.minutes) == ['speaking']


def test_a_failure_ends_with_the_last_lines_and_the_log(steps, capsys):
    with pytest.raises(SystemExit, match=r'speaking ended with 3; .*log\.txt'):
        steps.run('speaking', 'talks.py', '3')
    shown = capsys.readouterr().err
    assert '[ 99 /100]' in shown
    assert len(shown.splitlines()) == 30
