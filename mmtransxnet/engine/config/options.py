"""Parse the options of the command line and check their types."""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction

from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import shorten

# The run time of mmengine's parser is cubic in these.
_LONGEST = 4096
_DEEPEST = 16

# Minimum of settings for which smaller values would end a run before it starts
# or at its first batch.
_LEAST_COUNTS = dict(
    max_epochs=1,
    max_iters=1,
    val_interval=1,
    batch_size=1,
    num_workers=0,
    accumulative_counts=1,
)

# Optional settings of the Runner.
_TEXTS = ('work_dir', 'load_from', 'experiment_name')

# Settings of the Runner that are a dict or a list of dicts.
_ONE_OR_SEVERAL = ('evaluator', 'param_scheduler')


class OptionsAction(DictAction):
    """mmengine's parser of ``key=value`` with clear errors."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add options to those parsed before."""
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
    """Why an option cannot be parsed in reasonable time, or None."""
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


def check_kind(dotted: str, old_value: Any, value: Any, parent: Any) -> None:
    """Check the type of an option against that of the value it replaces.

    Replacing a value by a list or a dict, or the reverse, is left to the
    constructor, if there is one.

    Args:
        dotted: Its key.
        old_value: The value of the config, None if there is none.
        value: The new value.
        parent: The dict or list that contains the key.

    Raises:
        UserError: The types differ, or the value is NaN.
    """
    if isinstance(value, float) and math.isnan(value):
        raise UserError(f'--cfg-options {dotted}: nan is not a number')
    expected = f'the config has {_kind(old_value)} there'
    if old_value is None and dotted in _TEXTS:
        old_value, expected = '', 'mmengine expects a string there'
    if old_value is None or value is None or _kind(old_value) == _kind(value):
        return
    kinds = _kind(old_value), _kind(value)
    constructed = 'type' in parent or dotted.endswith(_ONE_OR_SEVERAL)
    composite = {'a list', 'a dict'}.intersection(kinds)
    # A part of the run, such as the backbone, is not a name.
    part = kinds[0] == 'a dict' and 'type' in old_value
    named = part and kinds[1] not in composite
    if composite and constructed and not named:
        return
    raise UserError(
        f'--cfg-options {dotted}: {shorten(repr(value), 60)} is '
        f'{_kind(value)}, and {expected} ({shorten(repr(old_value), 60)})'
    )


def _kind(value: Any) -> str:
    """Describe the type of a value for a message."""
    if isinstance(value, bool):
        return 'True or False'
    if isinstance(value, int | float):
        return 'a number'
    if isinstance(value, str):
        return 'a string'
    if isinstance(value, Mapping):
        return 'a dict'
    if isinstance(value, Sequence):
        return 'a list'
    return f'a {type(value).__name__}'


def check_counts(config: Config) -> None:
    """Check the settings of loops and loaders that must be counts.

    Raises:
        UserError: A setting is not an integer or is too small.
    """
    loaders = [name for name in config if name.endswith('_dataloader')]
    for part in ('train_cfg', 'optim_wrapper', *loaders):
        settings = config.get(part)
        if not isinstance(settings, Mapping):
            continue
        for name, minimum in _LEAST_COUNTS.items():
            value = settings.get(name)
            valid = type(value) is int and value >= minimum
            if value is not None and not valid:
                raise UserError(
                    f'{part}.{name} = {shorten(repr(value), 60)}: expected '
                    f'an integer of at least {minimum}'
                )
