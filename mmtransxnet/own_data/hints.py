"""Why a folder has no annotations that are known."""

from pathlib import PurePosixPath

from mmtransxnet.engine.checks.pictures import IMAGE_SUFFIXES
from mmtransxnet.own_data.folder import Folder
from mmtransxnet.own_data.layouts.label_maps import LOSSLESS, MAPS
from mmtransxnet.own_data.parsing import read_text
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few, shorten

_EXPECTED = {
    '.csv': 'a CSV of boxes begins with image,xmin,ymin,xmax,ymax,label',
    '.txt': 'YOLO has a class number, then x, y, width and height from 0 to 1',
    '.json': "COCO's json has images, annotations and categories, LabelMe's "
    'has shapes and imagePath',
    '.xml': "Pascal VOC's XML has <annotation>; export CVAT's own as COCO",
}


def hint(folder: Folder) -> str:
    """Return the likely cause as a sentence, '' if there is none."""
    if not folder.pictures:
        suffixes = sorted({f.suffix.lower() for f in folder.files} - {''})
        return (
            f'it has no pictures ({", ".join(IMAGE_SUFFIXES)}), but '
            f'{first_few(suffixes) or "no files"}: convert them'
        )
    stems = {picture.stem for picture in folder.pictures}
    for suffix, expected in _EXPECTED.items():
        files = folder.with_suffix(suffix)
        # Other text files describe the data.
        if suffix == '.txt':
            files = [file for file in files if file.stem in stems]
        if files:
            return _hint_of(folder, files[0], expected)
    folders = {part.lower() for f in folder.pictures for part in f.parts[:-1]}
    if folders & set(MAPS):
        return (
            'label maps have the names of their pictures, and a format '
            f'without losses ({", ".join(LOSSLESS)})'
        )
    return ''


def _hint_of(folder: Folder, file: PurePosixPath, expected: str) -> str:
    try:
        lines = read_text(folder.root / file).splitlines()
    except UserError as error:
        return str(error)
    first = next((line for line in lines if line.strip()), '')
    return f'{file} begins with {shorten(first, 60)!r}, but {expected}'
