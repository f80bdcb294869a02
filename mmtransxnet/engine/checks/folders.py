"""Check the folders of data sets, in seconds even for ImageNet.

The data set itself lists its samples, all files are looked up, and some of the
pictures are decoded. A data set that lists its samples in an unknown way, or
is not on a local disk, is not checked. That is a note, not a problem, since it
may be valid.
"""

import contextlib
import copy
import io
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmtransxnet.engine.checks.boxes import load_without_bad_boxes
from mmtransxnet.engine.checks.dataset_types import (
    Loading,
    are_from_libraries,
    class_of,
    datasets_of,
    defining_class,
    loading_of,
    reads_local_files,
)
from mmtransxnet.engine.checks.pictures import (
    IMAGE_SUFFIXES,
    CorruptSampleError,
    check_picture,
)
from mmtransxnet.utils.errors import in_a_line
from mmtransxnet.utils.text import first_few

_DECODED = 32
"""Number of pictures of a split that are decoded, evenly spread."""

_PUBLISHED_COUNTS = {
    ('ImageNet', 'train'): 1_281_167,
    ('ImageNet', 'val'): 50_000,
    ('CocoDataset', 'train2017'): 118_287,
    ('CocoDataset', 'val2017'): 5_000,
    ('ADE20KDataset', 'training'): 20_210,
    ('ADE20KDataset', 'validation'): 2_000,
}

# Classes whose ``load_data_list`` may be called. Others may wait for other
# processes in it, as mmpretrain's CIFAR10 does.
_KNOWN_LISTS = (
    'mmengine.BaseDataset',
    'mmpretrain.CustomDataset',
    'mmdet.CocoDataset',
    'mmdet.XMLDataset',
    'mmseg.BaseSegDataset',
)
# Methods that list samples, in any of these classes. A data set that overrides
# one of them may list other samples or other paths.
_LISTING_METHODS = (
    'load_data_list',
    'parse_data_info',
    'full_init',
    'filter_data',
    '_join_prefix',
    '_find_samples',
)

_LARGE = 64 * 2**20
"""Size in bytes from which annotations are not read. COCO's train split has
450 MB; only its ends are read."""


@dataclass
class FolderReport:
    """The findings for one data set.

    Attributes:
        split: ``'train'``, ``'val'`` or ``'test'``.
        folder: Folder of its pictures; its root if that is unknown.
        images: Number of pictures found.
        expected: Number of pictures in the published set, None if unknown.
        problems: What would stop a run or falsify its result, one line each.
        samples: The subset of problems that concern single missing or broken
            files, which a run may skip.
        notes: What may be intended, such as a part of a published set.
        unchecked: What was not checked, and why; '' if all was.
    """

    split: str = field(compare=False)
    folder: Path
    images: int = 0
    expected: int | None = None
    problems: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unchecked: str = ''

    def lacks(self, root: str | None, *paths: str | None) -> bool:
        """Whether a path is missing, which is added as a problem.

        Args:
            root: Their common folder; if it is missing, only it is reported.
            paths: Files and folders; empty ones are ignored.
        """
        for path in filter(None, paths):
            if not os.path.exists(path):
                inside = root and Path(path).is_relative_to(root)
                if root and inside and not os.path.exists(root):
                    path = root
                self.problems.append(f'{Path(path)} does not exist')
                return True
        return False

    def add_sample(self, problem: str) -> None:
        """Add a problem that concerns single files."""
        self.problems.append(problem)
        self.samples.append(problem)


def inspect_layout(
    config: Config, splits: Sequence[str]
) -> list[FolderReport]:
    """Check the files that the loaders of a config read.

    Args:
        config: The run.
        splits: Which of ``'train'``, ``'val'``, ``'test'``.

    Returns:
        A report for each data set; splits with equal findings share one.
    """
    reports: list[FolderReport] = []
    scope = config.get('default_scope', 'mmengine')
    with DefaultScope.overwrite_default_scope(scope):
        for split in splits:
            for dataset in datasets_of(config, split):
                report = _inspect(split, dataset)
                if report not in reports:
                    reports.append(report)
    return reports


