"""Pictures to quantise with."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope

from mmtransxnet.utils.errors import UserError

MAX_PICTURES = 128
"""Pictures that are used, evenly out of all."""

_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def calibration_pictures(
    config: Config,
    size: tuple[int, int] | None,
    batch: int | None,
    folder: str | None = None,
) -> list[np.ndarray]:
    """Pictures as the graph takes them.

    They are those of the training data, loaded and resized as in testing.

    Args:
        config: The config of the model.
        size: Height and width of the graph; None for any.
        batch: Number of images of the graph; None for any.
        folder: A folder of pictures to use instead.

    Returns:
        Arrays ``(batch or 1, H, W, 3)``, red, green, blue, uint8.

    Raises:
        UserError: There is no picture, or it has not the size of the graph.
    """
    init_default_scope(config.get('default_scope') or 'mmengine')
    files = _files_of(folder) if folder else _training_files(config)
    if not files:
        raise UserError(
            f'{folder or "the training data"} has no picture to calibrate '
            'int8 with; name a folder of pictures with --calibrate'
        )
    count = min(len(files), MAX_PICTURES)
    chosen = np.linspace(0, len(files) - 1, count).round().astype(int)
    pictures = _loaded(config, [files[i] for i in chosen], size)
    # A graph of a constant batch takes as many, if the same.
    return [np.repeat(picture, batch or 1, axis=0) for picture in pictures]


def _files_of(folder: str) -> list[str]:
    """Pictures in a folder and the folders in it."""
    paths = sorted(Path(folder).rglob('*'))
    return [str(p) for p in paths if p.suffix.lower() in _SUFFIXES]


def _training_files(config: Config) -> list[str]:
    """Pictures of the training data."""
    settings = config.train_dataloader.dataset
    # Wrappers, as RepeatDataset, have the data set inside.
    while 'dataset' in settings:
        settings = settings.dataset
    try:
        dataset = DATASETS.build({**settings, 'pipeline': []})
    except OSError as error:
        raise UserError(
            f'the training data cannot be read ({error}): set --data-root, '
            'or name a folder of pictures with --calibrate'
        ) from error
    infos = (dataset.get_data_info(i) for i in range(len(dataset)))
    return [info['img_path'] for info in infos]


def _loaded(
    config: Config, files: list[str], size: tuple[int, int] | None
) -> Iterator[np.ndarray]:
    transforms = [
        TRANSFORMS.build(step)
        for step in config.test_dataloader.dataset.pipeline
        if 'Annotations' not in step['type'] and 'Pack' not in step['type']
    ]
    prepare = Compose(transforms)
    for file in files:
        # The pipelines read blue, green, red.
        picture: Any = prepare({'img_path': file})['img'][..., ::-1]
        if size is not None and picture.shape[:2] != tuple(size):
            raise UserError(
                f'{file} has {picture.shape[0]} x {picture.shape[1]} pixels '
                f'after the test pipeline, and --size is {size[0]} x '
                f'{size[1]}'
            )
        yield np.ascontiguousarray(picture)[None]
