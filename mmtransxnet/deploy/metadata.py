"""What ``model.json`` says about a model."""

import hashlib
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransxnet.deploy.graphs import DeployForm, algorithm_of
from mmtransxnet.utils.errors import UserError
from mmtransxnet.version import __version__

FORMAT_VERSION = 1

_PACKAGES = ('torch', 'onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf')

# Steps of a test pipeline that do not change the picture.
_NO_CHANGE = ('LoadImageFromFile', 'LoadAnnotations')


def describe(
    model: Any,
    form: DeployForm,
    config: Config,
    *,
    dataset_meta: Mapping[str, Any],
    checkpoint: Path,
    raw_masks: bool,
) -> dict[str, Any]:
    """All that is known before a file is written; see docs/export.md.

    Args:
        model: The trained model.
        form: Its deploy form.
        config: The config of the model.
        dataset_meta: ``classes`` and, if known, ``palette``.
        checkpoint: The file with the weights.
        raw_masks: Whether masks are left as the graph gives them.

    Raises:
        UserError: A step of the test pipeline has no form in the runtime.
    """
    normalise: Any = form.normalise
    height, width = form.size or (None, None)
    meta: dict[str, Any] = {
        'format_version': FORMAT_VERSION,
        'task': form.task,
        'algorithm': algorithm_of(model),
        'backbone': _backbone_name(config),
        'classes': list(dataset_meta.get('classes') or []),
        'palette': _palette(dataset_meta),
        'input': {
            'batch': form.batch,
            'height': height,
            'width': width,
            'divisor': normalise.divisor,
            'steps': picture_steps(config),
            'mean': normalise.mean,
            'std': normalise.std,
        },
        'masks': None,
        'checkpoint': {
            'file': checkpoint.name,
            'sha256': sha256_of(checkpoint),
        },
        'config': Path(config.filename or '').name,
        'versions': _versions(),
        'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
    }
    if 'masks' in form.output_names:
        meta['masks'] = {'size': 28, 'threshold': 0.5, 'paste': not raw_masks}
    if form.task == 'detection':
        meta['thresholds'] = _thresholds(model.test_cfg)
    if form.task == 'segmentation':
        dataset = config.get('test_dataloader', {}).get('dataset', {})
        meta['reduce_zero_label'] = bool(dataset.get('reduce_zero_label'))
    return meta


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _backbone_name(config: Config) -> str:
    arch = config.model.backbone.get('arch')
    name = arch[0].upper() if isinstance(arch, str) else 'custom'
    return f'TransXNet-{name} (folded)'


def _palette(meta: Mapping[str, Any]) -> list[list[int]]:
    palette = meta.get('palette')
    if palette is None or isinstance(palette, str):
        return []
    return [[int(value) for value in colour] for colour in palette]


def _thresholds(test_cfg: Any) -> dict[str, float]:
    """Thresholds of a detector; ``score`` is that for drawing."""
    settings = test_cfg.get('rcnn') or test_cfg
    return {
        'score': 0.3,
        'model_score': float(settings.score_thr),
        'nms_iou': float(settings.nms.iou_threshold),
        'max_per_image': int(settings.max_per_img),
    }


def _versions() -> dict[str, str]:
    versions = {'mmtransxnet': __version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


# ---------------------------------------------------------------- pictures
def picture_steps(config: Config) -> list[dict[str, Any]]:
    """Steps of the test pipeline, as the runtime takes them.

    Raises:
        UserError: The runtime has no such step.
    """
    dataset = config.get('test_dataloader', {}).get('dataset', {})
    # Wrappers of data sets have the pipeline further inside.
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    steps = []
    for transform in dataset.get('pipeline') or []:
        name = str(transform['type']).rpartition('.')[2]
        if name in _NO_CHANGE or name.startswith('Pack'):
            continue
        if name not in _STEPS:
            raise UserError(
                f'{name} of the test pipeline has no form in the exported '
                f"model's predict.py: expected some of {', '.join(_STEPS)}"
            )
        steps.append(_STEPS[name](transform))
    return steps


def _resize(transform: Any) -> dict[str, Any]:
    scale = transform.get('scale')
    if scale is None:
        raise UserError(
            'Resize of the test pipeline has no scale=(width, height), which '
            'the exported model needs'
        )
    width, height = (scale, scale) if isinstance(scale, int) else scale
    return {
        'step': 'resize',
        'scale': [width, height],
        'keep_ratio': bool(transform.get('keep_ratio', False)),
        **_method(transform),
    }


def _resize_edge(transform: Any) -> dict[str, Any]:
    return {
        'step': 'resize_edge',
        'edge': transform.get('edge', 'short'),
        'scale': int(transform['scale']),
        **_method(transform),
    }


def _center_crop(transform: Any) -> dict[str, Any]:
    size = transform['crop_size']
    width, height = (size, size) if isinstance(size, int) else size
    return {'step': 'center_crop', 'size': [height, width]}


def _resize_to_multiple(transform: Any) -> dict[str, Any]:
    return {
        'step': 'resize_to_multiple',
        'divisor': int(transform.get('size_divisor', 32)),
    }


def _method(transform: Any) -> dict[str, str]:
    return {
        'backend': transform.get('backend', 'cv2'),
        'interpolation': transform.get('interpolation', 'bilinear'),
    }


_STEPS = {
    'Resize': _resize,
    'ResizeEdge': _resize_edge,
    'CenterCrop': _center_crop,
    'ResizeToMultiple': _resize_to_multiple,
}
