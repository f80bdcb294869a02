"""What the data sets of the libraries list, found as they find it.

One function for each way of listing samples that is known here. They list
names and look whether the files are there; opening pictures is for others.
"""

import json
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.fileio import list_from_file

from mmtransxnet.engine.checks.dataset_types import Loading, owner_of
from mmtransxnet.utils.text import first_few

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.ppm', '.tif')

_SMALL_JSON = 64 * 2**20
"""Size in bytes up to which annotations are parsed. COCO's train split has
450 MB; its ends are looked at."""


@dataclass
class Listing:
    """What was found.

    Attributes:
        folder: Folder of the pictures.
        pictures: Their paths.
        used: Those of them that are known to be loaded in a run.
        problems: What would stop a run or spoil its result, a line each.
        samples: Those of the problems that are single missing files.
        notes: What may be meant.
        unchecked: What was not looked at; '' if all was.
    """

    folder: Path
    pictures: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unchecked: str = ''

    def lacks(self, root: str | None, *paths: str | None) -> bool:
        """Whether one of these paths is not there, which is a problem.

        Args:
            root: What they are under; of a missing root, the rest is missing
                too, so it alone is named.
            paths: Files and folders, empty where there is none.
        """
        for path in filter(None, paths):
            if os.path.exists(path):
                continue
            under = root and Path(path).is_relative_to(root)
            whole = under and not os.path.exists(str(root))
            self.problems.append(
                f'{Path(str(root) if whole else path)} does not exist'
            )
            return True
        return False

    def expect(
        self,
        dataset: Any,
        loading: Loading,
        paths: list[str],
        unused: Container[str] = (),
    ) -> None:
        """Take pictures for listed; those that are not there are problems.

        Args:
            dataset: What lists them.
            loading: How it loads them.
            paths: All of them.
            unused: Those that it leaves out anyway.
        """
        if not loading.files:
            self.pictures = paths
            self.unchecked = 'its pictures, which are loaded in another way'
            return
        gone = set(_missing(paths))
        self.find(
            dataset, [path for path in paths if path not in gone], unused
        )
        missing = sorted(path for path in gone if path not in unused)
        if missing and dataset._indices is not None:
            self.unchecked = 'its pictures, of which it uses some only'
        elif missing:
            self.add_samples(
                f'{len(missing)} of {len(paths)} annotated pictures are not '
                f'in {self.folder}: {self._some(missing)}'
            )

    def find(
        self, dataset: Any, paths: list[str], unused: Container[str] = ()
    ) -> None:
        """Take pictures for found.

        Args:
            dataset: What lists them.
            paths: All of them.
            unused: Those that it leaves out anyway.
        """
        self.pictures = paths
        if dataset._indices is None:
            self.used = [path for path in paths if path not in unused]

    def add_samples(self, problem: str) -> None:
        """Add a problem that single files are."""
        self.problems.append(problem)
        self.samples.append(problem)

    def _some(self, paths: Sequence[str]) -> str:
        return first_few(
            [os.path.relpath(path, self.folder) for path in paths[:4]]
        )


def _classified(dataset: Any, loading: Loading) -> Listing:
    """mmpretrain: a file of names and labels, or a folder for each class."""
    folder = dataset.img_prefix
    listing = Listing(Path(folder))
    # What is named one by one may be anywhere that its loader knows.
    scanned = loading.files or not dataset.ann_file
    if listing.lacks(
        dataset.data_root, folder if scanned else None, dataset.ann_file
    ):
        return listing
    if dataset.ann_file:
        names = list_from_file(dataset.ann_file)
        if dataset.with_label:
            names = _labelled(listing, dataset.ann_file, names)
        paths = [os.path.join(folder, name) for name in names]
        listing.expect(dataset, loading, paths)
    elif dataset.with_label:
        _list_classes(listing, dataset)
    else:
        files = _files(folder or '.')
        listing.find(dataset, sorted(filter(dataset.is_valid_file, files)))
    return listing


def _labelled(
    listing: Listing, annotations: str, lines: Sequence[str]
) -> list[str]:
    """The names in lines of a name and a label each."""
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        try:
            name, label = line.strip().rsplit(' ', 1)
            int(label)
        except ValueError:
            listing.problems.append(
                f'{annotations}, line {number}: {line[:80]!r} is not a '
                'picture, a space and the number of its class'
            )
            return names
        names.append(name)
    return names


