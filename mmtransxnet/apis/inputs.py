"""Inputs of inference: pictures, folders, videos, cameras."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np

from mmtransxnet.engine.checks.pictures import IMAGE_SUFFIXES, check_picture
from mmtransxnet.utils.errors import UserError

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg')

_DEFAULT_FPS = 25.0
"""Frames per second of cameras that do not report it."""


@dataclass(frozen=True)
class Source:
    """One picture, video or camera.

    Attributes:
        origin: Path of the file, or number of the camera.
        target: Path of its drawing, relative to the output folder; unique
            among the sources.
    """

    origin: Path | int
    target: Path

    @property
    def is_video(self) -> bool:
        """Whether it has frames."""
        if isinstance(self.origin, int):
            return True
        return self.origin.suffix.lower() in VIDEO_SUFFIXES


def find_sources(inputs: Iterable[str | Path | int]) -> list[Source]:
    """List the sources of inputs; folders are searched recursively.

    Args:
        inputs: Files, folders, camera numbers. A missing file is listed, too;
            opening it raises the error.
    """
    cameras, files = [], {}
    for item in inputs:
        if isinstance(item, int):
            cameras.append(Source(item, Path(f'webcam_{item}.mp4')))
            continue
        root = Path(item)
        # Names are relative to a given folder; of a given file, its own name.
        folder = root if root.is_dir() else root.parent
        for path in _files_of(root):
            files[path.resolve()] = path, path.relative_to(folder)
    paths = [path for path, _ in files.values()]
    names = [_drawing(name) for _, name in files.values()]
    if len(set(names)) < len(names):
        # Equal names in different folders: keep the folders apart.
        common = os.path.commonpath([path.parent for path in files])
        names = [_drawing(path.relative_to(common)) for path in files]
    sources = []
    used: set[Path] = set()
    for path, name in zip(paths, names, strict=True):
        while name in used:  # x.bmp, drawn as x.bmp.png, beside x.bmp.png
            name = name.with_stem(f'{name.stem}_')
        used.add(name)
        sources.append(Source(path, name))
    return sources + cameras


def check_not_overwritten(
    sources: Iterable[Source], targets: Iterable[Path]
) -> None:
    """Check that no output is one of the inputs.

    Args:
        sources: The inputs.
        targets: Files that will be written.

    Raises:
        UserError: One is.
    """
    existing = [target for target in targets if target.exists()]
    if not existing:
        return
    inputs = {
        source.origin.resolve()
        for source in sources
        if isinstance(source.origin, Path)
    }
    for target in existing:
        if target.resolve() in inputs:
            raise UserError(
                f'{target} is an input that the results would overwrite: name '
                'another folder with --out, or another file with --json'
            )


def _files_of(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root]
    suffixes = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
    return sorted(
        path for path in root.rglob('*') if path.suffix.lower() in suffixes
    )


def _drawing(name: Path) -> Path:
    """The file name of a picture's drawing."""
    suffix = name.suffix.lower()
    if suffix in ('.jpg', '.jpeg', '.png', '.mp4'):
        return name
    kind = '.mp4' if suffix in VIDEO_SUFFIXES else '.png'
    return name.with_name(name.name + kind)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture as the pipelines of the OpenMMLab libraries do.

    Returns:
        Blue, green, red ``(H, W, 3)``, uint8.

    Raises:
        CorruptSampleError: It is missing, truncated, not a picture, or of a
            size that the pipelines cannot handle.
    """
    check_picture(str(path), decode=True)
    return mmcv.imread(str(path))


def write_picture(path: Path, image: np.ndarray) -> None:
    """Write blue, green, red ``(H, W, 3)``; creates folders.

    Raises:
        OSError: It cannot be written.
    """
    if not mmcv.imwrite(image, str(path)):
        raise OSError(f'{path} cannot be written')


class VideoFrames:
    """The frames of a video or camera, one after the other.

    Args:
        origin: Path of the file, or number of the camera.

    Attributes:
        fps: Frames per second.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, origin: Path | int) -> None:
        if isinstance(origin, int):
            kind, self._capture = 'camera', cv2.VideoCapture(origin)
        else:
            kind, self._capture = 'video', cv2.VideoCapture(str(origin))
        if not self._capture.isOpened():
            raise OSError(f'{kind} {origin} cannot be opened')
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if np.isfinite(fps) and fps > 0 else _DEFAULT_FPS

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield blue, green, red ``(H, W, 3)`` frames."""
        try:
            while True:
                success, frame = self._capture.read()
                if not success:
                    return
                yield frame
        finally:
            self._capture.release()


class VideoFile:
    """A video to be written, as a context.

    Args:
        path: File; its folders are created.
        fps: Frames per second.
    """

    def __init__(self, path: Path, fps: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._fps = fps
        self._writer: Any = None

    def write(self, image: np.ndarray) -> None:
        """Add a blue, green, red ``(H, W, 3)`` frame.

        Raises:
            OSError: The file cannot be written.
        """
        if self._writer is None:
            height, width = image.shape[:2]
            code = cv2.VideoWriter.fourcc(*'mp4v')
            self._writer = cv2.VideoWriter(
                str(self._path), code, self._fps, (width, height)
            )
            if not self._writer.isOpened():
                raise OSError(f'{self._path} cannot be written')
        self._writer.write(image)

    def __enter__(self) -> 'VideoFile':
        return self

    def __exit__(self, *exception: object) -> None:
        # Without release, the file has no index and cannot be played.
        if self._writer is not None:
            self._writer.release()


def as_inputs(inputs: Any) -> Sequence[str | Path | int]:
    """Wrap a single input in a list."""
    return [inputs] if isinstance(inputs, str | Path | int) else list(inputs)
