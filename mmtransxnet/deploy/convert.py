"""One graph for all formats: from the deploy form to ONNX."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from mmtransxnet.deploy.formats import Arrays
from mmtransxnet.deploy.graphs import DeployForm
from mmtransxnet.deploy.graphs.operators import translations

OPSET = 20
"""Operator set of ONNX; 20 has GELU."""


@dataclass
class Source:
    """What formats are written from.

    Attributes:
        form: The deploy form.
        calibration: Inputs of the graph to quantise with.
    """

    form: DeployForm
    calibration: Sequence[Arrays] = ()

    @cached_property
    def onnx_model(self) -> Any:
        """The model in ONNX, float32."""
        return to_onnx(self.form)

    def save_onnx(self, path: Path) -> None:
        """Save the model in ONNX, float32."""
        import onnx

        onnx.save(self.onnx_model, path)


def to_onnx(form: DeployForm) -> Any:
    """Convert a deploy form.

    Args:
        form: The deploy form.

    Returns:
        An ``onnx.ModelProto``.
    """
    with torch.no_grad(), _without_advice():
        program = torch.export.export(
            form,
            form.example_inputs(),
            dynamic_shapes=form.dynamic_shapes(),
            # A map with a single row or column is computed like any other;
            # torch would take it for a case of its own.
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(form.input_names),
            output_names=list(form.output_names),
            custom_translation_table=translations(OPSET),
            verbose=False,
        )
    assert converted is not None
    return converted.model_proto


@contextmanager
def _without_advice() -> Iterator[None]:
    """Hide what the exporter says about its own parts."""
    loggers = [logging.getLogger(n) for n in ('torch.onnx', 'onnxscript')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
