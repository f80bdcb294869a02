"""A diverging training of each task is stopped, and replayed by its file."""

import pytest

from mmtransxnet.weights.reader import read_checkpoint


@pytest.mark.parametrize(
    ('task', 'options'),
    [
        ('classifier', ['optim_wrapper.accumulative_counts=1']),
        ('detector', ['default_hooks.bad_numbers.limit=3']),
        ('segmentor', ['optim_wrapper.type=MixedPrecisionOptimWrapper']),
    ],
)
def test_a_diverging_run(tool, configs, tmp_path, task, options):
    options = ['--cfg-options', 'model.backbone.init_cfg=None', *options]
    status, log = tool(
        'train.py', configs[task], '--work-dir', tmp_path, *options,
        'optim_wrapper.optimizer.lr=1e30',
    )  # fmt: skip
    assert status == 2, log
    assert 'Traceback' not in log
    (line,) = [text for text in log.splitlines() if text.startswith('error:')]
    (file,) = tmp_path.glob('non_finite_iter_*_rank0.pth')
    assert str(file) in line
    assert 'the loss is nan' in line
    assert read_checkpoint(file)['weights']

    status, log = tool('replay.py', configs[task], file, *options)
    assert status == 0, log
    assert 'first output that is not finite: backbone.' in log
    assert 'not finite in the batch: 0' in log
    assert 'not finite in the weights before the iteration: 0' in log
    assert 'backbone.patch_embed.proj.conv.weight' in log
