"""The module ``mmcv._ext``, provided when mmcv has no compiled one.

mmcv's Python code takes its operators from the extension module
``mmcv._ext`` and does not import without it. The finder in this module
is the last in ``sys.meta_path``, so it is used only for an extension that no
other finder has.
"""

import functools
import importlib
import importlib.abc
import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
from mmengine.logging import MMLogger, print_log

from . import (
    attention,
    bbox,
    carafe,
    deform_conv,
    focal_loss,
    nms,
    roi_align,
    roi_pool,
)

_NAME = 'mmcv._ext'
_REMEDY = (
    'install an mmcv with its compiled operators, built for this torch '
    f'({torch.__version__}): https://mmcv.readthedocs.io/en/latest/'
    'get_started/installation.html'
)


def get_compiler_version() -> str:
    """Return the compiler entry of mmcv's environment report."""
    return 'n/a (operators of mmtransxnet.ops)'


def get_compiling_cuda_version() -> str:
    """Return the nvcc entry of mmcv's environment report."""
    return 'n/a (operators of mmtransxnet.ops)'


OPERATORS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        nms.nms,
        nms.softnms,
        nms.nms_match,
        bbox.bbox_overlaps,
        roi_align.roi_align_forward,
        roi_align.roi_align_backward,
        roi_pool.roi_pool_forward,
        roi_pool.roi_pool_backward,
        deform_conv.deform_conv_forward,
        deform_conv.deform_conv_backward_input,
        deform_conv.deform_conv_backward_parameters,
        deform_conv.modulated_deform_conv_forward,
        deform_conv.modulated_deform_conv_backward,
        focal_loss.sigmoid_focal_loss_forward,
        focal_loss.sigmoid_focal_loss_backward,
        focal_loss.softmax_focal_loss_forward,
        focal_loss.softmax_focal_loss_backward,
        carafe.carafe_naive_forward,
        carafe.carafe_naive_backward,
        carafe.carafe_forward,
        carafe.carafe_backward,
        attention.ms_deform_attn_forward,
        attention.ms_deform_attn_backward,
        get_compiler_version,
        get_compiling_cuda_version,
    )
}


def _missing(name: str) -> Callable[..., NoReturn]:
    """Return a placeholder for an operator that is not provided.

    mmcv asks for every operator when it is imported, whether used or not, so
    the error has to wait for the call.
    """
    if name.startswith('__'):  # requested by Python, not by mmcv
        raise AttributeError(f'module {_NAME!r} has no attribute {name!r}')

    def operator(*args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError(
            f"mmcv's operator {name!r} is not among those that "
            f'mmtransxnet.ops provides. To get it, {_REMEDY}; it is then '
            'used instead of mmtransxnet.ops.'
        )

    operator.__name__ = operator.__qualname__ = name
    return operator


class _Provider(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads ``mmcv._ext`` if no other finder has one."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname != _NAME:
            return None
        return ModuleSpec(fullname, self, origin='mmtransxnet.ops')

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update(OPERATORS, __getattr__=_missing)


_PROVIDER = _Provider()


def install() -> bool:
    """Make ``mmcv._ext`` available for any installed mmcv.

    Calling it again changes nothing. A compiled extension is not replaced; if
    it exists but cannot be imported (usually built for another torch), a
    warning is issued and it is not replaced either.

    Returns:
        bool: True if mmcv's operators are those of this package.

    Raises:
        ModuleNotFoundError: If mmcv is not installed.
    """
    if _PROVIDER not in sys.meta_path:
        sys.meta_path.append(_PROVIDER)
    importlib.import_module('mmcv')  # fails without mmcv
    try:
        extension = importlib.import_module(_NAME)
    except (ImportError, OSError) as error:
        _warn_broken(str(error))
        return False
    provided = extension.__spec__ is not None and (
        extension.__spec__.loader is _PROVIDER
    )
    if provided:
        _complete_early_import()
    _announce(provided)
    return provided


def _complete_early_import() -> None:
    """Complete ``mmcv.cnn`` if it was imported before.

    Its module ``bricks.transformer`` takes an operator from ``mmcv.ops``, and
    is imported without it if there is no extension.
    """
    early = sys.modules.get('mmcv.cnn.bricks.transformer')
    name = 'MultiScaleDeformableAttention'
    if early is not None and not hasattr(early, name):
        setattr(
            early, name, getattr(importlib.import_module('mmcv.ops'), name)
        )


@functools.cache
def _warn_broken(reason: str) -> None:
    warnings.warn(
        f"mmcv's compiled operators are installed but do not import "
        f'({reason}). mmcv.ops, and what is built on it, will not import '
        f'either. Remedy: {_REMEDY}; or install an mmcv without compiled '
        'operators, and mmtransxnet.ops stands in for them.',
        RuntimeWarning,
        stacklevel=3,
    )


@functools.cache
def _announce(provided: bool) -> None:
    """Say once which operators are in use."""
    origin = 'compiled (mmcv._ext)'
    if provided:
        origin = 'mmtransxnet.ops on torchvision; mmcv has none compiled'
    # Asking mmengine for its current logger would create and register one,
    # before the Runner creates its own.
    logger = (
        MMLogger.get_current_instance()
        if MMLogger._instance_dict
        else MMLogger('mmtransxnet', 'mmtransxnet')
    )
    print_log(f'Operators of mmcv.ops: {origin}', logger, logging.INFO)
