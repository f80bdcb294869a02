"""Predictions in batches, from pictures that are loaded ahead."""

import copy
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.logging import print_log

from mmtransxnet.apis.background import ahead, loading_threads, thread_count
from mmtransxnet.apis.batches import batch_key, chunks, equal_batches
from mmtransxnet.apis.frames import Frame, Part, load
from mmtransxnet.apis.results import check_finite
from mmtransxnet.apis.tiles import (
    LabelMerger,
    Merger,
    ObjectMerger,
    merge,
    parts_of,
    suppression_threshold,
)
from mmtransxnet.utils.errors import in_a_line

_CHUNK = 4
"""Batches of pictures in which equal sizes are looked for."""


class Predictor:
    """Predicts with an inferencer of the OpenMMLab libraries.

    Args:
        library: The inferencer.
        task: ``'classification'``, ``'detection'`` or ``'segmentation'``.
    """

    def __init__(self, library: Any, task: str) -> None:
        self._library, self._task = library, task

    def prepare(self, image: np.ndarray) -> Any:
        """What the model's ``test_step`` takes for one picture.

        Args:
            image: Blue, green, red ``(H, W, 3)``, uint8.
        """
        return self._collate([self._apply(self._library.pipeline, image)])

    def forward(self, data: Any) -> list[Any]:
        """Predict what :meth:`prepare` returned, or several of it."""
        return self._library.forward(data)

    def _apply(self, pipeline: Callable, image: np.ndarray) -> Any:
        """Apply the test pipeline to a picture."""
        if self._task != 'classification':
            return pipeline(image)
        size = image.shape[:2]
        return pipeline({'img': image, 'img_shape': size, 'ori_shape': size})

    def _collate(self, batch: Sequence[Any]) -> Any:
        """Put prepared pictures together."""
        stacked = self._task == 'classification'
        collate = default_collate if stacked else pseudo_collate
        return collate(batch)

    def predict(
        self, frames: Iterable[Frame], batch_size: int, tile: int | None
    ) -> Generator[tuple[Frame, Any], None, None]:
        """Load ahead, predict in batches, merge windows.

        Args:
            frames: Pictures, loaded here, and frames of videos.
            batch_size: Maximum number in a batch.
            tile: Side of windows in pixels, None for none.

        Yields:
            In order, each with the library's data sample, or with the
            exception.
        """
        with loading_threads() as pool:
            workers = thread_count()
            loaded = ahead(pool, frames, load, workers + 1)
            cut = (part for frame in loaded for part in parts_of(frame, tile))
            prepare = self._preparation()
            prepared = ahead(pool, cut, prepare, workers + batch_size)
            # Logits of windows are large, and windows have one size.
            size = 1 if batch_size == 1 else batch_size * _CHUNK
            size = batch_size if tile else size
            keep_logits = batch_size == 1 or tile is not None
            parts = self._predicted(prepared, size, batch_size, keep_logits)
            with closing(loaded), closing(prepared):
                yield from merge(parts, self._merger)

    def _preparation(self) -> Callable[[Part], Part]:
        """A function for several threads that applies the test pipeline."""
        local = threading.local()

        def prepare(part: Part) -> Part:
            if part.error is not None:
                return part
            if not hasattr(local, 'pipeline'):
                # Transforms may have a state.
                local.pipeline = copy.deepcopy(self._library.pipeline)
            x, y, width, height = part.window
            image = part.frame.image
            assert image is not None
            try:
                crop = image[y : y + height, x : x + width]
                part.data = self._apply(local.pipeline, crop)
            # Transforms raise various errors for unusual pictures.
            except Exception as error:
                part.error = error
            return part

        return prepare

    def _predicted(
        self,
        parts: Iterable[Part],
        chunk_size: int,
        batch_size: int,
        keep_logits: bool,
    ) -> Iterator[Part]:
        preprocessor = self._library.model.data_preprocessor
        divisor = getattr(preprocessor, 'pad_size_divisor', None) or 1

        def key(part: Part) -> tuple[int, ...]:
            return batch_key(part.data, self._task, divisor)

        for chunk in chunks(parts, chunk_size):
            ready = [part for part in chunk if part.error is None]
            for batch in equal_batches(ready, key, batch_size):
                self._predict_batch(batch)
                for part in batch:
                    part.data = None
                    found = part.prediction
                    if not keep_logits and 'seg_logits' in (found or ()):
                        del found.seg_logits
            yield from chunk

    def _predict_batch(self, batch: Sequence[Part]) -> None:
        """Predict; which picture is to blame for an error is found out."""
        try:
            found = self.forward(self._collate([part.data for part in batch]))
        # torch and the libraries raise various errors for unusual pictures.
        except Exception as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            print_log(
                f'a batch of {len(batch)} failed ({in_a_line(error)}); its '
                'pictures are predicted one by one',
                'current',
                logging.WARNING,
            )
            for part in batch:
                self._predict_batch([part])
            return
        for part, prediction in zip(batch, found, strict=True):
            try:
                check_finite(prediction, self._task)
                part.prediction = prediction
            except ValueError as error:
                part.error = error

    def _merger(self, frame: Frame) -> Merger:
        assert frame.size is not None
        if self._task == 'detection':
            iou = suppression_threshold(self._library.model)
            return ObjectMerger(frame.size, iou)
        head = getattr(self._library.model, 'decode_head', None)
        threshold = getattr(head, 'threshold', None)
        return LabelMerger(frame.size, 0.5 if threshold is None else threshold)
