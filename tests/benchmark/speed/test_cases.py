"""Cases as they are written on the command line."""

from argparse import ArgumentTypeError

import pytest

from mmtransxnet.benchmark.speed.cases import Case


@pytest.mark.parametrize(
    'text', ['openvino', 'onnxruntime', 'openvino+bf16', 'openvino+int8']
)
def test_engines_are_forms(text):
    case = Case.parse(f'transxnet-t+{text}')
    assert case.engine == text.partition('+')[0]
    assert case.does('inference')
    assert not case.does('training')
    # Their operations are counted in PyTorch.
    assert case.eager().engine is None
    assert 'int8' not in case.eager().forms


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('convnext_tiny+openvino', 'only transxnet is exported'),
        ('maskrcnn-transxnet-t+openvino', 'only transxnet is exported'),
        ('transxnet-t+openvino+compiled', 'openvino has no compiled'),
        ('transxnet-t+openvino+tf32', 'openvino has no tf32'),
        ('transxnet-t+int8', 'int8 needs openvino'),
        ('transxnet-t+onnxruntime+bf16', 'onnxruntime has no bf16'),
        ('transxnet-t+onnxruntime+int8', 'int8 needs openvino'),
    ],
)
def test_forms_that_do_not_exist(text, message):
    with pytest.raises(ArgumentTypeError, match=message):
        Case.parse(text)
