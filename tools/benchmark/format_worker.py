"""Time the prediction of pictures in a process of its own.

Run by its path: for an exported folder, PyTorch is not imported.

    python format_worker.py exported FOLDER ENGINE BF16 PICTURES...
    python format_worker.py pytorch CONFIG CHECKPOINT PICTURES...
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_WARM_UP = 3
_SECONDS = 5.0


def exported(folder: str, engine: str, bf16: str) -> Callable[[Any], Any]:
    """The predict.py of a folder."""
    path = Path(folder) / 'predict.py'
    spec = importlib.util.spec_from_file_location('predict', path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules['predict'] = module
    spec.loader.exec_module(module)
    return module.load(folder, engine, bf16 == '1')


def pytorch(config: str, checkpoint: str) -> Callable[[Any], Any]:
    """The inference form in PyTorch."""
    from mmtransxnet.apis import Inferencer

    model = Inferencer(config, checkpoint, 'cpu', fold=True)
    return lambda image: model.predict(np.ascontiguousarray(image[..., ::-1]))


def measure(
    predict: Callable[[Any], Any], pictures: list[np.ndarray]
) -> dict[str, float]:
    """Pictures a second, one at a time, and peak memory of the process."""
    seconds: list[float] = []
    for index in range(_WARM_UP):
        predict(pictures[index % len(pictures)])
    while sum(seconds) < _SECONDS:
        for picture in pictures:
            start = time.perf_counter()
            predict(picture)
            seconds.append(time.perf_counter() - start)
    status = Path('/proc/self/status').read_text()
    peak = int(status.partition('VmHWM:')[2].split()[0])
    return {
        'images_per_second': 1 / statistics.median(seconds),
        'peak_mib': peak / 1024,
    }


def main() -> None:
    """Measure what the command line names; print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('kind', choices=['exported', 'pytorch'])
    parser.add_argument('arguments', nargs='+')
    args = parser.parse_args()
    kind, arguments = args.kind, args.arguments
    count = {'exported': 3, 'pytorch': 2}[kind]
    load = {'exported': exported, 'pytorch': pytorch}[kind]
    pictures = [
        np.asarray(Image.open(path).convert('RGB'))
        for path in arguments[count:]
    ]
    result = measure(load(*arguments[:count]), pictures)
    sys.stdout.write(json.dumps(result) + '\n')


if __name__ == '__main__':
    main()
