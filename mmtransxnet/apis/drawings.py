"""Drawings of results: pictures, and videos written frame by frame."""

import copy
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from mmtransxnet.apis.frames import Frame
from mmtransxnet.apis.inputs import VideoFile, write_picture


class _Artist(Protocol):
    def draw(self, image: np.ndarray, prediction: Any) -> np.ndarray: ...


class Drawings:
    """A folder of drawings, as a context.

    Args:
        artist: Draws.
        folder: The folder; None for no drawings.
    """

    def __init__(self, artist: _Artist, folder: str | Path | None) -> None:
        self._artist = artist
        self._folder = None if folder is None else Path(folder)
        self._video: VideoFile | None = None
        self._stack = ExitStack()

    def add(self, frame: Frame, prediction: Any) -> Path | None:
        """Draw a picture or the next frame of a video.

        Returns:
            The file.

        Raises:
            OSError: It cannot be written.
        """
        if self._folder is None:
            return None
        assert frame.image is not None
        target = self._folder / frame.source.target
        drawn = self._artist.draw(frame.image, prediction)
        if frame.number is None:
            write_picture(target, drawn)
            return target
        if self._video is None:
            self._video = VideoFile(target, frame.fps)
            self._stack.enter_context(self._video)
        self._video.write(drawn)
        return target

    def finish(self, frame: Frame) -> None:
        """Close the video that ends with a frame."""
        if frame.last:
            self._stack.close()
            self._video = None

    def __enter__(self) -> 'Drawings':
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()


def with_masks(sample: Any, score: float) -> Any:
    """A detector's data sample whose masks have the size of the picture.

    Args:
        sample: Of windows that were merged, with ``patches``; another one is
            returned as it is.
        score: Minimum score of the objects that are kept.
    """
    if 'patches' not in sample.pred_instances:
        return sample
    sample = copy.copy(sample)
    found = sample.pred_instances
    found = found[found.scores > score]
    masks = np.zeros((len(found), *sample.ori_shape), bool)
    for mask, patch in zip(masks, found.pop('patches'), strict=True):
        height, width = patch.pixels.shape
        rows = slice(patch.top, patch.top + height)
        mask[rows, patch.left : patch.left + width] = patch.pixels
    found.masks = torch.from_numpy(masks)
    sample.pred_instances = found
    return sample
