"""Predict and draw with any model, using the OpenMMLab libraries."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmtransxnet.apis.inputs import (
    Source,
    VideoFile,
    VideoFrames,
    as_inputs,
    find_sources,
    read_picture,
    write_picture,
)
from mmtransxnet.engine.config.loading import load_config
from mmtransxnet.models import fold as inference_form
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights.matching import match_weights
from mmtransxnet.weights.mmengine_loaders import path_of
from mmtransxnet.weights.reader import read_checkpoint, state_dict_of


@dataclass(frozen=True)
class Result:
    """The result for a picture or a frame.

    Attributes:
        source: Path of the file, or number of the camera.
        frame: Number of the frame from 0, None for a picture.
        prediction: The library's data sample, None if it failed.
        drawing: The file with the drawing, None if not requested.
        error: Why it failed, if it did.
    """

    source: Path | int
    frame: int | None = None
    prediction: Any = None
    drawing: Path | None = None
    error: str | None = None


class Inferencer:
    """A trained classifier, detector or segmentor.

    Args:
        config: Config file, or a config.
        checkpoint: Checkpoint file, address or ``transxnet://`` name; it is
            read safely and must match the model.
        device: Where to run; the first GPU if there is one.
        score_thr: Minimum score of detections that are drawn.
        fold: Whether to predict with the inference form of the backbone: equal
            outputs, faster.

    Raises:
        UserError: The config is of another task, or the checkpoint cannot be
            read or does not match.
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | None = None,
        score_thr: float = 0.3,
        fold: bool = False,
    ) -> None:
        if not isinstance(config, Config):
            config = load_config(str(config))
        scope = config.get('default_scope')
        if scope not in _BUILDERS:
            raise UserError(
                f'default_scope = {scope!r} in the config: expected one of '
                f'{", ".join(_BUILDERS)}'
            )
        content = read_checkpoint(path_of(str(checkpoint)))
        # Models of several tasks in one process have their own scopes.
        with (
            DefaultScope.overwrite_default_scope(scope),
            warnings.catch_warnings(),
        ):
            # The weights are loaded next, with checks, unlike there.
            warnings.filterwarnings('ignore', message='.*[Cc]heckpoint.*')
            warnings.filterwarnings('ignore', message='weights is None.*')
            self._library = _BUILDERS[scope](config, device)
        model = self._library.model
        match = match_weights(state_dict_of(content), model.state_dict())
        match.require(str(checkpoint), 'the model of the config')
        model.load_state_dict(match.state, strict=False)
        if fold:
            self._library.model = inference_form(model)
        self._meta = dataset_meta(content, config)
        self._scope = scope
        self._score_thr = score_thr
        self._setdataset_meta()

    @property
    def model(self) -> nn.Module:
        """The model, in evaluation mode."""
        return self._library.model

    def _setdataset_meta(self) -> None:
        """Set names and colours of the classes of the training."""
        if self._scope == 'mmpretrain':
            self._library.classes = self._meta.get('classes')
            return
        known = {**self._library.model.dataset_meta, **self._meta}
        self._library.model.dataset_meta = known
        self._library.visualizer.dataset_meta = known

    def predict(self, image: np.ndarray) -> Any:
        """Predict one picture.

        Args:
            image: Blue, green, red ``(H, W, 3)``, uint8.

        Returns:
            The library's data sample.
        """
        return self._library.forward(self.prepare(image))[0]

    def prepare(self, image: np.ndarray) -> Any:
        """Run the test pipeline on one picture.

        Args:
            image: Blue, green, red ``(H, W, 3)``, uint8.

        Returns:
            What the model's ``test_step`` takes.
        """
        (batch,) = self._library.preprocess([image], batch_size=1)
        # mmdet's data sample includes the picture.
        return batch[1] if self._scope == 'mmdet' else batch

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes of the training, if they are known."""
        names = self._meta.get('classes')
        return None if names is None else [str(name) for name in names]

    def draw(self, image: np.ndarray, prediction: Any) -> np.ndarray:
        """Draw a prediction.

        Args:
            image: Blue, green, red ``(H, W, 3)``, uint8.
            prediction: What :meth:`predict` returned.

        Returns:
            Blue, green, red ``(H, W, 3)``, uint8.
        """
        # The visualizers expect RGB arrays.
        rgb = np.ascontiguousarray(image[..., ::-1])
        if self._scope == 'mmpretrain':
            drawn = self._library.visualizer.visualize_cls(
                rgb, prediction, classes=self._library.classes, draw_gt=False
            )
        else:
            flags: dict[str, Any] = {'return_vis': True}
            if self._scope == 'mmdet':
                flags['pred_score_thr'] = self._score_thr
            (drawn,) = self._library.visualize([rgb], [prediction], **flags)
        return np.ascontiguousarray(drawn[..., ::-1])

    def __call__(
        self,
        inputs: str | Path | int | Sequence[str | Path | int],
        out_dir: str | Path | None = None,
    ) -> Iterator[Result]:
        """Predict pictures, folders, videos and cameras.

        Results are computed lazily, so a video need not fit into memory. A
        file that fails does not stop the others.

        Args:
            inputs: Files, folders, camera numbers; one or several.
            out_dir: Folder for the drawings.

        Yields:
            A result for each picture and each frame.
        """
        for source in find_sources(as_inputs(inputs)):
            target = Path(out_dir) / source.target if out_dir else None
            run = self._video if source.is_video else self._picture
            try:
                yield from run(source, target)
            # torch and the libraries raise various errors for unusual
            # pictures.
            except Exception as error:
                yield Result(source.origin, error=_error_reason(error))

    def _picture(
        self, source: Source, target: Path | None
    ) -> Iterator[Result]:
        image = read_picture(Path(str(source.origin)))
        prediction = self.predict(image)
        if target:
            write_picture(target, self.draw(image, prediction))
        yield Result(source.origin, None, prediction, target)

    def _video(self, source: Source, target: Path | None) -> Iterator[Result]:
        frames = VideoFrames(source.origin)
        count = 0
        with ExitStack() as stack:
            video = None
            if target:
                video = stack.enter_context(VideoFile(target, frames.fps))
            for count, image in enumerate(frames, 1):
                prediction = self.predict(image)
                if video:
                    video.write(self.draw(image, prediction))
                yield Result(source.origin, count - 1, prediction, target)
        if not count:
            raise OSError(f'{source.origin} has no frame that can be read')


def _classification(config: Config, device: str | None) -> Any:
    from mmpretrain.apis import ImageClassificationInferencer
    from mmpretrain.visualization import UniversalVisualizer

    library = ImageClassificationInferencer(
        config, pretrained=False, device=device
    )
    library.visualizer = UniversalVisualizer()
    return library


def _detection(config: Config, device: str | None) -> Any:
    from mmdet.apis import DetInferencer

    config = _drawing_only(config, 'DetLocalVisualizer')
    return DetInferencer(config, device=device, show_progress=False)


def _segmentation(config: Config, device: str | None) -> Any:
    from mmseg.apis import MMSegInferencer

    config = _drawing_only(config, 'SegLocalVisualizer')
    return MMSegInferencer(config, device=device, show_progress=False)


_BUILDERS: Mapping[str, Callable[[Config, str | None], Any]] = {
    'mmpretrain': _classification,
    'mmdet': _detection,
    'mmseg': _segmentation,
}


def _drawing_only(config: Config, visualizer: str) -> Config:
    """A copy whose visualizer draws but does not store by itself."""
    config = config.copy()
    settings = config.get('visualizer') or dict(type=visualizer)
    config.visualizer = {**settings, 'vis_backends': None}
    return config


def dataset_meta(content: Mapping[str, Any], config: Config) -> dict[str, Any]:
    """Names and colours of the classes: the checkpoint's or the config's."""
    stored = (content.get('meta') or {}).get('dataset_meta')
    if stored:
        return {name.lower(): value for name, value in stored.items()}
    dataset = config.test_dataloader.dataset
    with DATASETS.switch_scope_and_registry(config.default_scope) as registry:
        described = getattr(registry.get(dataset.type), 'METAINFO', {})
    meta = {**described, **(dataset.get('metainfo') or {})}
    return {
        name: meta[name] for name in ('classes', 'palette') if name in meta
    }


def _error_reason(error: Exception) -> str:
    name = type(error).__name__
    line = (str(error).strip().splitlines() or [name])[0]
    if isinstance(error, OSError | ValueError | RuntimeError):
        return line
    return f'the libraries cannot predict or draw it ({name}: {line})'
