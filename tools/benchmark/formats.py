"""Compare all exported formats of the digits models with PyTorch.

For each model and format: the metric (tools/test.py), the size of the files,
pictures a second (one at a time, from pixels to results) and the peak memory
of the process. Without --work-dirs the models are trained first. The figures
go to docs/benchmarks/formats, of which `make tables` makes the table in
docs/export.md.

Trainings, exports and rows are kept in --folder as they end: a run that was
stopped goes on from there.

    python tools/benchmark/formats.py --work-dirs work_dirs/digits
"""

import argparse
import json
import os
from pathlib import Path

import torch

from mmtransxnet.benchmark.format_rows import MODELS, Rows
from mmtransxnet.benchmark.formats import FOLDER, FORMS
from mmtransxnet.benchmark.pipeline import PRETRAINING, Steps
from mmtransxnet.benchmark.speed.machine import describe
from mmtransxnet.benchmark.speed.records import file_name
from mmtransxnet.engine import UserError, report_user_errors
from mmtransxnet.utils.paths import ROOT
from mmtransxnet.version import __version__


def parse_args() -> argparse.Namespace:
    """Read what to measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        '--work-dirs',
        type=Path,
        help='folder of tools/benchmark/digits.py with trained models',
    )
    parser.add_argument('--folder', type=Path, default='work_dirs/formats')
    names = {Path(config).stem: config for config in MODELS}
    parser.add_argument(
        '--models', nargs='+', choices=names, default=list(names)
    )
    titles = [form.title for form in FORMS]
    parser.add_argument(
        '--forms', nargs='+', choices=titles, default=titles, metavar='FORM'
    )
    parser.add_argument(
        '--no-speed',
        dest='speed',
        action='store_false',
        help='leave the speed out, on a busy machine',
    )
    parser.add_argument(
        '--out', type=Path, default=ROOT / 'docs/benchmarks' / FOLDER
    )
    args = parser.parse_args()
    args.configs = [names[name] for name in args.models]
    return args


def checkpoint_of(config: str, work_dirs: Path) -> str:
    """The last checkpoint of a model that was trained."""
    pointer = work_dirs / Path(config).stem / 'last_checkpoint'
    if not pointer.is_file():
        raise UserError(
            f'{pointer} does not exist: train with tools/benchmark/digits.py, '
            'or leave --work-dirs out'
        )
    return pointer.read_text().strip()


def train(rows: Rows, configs: list[str]) -> None:
    """Train models as tools/benchmark/digits.py does."""
    pretrained = rows.train('pretraining', PRETRAINING)
    option = f'model.backbone.init_cfg.checkpoint={pretrained}'
    for config in configs:
        if config != PRETRAINING:
            rows.train(Path(config).stem, config, option)


def main() -> None:
    """Train what is not trained, measure and write the record."""
    args = parse_args()
    steps = Steps(args.folder.resolve(), [])
    rows = Rows(steps, args.speed)
    forms = [form for form in FORMS if form.title in args.forms]
    with report_user_errors():
        if args.work_dirs is None:
            data = os.environ.get('DIGITS_ROOT', 'data/digits')
            steps.run('data', 'dataset/build_digits.py', '--root', data)
            train(rows, args.configs)
        work_dirs = args.work_dirs or steps.folder
        models = []
        for config in args.configs:
            checkpoint = checkpoint_of(config, work_dirs)
            results = [rows.of_pytorch(config, checkpoint)]
            results += [rows.of_form(config, checkpoint, f) for f in forms]
            name = Path(config).stem
            models.append(dict(name=name, config=config, results=results))
        content = {
            'version': __version__,
            'machine': describe('cpu', torch.get_num_threads()),
            'models': models,
        }
        path = args.out / file_name(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + '\n')
    steps.console.print(f'Written to {path}; next: make tables')


if __name__ == '__main__':
    main()
