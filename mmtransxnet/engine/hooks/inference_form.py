"""Evaluation in the inference form."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from mmtransxnet.models import fold


@HOOKS.register_module()
class FoldHook(Hook):
    """Evaluate the model with every TransXNet folded.

    The weights are loaded when a test starts, including averaged ones (the
    priority is below that of EMAHook). Afterwards the model is restored.
    """

    priority = 'VERY_LOW'

    def before_test_epoch(self, runner: Runner) -> None:
        """Replace the model by its folded copy."""
        self._model = inner_model(runner)
        # The loop calls it after this hook.
        _replace_inner_model(runner, fold(self._model.eval()))

    def after_test_epoch(
        self, runner: Runner, metrics: dict[str, float] | None = None
    ) -> None:
        """Restore the model."""
        _replace_inner_model(runner, self._model)


def inner_model(runner: Runner) -> Any:
    """The model without the wrapper for distributed training."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def _replace_inner_model(runner: Runner, model: nn.Module) -> None:
    if is_model_wrapper(runner.model):
        runner.model.module = model
    else:
        runner.model = model
