"""Reproduction of published figures, and benchmarks."""

from mmtransxnet.benchmark.checks import Checked, check_rows
from mmtransxnet.benchmark.commands import (
    Launch,
    evaluation_command,
    training_command,
)
from mmtransxnet.benchmark.report import write_report
from mmtransxnet.benchmark.rows import METRICS, Row, read_rows, select_rows
from mmtransxnet.benchmark.runs import (
    Outcome,
    compare_figures,
    evaluate,
    load_outcomes,
    still_holds,
)

__all__ = [
    'METRICS',
    'Checked',
    'Launch',
    'Outcome',
    'Row',
    'check_rows',
    'compare_figures',
    'evaluate',
    'evaluation_command',
    'load_outcomes',
    'read_rows',
    'select_rows',
    'still_holds',
    'training_command',
    'write_report',
]
