"""The models of the page: exported folders, configs with checkpoints."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import mmcv
import numpy as np
from PIL import Image

from mmtransxnet.apis.inference import Inferencer
from mmtransxnet.apis.results import check_finite, patches_of
from mmtransxnet.deploy import runtime
from mmtransxnet.utils.devices import check_device
from mmtransxnet.utils.errors import UserError
from mmtransxnet.web.pictures import Upload


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model predicts for a picture.

    Attributes:
        model: The model.
        name: Name of the picture.
        pixels: The picture ``(H, W, 3)``, uint8 RGB.
        result: The result, without a minimum score.
        seconds: Time of the prediction, without reading and drawing.
    """

    model: 'PageModel'
    name: str
    pixels: np.ndarray
    result: runtime.Result
    seconds: float

    def above(self, score: float) -> runtime.Result:
        """The result, of a detector the objects with at least this score."""
        if isinstance(self.result, runtime.Detections):
            return self.result.above(score)
        return self.result

    def draw(self, score: float) -> Image.Image:
        """Draw the result; of a detector, objects of at least this score."""
        return runtime.draw(
            self.pixels,
            self.above(score),
            self.model.classes,
            self.model.palette,
        )

    def to_dict(self, score: float) -> dict[str, Any]:
        """The result as ``predict.py --json`` writes it."""
        height, width = self.result.size
        image = {'id': 0, 'file_name': self.name}
        return as_dict(
            self.model,
            [{**image, 'width': width, 'height': height}],
            runtime.as_json(self.above(score), self.model.classes),
        )


def as_dict(
    model: 'PageModel',
    images: Sequence[Any] = (),
    results: Sequence[Any] = (),
    failed: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """Data in the form that ``predict.py --json`` writes.

    Args:
        model: The model.
        images: Entries of the pictures.
        results: Entries of the results.
        failed: Name of a picture that failed, and the reason.
    """
    failures = [] if failed is None else [failed]
    return {
        'task': model.task,
        'classes': list(model.classes),
        'images': list(images),
        'results': list(results),
        'failed': [{'file_name': n, 'error': error} for n, error in failures],
    }


class PageModel(Protocol):
    """A model of the page.

    Attributes:
        name: Its name in the choice of models.
        task: ``'classification'``, ``'detection'`` or ``'segmentation'``.
        classes: Names.
        palette: Red, green, blue of each class.
        inferencer: The model in PyTorch; None if it is an exported one.
    """

    name: str
    task: str
    classes: Sequence[str]
    palette: Sequence[Sequence[int]]
    inferencer: Inferencer | None

    def predict(self, upload: Upload) -> Prediction:
        """Predict a picture that was checked."""


class ExportedModel:
    """A folder that ``tools/export.py`` has written.

    Args:
        folder: The folder.
        engine: ``'openvino'`` or ``'onnxruntime'``; the first that can be
            used if not given.

    Raises:
        UserError: It cannot be used.
    """

    inferencer: Inferencer | None = None

    def __init__(self, folder: str | Path, engine: str | None = None) -> None:
        try:
            self._model = runtime.load(folder, engine)
        except runtime.ModelError as error:
            raise UserError(str(error)) from error
        self.name = Path(folder).resolve().name
        self.task = self._model.task
        self.classes: Sequence[str] = self._model.classes
        self.palette = self._model.palette

    def predict(self, upload: Upload) -> Prediction:
        """Predict a picture that was checked."""
        pixels = runtime.read_picture(upload.path)
        start = time.perf_counter()
        result = self._model(pixels)
        seconds = time.perf_counter() - start
        return Prediction(self, upload.name, pixels, result, seconds)


class TrainedModel:
    """A config with a checkpoint.

    Args:
        config: Config file.
        checkpoint: As for :class:`~mmtransxnet.apis.Inferencer`.
        device: As for :class:`~mmtransxnet.apis.Inferencer`.

    Raises:
        UserError: As for :class:`~mmtransxnet.apis.Inferencer`.
    """

    def __init__(
        self, config: str, checkpoint: str, device: str | None = None
    ) -> None:
        self._inferencer = Inferencer(config, checkpoint, device)
        self.inferencer: Inferencer | None = self._inferencer
        self.name = Path(config).stem
        info = self._inferencer.info
        self.task = info.task
        self.classes, self.palette = info.classes, info.palette

    def predict(self, upload: Upload) -> Prediction:
        """Predict a picture that was checked.

        Raises:
            ValueError: The model returns values that are not finite.
        """
        image = mmcv.imread(upload.path)
        start = time.perf_counter()
        sample = self._inferencer.predict(image)
        check_finite(sample, self.task)
        result = _as_result(sample, image.shape[:2])
        seconds = time.perf_counter() - start
        rgb = np.ascontiguousarray(image[..., ::-1])
        return Prediction(self, upload.name, rgb, result, seconds)


def _as_result(sample: Any, size: tuple[int, int]) -> runtime.Result:
    """A library's data sample as a result of the runtime."""
    if 'pred_instances' in sample:
        found = sample.pred_instances
        patches = patches_of(found)
        return runtime.Detections(
            size,
            found.bboxes.float().cpu().numpy(),
            found.scores.float().cpu().numpy(),
            found.labels.cpu().numpy(),
            patches=None if patches is None else PatchList(patches),
        )
    if 'pred_sem_seg' in sample:
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        kind = np.uint8 if labels.max() < 256 else np.int64
        # Nothing of the page needs the scores of pixels.
        scores = np.broadcast_to(np.float32(1), size)
        return runtime.Segmentation(size, labels.astype(kind), scores)
    scores = sample.pred_score.float().cpu().numpy()
    return runtime.Classification(size, scores)


class PatchList(list[runtime.Patch]):
    """Masks that can be chosen by an array of indices."""

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, np.ndarray):
            return PatchList(self[i] for i in index.tolist())
        return super().__getitem__(index)


def open_models(
    arguments: Sequence[str],
    device: str | None = None,
    engine: str | None = None,
) -> dict[str, PageModel]:
    """Open the models that the arguments name.

    Args:
        arguments: Exported folders; configs, each followed by its checkpoint.
        device: For checkpoints: ``'cpu'``, ``'cuda:0'``, ...
        engine: For exported folders; see :class:`ExportedModel`.

    Returns:
        The models by their names, which are made unique.

    Raises:
        UserError: A model cannot be used.
    """
    check_device(device)
    models: dict[str, PageModel] = {}
    rest = list(arguments)
    while rest:
        first = rest.pop(0)
        model: PageModel
        if Path(first).is_dir():
            model = ExportedModel(first, engine)
        elif rest and not Path(rest[0]).is_dir():
            model = TrainedModel(first, rest.pop(0), device)
        else:
            raise UserError(
                f'{first}: expected an exported folder, or a config followed '
                'by its checkpoint'
            )
        name, number = model.name, 2
        while model.name in models:
            model.name = f'{name} ({number})'
            number += 1
        models[model.name] = model
    return models
