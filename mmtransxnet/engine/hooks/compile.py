"""Training with a compiled backbone."""

import os
import shutil

from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmtransxnet.engine.hooks.inference_form import inner_model
from mmtransxnet.utils.errors import UserError


@HOOKS.register_module()
class CompileHook(Hook):
    """Compile the training of the backbone as one graph.

    mmengine's ``compile=True`` compiles the whole training step; heads that
    read values break it into many graphs that are recompiled repeatedly.
    """

    def before_train(self, runner: Runner) -> None:
        """Compile at the first iteration; parameter names do not change."""
        inner_model(runner).backbone.compile()


def check_compiler() -> None:
    """Check the requirements of ``torch.compile``.

    Raises:
        UserError: On a CPU, there is no C++ compiler.
    """
    names = (os.environ.get('CXX', ''), 'g++', 'clang++')
    if get_device() == 'cpu' and not any(
        map(shutil.which, filter(None, names))
    ):
        raise UserError(
            '--compile: torch.compile needs a C++ compiler on a CPU (g++, '
            'clang++ or CXX), and none is installed. Train without --compile'
        )
