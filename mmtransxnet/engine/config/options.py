"""Options of the command line: read them, and compare them with the config."""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction

from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import shorten

# mmengine's reader takes a time that grows with the third power of these.
_LONGEST = 4096
_DEEPEST = 16

# The least value of settings that would otherwise end a run before it began,
# or stop it at the first batch.
_LEAST_COUNTS = dict(
    max_epochs=1,
    max_iters=1,
    val_interval=1,
    batch_size=1,
    num_workers=0,
    accumulative_counts=1,
)

# Settings of the Runner that a config need not have.
_TEXTS = ('work_dir', 'load_from', 'experiment_name')

# Settings of the Runner that are a list of dicts or a single one.
_ONE_OR_SEVERAL = ('evaluator', 'param_scheduler')


class OptionsAction(DictAction):
    """mmengine's reader of ``key=value``, which tells what it cannot read."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add options to those read before."""
        for text in values or ():
            problem = _problem_of(text)
            if problem:
                shown = shorten(text)
                parser.error(f'--cfg-options {shown!r}: {problem}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except (AssertionError, ValueError) as error:
            parser.error(f'--cfg-options: {shorten(str(error))}')
        except RecursionError:  # as of '),('
            parser.error('--cfg-options: brackets that do not match')


def _problem_of(text: str) -> str | None:
    """Why an option cannot be read, or would take forever."""
    key, equals, value = text.partition('=')
    if not equals or not all(key.split('.')):
        return 'expected key=value, as in model.backbone.with_cp=True'
    if len(text) > _LONGEST:
        return f'longer than {_LONGEST} characters; write a config for it'
    if key.count('.') > _DEEPEST:
        return f'more than {_DEEPEST} levels'
    depth = 0
    for character in value:
        depth += (character in '([') - (character in ')]')
        if depth > _DEEPEST:
            return f'more than {_DEEPEST} brackets inside each other'
    return None


def check_kind(dotted: str, before: Any, value: Any, parent: Any) -> None:
    """Compare the kind of an option with that of the value it replaces.

    A list or a dict in the place of something else, or the reverse, is for
    the constructor to judge, where there is one.

    Args:
        dotted: Its key.
        before: The value of the config, None if there is none.
        value: The value that is to take its place.
        parent: What the key is in.

    Raises:
        UserError: The kinds differ, or it is NaN.
    """
    if isinstance(value, float) and math.isnan(value):
        raise UserError(f'--cfg-options {dotted}: nan is not a number')
    expected = f'the config has {_kind(before)} there'
    if before is None and dotted in _TEXTS:
        before, expected = '', 'mmengine takes a text there'
    if before is None or value is None or _kind(before) == _kind(value):
        return
    composite = {'a list', 'a dict'} & {_kind(before), _kind(value)}
    if composite and ('type' in parent or dotted.endswith(_ONE_OR_SEVERAL)):
        return
    raise UserError(
        f'--cfg-options {dotted}: {shorten(repr(value), 60)} is '
        f'{_kind(value)}, and {expected} ({shorten(repr(before), 60)})'
    )


def _kind(value: Any) -> str:
    """What a value is, in the words of a message."""
    if isinstance(value, bool):
        return 'True or False'
    if isinstance(value, int | float):
        return 'a number'
    if isinstance(value, str):
        return 'a text'
    if isinstance(value, Mapping):
        return 'a dict'
    if isinstance(value, Sequence):
        return 'a list'
    return f'a {type(value).__name__}'


def check_counts(config: Config) -> None:
    """Check the settings of loops and loaders that must be counts.

    Raises:
        UserError: One is not a whole number, or too small.
    """
    loaders = [name for name in config if name.endswith('_dataloader')]
    for part in ('train_cfg', 'optim_wrapper', *loaders):
        settings = config.get(part)
        if not isinstance(settings, Mapping):
            continue
        for name, least in _LEAST_COUNTS.items():
            value = settings.get(name)
            whole = type(value) is int and value >= least
            if value is not None and not whole:
                raise UserError(
                    f'{part}.{name} = {shorten(repr(value), 60)}: expected '
                    f'a whole number from {least}'
                )
