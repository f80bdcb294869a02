"""A static page that runs exported models in the browser.

The page and the engine, onnxruntime-web, are files: a server only has to
hand them out. The page's own files are in ``page/``.
"""

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmtransxnet.deploy.browser_graph import write_for_browser
from mmtransxnet.deploy.folder import DESCRIPTION, names_in, unfinished
from mmtransxnet.deploy.metadata import sha256_of
from mmtransxnet.deploy.runtime import ModelError, checked_file, read_info
from mmtransxnet.utils.errors import UserError

PACKAGE = 'onnxruntime-web'
VERSION = '1.30.0'
_SHA256 = 'd2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71'
_SECONDS = 600  # for 33 MB
_FILES = (
    'ort.wasm.min.mjs',
    'ort-wasm-simd-threaded.mjs',
    'ort-wasm-simd-threaded.wasm',
)

_PAGE = Path(__file__).with_name('page')
_MODELS = 'models.json'
_INDEX = 'index.html'
_FOLDERS = {'models', 'runtime'}


def write_site(
    exported: Sequence[Path], out: Path, runtime: Path | None = None
) -> None:
    """Write the page, the engine and the models into a folder.

    Args:
        exported: Folders that tools/export.py has written.
        out: The folder; an earlier page in it is replaced.
        runtime: Folder with the files of onnxruntime-web; by default they
            are fetched with npm.

    Raises:
        UserError: A model cannot be run in the browser, a package is
            missing, the engine cannot be fetched, or the folder has something
            else. Nothing is written.
    """
    if find_spec('onnx') is None:
        raise UserError(
            "onnx is not installed: pip install 'mmtransxnet[export]'"
        )
    models = [_checked(folder) for folder in exported]
    _check_target(out)
    engine = fetch_runtime() if runtime is None else _with_files(runtime)
    with unfinished(out, _check_target) as site:
        _copy_models(models, site)
        (site / 'runtime').mkdir()
        for name in _FILES:
            shutil.copyfile(engine / name, site / 'runtime' / name)
        for path in _page_files():
            shutil.copyfile(path, site / path.name)


def _page_files() -> list[Path]:
    return sorted(path for path in _PAGE.iterdir() if path.is_file())


# ---- Models ------------------------------------------------------------


def _checked(folder: Path) -> tuple[Path, dict[str, Any], Path]:
    """A folder, its description and its ONNX file."""
    try:
        info = read_info(folder)
        if 'onnx' not in info['files']:
            raise UserError(
                f'{folder} has no ONNX file, which the browser runs: export '
                'it with --format onnx'
            )
        return folder, info, checked_file(folder, info['files']['onnx'])
    except ModelError as error:
        raise UserError(str(error)) from error


def _copy_models(
    models: Sequence[tuple[Path, Mapping[str, Any], Path]], site: Path
) -> None:
    entries = []
    for index, (folder, info, path) in enumerate(models):
        place = f'models/{index}'
        (site / place).mkdir(parents=True)
        file = site / place / path.name
        write_for_browser(path, file)
        entry = {**info['files']['onnx'], 'sha256': sha256_of(file)}
        (site / place / DESCRIPTION).write_text(
            json.dumps({**info, 'files': {'onnx': entry}}, indent=2), 'utf-8'
        )
        entries.append({'folder': place, 'title': _title(folder, info)})
    (site / _MODELS).write_text(json.dumps(entries, indent=2), 'utf-8')


def _title(folder: Path, info: Mapping[str, Any]) -> str:
    """What the page calls a model."""
    parts = [info.get('algorithm', info['task']), info.get('backbone')]
    described = ', '.join(part for part in parts if part)
    return f'{folder.resolve().name}: {described}'


# ---- The engine --------------------------------------------------------


def fetch_runtime() -> Path:
    """The folder with onnxruntime-web's files, fetched once with npm.

    Raises:
        UserError: npm is missing, or it fails.
    """
    home = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    cache = Path(home) / 'mmtransxnet' / f'{PACKAGE}-{VERSION}'
    if not _missing(cache):
        return cache
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as folder:
            _extract(_packed(Path(folder)), Path(folder))
            # Another process may have written the same files meanwhile.
            cache.mkdir(exist_ok=True)
            for name in _FILES:
                os.replace(Path(folder) / name, cache / name)
    except OSError as error:
        raise UserError(
            f'{cache} cannot be written ({error.strerror or error}): name '
            'another folder in XDG_CACHE_HOME, or one with the files by '
            '--runtime'
        ) from error
    return cache


def _with_files(folder: Path) -> Path:
    """A folder with onnxruntime-web's files, or its parent."""
    for candidate in (folder, folder / 'dist'):
        if not _missing(candidate):
            return candidate
    raise UserError(
        f'--runtime {folder} has no {", ".join(_missing(folder))}: name the '
        f'folder dist of the npm package {PACKAGE} {VERSION}'
    )


def _missing(folder: Path) -> list[str]:
    return [name for name in _FILES if not (folder / name).is_file()]


def _packed(folder: Path) -> Path:
    """The package as npm gives it, compared with its checksum."""
    name = f'{PACKAGE}@{VERSION}'
    npm = shutil.which('npm')
    if npm is None:
        raise UserError(
            f'npm, which fetches {name}, is not installed: install Node.js, '
            'or name a folder that has the files of its folder dist by '
            '--runtime'
        )
    command = [npm, 'pack', name, '--silent', '--ignore-scripts']
    try:
        # The folder is npm's own: no package.json above it is read.
        subprocess.run(
            command,
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
    except (subprocess.SubprocessError, OSError) as error:
        told = (getattr(error, 'stderr', None) or str(error)).strip()
        reason = told.splitlines()[-1] if told else 'no message'
        raise UserError(
            f'npm cannot fetch {name} ({reason}): check the network, or name '
            'a folder that has the files of its folder dist by --runtime'
        ) from error
    archive = folder / f'{PACKAGE}-{VERSION}.tgz'
    if sha256_of(archive) != _SHA256:
        raise UserError(
            f'{name} from npm has not the expected SHA-256: check where npm '
            'fetches from (npm config get registry)'
        )
    return archive


def _extract(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as content:
        for name in _FILES:
            member = content.extractfile(f'package/dist/{name}')
            assert member is not None  # the checksum is that of the version
            with member, (folder / name).open('wb') as file:
                shutil.copyfileobj(member, file)


# ---- The folder --------------------------------------------------------


def _check_target(out: Path) -> None:
    """Check that a folder may be written, and what is in it replaced."""
    found = names_in(out)
    own = {path.name for path in _page_files()} | {_MODELS} | _FOLDERS
    if found and (found - own or not {_INDEX, _MODELS} <= found):
        raise UserError(
            f'--out {out} has other things than a page of this tool: '
            f'{", ".join(sorted(found - own)) or "no page"}; choose another '
            'folder'
        )
