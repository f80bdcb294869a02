"""Which stages stand for a backbone's maps, and whose channels change."""

import pytest
import torch
from mmengine.config import Config

from mmtransxnet.benchmark.families.transplant import (
    Output,
    outputs_of,
    replace_backbone,
    stages_for,
)
from mmtransxnet.benchmark.families.zoo import Unsupported

RESNET = [Output(256 * 2**i, 4 * 2**i) for i in range(4)]
DIMS = [48, 96, 224, 448]


@pytest.mark.parametrize(
    ('strides', 'stages'),
    [
        ((4, 8, 16, 32), (0, 1, 2, 3)),
        ((8, 16, 32), (1, 2, 3)),
        ((8, 16), (1, 2)),
        ((32,), (3,)),
        ((16,), (2,)),
        ((4, 8, 8, 8), (0, 1, 2, 3)),  # dilated
        ((16, 16), (2, 3)),  # a plain transformer
        ((64,), (3,)),
        ((2, 4, 8), (1, 2, 3)),
    ],
)
def test_stages(strides, stages):
    assert stages_for(strides) == stages


def test_more_maps_than_stages():
    with pytest.raises(Unsupported, match='asks for 5 maps, TransXNet has 4'):
        stages_for([2, 4, 8, 16, 32])


def replaced(outputs, **model):
    scope = model.pop('scope', 'mmdet')
    config = Config(dict(model=dict(model), default_scope=scope))
    replace_backbone(config, outputs)
    assert config.model.backbone.type == 'TransXNet'
    return config.model


def test_neck_in_the_order_of_the_maps():
    model = replaced(
        RESNET,
        neck=[dict(in_channels=[256, 512, 1024, 2048]), dict(in_channels=9)],
        bbox_head=dict(in_channels=256),
    )
    assert model.backbone.out_indices == (0, 1, 2, 3)
    assert model.neck[0].in_channels == DIMS
    assert model.neck[1].in_channels == 9
    assert model.bbox_head.in_channels == 256


def test_neck_in_the_order_of_its_own():
    outputs = [Output(256, 8), Output(512, 16), Output(1024, 32)]
    model = replaced(outputs, neck=dict(in_channels=(1024, 512, 256)))
    assert model.neck.in_channels == (448, 224, 96)


def test_neck_that_reads_some_maps():
    model = replaced(RESNET, neck=dict(in_channels=[2048]))
    assert model.neck.in_channels == [448]


def test_maps_with_equal_channels():
    model = replaced([Output(192, 16)] * 4, neck=dict(in_channels=[192] * 4))
    assert model.neck.in_channels == DIMS


def test_heads_by_index():
    model = replaced(
        RESNET,
        scope='mmseg',
        decode_head=[
            dict(in_channels=2048, in_index=3, c1_in_channels=256),
            dict(in_channels=[512, 2048], in_index=[1, 3]),
        ],
        auxiliary_head=dict(in_channels=1024, in_index=2),
    )
    first, second = model.decode_head
    assert (first.in_channels, first.c1_in_channels) == (448, 48)
    assert second.in_channels == [96, 448]
    assert model.auxiliary_head.in_channels == 224


def test_heads_without_convolutions():
    head = dict(in_channels=2048, in_index=3, channels=2048)
    for count, channels in ((0, 448), (1, 2048)):
        model = replaced(
            RESNET, scope='mmseg', decode_head=dict(head, num_convs=count)
        )
        assert model.decode_head.channels == channels


def test_heads_in_heads():
    inner = [dict(in_channels=2048, in_index=3), dict(in_channels=2048)]
    model = replaced(
        RESNET,
        scope='mmseg',
        decode_head=dict(first=inner[0], then=[inner[1]]),
        auxiliary_head=None,
    )
    assert model.decode_head.first.in_channels == 448
    assert model.decode_head.then[0].in_channels == 2048


def test_heads_of_equal_maps_by_index():
    """Their channels do not say which, the index does."""
    model = replaced(
        [Output(192, 16)] * 4,
        scope='mmseg',
        decode_head=dict(in_channels=192, in_index=3),
        auxiliary_head=dict(in_channels=192, in_index=1),
    )
    assert model.decode_head.in_channels == 448
    assert model.auxiliary_head.in_channels == 96


def test_classifiers_pool():
    for neck in (None, dict(type='GlobalAveragePooling')):
        model = replaced(
            [Output(2048, 32, pooled=neck is None)],
            scope='mmpretrain',
            neck=neck,
            head=dict(in_channels=2048),
        )
        assert model.neck.type == 'GlobalAveragePooling'
        assert model.backbone.out_indices == (3,)
        assert model.head.in_channels == 448


def test_necks_that_can_pool():
    """Where the model's own backbone returned a vector, as ViT does."""
    for pooled in (True, False):
        model = replaced(
            [Output(384, 32, pooled=pooled)],
            scope='mmpretrain',
            neck=dict(in_channels=384, with_avg_pool=False),
        )
        assert model.neck.in_channels == 448
        assert model.neck.with_avg_pool == pooled


def test_classifiers_that_read_a_map():
    model = replaced(
        [Output(2048, 32)], scope='mmpretrain', head=dict(in_channels=2048)
    )
    assert 'neck' not in model
    assert model.head.in_channels == 448


def test_nothing_says_how_many_channels():
    with pytest.raises(Unsupported, match='how many channels'):
        replaced(RESNET, bbox_head=dict(type='A'))


class Whole(torch.nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone


def test_outputs():
    convs = [torch.nn.Conv2d(3, 8, 3, 4, 1), torch.nn.Conv2d(3, 6, 3, 8, 1)]

    class Backbone(torch.nn.Module):
        def forward(self, x):
            return tuple(conv(x) for conv in convs)

    assert outputs_of(Whole(Backbone()), 64) == [Output(8, 4), Output(6, 8)]
    vector = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(5))
    assert outputs_of(Whole(vector), 32) == [Output(5, 32, pooled=True)]


def test_no_outputs():
    with pytest.raises(Unsupported, match='no backbone'):
        outputs_of(torch.nn.Identity(), 32)
    masked = torch.nn.Bilinear(3, 3, 3)  # wants two inputs
    with pytest.raises(Unsupported, match='more than pictures'):
        outputs_of(Whole(masked), 32)
    tokens = torch.nn.Flatten(2)
    with pytest.raises(Unsupported, match='neither maps nor vectors'):
        outputs_of(Whole(tokens), 32)
