"""What the tools of tools/analysis share: their flags, model and pictures."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config

from mmtransxnet.analysis.pictures import EXAMPLES, example_pictures
from mmtransxnet.apis.inference import Inferencer
from mmtransxnet.apis.inputs import find_sources, read_picture
from mmtransxnet.engine.checks.pictures import CorruptSampleError
from mmtransxnet.engine.checks.preflight import check_folder
from mmtransxnet.engine.config.command_line import config_parser
from mmtransxnet.engine.config.loading import load_config
from mmtransxnet.utils.devices import check_device
from mmtransxnet.utils.errors import UserError


def analysis_parser(
    description: str | None, out: str = 'the PNG to write'
) -> argparse.ArgumentParser:
    """A parser with the flags of all tools that look into a trained model.

    Args:
        description: Of the tool.
        out: What ``--out`` names.
    """
    parser = config_parser(description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', required=True, help=out)
    parser.add_argument('--device', help='cpu, cuda:0, ...')
    return parser


def check_out(out: str | Path, inputs: Sequence[str | Path] = ()) -> None:
    """Check, before any work, that ``--out`` can name a new file.

    Args:
        out: The file; its folder is created.
        inputs: Files and folders of pictures that are read.

    Raises:
        UserError: It is a folder or one of the pictures, or its folder cannot
            be written to.
    """
    check_folder(Path(out).parent, '--out')
    if Path(out).is_dir():
        raise UserError(f'--out {out} is a folder; name a file')
    if inputs and Path(out).exists():
        pictures = {path.resolve() for path in find_pictures(inputs)}
        if Path(out).resolve() in pictures:
            raise UserError(
                f'--out {out} is a picture that is read; name another file'
            )


def open_model(args: argparse.Namespace) -> tuple[Config, Inferencer]:
    """The config and the model that the flags name.

    Raises:
        UserError: The device is not available, or as for
            :class:`~mmtransxnet.apis.Inferencer`.
    """
    check_device(args.device)
    config = load_config(args.config, args.cfg_options, args.data_root)
    return config, Inferencer(config, args.checkpoint, args.device)


def read_pictures(
    inputs: Sequence[str | Path], number: int | None = None
) -> list[np.ndarray]:
    """Read pictures and folders of them.

    Args:
        inputs: Files and folders. Without any, the pictures are
            photographs that scikit-image contains.
        number: Take the first ones only.

    Returns:
        Blue, green, red ``(H, W, 3)``, uint8.

    Raises:
        UserError: There is no picture, or one cannot be read.
    """
    if not inputs:
        return example_pictures(min(number or len(EXAMPLES), len(EXAMPLES)))
    try:
        return [read_picture(path) for path in find_pictures(inputs)[:number]]
    except (CorruptSampleError, OSError) as error:
        raise UserError(str(error)) from error


def find_pictures(inputs: Sequence[str | Path]) -> list[Path]:
    """The pictures among files and folders; folders are searched.

    Raises:
        UserError: There is none.
    """
    found = [
        Path(str(source.origin))
        for source in find_sources(inputs)
        if not source.is_video
    ]
    if not found:
        raise UserError(f'no picture in {", ".join(map(str, inputs))}')
    return found
