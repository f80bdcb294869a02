"""Read a config and the options of the command line, strictly.

mmengine merges whatever ``--cfg-options`` says; a misspelt key then changes
nothing and nobody notices. Here a key must be one that the config has or
that the object it configures takes.
"""

import difflib
import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
)
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmtransxnet.engine.config.options import check_counts, check_type
from mmtransxnet.utils.errors import UserError, in_a_line
from mmtransxnet.utils.text import shorten

# Keys that the Runner reads from the config besides its own arguments.
_RUNNER_KEYS = (
    'auto_scale_lr',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)
# Dicts whose keys are names that the user chooses, not arguments.
_FREE_KEYS = ('custom_keys', 'default_hooks', 'paramwise_cfg')
# Registries of what configs describe.
_REGISTRIES = (
    DATASETS,
    DATA_SAMPLERS,
    EVALUATOR,
    HOOKS,
    LOG_PROCESSORS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    OPTIM_WRAPPERS,
    PARAM_SCHEDULERS,
    TASK_UTILS,
    TRANSFORMS,
    VISBACKENDS,
    VISUALIZERS,
)


# What our configs take their data root from.
_ROOT_VARIABLES = ('COCO_ROOT', 'ADE_ROOT', 'IMAGENET_ROOT', 'DIGITS_ROOT')


def load_config(
    path: str,
    options: Mapping[str, Any] | None = None,
    data_root: str | None = None,
) -> Config:
    """Read a config file and merge the options of the command line.

    Args:
        path: Config file.
        options: Values by dotted key, as ``--cfg-options`` gives them.
        data_root: Root of the data set, instead of the environment's.

    Raises:
        UserError: The file is not there or no config, an option has a key
            that nothing would read or a value of another type, a count is
            none, or the config does not take a data root.
    """
    if not os.path.isfile(path):
        shown = shorten(path)
        raise UserError(f'config {shown} is not a file{_similar_files(path)}')
    if data_root is not None:
        os.environ.update(dict.fromkeys(_ROOT_VARIABLES, data_root))
    try:
        config = Config.fromfile(path)
    # A config is a program.
    except Exception as error:
        raise UserError(
            f'config {path} cannot be read: {in_a_line(error)}'
        ) from error
    if data_root is not None and config.get('data_root') != data_root:
        raise UserError(
            f'--data-root: {path} does not take its data_root from the '
            'environment; set data_root in the config'
        )
    if options:
        _merge(config, options, path)
    check_counts(config)
    return config


def _merge(config: Config, options: Mapping[str, Any], path: str) -> None:
    """Merge options, each of which must fit."""
    scope = config.get('default_scope')  # an option may spoil it
    for key, value in options.items():
        before = config.to_dict()
        try:
            config.merge_from_dict({key: value})
        # Also what dicts and lists make of keys that are not theirs.
        except Exception as error:
            raise UserError(
                f'--cfg-options {shorten(key)} does not fit {path}: '
                f'{shorten(str(error))}'
            ) from error
        _check_key(before, config.to_dict(), key, value, scope)


def _similar_files(path: str) -> str:
    """Name the configs that the user may have meant."""
    folder = Path(path).parent
    if not os.path.isdir(folder):
        return ''
    names = sorted(p.name for p in folder.glob('*.py'))
    close = difflib.get_close_matches(Path(path).name, names)
    return f'; did you mean {", ".join(close)}?' if close else ''


def _check_key(
    before: Any, after: Any, dotted: str, value: Any, scope: str | None
) -> None:
    """Follow a dotted key to where the config does not know it.

    What the config has at its end must be of the option's type.
    """
    parts = dotted.split('.')
    parent = before
    for position, part in enumerate(parts):
        parent = before
        if isinstance(before, Sequence) and not isinstance(before, str):
            if not isinstance(after, type(before)):
                raise UserError(
                    f'--cfg-options {shorten(dotted)}: only lists have '
                    'numbered elements'
                )
            before, after = before[int(part)], after[int(part)]
            continue
        if not isinstance(before, Mapping):
            return  # a value became a dict: the option wrote all of it
        if part not in before:
            known = _accepted(after, parts[:position], scope)
            if known is not None and part not in known:
                raise UserError(_unknown(dotted, part, [*before, *known]))
            if position == 0:
                check_type(dotted, None, value, before, [Runner])
            return
        before, after = before[part], after[part]
    check_type(dotted, before, value, parent, _owners(parent, parts, scope))


def _owners(parent: Any, parts: list[str], scope: str | None) -> list[Any]:
    """What takes the last part of a dotted key as an argument."""
    if len(parts) == 1:
        return [Runner]
    if isinstance(parent, Mapping) and 'type' in parent:
        return _classes(parent['type'], scope)
    return []


def _unknown(dotted: str, part: str, known: Iterable[str]) -> str:
    names = sorted(set(known) - {'type', '_scope_'})
    close = difflib.get_close_matches(part, names)
    hint = f"did you mean '{close[0]}'? " if close else ''
    return (
        f'--cfg-options {shorten(dotted)}: nothing reads '
        f"'{shorten(part)}'. {hint}"
        f'Known there: {", ".join(names)}'
    )


def _accepted(
    parent: Mapping[str, Any], path: list[str], scope: str | None
) -> set[str] | None:
    """Keys that may be added to a dict of the config; None for any."""
    if not path:
        return {*_arguments(Runner), *_RUNNER_KEYS}
    name = path[-1]
    if name in _FREE_KEYS:
        return None
    if name.endswith('_dataloader'):
        return {*_arguments(DataLoader), 'num_batch_per_epoch'}
    if name == 'randomness':
        return _parameters(Runner.set_randomness)
    if path == ['train_cfg']:
        loops = (EpochBasedTrainLoop, IterBasedTrainLoop)
        return {'by_epoch', *(a for loop in loops for a in _arguments(loop))}
    if 'type' not in parent:
        return set()
    found = _classes(parent['type'], scope)
    if not found:
        return None  # the Runner says that the type is unknown
    return {'type', 'init_cfg'}.union(*(_arguments(cls) for cls in found))


def _classes(name: Any, scope: str | None) -> list[Any]:
    """All that the registries hold under a name, seen from a scope."""
    if not isinstance(name, str):
        return [name]
    found = []
    for registry in _REGISTRIES:
        with registry.switch_scope_and_registry(scope) as scoped:
            found.append(scoped.get(name))
    return [cls for cls in found if cls is not None]


def _arguments(cls: Any) -> set[str]:
    """Names that a constructor takes, following ``**kwargs`` upwards."""
    if not inspect.isclass(cls):
        return _parameters(cls)
    names: set[str] = set()
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        constructor = vars(base)['__init__']
        names |= _parameters(constructor)
        kinds = inspect.signature(constructor).parameters.values()
        if not any(p.kind is p.VAR_KEYWORD for p in kinds):
            break
    return names


def _parameters(function: Any) -> set[str]:
    return {
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    } - {'self'}
