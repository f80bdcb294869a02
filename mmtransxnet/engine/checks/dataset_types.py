"""What a data set is to us: whose code lists its samples and loads them.

Anybody's data set can be trained on, few are known here. Whether one is
known, its class tells (a name may stand for anything), and its paths are
those that the built data set has.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.registry import Registry

_LIBRARIES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
_LOCAL_BACKENDS = ('local', 'LocalBackend', 'disk', 'HardDiskBackend')
# Transforms that have others inside, which may be anybody's.
_WRAPPERS = 'mmcv.transforms.wrappers'


def class_of(description: Mapping[str, Any], registry: Registry) -> Any:
    """What the ``type`` of a config stands for in the current scope.

    Returns:
        None if it is not registered.
    """
    kind = description.get('type')
    if not isinstance(kind, str):
        return kind
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(kind)


def inner_of(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """The data sets that the config of a wrapper has, by their keys.

    Returns:
        A config or a list of them for ``dataset`` and ``datasets``; nothing
        for a data set, which may have names under such keys.
    """
    one, several = dataset.get('dataset'), dataset.get('datasets')
    inner: dict[str, Any] = {}
    if _describes(one):
        inner['dataset'] = one
    if (
        isinstance(several, Sequence)
        and several
        and all(map(_describes, several))
    ):
        inner['datasets'] = several
    return inner


def _describes(value: Any) -> bool:
    """Whether this is the config of something, not just settings."""
    return isinstance(value, Mapping) and 'type' in value


def leaf_datasets(dataset: Any) -> Iterator[Mapping[str, Any]]:
    """The data sets inside any wrappers (repeat, concatenate, ...)."""
    if not isinstance(dataset, Mapping):
        return
    inner = inner_of(dataset)
    if not inner:
        yield dataset
    for value in inner.values():
        for one in [value] if isinstance(value, Mapping) else value:
            yield from leaf_datasets(one)


def library_of(kind: Any) -> str:
    """The package that a class comes from."""
    return str(getattr(kind, '__module__', '')).partition('.')[0]


def owner_of(kind: Any, method: str) -> str:
    """Whose method a class has, such as ``'mmdet.CocoDataset'``; or ''."""
    for base in getattr(kind, '__mro__', ()):
        if method in vars(base):
            return f'{library_of(base)}.{base.__name__}'
    return ''


def is_a_librarys(kind: Any, *methods: str) -> bool:
    """Whether a class has these methods, as far as it has, from a library."""
    owners = (owner_of(kind, method) for method in methods)
    return all(
        owner.partition('.')[0] in (*_LIBRARIES, '') for owner in owners
    )


def reads_local_files(backend_args: Mapping[str, Any] | None) -> bool:
    """Whether a file backend of mmengine takes paths as they are."""
    return not backend_args or backend_args.get('backend') in _LOCAL_BACKENDS


@dataclass(frozen=True)
class Loading:
    """What is known of how a data set loads its samples.

    Attributes:
        files: Whether its pictures are the files named ``img_path`` on a
            local disk.
        decoded: Whether OpenCV decodes them, upright.
        sizes: Whether its boxes refer to annotated sizes of such pictures.
        label_maps: Whether label maps are local files of class numbers.
        classes: Number of its classes; 0 if it does not say.
        ignored: Labels besides, which are not learned.
    """

    files: bool = False
    decoded: bool = False
    sizes: bool = False
    label_maps: bool = False
    classes: int = 0
    ignored: frozenset[int] = frozenset({255})


def loading_of(dataset: Any) -> Loading:
    """Look at a built data set and its pipeline.

    Args:
        dataset: Of a library or of anybody.
    """
    kind = type(dataset)
    methods = ('__getitem__', 'prepare_data', 'get_data_info')
    if not isinstance(dataset, BaseDataset) or any(
        owner_of(kind, method) != 'mmengine.BaseDataset' for method in methods
    ):
        return Loading()
    steps = list(getattr(dataset.pipeline, 'transforms', ()))
    first: Any = steps[0] if steps else None
    # Anything before it, or in its place, may look elsewhere.
    if type(first) is not LoadImageFromFile or first.ignore_empty:
        return Loading()
    for backend_args in (first.backend_args, first.file_client_args):
        if not reads_local_files(backend_args):
            return Loading()
    decoded = (
        first.imdecode_backend == 'cv2'
        # Others are not turned as EXIF says.
        and first.color_type in ('color', 'grayscale')
    )
    parsing = owner_of(kind, 'parse_data_info')
    return Loading(
        files=True,
        decoded=decoded,
        sizes=decoded and parsing.startswith('mmdet.'),
        label_maps=decoded and _are_label_maps_known(steps),
        classes=len(dataset.metainfo.get('classes') or ()),
        ignored=frozenset({255, getattr(dataset, 'ignore_index', 255)}),
    )


def _are_label_maps_known(steps: list[Any]) -> bool:
    """Whether mmseg loads them, and nobody gives labels other numbers."""
    loads = any(
        f'{library_of(type(step))}.{type(step).__name__}'
        == 'mmseg.LoadAnnotations'
        and step.imdecode_backend == 'pillow'
        and reads_local_files(step.backend_args)
        for step in steps
    )
    return loads and all(
        library_of(type(step)) in _LIBRARIES
        and type(step).__module__ != _WRAPPERS
        for step in steps
    )
