"""The export of a model, stage by stage."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config

from mmtransxnet.deploy.convert import Source
from mmtransxnet.deploy.folder import (
    check_target,
    finish,
    leftovers,
    unfinished,
)
from mmtransxnet.deploy.formats import FORMATS, Arrays, check_formats
from mmtransxnet.deploy.graphs import DeployForm, Size, deploy_form
from mmtransxnet.deploy.metadata import describe
from mmtransxnet.deploy.parity import (
    LIMITS,
    Parity,
    check_parity,
    expected_cases,
)
from mmtransxnet.utils.errors import UserError


@dataclass(frozen=True)
class Request:
    """What to export.

    Attributes:
        out: The folder to write.
        formats: Names of formats.
        precision: ``fp32``, ``fp16`` or ``int8``.
        batch: Number of images of the graph; None for any.
        size: Height and width of the graph; None for any.
        raw_masks: Whether masks are left as the graph gives them.
    """

    out: Path
    formats: tuple[str, ...] = tuple(FORMATS)
    precision: str = 'fp32'
    batch: int | None = None
    size: Size | None = None
    raw_masks: bool = False


def check_request(request: Request) -> None:
    """Check what needs no model, before anything heavy is imported.

    Raises:
        UserError: A format, a precision or a package is not there, or the
            folder has something else.
    """
    check_formats(request.formats, request.precision)
    check_target(request.out)


def export(
    model: Any,
    config: Config,
    request: Request,
    *,
    checkpoint: Path,
    dataset_meta: Mapping[str, Any],
    calibration: Sequence[np.ndarray] = (),
    judge: Callable[[Path], None] | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Export a trained model.

    Args:
        model: Classifier, detector or segmentor with its weights, in
            evaluation mode.
        config: Its config.
        request: What to write, and where.
        checkpoint: The file with the weights.
        dataset_meta: ``classes`` and, if known, ``palette``.
        calibration: Pictures ``(B, H, W, 3)`` to quantise with, for int8.
        judge: Called with the finished folder before it gets its name;
            raises an error to refuse it.
        report: Called with lines for the user.

    Raises:
        UserError: The model or the request cannot be exported, or a file
            differs from PyTorch. Nothing is left in the folder.
    """
    check_request(request)
    form = deploy_form(model, request.batch, request.size)
    if request.raw_masks and 'masks' not in form.output_names:
        raise UserError('--raw-masks: this model gives no masks of objects')
    for path in leftovers(request.out):
        report(
            f'note: {path} is of an export that was stopped, unless one is '
            'running now; it can be deleted'
        )
    description = describe(
        model,
        form,
        config,
        dataset_meta=dataset_meta,
        checkpoint=checkpoint,
        raw_masks=request.raw_masks,
    )
    with unfinished(request.out) as folder:
        inputs = [form.inputs_of(pictures) for pictures in calibration]
        precisions = _convert(form, request, folder, description, inputs)
        parity = _check(model, form, folder, precisions, report)
        finish(folder, {**description, 'parity': parity}, precisions)
        if judge is not None:
            judge(folder)
    report(f'{request.out} is written')


def _convert(
    form: DeployForm,
    request: Request,
    folder: Path,
    description: Mapping[str, Any],
    calibration: Sequence[Arrays],
) -> dict[str, str]:
    """Write the files; return the precision of each format."""
    source = Source(form, calibration)
    precisions = {}
    for name in request.formats:
        row = FORMATS[name]
        precision = row.precision(request.precision)
        row.writer.write(source, folder / row.file, precision)
        row.writer.set_metadata(folder / row.file, json.dumps(description))
        precisions[name] = precision
    return precisions


def _check(
    model: Any,
    form: DeployForm,
    folder: Path,
    precisions: Mapping[str, str],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Compare the files with PyTorch; return what ``model.json`` says."""
    # int8 is judged by its metric.
    compared = {n: p for n, p in precisions.items() if p in LIMITS}
    if not compared:
        return {}
    expected = expected_cases(form.reference(model), form)
    results = {}
    for name, precision in compared.items():
        row = FORMATS[name]
        run = row.writer.open_model(folder / row.file)
        parity = check_parity(expected, run, LIMITS[precision], name)
        results[name] = _summary(parity)
        differences = ', '.join(
            f'{output} {value:.1e}'
            for output, value in parity.differences.items()
        )
        report(
            f'{name} {precision}: equal to PyTorch in {len(parity.compared)} '
            f'comparisons; largest differences: {differences}'
        )
    return results


def _summary(parity: Parity) -> dict[str, Any]:
    return {
        'compared': parity.compared,
        'largest_difference': parity.differences,
    }
