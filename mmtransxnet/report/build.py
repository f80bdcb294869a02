"""From a work directory to the page."""

from pathlib import Path

from mmtransxnet.engine import check_folder
from mmtransxnet.report.evaluate import Progress, evaluate_once
from mmtransxnet.report.findings import Findings
from mmtransxnet.report.page import write_page
from mmtransxnet.report.run import Run
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError, line_of


def build_report(
    run: Run, out: Path, progress: Progress
) -> tuple[Findings | None, list[str]]:
    """Evaluate a run and write its page.

    Args:
        run: The run.
        out: The page. Beside it, ``NAME.cache`` keeps the evaluation.
        progress: Told the done and all batches.

    Returns:
        The evaluation, None if there is none; and sentences that say why, as
        on the page.

    Raises:
        UserError: The page cannot be written.
    """
    check_folder(out.parent, '--out')
    found, notes = None, []
    if run.checkpoint is None:
        notes.append(
            'Nothing was evaluated: the run has saved no checkpoint. Train '
            'longer, or name one with --checkpoint.'
        )
    else:
        try:
            cache = out.with_suffix('.cache')
            found = evaluate_once(run.config, run.checkpoint, cache, progress)
        except UserError as error:
            # The remedy of tools/train.py is not that of a report.
            reason = line_of(error).replace(
                'If this is intended: --no-check',
                'If the data was moved: --data-root DIR',
            )
            notes.append(f'Nothing was evaluated: {reason}.')
    page = write_page(run, found, notes)
    write_safely(out, page.encode(), 'start again')
    return found, notes
