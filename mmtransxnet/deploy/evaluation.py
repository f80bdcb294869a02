"""Evaluate an exported folder with the data and metrics of a config."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData

from mmtransxnet.deploy import runtime
from mmtransxnet.utils.errors import UserError

SCOPES = {
    'mmpretrain': 'classification',
    'mmdet': 'detection',
    'mmseg': 'segmentation',
}

# They change or copy the PyTorch model.
_MODEL_HOOKS = ('EMAHook', 'FoldHook', 'CompileHook')


def exported_config(
    config: Config,
    folder: str | Path,
    engine: str | None = None,
    bf16: bool = False,
) -> Config:
    """A copy of a config that tests an exported folder.

    Args:
        config: The config of the model.
        folder: The exported folder.
        engine: As :func:`mmtransxnet.deploy.runtime.load`.
        bf16: As there.

    Raises:
        UserError: The folder cannot be run, or is of another task.
    """
    task = SCOPES.get(config.get('default_scope'))
    info = load_exported(folder, engine, bf16).info
    if info['task'] != task:
        raise UserError(
            f'{folder} is exported for {info["task"]} and the config is for '
            f'{task}: use the config of the export ({info.get("config")})'
        )
    config = config.copy()
    config.model = dict(
        type='mmengine.ExportedModel',
        folder=str(folder),
        engine=engine,
        bf16=bf16,
    )
    config.load_from = None
    config.custom_hooks = [
        hook
        for hook in config.get('custom_hooks') or []
        if hook['type'] not in _MODEL_HOOKS
    ]
    config.pop('data_preprocessor', None)
    config.pop('compile', None)
    return config


def load_exported(
    folder: str | Path, engine: str | None = None, bf16: bool = False
) -> runtime.Model:
    """Load an exported folder.

    Raises:
        UserError: It cannot be loaded.
    """
    try:
        return runtime.load(folder, engine, bf16)
    except runtime.ModelError as error:
        raise UserError(str(error)) from error


def check_classes(runner: Runner) -> None:
    """Check that the classes of the data are those of the export.

    Raises:
        UserError: They differ.
    """
    known = runner.model.exported.classes
    dataset = runner.test_dataloader.dataset
    given = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if known and given is not None and list(given) != list(known):
        raise UserError(
            f'the classes of the test data ({len(given)}) are not those of '
            f'the exported model ({len(known)}), or in another order: use the '
            'config of the export'
        )


def evaluate_exported(
    config: Config,
    folder: str | Path,
    engine: str | None = None,
    bf16: bool = False,
) -> dict[str, float]:
    """Evaluate an exported folder.

    Args:
        config: The config of the model, with ``work_dir``.
        folder: The exported folder.
        engine: As :func:`mmtransxnet.deploy.runtime.load`.
        bf16: As there.

    Returns:
        The metrics of the config.

    Raises:
        UserError: The folder cannot be run, or does not belong to the config.
    """
    runner = Runner.from_cfg(exported_config(config, folder, engine, bf16))
    check_classes(runner)
    return runner.test()


@MODELS.register_module()
class ExportedModel(BaseModel):
    """An exported folder in place of a model, for testing.

    Its inputs are the batches of the test pipeline: pictures as mmcv reads
    them (blue, green, red). It fills in the data samples as the libraries'
    models do.

    Args:
        folder: The exported folder.
        engine: As :func:`mmtransxnet.deploy.runtime.load`.
        bf16: As there.

    Attributes:
        exported: The model in the runtime.
    """

    def __init__(
        self, folder: str, engine: str | None = None, bf16: bool = False
    ) -> None:
        super().__init__()
        self.exported = load_exported(folder, engine, bf16)
        # Metrics take pasted masks.
        if self.exported.masks:
            self.exported.masks = {**self.exported.masks, 'paste': True}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Raise an error: there is nothing to train."""
        raise NotImplementedError('an exported model has only test_step')

    def test_step(self, data: Any) -> list[Any]:
        """Predict a batch.

        Args:
            data: ``inputs``, uint8 tensors ``(3, H, W)``, BGR, and
                ``data_samples``.

        Returns:
            The data samples with predictions.

        Raises:
            UserError: The pictures are not bytes or not of the model's fixed
                size, or the engine failed.
        """
        pictures = [_rgb(image) for image in data['inputs']]
        samples = list(data['data_samples'])
        predict = _PREDICT[self.exported.task]
        try:
            return predict(self.exported, pictures, samples)
        except runtime.PictureError as error:
            raise UserError(
                f'the exported model cannot predict the test data: {error}. '
                "If its size is fixed, it must be the test pipeline's"
            ) from error

    val_step = test_step


def _rgb(image: torch.Tensor) -> np.ndarray:
    """A picture ``(H, W, 3)``, RGB, from ``(3, H, W)``, BGR."""
    if image.dtype != torch.uint8 or image.shape[0] != 3:
        raise UserError(
            f'the test pipeline makes {image.dtype} tensors of shape '
            f'{tuple(image.shape)}: an exported model needs uint8 with three '
            'channels, as it normalises them itself'
        )
    return image.flip(0).permute(1, 2, 0).contiguous().cpu().numpy()


def _classify(
    model: runtime.Model, pictures: list[np.ndarray], samples: list[Any]
) -> list[Any]:
    scores = torch.from_numpy(model.run(pictures)['scores'])
    for sample, row in zip(samples, scores, strict=True):
        sample.set_pred_score(row).set_pred_label(row.argmax(0, keepdim=True))
    return samples


def _detect(
    model: runtime.Model, pictures: list[np.ndarray], samples: list[Any]
) -> list[Any]:
    from mmdet.models.utils import samplelist_boxtype2tensor

    # Drawing takes tensors for the annotated boxes, too.
    samplelist_boxtype2tensor(samples)
    # As mmdet, all of a batch are padded to the largest.
    results = model.detections(
        model.run(pictures),
        [sample.ori_shape[:2] for sample in samples],
        [sample.get('scale_factor', (1.0, 1.0)) for sample in samples],
    )
    for sample, result in zip(samples, results, strict=True):
        found = InstanceData(
            bboxes=torch.from_numpy(result.boxes),
            scores=torch.from_numpy(result.scores),
            labels=torch.from_numpy(result.labels),
        )
        if result.masks is not None:
            found.masks = torch.from_numpy(result.masks)
        sample.pred_instances = found
    return samples


def _segment(
    model: runtime.Model, pictures: list[np.ndarray], samples: list[Any]
) -> list[Any]:
    for size, rows in _by_size(samples).items():
        outputs = model.run([pictures[row] for row in rows], size)
        for row, labels in zip(rows, outputs['labels'], strict=True):
            # Metrics index with them.
            tensor = torch.from_numpy(labels.astype(np.int64))[None]
            samples[row].pred_sem_seg = PixelData(data=tensor)
    return samples


def _by_size(samples: Sequence[Any]) -> dict[tuple[int, int], list[int]]:
    """Rows of a batch by height and width of the label maps."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, sample in enumerate(samples):
        height, width = sample.ori_shape[:2]
        rows.setdefault((height, width), []).append(row)
    return rows


_PREDICT: dict[str, Callable[..., list[Any]]] = {
    'classification': _classify,
    'detection': _detect,
    'segmentation': _segment,
}
