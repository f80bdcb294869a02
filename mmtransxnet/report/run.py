"""What a training run was, from its work directory."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransxnet.engine import load_config
from mmtransxnet.engine.runner.resume import checkpoints_of
from mmtransxnet.report.history import Start, read_starts
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights.reader import read_checkpoint

_COMMIT = re.compile(r'(.*?)([0-9a-f]{40})')
_UNKNOWN = 'not known'


@dataclass
class Run:
    """A training run.

    Attributes:
        work_dir: Its folder.
        config_file: The config that mmengine has written there.
        config: The same, with the options of the command line.
        starts: Its starts, oldest first.
        checkpoint: The best, else the last; None if there is none.
        chosen: Why this one.
        meta: ``meta`` of the last checkpoint.
        notes: What is missing or damaged.
    """

    work_dir: Path
    config_file: Path
    config: Config
    starts: list[Start]
    checkpoint: Path | None
    chosen: str
    meta: Mapping[str, Any]
    notes: list[str]

    @property
    def name(self) -> str:
        """Name of the config."""
        return self.config_file.stem

    def facts(self) -> list[tuple[str, str]]:
        """What the run was, as names and values."""
        last = self.starts[-1] if self.starts else Start('')
        known = last.environment
        version, commit = _versions(self.meta, known)
        seed = self.meta.get('seed', known.get('seed'))
        seconds = sum(start.seconds for start in self.starts)
        versions = ('PyTorch', 'TorchVision', 'OpenCV')
        facts = [
            ('config', self.config_file.name),
            ('work directory', str(self.work_dir)),
            ('state', self.state()),
            ('starts', self._starts()),
            ('time', _time(seconds)),
            ('last line of the log', str(last.end or _UNKNOWN)),
            ('device', _device(last)),
            ('seed', _UNKNOWN if seed is None else str(seed)),
            ('git commit', commit),
            # Behind it, mmengine logs the compiler.
            ('Python', known.get('Python', _UNKNOWN).partition(' (')[0]),
            *((name, known.get(name, _UNKNOWN)) for name in versions),
            ('MMEngine', version),
            ('data', last.summary.get('data', _UNKNOWN)),
            ('model', last.summary.get('model', _UNKNOWN)),
            ('schedule', last.summary.get('schedule', _UNKNOWN)),
        ]
        if self.checkpoint:
            facts.insert(3, ('checkpoint', self.chosen))
        return facts

    def state(self) -> str:
        """How far the run came."""
        settings = self.config.get('train_cfg') or {}
        unit = 'epochs' if settings.get('max_epochs') else 'iterations'
        total = settings.get('max_epochs') or settings.get('max_iters')
        done = self.meta.get('epoch' if unit == 'epochs' else 'iter')
        if done is None or total is None:
            return 'no complete checkpoint is saved, so it cannot be resumed'
        if done >= total:
            return f'finished: {total} {unit}'
        return (
            f'not finished: {done} of {total} {unit} are saved. Unless it '
            'was meant to stop early, tools/train.py with --resume and the '
            'same --work-dir continues it'
        )

    def _starts(self) -> str:
        """Their number, and which were resumed."""
        if not self.starts:
            return _UNKNOWN
        resumed = [
            f'{start.name} resumed after {start.resumed} iterations'
            for start in self.starts
            if start.resumed
        ]
        text = f'{len(self.starts)}, the first at {self.starts[0].name}'
        return '; '.join([text, *(resumed or ['not resumed'])])


def _device(start: Start) -> str:
    known = start.environment
    given = known.get('CUDA available')
    device = start.summary.get('device') or known.get(
        'GPU 0', 'cpu' if given == 'False' else _UNKNOWN
    )
    processes = known.get('GPU number', '1')
    if processes != '1':
        device += f', {processes} processes'
    return device


def _versions(
    meta: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[str, str]:
    """Version of mmengine, and the commit that it appends to it."""
    text = str(meta.get('mmengine_version', ''))
    found = _COMMIT.fullmatch(text)
    if found:
        return found[1], f'{found[2]} (of the folder of the training)'
    return text or environment.get('MMEngine', _UNKNOWN), _UNKNOWN


def _time(seconds: float) -> str:
    if not seconds:
        return _UNKNOWN
    return f'{timedelta(seconds=round(seconds))} h, of all starts'


def read_run(
    work_dir: str | Path,
    checkpoint: str | None = None,
    options: Mapping[str, Any] | None = None,
    data_root: str | None = None,
) -> Run:
    """Read a work directory of tools/train.py.

    Args:
        work_dir: The folder.
        checkpoint: The file to evaluate; by default the best, else the last.
        options: Values of the config by dotted key.
        data_root: Where the data is now.

    Raises:
        UserError: The folder is not a work directory, the checkpoint does not
            exist, or an option does not fit.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        raise UserError(
            f'{work_dir} is not a folder; name the --work-dir of '
            'tools/train.py, by default work_dirs/CONFIG'
        )
    file = _config_file(folder)
    config = load_config(str(file), options)
    if data_root is not None:
        config = _moved(config, data_root)
    starts = read_starts(folder)
    notes = [
        f'{start.unreadable} lines of {start.name}/vis_data/scalars.json '
        'cannot be read; the curves do not have them.'
        for start in starts
        if start.unreadable
    ]
    notes += [
        f'{start.not_finite} values of the start {start.name} are NaN or '
        'infinite; the curves do not have them.'
        for start in starts
        if start.not_finite
    ]
    path, chosen = _checkpoint(folder, checkpoint)
    last = next(iter(checkpoints_of(folder)), path)
    meta: Mapping[str, Any] = {}
    if last is not None:
        try:
            meta = read_checkpoint(last).get('meta') or {}
        except ValueError as error:
            notes.append(f'{error}.')
    return Run(folder, file, config, starts, path, chosen, meta, notes)


def _config_file(folder: Path) -> Path:
    """The newest config in a work directory."""
    files = [*folder.glob('*.py'), *folder.glob('*/vis_data/config.py')]
    in_root = [file for file in files if file.parent == folder]
    if not files:
        raise UserError(
            f'{folder} has no config, so it is not the work directory of a '
            'run of tools/train.py; name that folder'
        )
    return max(in_root or files, key=lambda file: file.stat().st_mtime)


def _checkpoint(folder: Path, given: str | None) -> tuple[Path | None, str]:
    """The checkpoint to evaluate, and why this one."""
    if given is not None:
        if not Path(given).is_file():
            raise UserError(
                f'--checkpoint {given} is not a file; leave it out for the '
                f'best or last one in {folder}'
            )
        return Path(given), f'{given}, as asked for'
    best = sorted(folder.glob('best_*.pth'), key=lambda p: p.stat().st_mtime)
    if best:
        return best[-1], f'{best[-1].name}, the best by save_best'
    saved = checkpoints_of(folder)
    if saved:
        return saved[0], f'{saved[0].name}, the last (no save_best)'
    return None, ''


def _moved(config: Config, data_root: str) -> Config:
    """A config whose data is in another folder.

    Raises:
        UserError: The config does not say where its data was.
    """
    former = config.get('data_root')
    if not isinstance(former, str):
        raise UserError(
            '--data-root: the config of the run has no data_root; set the '
            'paths with --cfg-options'
        )

    def move(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: move(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(move(part) for part in value)
        if isinstance(value, str) and value.startswith(former):
            return data_root + value[len(former) :]
        return value

    return Config(move(config.to_dict()), filename=config.filename)
