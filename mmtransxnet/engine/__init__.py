"""What mmengine does not have: checks before a run starts."""

from mmtransxnet.engine.config import load_config
from mmtransxnet.engine.errors import UserError, report_user_errors
from mmtransxnet.engine.preflight import (
    check_checkpoint,
    check_data,
    check_init_weights,
    checkpoint_to_load,
)

__all__ = [
    'UserError',
    'check_checkpoint',
    'check_data',
    'check_init_weights',
    'checkpoint_to_load',
    'load_config',
    'report_user_errors',
]
