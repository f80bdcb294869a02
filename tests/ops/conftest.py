import pytest
import torch

from mmtransxnet.ops import install

OURS = install()


@pytest.fixture(autouse=True)
def _ours_in_use():
    if not OURS:
        pytest.skip('mmcv has compiled operators: those are tested upstream')


@pytest.fixture(
    params=[
        'cpu',
        pytest.param(
            'cuda',
            marks=pytest.mark.skipif(
                not torch.cuda.is_available(), reason='needs a CUDA GPU'
            ),
        ),
    ]
)
def device(request):
    return request.param
