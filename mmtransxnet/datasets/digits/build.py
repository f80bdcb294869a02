"""Build the digits set: real images without a download.

Handwritten digits on photographs, all from images that scikit-learn
bundles, in three layouts under one root::

    digits.json                              what was built; written last
    coco/{train,val}/000001.jpg              scenes
    coco/annotations/instances_{train,val}.json
    ade/images/{training,validation}/        the same scenes
    ade/annotations/{training,validation}/   label maps (PNG)
    imagenet/{train,val}/{0..9}/             single digits
    imagenet/{train,val}.json                where each single comes from

Label maps are in the style of ADE20K: 0 is 'other', 1 background, and 2 + d
digit d. With ``reduce_zero_label=True``, 0 is background, 1 + d is digit d
(``SEG_CLASSES``), and 255 (not present) is ignored.

No scan and no pixel of a photograph is in both parts: the annotations carry
``digit_index``, ``photo`` and ``photo_box`` (x, y, w, h) to prove it.
"""

import itertools
import json
import operator
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .formats import write_scenes, write_singles
from .manifest import MANIFEST, verify_manifest, write_manifest
from .scans import SPLITS, load_sources

SIZES = (64, 2048)


@dataclass(frozen=True)
class DigitsSet:
    """A finished set.

    Attributes:
        root: Its folder.
        counts: Per split, the number of ``'scenes'``, ``'instances'`` in
            them, and ``'singles'``.
        built: False if an equal set existed already.
    """

    root: Path
    counts: dict[str, dict[str, int]]
    built: bool


def build_digits(
    root: str | os.PathLike,
    *,
    size: int = 160,
    train_images: int = 800,
    val_images: int = 160,
    renderings: int = 4,
    single_size: int | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> DigitsSet:
    """Build the digits set under root, or verify an existing one.

    The set appears under root only when it is complete: it is built in a
    hidden folder ``.{name}.*.building`` beside root, which only a killed
    process leaves behind; it can be deleted. The bytes depend only on the
    options and the versions of Pillow, numpy and scikit-learn.

    Args:
        root: Folder to create, with its parents.
        size: Side of a scene in pixels.
        train_images: Number of training scenes.
        val_images: Number of validation scenes.
        renderings: Single pictures of each training scan. Validation has one
            picture per scan.
        single_size: Side of a single picture in pixels; None is two fifths
            of size, which holds all but the tallest digits.
        seed: Seed of all randomness but the split, which is fixed.
        force: Whether to replace an existing digits set.
        progress: Called with the number of pictures done and in total.

    Returns:
        The set, with ``built=False`` if an equal one existed.

    Raises:
        TypeError: An option is not an integer.
        ValueError: An option is out of range.
        ImportError: scikit-learn or pycocotools is not installed.
        FileExistsError: Something else is at root: files, another set, or
            one that lacks files.
        OSError: Root cannot be written.
    """
    parameters = _parameters(
        size=size,
        train_images=train_images,
        val_images=val_images,
        renderings=renderings,
        single_size=single_size,
        seed=seed,
    )
    # Links are kept: their target is replaced.
    root = Path(root).resolve()
    if _is_occupied(root) and not (force and (root / MANIFEST).is_file()):
        return DigitsSet(root, verify_manifest(root, parameters), built=False)
    with _scratch_folder(root) as scratch:
        new = Path(scratch) / 'new'
        new.mkdir()
        counts = _build(new, parameters, progress)
        _publish(new, root, parameters, force)
    return DigitsSet(root, counts, built=True)


def _parameters(**options: int | None) -> dict[str, int]:
    """Options as recorded in the manifest, each checked."""
    if options['single_size'] is None:
        del options['single_size']
    parameters = {
        name: _checked_int(name, value) for name, value in options.items()
    }
    parameters.setdefault('single_size', parameters['size'] * 2 // 5)
    limits = {
        'size': SIZES,
        'train_images': (1, 999_999),
        'val_images': (1, 999_999),
        'renderings': (1, 1000),
        'single_size': (1, SIZES[1]),
        'seed': (0, 2**32 - 1),
    }
    for name, (low, high) in limits.items():
        if not low <= parameters[name] <= high:
            raise ValueError(
                f'{name} must be from {low} to {high}, not {parameters[name]}'
            )
    single, size = parameters['single_size'], parameters['size']
    smallest = -(-size * 9 // 32)  # holds digits up to 5/4 of the smallest
    if not smallest <= single <= size:
        raise ValueError(
            f'single_size {single} does not fit scenes of size {size}, '
            'whose digits it shows at the same scale: choose one from '
            f'{smallest} to {size}'
        )
    return parameters


def _checked_int(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f'{name} must be an integer, not {value!r}') from None


def _is_occupied(root: Path) -> bool:
    if root.exists() and not root.is_dir():
        raise FileExistsError(f'{root} is a file: choose another root')
    return root.is_dir() and any(root.iterdir())


def _scratch_folder(root: Path) -> tempfile.TemporaryDirectory:
    """Create a folder beside root, on the same file system."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(
            prefix=f'.{root.name}.', suffix='.building', dir=root.parent
        )
    except OSError as error:
        raise type(error)(
            f'cannot write to {root.parent} ({error.strerror}): '
            'choose another root'
        ) from error


def _build(
    root: Path,
    parameters: dict[str, int],
    progress: Callable[[int, int], None] | None,
) -> dict[str, dict[str, int]]:
    """Write all files under root, an empty folder, the manifest last."""
    sources = load_sources()
    size, seed = parameters['size'], parameters['seed']
    renderings = {'train': parameters['renderings'], 'val': 1}
    counts: dict[str, dict[str, int]] = {}
    writers = []
    for split in SPLITS:
        scenes = parameters[f'{split}_images']
        singles = renderings[split] * len(sources.pools[split])
        counts[split] = {'scenes': scenes, 'singles': singles}
        writers += [
            write_scenes(
                root, sources, split, count=scenes, size=size, seed=seed
            ),
            write_singles(
                root,
                sources,
                split,
                renderings=renderings[split],
                size=parameters['single_size'],
                scene_size=size,
                seed=seed,
            ),
        ]
    total = sum(sum(numbers.values()) for numbers in counts.values())
    for done, _ in enumerate(itertools.chain(*writers), 1):
        if progress is not None:
            progress(done, total)
    for split in SPLITS:
        counts[split]['instances'] = _count_instances(root, split)
    write_manifest(root, parameters, counts)
    return counts


def _count_instances(root: Path, split: str) -> int:
    path = root / 'coco' / 'annotations' / f'instances_{split}.json'
    return len(json.loads(path.read_bytes())['annotations'])


def _publish(
    new: Path, root: Path, parameters: dict[str, int], force: bool
) -> None:
    """Rename a finished set to root, replacing an old one if forced."""
    if force and _is_occupied(root):
        # The old set is deleted with the scratch folder.
        root.rename(new.with_name('old'))
    try:
        new.rename(root)
    except OSError:
        if not _is_occupied(root):
            raise
        # Another process, such as another rank, was faster: compare.
        verify_manifest(root, parameters)
