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
from mmtransxnet.deploy.formats import FORMATS, check_formats
from mmtransxnet.deploy.graphs.backbone import DeployBackbone
from mmtransxnet.deploy.graphs.base import DeployForm, Normalise
from mmtransxnet.deploy.runtime import Engine, OnnxRuntime, OpenVino

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
    """A function that runs an exported backbone as predict.py does.

    It is exported as by default. Pictures of its size have come often.

    Args:
        backbone: The backbone, in evaluation mode.
        engine: A name in ``ENGINES``.
        precision: ``fp32``, ``bf16`` or ``int8``.
        shape: Number of images, height and width.
        graph: File of the graph in ONNX; written if it does not exist.
    """
    row = FORMATS['onnx' if engine == 'onnxruntime' else 'openvino']
    written = 'int8' if precision == 'int8' else 'fp32'
    # Names a package that is missing before the backbone is traced.
    check_formats([row.name], written)
    source = _source(backbone, graph)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (*shape, 3)).astype(np.uint8)
    if written == 'int8':
        size = (_CALIBRATION_PICTURES, 1, *_CALIBRATION_SIZE, 3)
        pictures = draw.integers(0, 256, size).astype(np.uint8)
        source.calibration = [{'images': picture} for picture in pictures]
    threads = torch.get_num_threads()
    run: Engine
    # On Windows, a file of weights that are mapped cannot be removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / row.file
        row.writer.write(source, path, written)
        if engine == 'onnxruntime':
            run = OnnxRuntime(path, threads=threads)
        else:
            run = OpenVino(path, precision == 'bf16', threads, worth=0)
            # The first picture of a size has no program of its own.
            run({'images': images})
    run({'images': images})
    return lambda: run({'images': images})


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
