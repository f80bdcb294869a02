"""The folder of an exported model: written completely or not at all."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmtransxnet.deploy.formats import FORMATS
from mmtransxnet.deploy.metadata import sha256_of
from mmtransxnet.utils.errors import UserError

DESCRIPTION = 'model.json'
RUNTIME = Path(__file__).with_name('runtime.py')


# Ends the name of a folder that is being written.
UNFINISHED = '.exporting'

# What an export writes, and what Python adds when predict.py is imported.
_OWN = {DESCRIPTION, 'README.md', 'predict.py', '__pycache__'}


def check_target(out: Path) -> None:
    """Check that a folder may be written, and what is in it replaced.

    Raises:
        UserError: It has other things than an exported model, or cannot be
            replaced.
    """
    found = names_in(out)
    if not found:
        return
    if not _is_export(out / DESCRIPTION):
        raise UserError(
            f'--out {out} has files that are not an exported model (no '
            f'{DESCRIPTION} of one); choose another folder'
        )
    others = found - _OWN - _model_files()
    if others:
        raise UserError(
            f'--out {out} would be replaced, but has other things than an '
            f'export: {", ".join(sorted(others))}; move them or choose '
            'another folder'
        )


def names_in(out: Path) -> set[str]:
    """Names of what would be replaced; none if there is no such folder.

    Raises:
        UserError: It is no folder, or one that cannot be replaced.
    """
    if not out.exists():
        return set()
    if not out.is_dir():
        raise UserError(f'--out {out} is a file, not a folder')
    if out.is_mount() or out.samefile(Path.cwd()):
        raise UserError(
            f'--out {out} is the current folder or a mounted one, which '
            'cannot be replaced; name a new folder in it'
        )
    return {entry.name for entry in out.iterdir()}


def _is_export(description: Path) -> bool:
    try:
        content = json.loads(description.read_text('utf-8'))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {'format_version', 'files'} <= set(
        content
    )


def _model_files() -> set[str]:
    rows = FORMATS.values()
    return {name for row in rows for name in (row.file, row.weights) if name}


@contextmanager
def unfinished(
    out: Path, check: Callable[[Path], None] = check_target
) -> Iterator[Path]:
    """A temporary folder beside the final one, which takes its place.

    After an error it is removed, and what was in the final one is left as it
    was.

    Args:
        out: The final folder.
        check: Raises an error if the final folder may not be replaced.

    Raises:
        UserError: It cannot be written.
    """
    check(out)
    out = out.resolve()
    with _naming_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(UNFINISHED, f'{out.name}-', out.parent))
    try:
        yield folder
        check(out)
        with _naming_errors(out):
            folder.chmod(0o777 & ~_umask())
            _take_place(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def leftovers(out: Path) -> list[Path]:
    """Temporary folders of earlier exports to the same place."""
    out = out.resolve()
    return sorted(
        path
        for path in out.parent.glob(f'*{UNFINISHED}')
        if path.name.startswith(f'{out.name}-')
    )


@contextmanager
def _naming_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f'--out {out} cannot be written ({error.strerror or error})'
        ) from error


def _take_place(folder: Path, out: Path) -> None:
    """Rename a folder; what was there before is removed afterwards."""
    if not out.exists():
        os.replace(folder, out)
        return
    before = folder.with_name(f'{folder.name}-before')
    os.replace(out, before)
    try:
        os.replace(folder, out)
    except OSError:
        os.replace(before, out)
        raise
    shutil.rmtree(before)


def _umask() -> int:
    """Rights that new files do not get; mkdtemp ignores it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def finish(
    folder: Path,
    description: Mapping[str, Any],
    precisions: Mapping[str, str],
) -> None:
    """Write all but the models.

    Args:
        folder: The folder, with the models.
        description: Content of ``model.json`` without ``files``.
        precisions: The formats that were written, and their precision.
    """
    entries = {}
    for name, precision in precisions.items():
        row = FORMATS[name]
        entries[name] = {
            'file': row.file,
            'precision': precision,
            'sha256': sha256_of(folder / row.file),
        }
        if row.weights:
            entries[name] |= {
                'weights': row.weights,
                'weights_sha256': sha256_of(folder / row.weights),
            }
    content = {**description, 'files': entries}
    text = json.dumps(content, indent=2) + '\n'
    (folder / DESCRIPTION).write_text(text, 'utf-8')
    (folder / 'README.md').write_text(readme(content), 'utf-8')
    shutil.copyfile(RUNTIME, folder / 'predict.py')


_RESULTS = {
    'classification': 'the scores of the classes',
    'segmentation': 'a label map',
    'detection': 'boxes with scores and labels',
}


def readme(content: Mapping[str, Any]) -> str:
    """The README of the folder, in Markdown."""
    files = content['files']
    rows = '\n'.join(
        f'| `{entry["file"]}` | {name} | {entry["precision"]} |'
        for name, entry in files.items()
    )
    engines = ' or '.join(
        {'onnx': 'onnxruntime'}.get(name, name) for name in files
    )
    engine = engines.split(' or ')[-1]
    result = _RESULTS[content['task']]
    if content['masks']:
        result += ' and masks'
    size = _size(content['input'])
    return f"""# {content['algorithm']}, {content['backbone']}

Exported by mmtransxnet {content['versions']['mmtransxnet']} from
`{content['config']}` and `{content['checkpoint']['file']}`. It turns pictures
into {result}; there are {len(content['classes'])} classes.

| file | format | precision |
|---|---|---|
{rows}

`predict.py` needs numpy, pillow and {engines}; PyTorch is not needed:

    pip install numpy pillow {engine}
    python predict.py photos/ --out drawn --json results.json

or in Python, with this folder in the path:

    from predict import load

    result = load('.')('photo.jpg')

The models take uint8 pictures, red, green, blue, `(batch, height, width, 3)`
({size}); normalisation and all that follows the network are
inside. `model.json` has the classes, the steps that a picture goes through
before, and how close the files are to PyTorch.
"""


def _size(entry: Mapping[str, Any]) -> str:
    batch = 'any batch' if entry['batch'] is None else f'{entry["batch"]} each'
    if entry['height'] is None:
        return f'{batch}, any size from 32 pixels'
    return f'{batch}, {entry["height"]} x {entry["width"]} pixels'
