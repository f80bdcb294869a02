"""Rows, command lines, comparison and report of the reproduction."""

import json
import math

import pytest
import torch
import yaml
from mmengine.config import Config

from mmtransxnet.benchmark import (
    Checked,
    Launch,
    Outcome,
    Row,
    check_rows,
    compare_figures,
    evaluation_command,
    load_outcomes,
    read_rows,
    select_rows,
    still_holds,
    training_command,
    write_report,
)
from mmtransxnet.benchmark.runs import _error_line, _take_metrics
from mmtransxnet.engine import UserError
from tests.support.paths import ROOT

CONFIG = 'configs/detection/maskrcnn_transxnet_t.py'


def metafile(path, **changes):
    model = {
        'Name': 'maskrcnn_transxnet_t',
        'In Collection': 'TransXNet',
        'Config': CONFIG,
        'Metadata': {'Parameters': 1},
        'Results': [
            {
                'Task': 'Object Detection',
                'Dataset': 'COCO',
                'Metrics': {'box AP': 44.5},
            },
            {
                'Task': 'Instance Segmentation',
                'Dataset': 'COCO',
                'Metrics': {'mask AP': 40.7},
            },
        ],
        'Weights': 'transxnet://maskrcnn-t',
    }
    path.write_text(yaml.safe_dump({'Models': [{**model, **changes}]}))
    return path


# ------------------------------------------------------------------------ rows
def test_row(tmp_path):
    (row,) = read_rows(metafile(tmp_path / 'metafile.yml'))
    assert row.name == 'maskrcnn_transxnet_t'
    assert row.task == 'detection'
    assert row.weights == 'transxnet://maskrcnn-t'
    assert row.figures == {'box AP': 44.5, 'mask AP': 40.7}
    assert row.tolerances == {'box AP': 0.1, 'mask AP': 0.1}


@pytest.mark.parametrize(
    ('stated', 'expected'),
    [
        (2, {'box AP': 2.0, 'mask AP': 2.0}),
        ({'mask AP': 0.5}, {'box AP': 0.1, 'mask AP': 0.5}),
    ],
)
def test_tolerance_of_the_metafile(tmp_path, stated, expected):
    path = tmp_path / 'metafile_digits.yml'
    (row,) = read_rows(metafile(path, Metadata={'Tolerance': stated}))
    assert row.tolerances == expected
    assert row.task == 'digits'


def test_unknown_metric_is_refused(tmp_path):
    results = [{'Metrics': {'box ap': 44.5}}]
    path = metafile(tmp_path / 'metafile.yml', Results=results)
    with pytest.raises(UserError, match="'box ap'"):
        read_rows(path)


@pytest.mark.parametrize('text', ['', 'Models: [{Name: a}]', '{'])
def test_what_is_no_metafile(tmp_path, text):
    path = tmp_path / 'metafile.yml'
    path.write_text(text)
    with pytest.raises(UserError, match='not a metafile'):
        read_rows(path)


def test_selection():
    rows = [Row('a_t', 'x', ''), Row('a_s', 'x', ''), Row('b_t', 'y', '')]
    assert select_rows(rows, [], []) == rows
    assert select_rows(rows, ['y'], []) == rows[2:]
    assert select_rows(rows, [], ['a_s', 'b_t']) == rows[1:]
    with pytest.raises(UserError, match=r'--models a_b.*a_t'):
        select_rows(rows, [], ['a_b'])
    with pytest.raises(UserError, match='--task z'):
        select_rows(rows, ['z'], [])
    with pytest.raises(UserError, match='both'):
        select_rows(rows, ['x'], ['b_t'])


# -------------------------------------------------------------------- commands
def test_evaluation_commands(tmp_path):
    def words(launch):
        command = evaluation_command(launch, 'name', 'c.py', 'w.pth', tmp_path)
        return command.words, command.environment

    flags = ['--work-dir', str(tmp_path)]
    single, _ = words(Launch())
    assert single[1:] == ['tools/test.py', 'c.py', 'w.pth', *flags]
    several, _ = words(Launch('pytorch', 4, options=('a=1',)))
    assert several == [
        *('bash', 'tools/dist_test.sh', 'c.py', 'w.pth', '4'),
        *flags,
        *('--cfg-options', 'a=1'),
    ]
    slurm, environment = words(Launch('slurm', 16, 'gpu'))
    assert slurm == [
        *('bash', 'tools/slurm_test.sh', 'gpu', 'name', 'c.py', 'w.pth'),
        *flags,
    ]
    assert environment == {'GPUS': '16'}


