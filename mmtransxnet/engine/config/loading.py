"""Strict reading of a config and the options of the command line.

mmengine merges any ``--cfg-options``; a misspelt key then has no effect and is
not noticed. Here a key must exist in the config or be an argument of the
object that it configures.
"""

import difflib
import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine import registry
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from mmtransxnet.engine.config.options import check_counts, check_kind
from mmtransxnet.utils.errors import UserError, in_a_line
from mmtransxnet.utils.paths import ROOT
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
# Registries whose classes are not built with arguments of configs.
_OTHER_REGISTRIES = (
    'function',
    'inferencer',
    'strategy',
    'weight initializer',
)
_REGISTRIES = [
    item
    for item in vars(registry).values()
    if isinstance(item, registry.Registry)
    and item.name not in _OTHER_REGISTRIES
]

# Environment variables from which the configs of this suite, and those that
# tools/new_config.py writes, read the data root.
_ROOT_VARIABLES = (
    'COCO_ROOT',
    'ADE_ROOT',
    'IMAGENET_ROOT',
    'DIGITS_ROOT',
    'DATA_ROOT',
)


def load_config(
    path: str,
    options: Mapping[str, Any] | None = None,
    data_root: str | None = None,
) -> Config:
    """Read a config file and merge the options of the command line.

    Args:
        path: Config file, or the name of one (:func:`config_path`).
        options: Values by dotted key, as ``--cfg-options`` gives them.
        data_root: Root of the data set, overrides the environment.

    Raises:
        UserError: The file does not exist or is not a config, an option has an
            unknown key or a value of the wrong type, a count is invalid, or
            the config does not use a data root.
    """
    path = config_path(path)
    try:
        with _data_at(data_root):
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


@contextmanager
def _data_at(root: str | None) -> Iterator[None]:
    """Set the root of the data while a config is read.

    Afterwards the environment is as before: other configs that the process
    reads have data of their own.
    """
    if root is None:
        yield
        return
    before = {name: os.environ.get(name) for name in _ROOT_VARIABLES}
    os.environ.update(dict.fromkeys(_ROOT_VARIABLES, root))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def config_path(name: str) -> str:
    """The file of a config.

    Args:
        name: A file; or a config of the suite by its name, such as
            ``maskrcnn_transxnet_s``, or by its path in the suite,
            ``configs/detection/maskrcnn_transxnet_s.py``, from any folder.

    Raises:
        UserError: There is no such config.
    """
    if os.path.isfile(name):
        return name
    shipped = _shipped_configs()
    path = shipped.get(Path(name).stem)
    if path and (name == path.stem or ROOT / name == path):
        return str(path)
    raise UserError(
        f'config {shorten(name)} is neither a file nor a config of the '
        f'suite{_similar(name, shipped)}'
    )


def _shipped_configs() -> dict[str, Path]:
    """The suite's configs by name."""
    return {p.stem: p for p in (ROOT / 'configs').glob('[!_]*/*.py')}


def _merge(config: Config, options: Mapping[str, Any], path: str) -> None:
    """Merge options into a config, raising for invalid ones."""
    scope = config.get('default_scope')  # an option may change it
    for key, value in options.items():
        _check_key(config.to_dict(), key, value, scope)
        try:
            config.merge_from_dict({key: value})
        # Includes errors of dicts and lists for invalid keys.
        except Exception as error:
            raise UserError(
                f'--cfg-options {shorten(key)} does not fit {path}: '
                f'{shorten(str(error))}'
            ) from error


def _similar(name: str, shipped: Iterable[str]) -> str:
    """Suggest configs with similar names, beside it or in the suite."""
    path = Path(name)
    beside = path.parent.glob('*.py') if os.path.isdir(path.parent) else ()
    close = difflib.get_close_matches(path.name, [p.name for p in beside])
    close = close or difflib.get_close_matches(path.stem, shipped)
    return f'; did you mean {", ".join(close)}?' if close else ''


def _check_key(
    config: dict[str, Any], dotted: str, value: Any, scope: str | None
) -> None:
    """Check that a dotted key exists or may be added.

    An existing value must be of the option's type.
    """
    parts = dotted.split('.')
    parent: Any = None
    current: Any = config
    for position, part in enumerate(parts):
        parent = current
        if isinstance(parent, list) and part.isdecimal():
            current = parent[int(part)] if int(part) < len(parent) else None
        elif isinstance(parent, list | tuple):
            raise UserError(
                f'--cfg-options {shorten(dotted)}: only lists have '
                f"elements, addressed by numbers, not '{shorten(part)}'"
            )
        elif not isinstance(parent, Mapping):
            return  # a value becomes a dict: the option defines all of it
        elif part in parent:
            current = parent[part]
        else:
            known = _accepted(parent, parts[:position], scope)
            if known is not None and part not in {'type', *known}:
                raise UserError(_unknown(dotted, part, {*parent, *known}))
            current = None
            break
    check_kind(dotted, current, value, parent)


def _unknown(dotted: str, part: str, known: set[str]) -> str:
    names = sorted(known - {'type', '_scope_'})
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
    """Keys that may be added to a dict of the config; None for any key."""
    if not path:
        return _arguments(Runner).union(_RUNNER_KEYS)
    if path[-1] in _FREE_KEYS:
        return None
    if path[-1].endswith('_dataloader'):
        return _arguments(DataLoader) | {'num_batch_per_epoch'}
    if path[-1] == 'randomness':
        return _arguments(Runner.set_randomness)
    if path == ['train_cfg']:
        loops = (EpochBasedTrainLoop, IterBasedTrainLoop)
        return {'by_epoch'}.union(*map(_arguments, loops))
    if 'type' not in parent:
        return set()
    classes = _classes(parent['type'], scope)
    if not classes:
        return None  # the Runner reports the unknown type
    return {'init_cfg'}.union(*map(_arguments, classes))


def _classes(name: Any, scope: str | None) -> list[Any]:
    """All classes registered under a name, seen from a scope."""
    if not isinstance(name, str):
        return [name]
    classes = []
    for root in _REGISTRIES:
        with root.switch_scope_and_registry(scope) as scoped:
            classes.append(scoped.get(name))
    return [cls for cls in classes if cls is not None]


def _arguments(cls: Any) -> set[str]:
    """Argument names of a function, or of a class and its bases.

    Arguments of a base that a subclass does not accept raise when it is built.
    """
    bases: Any = inspect.getmro(cls) if inspect.isclass(cls) else ()
    constructors = [base.__init__ for base in bases] or [cls]
    names = [
        inspect.signature(function).parameters for function in constructors
    ]
    return set().union(*names) - {'self', 'args', 'kwargs'}
