"""The rows of the table of formats, each written to disk when it is known."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mmtransxnet.benchmark.experiments.trials import result_of
from mmtransxnet.benchmark.formats import FORMS, PYTORCH, Form
from mmtransxnet.benchmark.pipeline import PRETRAINING, Steps
from mmtransxnet.benchmark.speed.machine import describe
from mmtransxnet.deploy.metadata import sha256_of
from mmtransxnet.engine.config.loading import load_config
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.paths import ROOT
from mmtransxnet.version import __version__

# Metrics by config: name in the table, name in the logs, points in a unit.
_BOX = ('box AP', 'coco/bbox_mAP', 100)
MODELS: dict[str, list[tuple[str, str, float]]] = {
    PRETRAINING: [('top-1', 'accuracy/top1', 1)],
    'configs/detection/retinanet_transxnet_t_digits.py': [_BOX],
    'configs/detection/maskrcnn_transxnet_t_digits.py': [
        _BOX,
        ('mask AP', 'coco/segm_mAP', 100),
    ],
    'configs/segmentation/sfpn_transxnet_t_digits.py': [('mIoU', 'mIoU', 1)],
    'configs/segmentation/upernet_transxnet_t_digits.py': [
        ('mIoU', 'mIoU', 1)
    ],
}
_PICTURES = 16
_WORKER = ROOT / 'tools/benchmark/format_worker.py'


class Rows:
    """Trains, exports and measures what was not before.

    Trainings and rows are written to ``rows.jsonl`` when they end, and are
    taken from there afterwards. A row is measured again when the file of the
    model, the machine or the version changed.

    Args:
        steps: Runs the tools; its folder has the file and the exports.
        speed: Whether to measure the speed.
    """

    def __init__(self, steps: Steps, speed: bool) -> None:
        self.steps = steps
        self.speed = speed
        self.path = steps.folder / 'rows.jsonl'

    def train(self, step: str, config: str, *options: str) -> str:
        """Train a config; return its last checkpoint."""

        def work() -> dict[str, Any]:
            return {'checkpoint': self.steps.train(step, config, *options)}

        trial = {'training': config, 'options': list(options)}
        return result_of(trial, self.path, work)['checkpoint']

    def of_pytorch(self, config: str, checkpoint: str) -> dict[str, Any]:
        """The row of a checkpoint in PyTorch."""
        return self._row(
            config,
            PYTORCH,
            [Path(checkpoint)],
            lambda title: self.steps.test(title, config, checkpoint, '--fold'),
            ['pytorch', config, checkpoint],
        )

    def of_form(
        self, config: str, checkpoint: str, form: Form
    ) -> dict[str, Any]:
        """The row of a checkpoint in another format."""
        folder = self.exported(config, checkpoint, form)
        flags = ['--engine', form.engine, *(['--bf16'] if form.bf16 else [])]
        return self._row(
            config,
            form.title,
            [folder / name for name in form.files],
            lambda title: self.steps.test(title, config, str(folder), *flags),
            ['exported', str(folder), form.engine, str(int(form.bf16))],
        )

    def exported(self, config: str, checkpoint: str, form: Form) -> Path:
        """The folder of a form, exported once for each precision."""
        stem = f'{Path(config).stem}_{form.precision}'
        folder = self.steps.folder / stem
        if not _is_export_of(checkpoint, folder):
            precision = form.precision
            # Tracing takes most of the time, so one export has all formats.
            formats = {f.format for f in FORMS if f.precision == precision}
            words = [config, checkpoint, '--out', str(folder)]
            words += ['--format', *sorted(formats), '--precision', precision]
            if precision == 'int8':
                # The loss is shown in the table.
                words.append('--allow-loss')
            self.steps.run(f'{stem}, export', 'export.py', *words)
        return folder

    def _row(
        self,
        config: str,
        form: str,
        files: Sequence[Path],
        test: Callable[[str], dict[str, float]],
        timed: list[str],
    ) -> dict[str, Any]:
        def work() -> dict[str, Any]:
            metrics = test(f'{Path(config).stem}, {form}')
            words = [*timed, *_pictures_of(config)]
            return {
                'metrics': _points(config, metrics),
                **_measured(words, self.speed),
            }

        trial = {
            'config': config,
            'form': form,
            'sha256': [sha256_of(path) for path in files],
            'speed': self.speed,
            'version': __version__,
            'machine': describe('cpu', torch.get_num_threads()),
        }
        size = sum(path.stat().st_size for path in files) / 1e6
        row = {'form': form, 'size_mb': size}
        return row | result_of(trial, self.path, work)


def _is_export_of(checkpoint: str, folder: Path) -> bool:
    path = folder / 'model.json'
    if not path.exists():
        return False
    weights = json.loads(path.read_text())['checkpoint']
    return weights['sha256'] == sha256_of(Path(checkpoint))


def _pictures_of(config: str) -> list[str]:
    """Pictures of the validation."""
    dataset = load_config(config).test_dataloader.dataset
    prefix = dataset.data_prefix
    if isinstance(prefix, dict):
        prefix = prefix.get('img') or prefix['img_path']
    folder = Path(dataset.data_root) / prefix
    found = sorted(folder.rglob('*.png')) or sorted(folder.rglob('*.jpg'))
    every = max(1, len(found) // _PICTURES)
    return [str(path) for path in found[::every]][:_PICTURES]


def _measured(words: list[str], speed: bool) -> dict[str, float]:
    """Run the worker in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(_WORKER), *words], capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f'{words[:3]}: {done.stderr.strip()[-500:]}')
    measured = json.loads(done.stdout.splitlines()[-1])
    if not speed:
        del measured['images_per_second']
    return measured


def _points(config: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of the table."""
    return {
        name: round(metrics[key] * unit, 2)
        for name, key, unit in MODELS[config]
    }
