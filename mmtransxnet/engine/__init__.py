"""Extensions of mmengine: checks before a run, exact resuming, CPUs."""

# Imported for their registrations.
from mmtransxnet.engine.checks import corrupt_samples  # noqa: F401
from mmtransxnet.engine.checks.folders import inspect_layout
from mmtransxnet.engine.checks.preflight import (
    check_checkpoint,
    check_data,
    check_folder,
    check_init_weights,
)
from mmtransxnet.engine.config.command_line import (
    add_launcher,
    config_parser,
    join_processes,
    load_run,
    run_parser,
)
from mmtransxnet.engine.config.loading import load_config
from mmtransxnet.engine.hooks import (  # noqa: F401
    checkpoint,
    inference_form,
    non_finite,
    preemption,
)
from mmtransxnet.engine.hooks.compile import check_compiler
from mmtransxnet.engine.optimizers import (  # noqa: F401
    layer_decay,
    mixed_precision,
)
from mmtransxnet.engine.runner import loops  # noqa: F401
from mmtransxnet.engine.runner.build import build_runner
from mmtransxnet.engine.runner.distributed import (
    closing_process_group,
    in_turn,
    use_fsdp,
)
from mmtransxnet.engine.runner.resume import checkpoint_to_load
from mmtransxnet.engine.runner.temporary import temporary_work_dir
from mmtransxnet.engine.schedulers import warmup_cosine  # noqa: F401
from mmtransxnet.utils.errors import UserError, report_user_errors

__all__ = [
    'UserError',
    'add_launcher',
    'build_runner',
    'check_checkpoint',
    'check_compiler',
    'check_data',
    'check_folder',
    'check_init_weights',
    'checkpoint_to_load',
    'closing_process_group',
    'config_parser',
    'in_turn',
    'inspect_layout',
    'join_processes',
    'load_config',
    'load_run',
    'report_user_errors',
    'run_parser',
    'temporary_work_dir',
    'use_fsdp',
]