def _inspect(split: str, description: Mapping[str, Any]) -> FolderReport:
    cls = class_of(description, DATASETS)
    name = str(getattr(cls, '__name__', description.get('type')))
    root = str(description.get('data_root') or '')
    report = FolderReport(split, Path(root))
    dataset = _build(report, description, cls)
    pictures: list[str] = []
    if dataset is not None:
        names = ('img_path', 'img', 'sub_data_root')
        prefixes = filter(None, map(dataset.data_prefix.get, names))
        report.folder = Path(next(prefixes, ''))
        loading = loading_of(dataset)
        # pycocotools prints its progress.
        with contextlib.redirect_stdout(io.StringIO()):
            pictures = _find_pictures(report, dataset, loading)
        report.images = len(pictures)
        # Which files of a folder it reads is unknown.
        if loading.decoded and (
            dataset._fully_initialized or dataset._indices is None
        ):
            _check_some(report, pictures)
    report.expected = _PUBLISHED_COUNTS.get((name, report.folder.name))
    if report.unchecked:
        report.unchecked = f'{name} in {root or "."}: {report.unchecked}'
    elif not pictures:
        if not report.problems:
            report.problems.append(f'{report.folder} has no pictures')
    elif len(pictures) < (report.expected or 0):
        report.notes.append(
            f'{report.folder} has {report.images} pictures of '
            f'{report.expected}'
        )
    return report


def _build(
    report: FolderReport, description: Mapping[str, Any], cls: Any
) -> Any:
    """Build a data set without listing its samples; None if unknown."""
    lists = defining_class(cls, 'load_data_list')
    known = lists in _KNOWN_LISTS
    if not known or not are_from_libraries(cls, *_LISTING_METHODS):
        report.unchecked = 'it lists its samples in an unknown way'
        return None
    try:
        # Its own paths, suffixes and defaults.
        dataset: Any = DATASETS.build(
            {**copy.deepcopy(dict(description)), 'lazy_init': True}
        )
    # Constructors of data sets may raise any error.
    except Exception as error:
        # A user-defined constructor may derive other paths.
        known = are_from_libraries(cls, '__init__')
        if not known or not report.lacks(*_paths_of(description)):
            report.unchecked = f'it cannot be described ({in_a_line(error)})'
        return None
    folders = dataset.data_prefix.values()
    if any(
        '://' in str(path)
        for path in (dataset.ann_file, dataset.data_root, *folders)
    ) or not reads_local_files(getattr(dataset, 'backend_args', None)):
        report.unchecked = 'it is not on a local disk'
        return None
    dataset.serialize_data = False
    return dataset


def _paths_of(description: Mapping[str, Any]) -> list[str]:
    """The root of a data set and the paths that its config names."""
    root = str(description.get('data_root') or '')
    prefix = description.get('data_prefix') or {}
    folders = prefix.values() if isinstance(prefix, Mapping) else [prefix]
    paths = [
        os.path.join(root, path)
        for path in (*folders, description.get('ann_file'))
        if isinstance(path, str)
    ]
    return [root, *(path for path in paths if '://' not in path)]


def _find_pictures(
    report: FolderReport, dataset: Any, loading: Loading
) -> list[str]:
    """Look up all files that a data set lists; return the pictures."""
    root, annotations = dataset.data_root, dataset.ann_file
    if report.lacks(root, annotations):
        return []
    lists = defining_class(type(dataset), 'load_data_list')
    if lists == 'mmpretrain.CustomDataset' and dataset.with_label:
        if not annotations:
            return _scan_classes(report, dataset)
    elif _is_large(annotations):
        if lists == 'mmdet.CocoDataset':
            return _scan_large_coco(report, dataset, loading)
        report.unchecked = 'its samples'
        return []
    try:
        load_without_bad_boxes(dataset)
    # The files are not what this type of data set reads.
    except Exception as error:
        if not report.lacks(root, *dataset.data_prefix.values()):
            reason = _bad_line(dataset) or (
                f'{annotations or report.folder} cannot be read by '
                f'{type(dataset).__name__} ({in_a_line(error)})'
            )
            report.problems.append(reason)
        return []
    return _look_for(report, dataset, loading)


def _is_large(annotations: str | None) -> bool:
    if not annotations or not os.path.isfile(annotations):
        return False
    return os.path.getsize(annotations) > _LARGE


