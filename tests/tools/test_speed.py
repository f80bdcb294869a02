"""tools/benchmark/speed.py: what it writes, and what it refuses."""

import json

import pytest
import torch

from mmtransxnet import TransXNet

OURS = 'transxnet-t'


def measure(tool, folder, *arguments):
    status, log = tool(
        'benchmark/speed.py', '--rounds', 2, '--threads', 1,
        '--out', folder, '--cases', *arguments,
    )  # fmt: skip
    assert status == 0, log
    return json.loads((folder / 'speed.json').read_text()), log


def test_measures_and_draws(tool, tmp_path):
    report, log = measure(
        tool, tmp_path, OURS, f'{OURS}+folded', f'{OURS}+checkpointed',
        '--shapes', '1x32x32', '1x64x32', '--no-memory',
    )  # fmt: skip
    assert report['machine']['threads'] == 1
    found = [(r['shape'], r['mode'], r['case']) for r in report['results']]
    assert found == [
        (shape, mode, case)
        for shape in ('1x32x32', '1x64x32')
        for mode, case in (
            ('inference', OURS), ('inference', f'{OURS}+folded'),
            ('training', OURS), ('training', f'{OURS}+checkpointed'),
        )
    ]  # fmt: skip
    for result in report['results']:
        assert len(result['seconds']) == 2
        assert result['images_per_second'] == 1 / result['median']
        assert result['top1'] == 81.6
        assert result['case'] != OURS or result['speedup'] == 1
        assert result['flops'] > 0
        peak = report['machine']['matmul_flops']['fp32']
        share = result['flops'] / result['median'] / peak
        assert result['peak_share'] == pytest.approx(share)
        assert result['page_faults'] >= 0
        assert 0 <= result['system_share'] < 1
    assert (tmp_path / 'speed.png').read_bytes().startswith(b'\x89PNG')
    assert f'{OURS}+checkpointed' in log


def test_detectors(tool, tmp_path):
    report, _ = measure(
        tool, tmp_path, f'maskrcnn-{OURS}', f'maskrcnn-{OURS}+folded',
        'maskrcnn-resnet50', 'maskrcnn-swin_tiny_patch4_window7_224',
        '--shapes', '1x64x64', '--modes', 'inference', '--no-memory',
    )  # fmt: skip
    assert len(report['results']) == 4


def test_memory(tool, tmp_path):
    report, _ = measure(
        tool, tmp_path, OURS, f'{OURS}+checkpointed',
        '--shapes', '4x128x128', '2x128x128', '--modes', 'training',
    )  # fmt: skip
    plain, checkpointed, half, _ = report['results']
    assert plain['memory_ratio'] == 1
    ratio = checkpointed['peak_mib'] / plain['peak_mib']
    assert checkpointed['memory_ratio'] == ratio < 0.8
    # Gradients, and on top what grows with the batch and nothing else;
    # nothing remains of the larger batch.
    with torch.device('meta'):
        weights = TransXNet('t').parameters()
    gradients = sum(p.numel() for p in weights) * 4 / 2**20
    assert gradients < checkpointed['peak_mib']
    assert gradients < half['peak_mib'] < 0.9 * plain['peak_mib']
    assert plain['peak_mib'] < 2 * half['peak_mib']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--cases', 'transxnet-x'], "'transxnet-x' of 'transxnet-x': exp"),
        (['--cases', 'resnet50+fast'], "'fast' of 'resnet50+fast': expected"),
        (['--shapes', '8x224'], "'8x224': expected batch x height x width"),
        (['--shapes', '1x16x224'], 'at least 32 pixels'),
        (
            ['--cases', f'{OURS}+folded', '--modes', 'training'],
            'none of the cases exists in these modes',
        ),
    ],
)
def test_refuses(tool, arguments, message):
    status, log = tool('benchmark/speed.py', *arguments)
    assert status == 2
    assert message in ' '.join(log.split())
