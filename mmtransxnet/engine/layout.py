"""Is a data set laid out as a config reads it? Seconds, also for ImageNet.

Everything is listed and counted; only a sample of the pictures is opened.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransxnet.engine.samples import BadSampleError, check_picture

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.ppm', '.tif')

_SAMPLE = 32
"""Number of pictures of a split that are decoded, evenly spread."""

_SMALL_JSON = 64 * 2**20
"""Size in bytes up to which annotations are parsed. COCO's train split has
450 MB; its ends are looked at."""

_PUBLISHED_COUNTS = {
    ('ImageNet', 'train'): 1_281_167,
    ('ImageNet', 'val'): 50_000,
    ('CocoDataset', 'train2017'): 118_287,
    ('CocoDataset', 'val2017'): 5_000,
    ('ADE20KDataset', 'training'): 20_210,
    ('ADE20KDataset', 'validation'): 2_000,
}


@dataclass
class Layout:
    """What was found of one split.

    Attributes:
        split: ``'train'``, ``'val'`` or ``'test'``.
        folder: Folder of its pictures.
        images: Number of pictures found.
        expected: Number of pictures in the published set, None if unknown.
        problems: What would stop a run or spoil its result, a line each.
        samples: Those of the problems that are single missing or broken
            files, which a run may be told to skip.
        notes: What may be meant, a part of a published set.
    """

    split: str
    folder: Path
    images: int = 0
    expected: int | None = None
    problems: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add_samples(self, problem: str) -> None:
        """Add a problem that single files are."""
        self.problems.append(problem)
        self.samples.append(problem)


def inspect_layout(config: Config, splits: Sequence[str]) -> list[Layout]:
    """Look at all that the loaders of a config read.

    Args:
        config: The run.
        splits: Which of ``'train'``, ``'val'``, ``'test'``.
    """
    layouts = []
    seen = set()
    for split in splits:
        loader = config.get(f'{split}_dataloader') or {}
        for dataset in leaf_datasets(loader.get('dataset')):
            layout = _inspect(split, dataset)
            if (layout.folder, layout.images) not in seen:
                layouts.append(layout)
            seen.add((layout.folder, layout.images))
    return layouts


def leaf_datasets(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """The data sets inside any wrappers (repeat, concatenate, ...)."""
    if not isinstance(dataset, Mapping):
        return
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or [])]
    if inner == [None]:
        yield dataset
    for one in inner:
        yield from leaf_datasets(one)


def _inspect(split: str, dataset: Mapping[str, Any]) -> Layout:
    root = Path(dataset.get('data_root') or '')
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, str):
        prefix = {'img_path': prefix}
    folders = {name: root / value for name, value in prefix.items()}
    if dataset.get('type') == 'ImageNet' and not folders:
        folders = {'img_path': root / dataset.get('split', '')}
    pictures = folders.get('img_path') or folders.get('img') or root
    layout = Layout(split, pictures)
    paths = [root, *folders.values()]
    if dataset.get('ann_file'):
        paths.append(root / dataset['ann_file'])
    missing = [path for path in paths if not path.exists()]
    if missing:
        # Of a missing root, the rest is missing too: one line is enough.
        layout.problems.append(f'{missing[0]} does not exist')
        return layout
    layout.expected = _PUBLISHED_COUNTS.get(
        (str(dataset.get('type')), pictures.name)
    )
    if 'seg_map_path' in folders:
        found = _check_label_maps(layout, folders['seg_map_path'], dataset)
    elif str(dataset.get('ann_file', '')).endswith('.json'):
        found = _check_coco(layout, root / dataset['ann_file'])
    else:
        found = _check_classes(layout, dataset)
    layout.images = len(found)
    _check_count(layout)
    _check_sample(layout, found)
    return layout


def _pictures(folder: Path, suffix: str | None = None) -> list[str]:
    """Sorted paths of the pictures in a folder."""
    suffixes = (suffix,) if suffix else IMAGE_SUFFIXES
    with os.scandir(folder) as entries:
        return sorted(
            entry.path
            for entry in entries
            if entry.name.lower().endswith(suffixes)
        )


def _check_classes(layout: Layout, dataset: Mapping[str, Any]) -> list[str]:
    """A folder for each class, as in ImageNet."""
    with os.scandir(layout.folder) as entries:
        classes = sorted(entry.path for entry in entries if entry.is_dir())
    found = []
    empty = []
    for folder in classes:
        pictures = _pictures(Path(folder))
        found += pictures
        if not pictures:
            empty.append(Path(folder).name)
    if not classes:
        layout.problems.append(
            f'{layout.folder} has no class folders (a folder of pictures for '
            'each class)'
        )
    elif dataset.get('type') == 'ImageNet' and len(classes) != 1000:
        layout.problems.append(
            f'{layout.folder} has {len(classes)} class folders, not 1000: '
            'labels would be wrong'
        )
    if empty:
        layout.problems.append(
            f'{len(empty)} class folders without pictures: {_some(empty)}'
        )
    return found


def _check_coco(layout: Layout, annotations: Path) -> list[str]:
    """Annotations beside a folder of pictures."""
    found = _pictures(layout.folder)
    if annotations.stat().st_size > _SMALL_JSON:
        with annotations.open('rb') as file:
            first = file.read(1)
            file.seek(-64, os.SEEK_END)
            last = file.read().strip()[-1:]
        if (first, last) != (b'{', b'}'):
            layout.problems.append(f'{annotations} is not whole')
        return found
    try:
        document = json.loads(annotations.read_bytes())
        wanted = {image['file_name'] for image in document['images']}
    except (ValueError, KeyError, TypeError) as error:
        layout.problems.append(
            f'{annotations} is no COCO annotation ({error!r})'
        )
        return found
    missing = sorted(wanted - {os.path.basename(path) for path in found})
    missing = [n for n in missing if not (layout.folder / n).is_file()]
    if missing:
        layout.add_samples(
            f'{len(missing)} of {len(wanted)} annotated pictures are not in '
            f'{layout.folder}: {_some(missing)}'
        )
    return found


def _check_label_maps(
    layout: Layout, labels: Path, dataset: Mapping[str, Any]
) -> list[str]:
    """A label map for each picture, as in ADE20K."""
    found = _pictures(layout.folder, dataset.get('img_suffix', '.jpg'))
    maps = {
        os.path.basename(path)
        for path in _pictures(labels, dataset.get('seg_map_suffix', '.png'))
    }
    suffix = dataset.get('seg_map_suffix', '.png')
    wanted = [Path(path).stem + suffix for path in found]
    missing = [name for name in wanted if name not in maps]
    if missing:
        layout.add_samples(
            f'{len(missing)} pictures without a label map in {labels}: '
            f'{_some(missing)}'
        )
    return found


def _check_count(layout: Layout) -> None:
    if not layout.images:
        layout.problems.append(f'{layout.folder} has no pictures')
    elif layout.expected and layout.images < layout.expected:
        layout.notes.append(
            f'{layout.folder} has {layout.images} pictures of '
            f'{layout.expected}'
        )


def _check_sample(layout: Layout, paths: list[str]) -> None:
    """Decode a few pictures; the first broken one is a problem."""
    step = max(1, len(paths) // _SAMPLE)
    for path in paths[::step]:
        try:
            check_picture(path, decode=True)
        except BadSampleError as error:
            layout.add_samples(str(error))
            return


def _some(names: Sequence[str]) -> str:
    return ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
