"""The choice of the checkpoint from which a run resumes."""

import ast
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import get_world_size
from mmengine.logging import print_log

from mmtransxnet.engine.hooks.checkpoint import INTERRUPTED, LAST
from mmtransxnet.engine.runner.distributed import decided_by_first
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights.reader import cache_checkpoint, read_checkpoint

# Names that the hooks of this suite and mmengine give to checkpoints. The best
# checkpoints have no optimizer state.
_PATTERNS = ('epoch_*.pth', 'iter_*.pth', INTERRUPTED.format('*'))

# Settings that must be equal for a run to continue exactly.
_COMPARED = (
    'model.',
    'data_preprocessor',
    'train_',
    'optim_wrapper',
    'param_scheduler',
    'custom_hooks',
    'compile',
    'strategy',
)


def checkpoints_of(work_dir: str | Path) -> list[Path]:
    """List the checkpoints of a run in a folder, newest first."""
    folder = Path(work_dir)
    paths = {path for name in _PATTERNS for path in folder.glob(name)}
    last = _read_last_checkpoint(folder)
    # Also by file name, because the folder may have moved.
    for path in (Path(last), folder / Path(last).name):
        if last and os.path.isfile(path):
            paths.add(path)
    times = {}
    for path in sorted(paths):
        try:
            times[path.resolve()] = path.stat().st_mtime_ns, path
        # A broken link, or removed meanwhile.
        except OSError as error:
            print_log(f'Skipped: {path} ({error})', 'current', logging.WARNING)
    return [path for _, path in sorted(times.values(), reverse=True)]


def _read_last_checkpoint(folder: Path) -> str:
    """Content of ``last_checkpoint``; empty if missing or invalid."""
    last = folder / LAST
    if not last.is_file():
        return ''
    text = last.read_text(errors='replace').strip()
    return text if text.isprintable() else ''


def newest_checkpoint(
    work_dir: str | Path,
) -> tuple[str, dict[str, Any]] | None:
    """Find and read the newest complete checkpoint.

    Incomplete ones are reported and skipped.

    Args:
        work_dir: Folder of the run.

    Returns:
        The path and the content; None if the run has not saved any yet.

    Raises:
        UserError: There are checkpoints, but none is complete.
    """
    problems = []
    for path in checkpoints_of(work_dir):
        try:
            return str(path), read_training_state(path)
        except ValueError as error:
            problems.append(str(error))
            print_log(f'Skipped: {error}', 'current', logging.WARNING)
    named = _read_last_checkpoint(Path(work_dir))
    if named and not problems:
        problems = [f'{work_dir}/{LAST} names {named}, which is not there']
    if problems:
        raise UserError(
            f'--resume: {"; ".join(problems)}. Start without --resume, or '
            'name the --work-dir of the interrupted run'
        )
    print_log(
        f'--resume: no checkpoint in {work_dir}, starting from the beginning'
    )
    return None


def checkpoint_to_load(
    config: Config, resume: str | None = None
) -> str | None:
    """Choose the file that a run loads, or None; see :func:`adopt`.

    The first process chooses and reads; the others get the content from it, so
    all resume from the same state even if they see different folders.

    Args:
        config: The run. ``resume`` and ``load_from`` are set for the Runner.
        resume: File to resume from; ``'auto'`` for the newest in the work
            directory, if there is one. None leaves it to the config.

    Raises:
        UserError: The checkpoint to resume from is missing or incomplete.
    """
    if resume is None and config.get('resume'):
        resume = config.get('load_from') or 'auto'
    restarted = config.launcher != 'none' and _was_restarted()
    chosen = decided_by_first(
        partial(_choose, config.work_dir, resume, restarted)
    )
    config.resume = chosen is not None
    if chosen is None:
        return config.get('load_from')
    path, content = chosen
    cache_checkpoint(path, content)
    config.load_from = path
    adopt(config, content, path)
    return path


def _was_restarted() -> bool:
    """Whether torchrun restarted these processes."""
    rounds = int(os.environ.get('RENDEZVOUS_ROUND', '1'))
    return (
        rounds > 1 or int(os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)) > 0
    )