def test_launches_that_cannot_be():
    with pytest.raises(UserError, match='--partition'):
        Launch('slurm', 8)
    with pytest.raises(UserError, match='--gpus 0'):
        Launch('pytorch', 0)


@pytest.mark.parametrize(
    ('at_hand', 'used', 'scaled'),
    [(16, 8, False), (8, 8, False), (2, 2, True)],
)
def test_training_uses_the_gpus_of_the_recipe(at_hand, used, scaled):
    config = Config.fromfile(ROOT / CONFIG)
    command = training_command(Launch('pytorch', at_hand), 'name', config)
    assert command.words[1:4] == [
        'tools/dist_train.sh',
        str(ROOT / CONFIG),
        str(used),
    ]
    assert ('--auto-scale-lr' in command.words) is scaled
    command = training_command(Launch('slurm', at_hand, 'gpu'), 'name', config)
    assert command.environment == {'GPUS': str(used)}
    assert command.words[1:4] == ['tools/slurm_train.sh', 'gpu', 'name']


def test_training_in_one_process_scales_the_rate():
    config = Config.fromfile(ROOT / CONFIG)
    command = training_command(Launch('none', 8), 'name', config)
    assert command.words[1:] == [
        'tools/train.py',
        str(ROOT / CONFIG),
        '--auto-scale-lr',
    ]


# ------------------------------------------------------------------ comparison
@pytest.mark.parametrize(
    ('measured', 'state'),
    [
        ({'box AP': 44.6, 'mask AP': 40.6}, 'reproduced'),
        ({'box AP': 44.61, 'mask AP': 40.7}, 'differs'),
        ({'box AP': 44.5, 'mask AP': 40.5}, 'differs'),
        ({'box AP': 44.5}, 'failed'),
    ],
)
def test_comparison(tmp_path, measured, state):
    (row,) = read_rows(metafile(tmp_path / 'metafile.yml'))
    outcome = Outcome(row.name, 'unknown', measured)
    compare_figures(outcome, row)
    assert outcome.state == state


@pytest.mark.parametrize(
    ('metrics', 'reason'),
    [
        ({'coco/bbox_mAP': 0.445}, 'no coco/segm_mAP'),
        (
            {'coco/bbox_mAP': math.nan, 'coco/segm_mAP': 0.4},
            'coco/bbox_mAP is nan',
        ),
        (None, 'no metrics were written'),
    ],
)
def test_metrics_that_are_missing(tmp_path, metrics, reason):
    (row,) = read_rows(metafile(tmp_path / 'metafile.yml'))
    (tmp_path / 'run').mkdir()
    if metrics is not None:
        (tmp_path / 'run/run.json').write_text(json.dumps(metrics))
    outcome = Outcome(row.name, 'unknown')
    _take_metrics(outcome, row, tmp_path, 0.0)
    assert reason in outcome.reason


def test_metrics_of_an_earlier_run_do_not_count(tmp_path):
    (row,) = read_rows(metafile(tmp_path / 'metafile.yml'))
    (tmp_path / 'run').mkdir()
    path = tmp_path / 'run/run.json'
    path.write_text('{"coco/bbox_mAP": 0.445, "coco/segm_mAP": 0.407}')
    outcome = Outcome(row.name, 'unknown')
    _take_metrics(outcome, row, tmp_path, path.stat().st_mtime + 5)
    assert outcome.measured == {}
    _take_metrics(outcome, row, tmp_path, path.stat().st_mtime)
    assert outcome.measured == pytest.approx({'box AP': 44.5, 'mask AP': 40.7})


@pytest.mark.parametrize(
    ('log', 'complaint'),
    [
        ('begin\nerror: no data\nbye\n', 'error: no data'),
        ('cause\n  Signal 6 received\n=====\n\n', 'Signal 6 received'),
        ('', 'no output'),
    ],
)
def test_error_line_of_a_log(tmp_path, log, complaint):
    (tmp_path / 'output.log').write_text(log)
    assert _error_line(tmp_path / 'output.log') == complaint


# ---------------------------------------------------------------------- checks
@pytest.fixture
def digits_row():
    return Row(
        'transxnet_t_digits',
        'digits',
        str(ROOT / 'configs/classification/transxnet_t_digits.py'),
        figures={'top-1': 90.0},
        tolerances={'top-1': 0.1},
    )


@pytest.fixture
def data(digits, monkeypatch):
    monkeypatch.setenv('DIGITS_ROOT', str(digits))


