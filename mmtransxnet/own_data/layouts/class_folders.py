"""A folder of pictures for each class."""

import os
from pathlib import PurePosixPath

from mmtransxnet.own_data.collection import Collection, Picture
from mmtransxnet.own_data.folder import Folder, split_of
from mmtransxnet.own_data.gathering import Gatherer
from mmtransxnet.own_data.layouts.common import require_same_classes
from mmtransxnet.own_data.layouts.label_maps import MAPS, PICTURES
from mmtransxnet.own_data.parsing import class_name
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

KIND = 'class folders'


def recognise(folder: Folder) -> str | None:
    """Return why a folder has this layout, None if it has another."""
    classes = sorted({c for f in folder.pictures if (c := _class_of(f))})
    # Pictures whose annotations are missing or of no known kind.
    if all(name.lower() in (*PICTURES, *MAPS) for name in classes):
        return None
    return (
        'it has no annotation files, and pictures in folders, whose names are '
        f'taken for classes ({first_few(classes)})'
    )


def read(folder: Folder, task: str) -> Collection:
    """Read a folder that was recognised."""
    gatherer = Gatherer(folder, KIND)
    for file in folder.pictures:
        label = class_name(_class_of(file))
        if label is None:
            gatherer.drop('picture outside of a class folder', file)
            continue
        canvas = gatherer.open(file)
        if canvas is not None:
            gatherer.pictures.append(
                Picture(
                    folder.root / file,
                    canvas.width,
                    canvas.height,
                    split_of(PurePosixPath(file.parts[0])),
                    label,
                )
            )
    gatherer.require_pictures()
    classes = sorted({str(picture.label) for picture in gatherer.pictures})
    if len(classes) < 2:
        raise UserError(
            f'{folder.root} has pictures of one class only ({classes[0]}): '
            'classification needs a folder for each of at least two'
            f'{_deeper(folder)}'
        )
    require_same_classes(folder.root, gatherer.pictures)
    return gatherer.collection(classes, task)


def _deeper(folder: Folder) -> str:
    """A hint if there are folders in the only one."""
    common = os.path.commonpath([file.parent for file in folder.pictures])
    folders = {file.parent for file in folder.pictures}
    if len(folders) < 2:
        return ''
    return f'; if these are in {common}, give {folder.root / common}'


def _class_of(file: PurePosixPath) -> str | None:
    """The folder of a class that a picture is in, below that of a split."""
    folders = file.parts[:-1]
    if folders and split_of(PurePosixPath(folders[0])):
        folders = folders[1:]
    return folders[0] if folders else None
