"""Every config parses, builds, trains a step and predicts."""

import copy

import pytest
import torch
from tests.support.suite_configs import CONFIGS, build, load
from tests.support.batches import shrink, tiny_batch
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper


def test_there_are_configs_of_all_tasks():
    count = {}
    for path in CONFIGS:
        count[path.parent.name] = count.get(path.parent.name, 0) + 1
    assert count == {'classification': 5, 'detection': 14, 'segmentation': 8}


def heads_of(model):
    """Parts that read the backbone's or the neck's outputs."""
    names = ('head', 'bbox_head', 'rpn_head', 'decode_head', 'auxiliary_head')
    return [getattr(model, n) for n in names if getattr(model, n, None)]


def test_model_optimizer_and_channels(config):
    model = build(config, 'meta')
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = wrapper.optimizer.param_groups
    assert all(group['params'] for group in groups)
    grouped = [p for group in groups for p in group['params']]
    assert {*map(id, trained)} == {*map(id, grouped)}
    keys = config.optim_wrapper.get('paramwise_cfg', {}).get('custom_keys', {})
    parameters = [name for name, _ in model.named_parameters()]
    for key in keys:
        assert any(key in name for name in parameters), key

    channels = model.backbone.out_channels
    if hasattr(model.neck if model.with_neck else None, 'in_channels'):
        assert tuple(model.neck.in_channels) == channels
        channels = (model.neck.out_channels,) * model.neck.num_outs
    for head in heads_of(model):
        read = head.in_channels
        index = getattr(head, 'in_index', -1)
        if isinstance(index, int):
            assert read == channels[index]
        else:
            assert tuple(read) == tuple(channels[i] for i in index)


def step(model, wrapper, data):
    """One step by hand, since the Runner's clears the gradients."""
    model.train()
    with wrapper.optim_context(model):
        losses = model(**model.data_preprocessor(data, True), mode='loss')
        loss, values = model.parse_losses(losses)
    assert all(value.isfinite().all() for value in values.values())
    wrapper.backward(loss)
    before = [p.detach().clone() for p in model.parameters()]
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f'{name} is not used'
        assert parameter.grad.isfinite().all(), name
    wrapper.step()
    moved = [
        not torch.equal(p, old)
        for p, old in zip(model.parameters(), before, strict=True)
    ]
    assert sum(moved) > 0.9 * len(moved)


def predict(model, config):
    """Two predictions that look like predictions."""
    model.eval()
    with torch.no_grad():
        results = model.test_step(tiny_batch(config))
    assert len(results) == 2
    for result in results:
        if config.default_scope == 'mmdet':
            assert result.pred_instances.bboxes.size(1) == 4
        elif config.default_scope == 'mmseg':
            assert result.pred_sem_seg.shape == (64, 96)
        else:
            classes = config.model.head.num_classes
            assert result.pred_score.shape == (classes,)


def test_trains_a_step_and_predicts(config):
    shrink(config)
    model = revert_sync_batchnorm(build(config))
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    step(model, wrapper, tiny_batch(config))
    predict(model, config)


@pytest.mark.parametrize(
    'name',
    [
        'classification/transxnet_t_digits',
        'detection/maskrcnn_transxnet_t_digits',
        'detection/retinanet_transxnet_t_digits',
        'segmentation/upernet_transxnet_t_digits',
    ],
)
def test_trains_a_step_in_mixed_precision_on_a_cpu(name):
    """Convolutions compute in bfloat16; weights and steps are float32."""
    config = load(f'configs/{name}.py')
    shrink(config)
    config.optim_wrapper.type = 'MixedPrecisionOptimWrapper'
    model = revert_sync_batchnorm(build(config))
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    seen = []
    model.backbone.network[0][0].mlp.fc1[0].register_forward_hook(
        lambda _, __, out: seen.append(out.dtype)
    )
    step(model, wrapper, tiny_batch(config))
    assert seen == [torch.bfloat16]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    state = copy.deepcopy(wrapper.state_dict())
    wrapper.load_state_dict(state)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    'name',
    [
        'classification/transxnet_t',
        'detection/maskrcnn_transxnet_t',
        'segmentation/upernet_transxnet_t',
    ],
)
def test_low_precision_is_finite(name, dtype):
    """Losses and gradients of the published models, at the real widths."""
    config = load(f'configs/{name}.py')
    shrink(config)
    model = revert_sync_batchnorm(build(config)).train()
    batch = model.data_preprocessor(tiny_batch(config), training=True)
    with torch.autocast('cpu', dtype):
        losses = model(**batch, mode='loss')
    loss, _ = model.parse_losses(losses)
    assert loss.isfinite()
    # As a loss scaler does, so that float16 has gradients at all.
    (loss * 64).backward()
    for parameter, value in model.named_parameters():
        if value.grad is not None:
            assert value.grad.isfinite().all(), parameter
