"""Serve an exported model over HTTP; needs no PyTorch.

pip install 'mmtransxnet[serve]'
python tools/serve.py exported/ --port 8000
curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def parse_args() -> argparse.Namespace:
    """Read where to serve, and the limits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='of tools/export.py')
    parser.add_argument('--host', default='127.0.0.1')
    parser.add_argument('--port', type=int, default=8000, help='0: any free')
    parser.add_argument('--engine', choices=['openvino', 'onnxruntime'])
    parser.add_argument(
        '--bf16', action='store_true', help='compute in bfloat16 (OpenVINO)'
    )
    numbers: dict[str, tuple[Any, str]] = {
        '--max-mib': (20.0, 'maximum size of a request in MiB'),
        '--max-megapixels': (40.0, 'maximum size of a picture'),
        '--timeout': (30.0, 'maximum seconds of a request'),
        '--max-requests': (64, 'requests at a time; more get 503'),
        '--batch-size': (8, 'maximum number of pictures in a run'),
        '--max-map-mib': (
            4096.0,
            "maximum size of a run's class maps, of segmentors",
        ),
        '--wait-ms': (5.0, 'milliseconds to wait for a batch'),
    }
    for flag, (default, text) in numbers.items():
        parser.add_argument(
            flag,
            type=type(default),
            default=default,
            help=f'{text} (default: {default})',
        )
    args = parser.parse_args()
    for flag in numbers:
        value = getattr(args, flag[2:].replace('-', '_'))
        if value < 0 or (value == 0 and flag != '--wait-ms'):
            parser.error(f'{flag} must be positive')
    return args


def load_file(path: Path, name: str) -> ModuleType:
    """Import a file without its package, which imports PyTorch."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        sys.exit(f'error: {path} cannot be imported')
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def find_deploy() -> Path:
    """The package's folder deploy/, of a checkout or of a wheel."""
    for parent in Path(__file__).resolve().parents:
        folder = parent / 'mmtransxnet/deploy'
        if (folder / 'serving.py').is_file():
            return folder
    sys.exit('error: mmtransxnet/deploy is not beside tools/')


def main() -> None:
    """Load the model and serve it."""
    args = parse_args()
    deploy = find_deploy()
    try:
        serving = load_file(deploy / 'serving.py', 'serving')
    except ImportError as error:
        sys.exit(f"error: {error}: pip install 'mmtransxnet[serve]'")
    runtime = load_file(deploy / 'runtime.py', 'runtime')
    try:
        model = runtime.load(args.folder, args.engine, args.bf16)
    except runtime.ModelError as error:
        sys.exit(f'error: {error}')
    limits = serving.Limits(
        bytes=int(args.max_mib * 2**20),
        pixels=int(args.max_megapixels * 1e6),
        seconds=args.timeout,
        requests=args.max_requests,
        batch=args.batch_size,
        wait=args.wait_ms / 1000,
        map_bytes=int(args.max_map_mib * 2**20),
    )
    app = serving.create_app(runtime, model, limits)
    serving.serve(app, args.host, args.port, limits)


if __name__ == '__main__':
    main()