def _choose(
    work_dir: str, resume: str | None, restarted: bool
) -> tuple[str, dict[str, Any]] | None:
    """The file to resume from and its content, or None."""
    if restarted and checkpoints_of(work_dir):
        # After a restart, the newest checkpoint is newer than the given file.
        resume = 'auto'
    if resume is None:
        return None
    if resume == 'auto':
        return newest_checkpoint(work_dir)
    try:
        return resume, read_training_state(resume)
    except ValueError as error:
        raise UserError(f'--resume: {error}') from error


def read_training_state(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint from which a run can resume.

    Args:
        path: The file.

    Raises:
        ValueError: It cannot be read, is damaged, or has no training state.
    """
    content = read_checkpoint(path)
    # torch writes checksums but does not verify them.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(
                f'checkpoint {path} is damaged ({damaged} does not match its '
                'checksum)'
            )
    missing = [
        key
        for key in ('meta', 'optimizer', 'state_dict')
        if key not in content
    ]
    if missing:
        raise ValueError(
            f'checkpoint {path} has no {" and no ".join(missing)}: weights '
            'to start from (load_from), not a run to resume'
        )
    return content


def adopt(
    config: Config, content: Mapping[str, Any], path: str | Path
) -> None:
    """Adapt a config to the run that saved a checkpoint.

    The run's seed, which may have been random, is kept. Other differences are
    reported: the run will not continue exactly.

    Args:
        config: The run; changed in place.
        content: Content of the checkpoint.
        path: The checkpoint, for the message.
    """
    meta = content['meta']
    if config.randomness.get('seed') is None:
        config.randomness.seed = meta.get('seed')
    differences = list(_differences(config, meta, config.randomness.seed))
    for line in differences:
        print_log(f'{path}: {line}', 'current', logging.WARNING)
    if differences:
        print_log(
            'The resumed run will not be the interrupted one.',
            'current',
            logging.WARNING,
        )


def _differences(
    config: Config, meta: Mapping[str, Any], seed: int | None
) -> Iterator[str]:
    """List the differences between a run and the interrupted one."""
    processes = get_world_size()
    previous = meta.get('processes', processes)
    if previous != processes:
        yield f'from a run of {previous} processes, this one has {processes}'
    if meta.get('seed') not in (None, seed):
        yield f'from a run with seed {meta["seed"]}, this one has {seed}'
    try:
        saved = _settings_in(meta['cfg'])
    # Text that is not a config, or missing.
    except Exception as error:
        yield f'its config cannot be read ({error})'
        return
    current = _settings_in(config.pretty_text)
    keys = [
        key
        for key in sorted({*current, *saved})
        if current.get(key) != saved.get(key)
        and key.startswith(_COMPARED)
        and not key.startswith('model.backbone.init_cfg')
        and not key.endswith('data_root')
    ]
    if keys:
        more = f' and {len(keys) - 5} more' if len(keys) > 5 else ''
        listed = ', '.join(
            f'{key}={saved.get(key)} in the checkpoint, {current.get(key)} now'
            for key in keys[:5]
        )
        yield f'from another config: {listed}{more}'


def _settings_in(text: str) -> dict[str, str]:
    """Settings of a config text by dotted name, without executing it."""
    settings: dict[str, str] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            settings.update(_flat(node.value, ast.unparse(node.targets[0])))
    return settings


def _flat(node: Any, name: str) -> dict[str, str]:
    """Source text of the values in dicts and lists by dotted name."""
    items: Any
    if isinstance(node, ast.Call):  # dict(a=1)
        items = [(part.arg, part.value) for part in node.keywords]
    elif isinstance(node, ast.Dict):  # {'a.b': 1}
        keys: Any = node.keys
        items = zip(map(ast.literal_eval, keys), node.values, strict=True)
    elif isinstance(node, ast.List | ast.Tuple):
        items = enumerate(node.elts)
    else:
        return {name: ast.unparse(node)}
    return {
        key: text
        for part, value in items
        for key, text in _flat(value, f'{name}.{part}').items()
    }
