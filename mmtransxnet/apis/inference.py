"""Predict, draw and write with any model, using the OpenMMLab libraries."""

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.registry import DATASETS, DefaultScope
from torch import nn

from mmtransxnet.apis.drawings import Drawings, with_masks
from mmtransxnet.apis.frames import Frame, read_frames
from mmtransxnet.apis.inputs import (
    Source,
    as_inputs,
    check_not_overwritten,
    find_sources,
)
from mmtransxnet.apis.predictor import Predictor
from mmtransxnet.apis.records import check_suffix, open_file
from mmtransxnet.apis.results import Result, model_info
from mmtransxnet.apis.shards import Shards, weights_hash
from mmtransxnet.apis.tiles import check_tile
from mmtransxnet.deploy import runtime
from mmtransxnet.deploy.evaluation import SCOPES
from mmtransxnet.engine.config.loading import load_config
from mmtransxnet.engine.runner.distributed import decided_by_first, in_all
from mmtransxnet.models import fold as inference_form
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights.matching import match_weights
from mmtransxnet.weights.mmengine_loaders import path_of
from mmtransxnet.weights.reader import read_checkpoint, state_dict_of

_DRAWN_SCORE = 0.3
"""Minimum score of detections that are drawn, if none is given."""


class Inferencer:
    """A trained classifier, detector or segmentor.

    Args:
        config: Config file, or a config.
        checkpoint: Checkpoint file, address or ``transxnet://`` name; it is
            read safely and must match the model.
        device: Where to run; the first GPU if there is one.
        score_thr: Minimum score of detections; if not set, 0.3 in drawings
            and none in data.
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
        score_thr: float | None = None,
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
        self._task = SCOPES[scope]
        self._config = config
        self._predictor = Predictor(self._library, self._task)
        self._score_thr = score_thr
        self._set_dataset_meta()
        model = self._library.model
        self.info = model_info(
            self._task, self._known_meta(), _num_classes(model), score_thr
        )

    @property
    def model(self) -> nn.Module:
        """The model, in evaluation mode."""
        return self._library.model

    def _known_meta(self) -> Mapping[str, Any]:
        """Names and colours that the library draws with."""
        if self._scope == 'mmpretrain':
            return self._meta
        return self._library.model.dataset_meta

    def _set_dataset_meta(self) -> None:
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
        return self._predictor.forward(self.prepare(image))[0]

    def prepare(self, image: np.ndarray) -> Any:
        """Run the test pipeline on one picture.

        Args:
            image: Blue, green, red ``(H, W, 3)``, uint8.

        Returns:
            What the model's ``test_step`` takes.
        """
        return self._predictor.prepare(image)

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
                score = self._score_thr
                score = _DRAWN_SCORE if score is None else score
                flags['pred_score_thr'] = score
                prediction = with_masks(prediction, score)
            (drawn,) = self._library.visualize([rgb], [prediction], **flags)
        return np.ascontiguousarray(drawn[..., ::-1])

    def __call__(
        self,
        inputs: str | Path | int | Sequence[str | Path | int],
        out_dir: str | Path | None = None,
        *,
        json: str | Path | None = None,
        batch_size: int = 1,
        tile: int | None = None,
    ) -> Iterator[Result]:
        """Predict pictures, folders, videos and cameras.

        Results are computed lazily and in order, so a video need not fit into
        memory; pictures are loaded in the background. A file that fails does
        not stop the others.

        In a process group (``torch.distributed``) with ``json``, each process
        predicts and yields its share of the sources. What a file of an
        earlier, interrupted run has is not predicted again. At the end the
        first process merges the files of all into ``json``.

        Args:
            inputs: Files, folders, camera numbers; one or several.
            out_dir: Folder for the drawings.
            json: File for the results: ``.json`` is written at the end,
                ``.jsonl`` has a line for each picture and frame, written as
                they come. Label maps are written into a folder beside it.
            batch_size: Maximum number of pictures that are predicted
                together. Only pictures that need no further padding are, so
                results do not depend on it. Above 1, data samples of
                segmentors have no ``seg_logits``.
            tile: Side in pixels of overlapping windows into which larger
                pictures are cut; their predictions are merged.

        Returns:
            An iterator over a result for each picture and each frame.

        Raises:
            UserError: An argument is wrong, an output would overwrite an
                input, or a file of results cannot be written or continued.
        """
        check_tile(tile, self._task)
        if batch_size < 1:
            raise UserError(f'--batch-size {batch_size}: expected at least 1')
        path = None if json is None else Path(json)
        if path is not None:
            check_suffix(path)
        given = as_inputs(inputs)
        predict = partial(
            self._results, out_dir=out_dir, json=path,
            batch_size=batch_size, tile=tile,
        )  # fmt: skip
        if path is not None and dist.is_initialized():
            return self._sharded(given, out_dir, path, tile, predict)
        sources = find_sources(given)
        self._check_outputs(sources, out_dir, path)
        return self._alone(sources, path, predict)

    def _check_outputs(
        self,
        sources: Sequence[Source],
        out_dir: str | Path | None,
        json: Path | None,
    ) -> None:
        """Check that no output is an input."""
        targets = [] if json is None else [json]
        for source in sources:
            if out_dir is not None:
                targets.append(Path(out_dir) / source.target)
            if json is not None and self._task == 'segmentation':
                targets.append(json.parent / _label_map(json, source, None))
        check_not_overwritten(sources, targets)

    def _alone(
        self,
        sources: Sequence[Source],
        json: Path | None,
        predict: Callable[..., Iterator[tuple[Frame, Result]]],
    ) -> Iterator[Result]:
        """Predict all sources in this process."""
        file = None if json is None else open_file(json, self.info)
        return self._written(predict(read_frames(sources)), file)

    def _written(
        self, results: Iterator[tuple[Frame, Result]], file: Any
    ) -> Iterator[Result]:
        number = 0
        # Whatever ends the run, the results so far are written.
        with ExitStack() as stack:
            if file is not None:
                stack.enter_context(closing(file))
            for _, result in results:
                if file is not None:
                    file.add(result.to_dict(number))
                number += result.error is None
                yield result

    def _sharded(
        self,
        inputs: Sequence[str | Path | int],
        out_dir: str | Path | None,
        json: Path,
        tile: int | None,
        predict: Callable[..., Iterator[tuple[Frame, Result]]],
    ) -> Iterator[Result]:
        """Predict this process's share of the sources, then merge."""
        shards = Shards(json, self._run(inputs, tile))

        def decide() -> tuple[list[Source], Any]:
            sources = find_sources(inputs)
            _check_shardable(sources, out_dir)
            self._check_outputs(sources, out_dir, json)
            return sources, shards.plan(sources)

        # Only the first process looks at the files: they may change.
        sources, plan = decided_by_first(decide)
        share = plan.share(get_rank(), get_world_size())
        error: Exception | None = None
        try:
            with closing(shards.open(get_rank(), get_world_size())) as shard:
                frames = read_frames(share.sources, share.starts)
                for frame, result in predict(frames):
                    shard.add(result.to_dict(), frame.last)
                    yield result
        # The others must hear of any error.
        except Exception as failure:
            error = failure
        in_all(partial(_raise, error))
        decided_by_first(partial(shards.merge, sources, self.info))

    def _run(
        self, inputs: Sequence[str | Path | int], tile: int | None
    ) -> dict[str, Any]:
        """What results depend on, for shard files."""
        pipeline = self._config.test_dataloader.dataset.get('pipeline')
        settings = repr((self._config.model, pipeline))
        return {
            'inputs': [str(item) for item in inputs],
            'folders': [str(Path(str(item)).resolve()) for item in inputs],
            'config': hashlib.sha256(settings.encode()).hexdigest(),
            'weights': weights_hash(self.model),
            'score_thr': self._score_thr,
            'tile': tile,
        }

    def _results(
        self,
        frames: Iterable[Frame],
        out_dir: str | Path | None,
        json: Path | None,
        batch_size: int,
        tile: int | None,
    ) -> Iterator[tuple[Frame, Result]]:
        """Predict frames and write what belongs to each."""
        predictions = self._predictor.predict(frames, batch_size, tile)
        with closing(predictions), Drawings(self, out_dir) as drawings:
            for frame, prediction in predictions:
                try:
                    if isinstance(prediction, Exception):
                        raise prediction
                    result = Result(
                        frame.source.origin,
                        frame.number,
                        prediction,
                        drawings.add(frame, prediction),
                        size=frame.size,
                        info=self.info,
                    )
                    if json is not None and self._task == 'segmentation':
                        result = _save_label_map(result, frame, json)
                # torch and the libraries raise various errors for unusual
                # pictures.
                except Exception as error:
                    result = Result(
                        frame.source.origin,
                        frame.number,
                        error=_error_reason(error),
                    )
                drawings.finish(frame)
                frame.image = None
                yield frame, result


