"""What a GPU would compute, on a CPU: the settings of what is unmeasured."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.utils import counters

from mmtransxnet.kernels.settings import (
    UNMEASURED,
    plain,
    settings_for,
)
from mmtransxnet.models.layers import LayerScale
from tests.support.compare import assert_all_close, assert_same_gradients
from tests.support.models import (
    gradients,
    make_input,
    micro,
    micro_model,
    probe_loss,
)

SHAPE = (2, 3, 80, 64)
LARGE_TABLE = replace(UNMEASURED, whole_table=0)


def step(model, image, dtype=torch.float32):
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        outs = model(image)
    probe_loss([out.float() for out in outs]).backward()
    return outs


@pytest.mark.parametrize('heads', [[1, 2, 3, 4], [2, 4, 6, 8]], ids=str)
@pytest.mark.parametrize('chosen', [UNMEASURED, LARGE_TABLE])
def test_equals_the_formula(heads, chosen):
    """Also with heads and rows of the table that are not aligned."""
    arch = micro(num_heads=heads, embed_dims=[20, 40, 60, 80])
    image = make_input(1, SHAPE)
    model, formula = (micro_model(arch=arch).train() for _ in range(2))
    with settings_for('cpu', chosen):
        outs = step(model, image)
    with plain():
        expected = step(formula, image)
    assert_all_close(outs, expected, 1e-4, 'outputs')
    assert_same_gradients(gradients(model), gradients(formula), 1e-3, 1e-4)


def test_attention_gets_what_fused_kernels_accept(monkeypatch):
    """Otherwise a GPU would compute the formula, or copy the mask."""
    calls = []
    fused = F.scaled_dot_product_attention

    def spy(q, k, v, attn_mask, **kwargs):
        calls.append((q, k, v, attn_mask))
        return fused(q, k, v, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', spy)
    arch = micro(embed_dims=[20, 40, 60, 80])
    model = micro_model(arch=arch).train()
    for dtype in (torch.float32, torch.bfloat16):
        with settings_for('cpu', UNMEASURED):
            step(model, make_input(2, SHAPE), dtype)
    assert len(calls) == 2 * sum(arch['layers'])
    for *heads, mask in calls:
        for t in heads:
            assert t.stride(-1) == 1
            assert t.size(-1) * t.element_size() % 16 == 0
        assert mask.dtype == heads[0].dtype
        assert not any(n % 8 for n in mask.stride()[:-1])


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=str)
def test_layer_scale_in_one_pass(dtype):
    layer = LayerScale(6, 0.3)
    torch.nn.init.uniform_(layer.weight)
    torch.nn.init.uniform_(layer.bias)
    results = []
    for chosen in (UNMEASURED, replace(UNMEASURED, fused_scale=False)):
        x = make_input(3, (2, 6, 4, 4)).to(dtype).requires_grad_()
        layer.zero_grad()
        low = torch.autocast('cpu', enabled=dtype == torch.bfloat16)
        with settings_for('cpu', chosen), low:
            out = layer(x)
        out.square().sum().backward()
        results.append([out, x.grad.float(), *gradients(layer).values()])
        assert out.dtype == torch.float32
    assert_all_close(*results, 1e-2 if dtype.itemsize < 4 else 1e-5, 'scale')


# ----------------------------------------------------------------- compile
@pytest.fixture
def dynamo():
    """Compilations of other tests neither help nor hinder."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures('dynamo')
@pytest.mark.parametrize(
    ('chosen', 'layout', 'dtype', 'backend'),
    [
        # The strides of PyTorch's attention on CPUs in low precision are not
        # those that aot_eager expects.
        (UNMEASURED, torch.channels_last, torch.bfloat16, 'eager'),
        (LARGE_TABLE, torch.contiguous_format, torch.float32, 'aot_eager'),
    ],
    ids=['channels-last bf16', 'large table'],
)
def test_the_training_step_compiles_as_one_graph(
    chosen, layout, dtype, backend
):
    # Two blocks have all there is to trace.
    arch = micro(sr_ratio=[8, 1, 2, 1])
    model = micro_model(arch=arch, out_indices=(0, 1)).train()
    model.to(memory_format=layout)
    model.compile(backend=backend)
    image = make_input(4, SHAPE).to(memory_format=layout)
    with settings_for('cpu', chosen):
        step(model, image, dtype)
    assert counters['stats']['unique_graphs'] == 1
    assert not counters['graph_break']
