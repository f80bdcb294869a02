"""Pictures and frames of videos on their way through the model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mmtransxnet.apis.inputs import Source, VideoFrames, read_picture


@dataclass
class Frame:
    """A picture, or a frame of a video.

    Attributes:
        source: Where it is from.
        number: Number of the frame from 0, None for a picture.
        image: Blue, green, red ``(H, W, 3)``, uint8; None before it is
            loaded.
        size: Height and width, once it is loaded.
        fps: Frames per second of the video.
        last: Whether it is the last one of its source.
        error: Why it cannot be predicted.
    """

    source: Source
    number: int | None = None
    image: np.ndarray | None = None
    size: tuple[int, int] | None = None
    fps: float = 0.0
    last: bool = True
    error: Exception | None = None


@dataclass
class Part:
    """A picture, or a window of it, as the model takes it.

    Attributes:
        frame: The picture.
        window: x, y, width and height in its pixels.
        last: Whether it is the last window of the picture.
        data: What the test pipeline returned.
        prediction: What the model returned.
        error: Why it cannot be predicted.
    """

    frame: Frame
    window: tuple[int, int, int, int] = (0, 0, 0, 0)
    last: bool = True
    data: Any = None
    prediction: Any = None
    error: Exception | None = None


def read_frames(
    sources: Sequence[Source], starts: Mapping[int, int] | None = None
) -> Iterator[Frame]:
    """Pictures, to be loaded, and the frames of videos, one after the other.

    Args:
        sources: Pictures, videos and cameras.
        starts: First frame to read of some videos, by their index.
    """
    for index, source in enumerate(sources):
        if not source.is_video:
            yield Frame(source)
            continue
        try:
            yield from _video(source, (starts or {}).get(index, 0))
        except OSError as error:
            yield Frame(source, error=error)


def _video(source: Source, start: int) -> Iterator[Frame]:
    frames = VideoFrames(source.origin)
    previous = None
    for number, image in enumerate(islice(frames, start, None), start):
        if previous is not None:
            yield previous
        size = image.shape[0], image.shape[1]
        previous = Frame(source, number, image, size, frames.fps, False)
    if previous is not None:
        yield replace(previous, last=True)
    elif not start:
        raise OSError(f'{source.origin} has no frame that can be read')


def load(frame: Frame) -> Frame:
    """Read a picture; a frame of a video is there already."""
    if frame.image is None and frame.error is None:
        try:
            frame.image = read_picture(Path(str(frame.source.origin)))
            frame.size = frame.image.shape[0], frame.image.shape[1]
        # The decoders raise various errors for a broken file.
        except Exception as error:
            frame.error = error
    return frame
