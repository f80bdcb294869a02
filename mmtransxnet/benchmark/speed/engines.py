"""Cases that an engine runs: the exported backbone."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmtransxnet.deploy.convert import Source
from mmtransxnet.deploy.formats import check_formats
from mmtransxnet.deploy.formats.onnx import session_of
from mmtransxnet.deploy.formats.openvino import compiled_for, converted
from mmtransxnet.deploy.graphs.backbone import DeployBackbone
from mmtransxnet.deploy.graphs.base import DeployForm, Normalise
from mmtransxnet.deploy.quantisation import quantise

ENGINES = ('onnxruntime', 'openvino')

# ImageNet's, as the configs have them.
_MEAN = (123.675, 116.28, 103.53)
_STD = (58.395, 57.12, 57.375)

# Enough for speed, which does not depend on the values.
_CALIBRATION_PICTURES = 4
_CALIBRATION_SIZE = (224, 224)


class Features(DeployForm):
    """The backbone alone: pictures to feature maps.

    Args:
        backbone: The backbone, in evaluation mode.
    """

    task = 'features'

    def __init__(self, backbone: Any) -> None:
        super().__init__(batch=None, size=None)
        self.output_names = tuple(f'stage{i}' for i in backbone.out_indices)
        preprocessor = SimpleNamespace(
            _enable_normalize=True,
            to_rgb=True,
            mean=torch.tensor(_MEAN),
            std=torch.tensor(_STD),
        )
        self.normalise = Normalise(preprocessor)
        self.backbone = DeployBackbone(backbone, batch=None)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of ``(B, H, W, 3)``, uint8."""
        return self.backbone(self.normalise(images))


def work_of(
    backbone: Any,
    engine: str,
    precision: str,
    shape: tuple[int, int, int],
    graph: Path | None = None,
) -> Callable[[], Any]:
    """A function that runs an exported backbone, as exported by default.

    Args:
        backbone: The backbone, in evaluation mode.
        engine: A name in ``ENGINES``.
        precision: ``fp32``, ``bf16`` or ``int8``.
        shape: Number of images, height and width.
        graph: File of the graph in ONNX; written if it does not exist.
    """
    written = 'onnx' if engine == 'onnxruntime' else 'openvino'
    # Names a package that is missing before the backbone is traced.
    check_formats([written], 'int8' if precision == 'int8' else 'fp32')
    source = _source(backbone, graph)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (*shape, 3)).astype(np.uint8)
    threads = torch.get_num_threads()
    if engine == 'onnxruntime':
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'model.onnx'
            source.save_onnx(path)
            session = session_of(path, threads)
        return lambda: session.run(None, {'images': images})
    model = converted(source)
    if precision == 'int8':
        size = (_CALIBRATION_PICTURES, 1, *_CALIBRATION_SIZE, 3)
        pictures = draw.integers(0, 256, size).astype(np.uint8)
        model = quantise(model, [{'images': picture} for picture in pictures])
    hint = 'bf16' if precision == 'bf16' else 'f32'
    request = compiled_for(model, hint, threads).create_infer_request()
    return lambda: request.infer({'images': images})


def _source(backbone: Any, graph: Path | None) -> Source:
    """The graph of a backbone, from its file if there is one.

    Tracing takes a minute.
    """
    source = Source(Features(backbone).eval())
    if graph is not None and graph.exists():
        import onnx  # an extra

        source.onnx_model = onnx.load(graph)
    elif graph is not None:
        source.save_onnx(graph)
    return source