def _raise(error: Exception | None) -> None:
    if error is not None:
        raise error


def _num_classes(model: Any) -> int:
    """Number of classes of a classifier; others have names."""
    return int(getattr(getattr(model, 'head', None), 'num_classes', 0) or 0)


def _check_shardable(
    sources: Sequence[Source], out_dir: str | Path | None
) -> None:
    """Check that sources can be shared out and continued.

    Raises:
        UserError: They cannot.
    """
    if not sources:
        raise UserError('the inputs have no picture and no video')
    for source in sources:
        if isinstance(source.origin, int):
            raise UserError(
                f'camera {source.origin}: several processes cannot share a '
                'camera; leave --launcher out'
            )
        if out_dir is not None and source.is_video:
            raise UserError(
                f'{source.origin}: the drawing of a video cannot be '
                'continued; leave --out or --launcher out'
            )


def _label_map(json: Path, source: Source, number: int | None) -> Path:
    """The file of a label map, relative to the folder of the JSON."""
    folder = Path(f'{json.stem}_labels')
    if number is None:
        return folder / f'{source.target}.png'
    return folder / source.target / f'{number:08d}.png'


def _save_label_map(result: Result, frame: Frame, json: Path) -> Result:
    """Write a label map as a PNG with a palette."""
    file = _label_map(json, frame.source, frame.number)
    target = json.parent / file
    target.parent.mkdir(parents=True, exist_ok=True)
    result.label_image().save(target)
    return replace(result, label_map=file)


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
        return _with_own_colours(
            {name.lower(): value for name, value in stored.items()}
        )
    dataset = config.test_dataloader.dataset
    with DATASETS.switch_scope_and_registry(config.default_scope) as registry:
        described = getattr(registry.get(dataset.type), 'METAINFO', {})
    meta = {**described, **(dataset.get('metainfo') or {})}
    return _with_own_colours(
        {name: meta[name] for name in ('classes', 'palette') if name in meta}
    )


def _with_own_colours(meta: dict[str, Any]) -> dict[str, Any]:
    """Replace the colours if they are those of other classes.

    CocoDataset keeps the colours of COCO's 80 classes for any classes. The
    first ten are mostly dark blue.
    """
    classes, palette = meta.get('classes'), meta.get('palette')
    if isinstance(classes, str) or isinstance(palette, str):
        return meta
    if not classes or palette is None or len(palette) == len(classes):
        return meta
    return {**meta, 'palette': runtime.colours(len(classes))}


def _error_reason(error: Exception) -> str:
    name = type(error).__name__
    line = (str(error).strip().splitlines() or [name])[0]
    if isinstance(error, OSError | ValueError | RuntimeError):
        return line
    return f'the libraries cannot predict or draw it ({name}: {line})'