def _list_classes(listing: Listing, dataset: Any) -> None:
    with os.scandir(listing.folder) as entries:
        classes = sorted(entry.path for entry in entries if entry.is_dir())
    empty, pictures = [], []
    for folder in classes:
        found = sorted(filter(dataset.is_valid_file, _files(folder)))
        pictures += found
        if not found:
            empty.append(Path(folder).name)
    listing.find(dataset, pictures)
    expected = dataset.CLASSES and len(dataset.CLASSES)
    if not classes:
        listing.problems.append(
            f'{listing.folder} has no class folders (a folder of pictures for '
            'each class)'
        )
    elif expected and len(classes) != expected:
        listing.problems.append(
            f'{listing.folder} has {len(classes)} class folders, not '
            f'{expected}: labels would be wrong'
        )
    if empty:
        # It may have no example of a class; ImageNet has of each.
        whole = type(dataset).__name__ == 'ImageNet'
        told = listing.problems if whole else listing.notes
        told.append(
            f'{len(empty)} class folders without pictures: {first_few(empty)}'
        )


def _coco(dataset: Any, loading: Loading) -> Listing:
    """mmdet: COCO's annotations beside a folder of pictures."""
    folder = dataset.data_prefix.get('img', '')
    listing = Listing(Path(folder))
    annotations = dataset.ann_file
    kept = folder if loading.files else None
    if listing.lacks(dataset.data_root, kept, annotations):
        return listing
    if os.path.getsize(annotations) > _SMALL_JSON:
        if kept:
            pictures = (
                path
                for path in _files(kept)
                if path.lower().endswith(IMAGE_SUFFIXES)
            )
            listing.find(dataset, sorted(pictures))
        if not listing.pictures:  # named by paths of their own, perhaps
            listing.unchecked = 'its pictures, which its folder does not have'
        if not _is_closed(annotations):
            listing.problems.append(f'{annotations} is not whole')
        return listing
    try:
        document = json.loads(Path(annotations).read_bytes())
        names = {image['file_name'] for image in document['images']}
        needed = {image['file_name'] for image in _used(document, dataset)}
    except (ValueError, KeyError, TypeError) as error:
        listing.problems.append(
            f'{annotations} is no COCO annotation ({error!r})'
        )
        return listing
    listing.expect(
        dataset,
        loading,
        [os.path.join(folder, name) for name in sorted(names)],
        unused={os.path.join(folder, name) for name in names - needed},
    )
    return listing


def _used(document: Any, dataset: Any) -> list[Any]:
    """The pictures that mmdet does not leave out for having no boxes."""
    images = document['images']
    leaves_out = (dataset.filter_cfg or {}).get('filter_empty_gt')
    if dataset.test_mode or not leaves_out:
        return images
    boxed = {one['image_id'] for one in document['annotations']}
    return [image for image in images if image['id'] in boxed]


def _is_closed(annotations: str) -> bool:
    """Whether a JSON file ends with what it begins with."""
    with open(annotations, 'rb') as file:
        first = file.read(1)
        file.seek(-64, os.SEEK_END)
        last = file.read().strip()[-1:]
    return (first, last) == (b'{', b'}')


def _label_maps(dataset: Any, loading: Loading) -> Listing:
    """mmseg: the pictures of a folder, or of a file of names."""
    folder = dataset.data_prefix['img_path']
    labels = dataset.data_prefix.get('seg_map_path')
    listing = Listing(Path(folder))
    named = dataset.ann_file and not os.path.isdir(dataset.ann_file)
    if listing.lacks(
        dataset.data_root,
        folder if loading.files or not named else None,
        dataset.ann_file,
        labels if loading.label_maps else None,
    ):
        return listing
    suffix = dataset.img_suffix
    if named:
        stems = [line.strip() for line in list_from_file(dataset.ann_file)]
        paths = [os.path.join(folder, stem + suffix) for stem in stems]
        listing.expect(dataset, loading, paths)
    else:
        found = (p for p in _files(folder or '.') if p.endswith(suffix))
        listing.find(dataset, sorted(found))
        stems = [
            os.path.relpath(path, folder or '.')[: -len(suffix)]
            for path in listing.pictures
        ]
    if labels is None or listing.unchecked:
        return listing
    if not loading.label_maps:
        listing.unchecked = 'its label maps, which are loaded in another way'
        return listing
    names = [stem + dataset.seg_map_suffix for stem in stems]
    missing = _missing(os.path.join(labels, name) for name in names)
    if missing:
        shown = [os.path.relpath(path, labels or '.') for path in missing[:4]]
        listing.add_samples(
            f'{len(missing)} pictures without a label map in '
            f'{Path(labels)}: {first_few(shown)}'
        )
    return listing


