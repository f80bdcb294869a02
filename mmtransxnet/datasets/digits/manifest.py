"""The manifest of a finished set, by which it is recognised."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from .formats import write_json

MANIFEST = 'digits.json'

VERSION = 1
"""Increased with every change of pictures or annotations."""


def verify_manifest(
    root: Path, parameters: dict[str, int]
) -> dict[str, dict[str, int]]:
    """Check that the set at root is complete and has these parameters.

    Args:
        root: A folder with files.
        parameters: All options that shape the set.

    Returns:
        Counts per split, as written by ``write_manifest``.

    Raises:
        FileExistsError: It is something else; the message says what to do.
    """
    manifest = root / MANIFEST
    if not manifest.is_file():
        raise FileExistsError(
            f'{root} has files but no {MANIFEST}, so it is not a digits set: '
            'choose another root, or remove it'
        )
    rebuild = 'rebuild it with force (--force), or choose another root'
    try:
        content = json.loads(manifest.read_bytes())
        recorded = {'version': content['version'], **content['parameters']}
        counts, files = dict(content['counts']), dict(content['files'])
    except (ValueError, KeyError, TypeError) as error:
        raise FileExistsError(f'{manifest} is damaged: {rebuild}') from error
    requested = {'version': VERSION, **parameters}
    differing = [
        f'{name} {recorded.get(name)} instead of {value}'
        for name, value in requested.items()
        if recorded.get(name) != value
    ]
    if differing:
        raise FileExistsError(
            f'{root} holds a digits set with {", ".join(differing)}: {rebuild}'
        )
    present = _count_files(root)
    for folder, count in files.items():
        if present[folder] < count:
            raise FileExistsError(
                f'{root / folder} lacks {count - present[folder]} of '
                f'{count} files: {rebuild}'
            )
    return counts


def write_manifest(
    root: Path,
    parameters: dict[str, int],
    counts: dict[str, dict[str, int]],
) -> None:
    """Record a set whose files are all written.

    Args:
        root: Folder of the set.
        parameters: All options that shape the set.
        counts: Numbers of pictures and instances per split.
    """
    from sklearn import __version__ as sklearn_version

    manifest: dict[str, Any] = {
        'version': VERSION,
        'parameters': parameters,
        'counts': counts,
        'files': _count_files(root),
        'libraries': {
            'numpy': np.__version__,
            'pillow': PIL.__version__,
            'scikit-learn': sklearn_version,
        },
    }
    write_json(root / MANIFEST, manifest)


def _count_files(root: Path) -> Counter[str]:
    """Number of files in each folder, by path relative to root."""
    return Counter(
        {
            Path(folder).relative_to(root).as_posix(): len(files)
            for folder, _, files in os.walk(root)
            if files and Path(folder) != root
        }
    )