def _bad_line(dataset: Any) -> str:
    """Find the first invalid line of mmpretrain's annotation file."""
    if not getattr(dataset, 'with_label', False):
        return ''
    lines = Path(dataset.ann_file).read_text(errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip().rpartition(' ')[2].isdigit() or ' ' not in line:
            return (
                f'{dataset.ann_file}, line {number}: {line[:80]!r} is not a '
                'picture, a space and the number of its class'
            )
    return ''


def _look_for(
    report: FolderReport, dataset: Any, loading: Loading
) -> list[str]:
    """Look up the files of listed samples; return the pictures."""
    infos = dataset.data_list
    paths = list(dict.fromkeys(info.get('img_path') for info in infos))
    if not all(isinstance(path, str) for path in paths):
        report.unchecked = 'its samples'
        return []
    if not loading.files:
        report.unchecked = 'its pictures, which are loaded in another way'
        return paths
    missing = _missing(paths)
    if missing and not report.lacks(dataset.data_root, str(report.folder)):
        report.add_sample(
            f'{len(missing)} of {len(paths)} annotated pictures are not in '
            f'{report.folder}: {_first_below(report.folder, missing)}'
        )
    labels = dataset.data_prefix.get('seg_map_path')
    if labels and not loading.label_maps:
        report.unchecked = 'its label maps, which are loaded in another way'
    elif labels and not report.lacks(dataset.data_root, labels):
        unlabelled = _missing(info['seg_map_path'] for info in infos)
        if unlabelled:
            report.add_sample(
                f'{len(unlabelled)} pictures without a label map in '
                f'{Path(labels)}: {_first_below(labels, unlabelled)}'
            )
    gone = set(missing)
    return [path for path in paths if path not in gone]


def _scan_classes(report: FolderReport, dataset: Any) -> list[str]:
    """List mmpretrain's class folders, ten times as fast as mmpretrain."""
    if report.lacks(dataset.data_root, str(report.folder)):
        return []
    with os.scandir(report.folder) as entries:
        classes = sorted(entry.path for entry in entries if entry.is_dir())
    pictures: list[str] = []
    empty = []
    for folder in classes:
        valid = sorted(filter(dataset.is_valid_file, _files(folder)))
        pictures += valid
        if not valid:
            empty.append(Path(folder).name)
    expected = dataset.CLASSES and len(dataset.CLASSES)
    if not classes:
        report.problems.append(
            f'{report.folder} has no class folders (a folder of pictures for '
            'each class)'
        )
    elif expected and len(classes) != expected:
        report.problems.append(
            f'{report.folder} has {len(classes)} class folders, not '
            f'{expected}: labels would be wrong'
        )
    if empty:
        # A data set may lack examples of a class; ImageNet does not.
        is_imagenet = type(dataset).__name__ == 'ImageNet'
        (report.problems if is_imagenet else report.notes).append(
            f'{len(empty)} class folders without pictures: {first_few(empty)}'
        )
    return pictures


def _scan_large_coco(
    report: FolderReport, dataset: Any, loading: Loading
) -> list[str]:
    """Check COCO's picture folder and both ends of its annotations."""
    pictures: list[str] = []
    folder = dataset.data_prefix.get('img')
    if (
        folder
        and loading.files
        and not report.lacks(dataset.data_root, folder)
    ):
        pictures = sorted(
            path
            for path in _files(folder)
            if path.lower().endswith(IMAGE_SUFFIXES)
        )
    if not pictures:  # perhaps listed with other paths
        report.unchecked = 'its pictures, which its folder does not have'
    with open(dataset.ann_file, 'rb') as file:
        first = file.read(1)
        file.seek(-64, os.SEEK_END)
        last = file.read().strip()[-1:]
    if (first, last) != (b'{', b'}'):
        report.problems.append(f'{dataset.ann_file} is incomplete')
    return pictures


def _files(folder: str | Path) -> Iterator[str]:
    """Files in a folder and its subfolders, as mmengine lists them."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith('.') and entry.is_file():
                yield entry.path
            elif entry.is_dir():
                yield from _files(entry.path)


def _missing(paths: Iterable[str]) -> list[str]:
    """List the missing files; every folder is read only once."""
    in_folder = defaultdict(list)
    for path in paths:
        in_folder[os.path.dirname(path)].append(path)
    missing = []
    for folder, wanted in in_folder.items():
        try:
            existing = set(os.listdir(folder or '.'))
        except OSError:
            existing = set()
        missing += [
            path
            for path in wanted
            # Some file systems accept other spellings of a name.
            if os.path.basename(path) not in existing
            and not os.path.isfile(path)
        ]
    return sorted(missing)


def _first_below(folder: str | Path, paths: Sequence[str]) -> str:
    return first_few([os.path.relpath(path, folder) for path in paths[:4]])


def _check_some(report: FolderReport, paths: list[str]) -> None:
    """Decode a few pictures; report the first broken one."""
    step = max(1, len(paths) // _DECODED)
    for path in paths[::step]:
        try:
            check_picture(path, decode=True)
        except CorruptSampleError as error:
            report.add_sample(str(error))
            return