def _xml(dataset: Any, loading: Loading) -> Listing:
    """mmdet: Pascal VOC's file of names, with an XML file for each."""
    root = dataset.sub_data_root
    folder = os.path.join(root, dataset.img_subdir)
    annotations = os.path.join(root, dataset.ann_subdir)
    listing = Listing(Path(folder))
    kept = folder if loading.files else None
    if listing.lacks(dataset.data_root, kept, annotations, dataset.ann_file):
        return listing
    names = list_from_file(dataset.ann_file)
    paths = [os.path.join(folder, f'{name}.jpg') for name in names]
    listing.expect(dataset, loading, paths)
    missing = _missing(
        os.path.join(annotations, f'{name}.xml') for name in names
    )
    if missing:
        listing.problems.append(
            f'{len(missing)} of {len(names)} names in {dataset.ann_file} '
            f'have no annotation: {first_few(missing)}'
        )
    return listing


def _records(dataset: Any, loading: Loading) -> Listing:
    """mmengine: its own format, if nothing reads it in another way."""
    folder = dataset.data_prefix.get('img_path') or ''
    listing = Listing(Path(folder))
    if listing.lacks(dataset.data_root, dataset.ann_file):
        return listing
    listing.unchecked = 'its samples'
    if (
        owner_of(type(dataset), 'parse_data_info') != 'mmengine.BaseDataset'
        or not dataset.ann_file.endswith('.json')
        or os.path.getsize(dataset.ann_file) > _SMALL_JSON
    ):
        return listing
    try:
        document = json.loads(Path(dataset.ann_file).read_bytes())
        records = document['data_list']
    except (ValueError, KeyError, TypeError) as error:
        listing.problems.append(
            f"{dataset.ann_file} is not in mmengine's format ({error!r})"
        )
        return listing
    if all(isinstance(one.get('img_path'), str) for one in records):
        listing.unchecked = ''
        names = dict.fromkeys(one['img_path'] for one in records)
        paths = [os.path.join(folder, name) for name in names]
        listing.expect(dataset, loading, paths)
    return listing


def _files(folder: str | Path) -> Iterator[str]:
    """Files in a folder and in those inside, as mmengine lists them."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith('.') and entry.is_file():
                yield entry.path
            elif entry.is_dir():
                yield from _files(entry.path)


def _missing(paths: Iterable[str]) -> list[str]:
    """Which files are not there; a folder is read once, not asked often."""
    in_folder = defaultdict(list)
    for path in paths:
        in_folder[os.path.dirname(path)].append(path)
    missing = []
    for folder, wanted in in_folder.items():
        try:
            there = set(os.listdir(folder or '.'))
        except OSError:
            there = set()
        missing += [
            path
            for path in wanted
            # Some file systems take another spelling for the same.
            if os.path.basename(path) not in there and not os.path.isfile(path)
        ]
    return sorted(missing)


# What lists and its parts, in any of them. A data set that has one of them
# from elsewhere may list other samples, or those in other places.
LISTED_BY = (
    'load_data_list',
    'parse_data_info',
    'full_init',
    'filter_data',
    '_join_prefix',
    '_find_samples',
)

LISTINGS: dict[str, Callable[[Any, Loading], Listing]] = {
    'mmengine.BaseDataset': _records,
    'mmpretrain.CustomDataset': _classified,
    'mmdet.CocoDataset': _coco,
    'mmdet.XMLDataset': _xml,
    'mmseg.BaseSegDataset': _label_maps,
}
"""By whose ``load_data_list`` a data set has."""