def test_missing_data_is_told_before_the_weights(
    digits_row, tmp_path, monkeypatch
):
    monkeypatch.setenv('DIGITS_ROOT', str(tmp_path / 'none'))
    (checked,) = check_rows([digits_row], None, [])
    assert checked.state == 'no data'
    assert 'build_digits.py' in checked.reason


def test_a_part_of_a_published_set_is_not_enough(
    digits_row, data, tmp_path, monkeypatch
):
    published = {('CustomDataset', 'val'): 50_000}
    monkeypatch.setattr(
        'mmtransxnet.engine.checks.folders._PUBLISHED_COUNTS', published
    )
    (checked,) = check_rows([digits_row], tmp_path, [])
    assert checked.state == 'no data'
    assert 'of 50000' in checked.reason


def test_weights(digits_row, data, tmp_path):
    def check(**changes):
        return check_rows([digits_row], tmp_path, changes.get('options', []))[
            0
        ]

    assert check().state == 'no weights'
    path = tmp_path / 'transxnet_t_digits.pth'
    path.write_bytes(b'no checkpoint')
    assert check().state == 'no weights'
    assert 'cannot be read' in check().reason
    torch.save({'state_dict': {}}, path)
    first = check()
    assert (first.state, first.checkpoint) == ('ready', str(path))
    assert check() == first
    # Whatever changes the result changes the identity.
    torch.save({'state_dict': {'a': torch.ones(1)}}, path)
    assert check().identity != first.identity
    other = check(options=['test_dataloader.batch_size=2'])
    assert other.identity not in (first.identity, check().identity)


def test_weights_of_a_work_directory(digits_row, data, tmp_path):
    path = tmp_path / 'iter_140.pth'
    torch.save({'state_dict': {}}, path)
    (tmp_path / digits_row.name).mkdir()
    (tmp_path / digits_row.name / 'last_checkpoint').write_text(str(path))
    (checked,) = check_rows([digits_row], tmp_path, [])
    assert (checked.state, checked.checkpoint) == ('ready', str(path))


def test_nothing_published():
    (checked,) = check_rows([Row('upernet', 'segmentation', '')], None, [])
    assert checked.state == 'nothing published'


def test_config_that_is_not_there():
    row = Row('a', 'b', 'none.py', figures={'mIoU': 1.0})
    (checked,) = check_rows([row], None, [])
    assert checked.state == 'no config'


# ---------------------------------------------------------------------- report
def test_report(tmp_path):
    (row,) = read_rows(metafile(tmp_path / 'metafile.yml'))
    measured = {'box AP': 44.52, 'mask AP': 40.31}
    done = Outcome(row.name, 'differs', measured, minutes=1.25)
    absent = Outcome('other', 'no data', reason='COCO is not there')
    empty = Row('other', 'detection', CONFIG)
    again = Row('third', 'detection', CONFIG)
    outcomes = [
        done,
        absent,
        Outcome('third', 'no data', reason=absent.reason),
    ]
    write_report([row, empty, again], outcomes, tmp_path / 'out')
    text = (tmp_path / 'out/report.md').read_text()
    assert '1 differs, 2 no data' in text
    name = row.name
    assert f'| {name} | box AP | 44.5 | 44.52 | +0.02 | 0.1 |' in text
    assert f'| {name} | mask AP | 40.7 | 40.31 | -0.39 | 0.1 |' in text
    assert '- other, third: COCO is not there' in text
    content = json.loads((tmp_path / 'out/report.json').read_text())
    assert content['counts'] == {'differs': 1, 'no data': 2}
    assert content['rows'][0]['measured'] == measured
    assert content['rows'][0]['figures'] == dict(row.figures)


def test_what_need_not_be_evaluated_again():
    row = Row('a', 'b', CONFIG, figures={'mIoU': 45.5})
    checked = Checked(row, 'w.pth', identity='1')
    measured = {'mIoU': 45.5, 'aAcc': 80.0}
    assert still_holds(
        Outcome('a', 'differs', measured, identity='1'), checked
    )
    for other in (
        Outcome('a', 'differs', measured, identity='2'),
        Outcome('a', 'failed', identity='1'),
        Outcome('a', 'reproduced', {'aAcc': 80.0}, identity='1'),
    ):
        assert not still_holds(other, checked)


def test_outcomes_are_found_again(tmp_path):
    outcome = Outcome('a', 'reproduced', {'mIoU': 45.5}, identity='1')
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/outcome.json').write_text(json.dumps(vars(outcome)))
    assert load_outcomes(tmp_path) == {'a': outcome}
    assert load_outcomes(tmp_path / 'none') == {}
