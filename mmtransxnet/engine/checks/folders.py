"""Is a data set laid out as a config reads it? Seconds, also for ImageNet.

Everything is listed and counted; only a sample of the pictures is opened.
A data set that lists its samples in a way that is not known here, or is not
on a local disk, is not looked at. That is a note: it may well be right.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmtransxnet.engine.checks.dataset_types import (
    Loading,
    class_of,
    is_a_librarys,
    leaf_datasets,
    loading_of,
    owner_of,
    reads_local_files,
)
from mmtransxnet.engine.checks.listings import LISTED_BY, LISTINGS, Listing
from mmtransxnet.engine.checks.pictures import BadSampleError, check_picture
from mmtransxnet.utils.errors import in_a_line

_SAMPLE = 32
"""Number of pictures of a split that are decoded, evenly spread."""

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
        folder: Folder of its pictures; of all of it where it is not known.
        images: Number of pictures found.
        expected: Number of pictures in the published set, None if unknown.
        problems: What would stop a run or spoil its result, a line each.
        samples: Those of the problems that are single missing or broken
            files, which a run may be told to skip.
        notes: What may be meant, such as a part of a published set.
        unchecked: What was not looked at, and why; '' if all was.
    """

    split: str
    folder: Path
    images: int = 0
    expected: int | None = None
    problems: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unchecked: str = ''

    def tells_the_same(self, other: 'Layout') -> bool:
        """Whether another split, too, is nothing but this one."""
        return vars(self) | {'split': ''} == vars(other) | {'split': ''}


def inspect_layout(config: Config, splits: Sequence[str]) -> list[Layout]:
    """Look at all that the loaders of a config read.

    Args:
        config: The run.
        splits: Which of ``'train'``, ``'val'``, ``'test'``.
    """
    layouts: list[Layout] = []
    scope = config.get('default_scope', 'mmengine')
    with DefaultScope.overwrite_default_scope(scope):
        for split in splits:
            loader = config.get(f'{split}_dataloader')
            # A loop of one's own may take something else.
            described = loader if isinstance(loader, Mapping) else {}
            for dataset in leaf_datasets(described.get('dataset')):
                layout = _inspect(split, dataset)
                if not any(one.tells_the_same(layout) for one in layouts):
                    layouts.append(layout)
    return layouts


def _inspect(split: str, dataset: Mapping[str, Any]) -> Layout:
    kind = class_of(dataset, DATASETS)
    name = str(getattr(kind, '__name__', dataset.get('type')))
    listing, loading = _list(dataset, kind)
    layout = Layout(
        split,
        listing.folder,
        images=len(listing.pictures),
        expected=_PUBLISHED_COUNTS.get((name, listing.folder.name)),
        problems=listing.problems,
        samples=listing.samples,
        notes=listing.notes,
    )
    if listing.unchecked:
        root = dataset.get('data_root') or '.'
        layout.unchecked = f'{name} in {root}: {listing.unchecked}'
    elif not layout.problems or layout.images:
        _check_count(layout)
    if loading.decoded:
        _check_sample(layout, listing.used)
    return layout


def _list(dataset: Mapping[str, Any], kind: Any) -> tuple[Listing, Loading]:
    """What a data set lists, and how it loads that."""
    unknown = Listing(Path(str(dataset.get('data_root') or '')))
    look = LISTINGS.get(owner_of(kind, 'load_data_list'))
    if look is None or not is_a_librarys(kind, *LISTED_BY):
        unknown.unchecked = 'it lists its samples in a way not known here'
        return unknown, Loading()
    try:
        # Its own paths, suffixes and defaults; nothing is listed yet.
        described = {**copy.deepcopy(dict(dataset)), 'lazy_init': True}
        built = DATASETS.build(described)
    # Whatever the constructor of a data set raises.
    except Exception as error:
        # Another's constructor may make other paths of what it is given.
        named = _paths_of(dataset) if is_a_librarys(kind, '__init__') else ['']
        if not unknown.lacks(*named):
            unknown.unchecked = f'it cannot be described ({in_a_line(error)})'
        return unknown, Loading()
    paths = (built.ann_file, built.data_root, *built.data_prefix.values())
    if any('://' in str(path) for path in paths) or not reads_local_files(
        getattr(built, 'backend_args', None)
    ):
        unknown.unchecked = 'it is not on a local disk'
        return unknown, Loading()
    loading = loading_of(built)
    try:
        return look(built, loading), loading
    # Files that hold something else than its kind of data set has.
    except Exception as error:
        unknown.unchecked = f'it cannot be listed ({in_a_line(error)})'
        return unknown, Loading()


def _paths_of(dataset: Mapping[str, Any]) -> list[str]:
    """The root of a data set, and what its config names in it."""
    root = str(dataset.get('data_root') or '')
    prefix = dataset.get('data_prefix') or {}
    folders = prefix.values() if isinstance(prefix, Mapping) else [prefix]
    named = [*folders, dataset.get('ann_file')]
    paths = [
        os.path.join(root, path)
        for path in named
        if isinstance(path, str) and '://' not in os.path.join(root, path)
    ]
    return [root, *paths]


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
            layout.problems.append(str(error))
            layout.samples.append(str(error))
            return
