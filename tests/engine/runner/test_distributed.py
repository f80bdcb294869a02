"""Processes on CPUs together compute what one computes; sharding's config."""

import os
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.registry import FUNCTIONS
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn

import mmtransxnet  # noqa: F401
from mmtransxnet.engine import (
    UserError,
    build_runner,
    load_config,
    use_fsdp,
)
from mmtransxnet.engine.runner import distributed
from tests.support.models import gradients
from tests.support.paths import ROOT
from tests.support.processes import free_port, run_ranks
from tests.support.suite_configs import build as build_model
from tests.support.suite_configs import micro_config

CLASSIFIER = 'classification/transxnet_t_digits'
SEGMENTOR = 'segmentation/sfpn_transxnet_t_digits'


def build(name):
    """A micro model whose loss is a mean over samples; the same each time."""
    config = micro_config(name)
    if name == SEGMENTOR:
        config.model.decode_head.dropout_ratio = 0
        # Weights of classes make it a mean over what a process has.
        config.model.decode_head.loss_decode.class_weight = None
    torch.manual_seed(0)
    model = build_model(config).train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def samples(name):
    """Four pictures with labels."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(4, 3, 64, 64, generator=generator)
    if name == CLASSIFIER:
        from mmpretrain.structures import DataSample

        return inputs, [DataSample().set_gt_label(n) for n in (3, 1, 4, 1)]
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = []
    for _ in range(4):
        sample = SegDataSample(metainfo=dict(img_shape=(64, 64)))
        values = torch.randint(0, 11, (1, 64, 64), generator=generator)
        sample.gt_sem_seg = PixelData(data=values)
        labels.append(sample)
    return inputs, labels


def backward(model, name, part):
    """Gradients of the loss of some of the samples."""
    inputs, labels = samples(name)
    losses = model(inputs[part], labels[part], mode='loss')
    sum(v for k, v in losses.items() if 'loss' in k).backward()


def one_of_two(rank, folder, name):
    """What a process computes from its half of the batch."""
    wrapped = distributed.CPUDistributedDataParallel(build(name))
    backward(wrapped, name, slice(2 * rank, 2 * rank + 2))
    return gradients(wrapped.module)


@pytest.mark.parametrize('name', [CLASSIFIER, SEGMENTOR])
def test_two_halves_give_the_gradients_of_the_whole(tmp_path, name):
    halves = run_ranks(one_of_two, tmp_path, name)
    model = build(name)
    backward(model, name, slice(0, 4))
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(halves[0][key], halves[1][key])
        scale = parameter.grad.abs().max().clamp_min(1e-4)
        error = (halves[0][key] - parameter.grad).abs().max() / scale
        assert error < 1e-4, key


@pytest.fixture
def alone(monkeypatch):
    """The environment that torchrun makes for a single process."""
    for key in ('RANK', 'LOCAL_RANK'):
        monkeypatch.setenv(key, '0')
    monkeypatch.setenv('WORLD_SIZE', '1')
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', free_port())
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', 'lo')
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def launched(name='detection/maskrcnn_transxnet_t', launcher='pytorch'):
    config = load_config(str(ROOT / f'configs/{name}.py'))
    config.launcher = launcher
    return config


def test_a_launch_on_cpus(alone):
    config = launched()
    distributed.prepare_launch(config)
    assert dist.get_backend() == 'gloo'
    assert config.sync_bn is None
    assert config.model_wrapper_cfg.type == 'CPUDistributedDataParallel'


def test_slurm_says_ranks_in_its_own_words(alone, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        monkeypatch.delenv(name)
    for name in ('SLURM_PROCID', 'SLURM_LOCALID'):
        monkeypatch.setenv(name, '0')
    with pytest.raises(UserError, match='SLURM_NTASKS not set'):
        distributed.prepare_launch(launched(launcher='slurm'))
    monkeypatch.setenv('SLURM_NTASKS', '1')
    distributed.prepare_launch(launched(launcher='slurm'))
    assert dist.get_world_size() == 1
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'):
        assert os.environ.pop(name) in ('0', '1')


def test_on_a_gpu_a_launch_is_mmengines(alone, monkeypatch, recwarn):
    """All but the device and its backend."""
    devices = []
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(torch.cuda, 'set_device', devices.append)
    config = launched()
    config.env_cfg.dist_cfg = dict(backend='gloo', timeout=77)
    distributed.prepare_launch(config)
    assert dist.get_world_size() == 1
    assert devices == [0]
    assert config.sync_bn == 'torch'
    assert 'model_wrapper_cfg' not in config
    set_multi_processing(**config.env_cfg.mp_cfg, distributed=True)
    assert not [w for w in recwarn if 'start method' in str(w.message)]


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
def test_the_others_do_not_come(alone, monkeypatch, device):
    """One line that names the place, after the time that was set."""
    monkeypatch.setattr(distributed, 'get_device', lambda: device)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda number: None)
    monkeypatch.setenv('WORLD_SIZE', '2')
    monkeypatch.setenv('RENDEZVOUS_SECONDS', '1')
    place = f'127.0.0.1:{os.environ["MASTER_PORT"]} within 1 s'
    with pytest.raises(UserError, match=f'0 of 2 has not met.*{place}'):
        distributed.prepare_launch(launched())


def test_gloo_listens_where_the_others_are(alone, monkeypatch):
    monkeypatch.delenv('GLOO_SOCKET_IFNAME', raising=False)
    distributed.prepare_launch(launched())
    assert os.environ['GLOO_SOCKET_IFNAME'] == 'lo'


def test_the_user_says_where_gloo_listens(alone, monkeypatch):
    monkeypatch.setenv('GLOO_SOCKET_IFNAME', 'l')  # a prefix will do
    distributed.prepare_launch(launched())
    assert os.environ['GLOO_SOCKET_IFNAME'] == 'l'


def test_runs_without_a_launcher_check_for_themselves(tmp_path, monkeypatch):
    """As under ``srun -n 4``, where each is a run of its own."""
    for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.setenv(name, '3')
    monkeypatch.setenv('DIGITS_ROOT', str(tmp_path / 'none'))
    config = launched(CLASSIFIER, 'none')
    config.work_dir = str(tmp_path)
    with pytest.raises(UserError, match='the data is not as required'):
        build_runner(config, ['train'])


def test_sync_bn_becomes_bn(alone):
    dist.init_process_group('gloo')
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4)).train()
    wrapped = distributed.CPUDistributedDataParallel(module)
    wrapped(torch.randn(2, 3, 4, 4)).sum().backward()


@pytest.mark.parametrize(
    ('error', 'left_open'),
    [(None, False), (SystemExit, False), (OSError, True)],
)
def test_closing_process_group(alone, error, left_open):
    dist.init_process_group('gloo')
    raising = pytest.raises(error) if error else nullcontext()
    with raising, distributed.closing_process_group():
        assert dist.is_initialized()
        if error:
            raise error
    assert dist.is_initialized() == left_open


def test_no_process_group_to_close():
    with distributed.closing_process_group():
        pass
    assert not dist.is_initialized()


# ----------------------------------------------------------------- sharding
def test_sharding_needs_gpus_and_a_launcher(monkeypatch):
    with pytest.raises(UserError, match='needs GPUs'):
        use_fsdp(launched())
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cuda')
    with pytest.raises(UserError, match='needs a launcher'):
        use_fsdp(launched(launcher='none'))
    with pytest.raises(UserError, match='EMAHook'):
        use_fsdp(launched('classification/transxnet_b'))


@pytest.mark.parametrize(
    'name',
    [
        'classification/transxnet_t_digits',
        'detection/maskrcnn_transxnet_t_digits',
        'segmentation/upernet_transxnet_t_digits',
    ],
)
def test_sharding_goes_through_mmengines_strategy(
    alone, monkeypatch, tmp_path, name
):
    """All but the sharding itself, for which torch wants a GPU."""
    from mmengine._strategy.fsdp import FSDPStrategy
    from mmengine.registry import RUNNERS

    config = launched(name)
    config.work_dir = str(tmp_path)
    config.model.backbone.update(init_cfg=None)
    distributed.prepare_launch(config)  # gloo
    monkeypatch.setattr(distributed, 'get_device', lambda: 'cuda')
    config.sync_bn = 'torch'
    use_fsdp(config)
    runner = RUNNERS.build(config)
    assert isinstance(runner.strategy, FSDPStrategy)
    assert runner.strategy.sync_bn == 'torch'
    model = runner.strategy.build_model(runner.model)
    policy = FUNCTIONS.get(
        runner.strategy.model_wrapper['auto_wrap_policy']['type']
    )
    shards = [m for m in model.modules() if policy(m, False, 0)]
    assert shards == [b for s in model.backbone.network[::2] for b in s]


def test_loss_scaling_knows_of_shards():
    config = Config(dict(optim_wrapper=dict(type='OptimWrapper')))
    distributed.fsdp_config(config)
    assert 'use_fsdp' not in config.optim_wrapper
    config.optim_wrapper.type = 'MixedPrecisionOptimWrapper'
    distributed.fsdp_config(config)
    assert config.optim_wrapper.use_fsdp
