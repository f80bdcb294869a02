"""A single value per channel, whatever norm a config or a user chose."""

import pytest
import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS
from torch import nn

from mmtransxnet import TransXNet
from tests.support.models import make_input, micro, micro_model


class ReLUNorm(nn.BatchNorm2d):
    """A user's own norm."""

    calls = 0

    def forward(self, x):
        ReLUNorm.calls += 1
        return super().forward(x).relu()


@pytest.mark.parametrize(
    'conv_norm_cfg',
    [
        dict(type='BN', momentum=None),
        dict(type='SyncBN'),
        dict(type='IN', affine=True, track_running_stats=True),
    ],
    ids=str,
)
@pytest.mark.parametrize('side', [32, 64])
def test_one_image(conv_norm_cfg, side):
    model = micro_model(conv_norm_cfg=conv_norm_cfg).train()
    outs = model(make_input(0, (1, 3, side, side)))
    assert all(out.isfinite().all() for out in outs)


def test_norms_that_came_later():
    """No call of ``train`` has seen them."""
    image = make_input(0, (1, 3, 64, 64))
    sync = micro_model(conv_norm_cfg=dict(type='SyncBN')).train()
    revert_sync_batchnorm(sync)(image)
    nn.SyncBatchNorm.convert_sync_batchnorm(micro_model().train())(image)
    model = micro_model().train()
    mlp = model.network[6][0].mlp
    mlp.norm = nn.BatchNorm2d(mlp.norm.num_features)
    model(make_input(0, (1, 3, 32, 32)))


def test_statistics_are_recomputed_from_single_images():
    torch.optim.swa_utils.update_bn(
        [make_input(0, (1, 3, 64, 64))], micro_model()
    )


def test_the_forward_of_a_norm_is_always_called():
    MODELS.register_module('ReLUNorm', module=ReLUNorm, force=True)
    ReLUNorm._abbr_ = 'bn'
    model = micro_model(conv_norm_cfg=dict(type='ReLUNorm')).train()
    counts = []
    for batch in (2, 1):
        ReLUNorm.calls = 0
        model(make_input(0, (batch, 3, 64, 64)))
        counts.append(ReLUNorm.calls)
    assert counts[0] == counts[1] > 0


def test_norms_are_what_the_config_asked_for():
    """Fusion, initialisation and quantization look at exact types."""
    model = TransXNet(
        micro(),
        64,
        init_cfg=[dict(type='Constant', layer='_BatchNorm', val=3)],
    )
    norm = model.patch_embed.proj.bn
    assert type(norm) is nn.BatchNorm2d
    model.init_weights()
    assert (norm.weight == 3).all()
    fused = torch.ao.quantization.fuse_modules(
        model.eval(), [['patch_embed.proj.conv', 'patch_embed.proj.bn']]
    )
    assert isinstance(fused.patch_embed.proj.bn, nn.Identity)


def test_slices_of_a_stage_are_lists():
    blocks = micro_model().network[4]
    assert list(blocks[1:]) == [blocks[1]]
    assert type(blocks[:1]) is nn.ModuleList
