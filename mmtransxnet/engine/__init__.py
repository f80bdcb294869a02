"""What mmengine does not have: checks before a run starts, CPUs, schedules."""

# For what they register.
from mmtransxnet.engine import (  # noqa: F401
    bad_data,
    bad_numbers,
    checkpoints,
    fold_hook,
    loops,
    optim,
    preemption,
)
from mmtransxnet.engine.compile_hook import check_compiler
from mmtransxnet.engine.config import load_config
from mmtransxnet.engine.distributed import (
    closing_process_group,
    in_turn,
    use_fsdp,
)
from mmtransxnet.engine.errors import UserError, report_user_errors
from mmtransxnet.engine.flags import (
    build_runner,
    config_parser,
    load_run,
    run_parser,
)
from mmtransxnet.engine.layout import inspect_layout
from mmtransxnet.engine.preflight import (
    check_checkpoint,
    check_data,
    check_folder,
    check_init_weights,
)
from mmtransxnet.engine.resume import checkpoint_to_load

__all__ = [
    'UserError',
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
    'load_config',
    'load_run',
    'report_user_errors',
    'run_parser',
    'use_fsdp',
]
