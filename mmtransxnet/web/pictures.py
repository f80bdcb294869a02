"""Pictures that come to the page, and its examples."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mmtransxnet.analysis.pictures import EXAMPLES, example_pictures
from mmtransxnet.apis.analysis import find_pictures
from mmtransxnet.engine.checks.pictures import (
    CorruptSampleError,
    check_picture,
)
from mmtransxnet.utils.errors import UserError

MAX_EXAMPLES = 12
"""Pictures of a folder that are offered as examples."""


@dataclass(frozen=True)
class Upload:
    """A picture that was sent.

    Attributes:
        path: Where it is stored.
        name: Its name where it comes from.
    """

    path: str
    name: str


def check_upload(upload: Upload, max_pixels: int) -> None:
    """Check a picture.

    Args:
        upload: The picture.
        max_pixels: Maximum width x height; the header decides, before pixels
            are decoded.

    Raises:
        UserError: It is corrupt, of another format or too large. The message
            has its name, not where it is stored.
    """
    try:
        check_picture(upload.path, decode=True, max_pixels=max_pixels)
    except CorruptSampleError as error:
        text = str(error).replace(upload.path, upload.name)
        # Pillow's message shows a Python object.
        text = re.sub(r'\(cannot identify .*', '(no known format)', text)
        raise UserError(text) from error


def find_examples(inputs: Sequence[str | Path], folder: Path) -> list[Path]:
    """Copy the pictures that the page offers.

    Args:
        inputs: Files and folders; folders are searched. Without any, the
            examples are photographs that scikit-image contains.
        folder: Where the copies go.

    Returns:
        Copies of the first pictures, at most ``MAX_EXAMPLES``.

    Raises:
        UserError: There is no picture, or it cannot be read.
    """
    copies = []
    if not inputs:
        folder.mkdir(parents=True, exist_ok=True)
        for name, picture in zip(EXAMPLES, example_pictures(), strict=True):
            copies.append(folder / f'{name}.png')
            Image.fromarray(picture[..., ::-1].copy()).save(copies[-1])
        return copies
    for number, path in enumerate(find_pictures(inputs)[:MAX_EXAMPLES]):
        # Those of several folders may have one name.
        copies.append(folder / str(number) / path.name)
        copies[-1].parent.mkdir(parents=True)
        try:
            shutil.copyfile(path, copies[-1])
        except OSError as error:
            raise UserError(f'--examples {path}: {error.strerror}') from error
    return copies
