"""How data sets list and load their samples.

Any data set can be trained on, but only few are known here. They are
recognised by class (a name may refer to anything), and their paths are read
from the built data set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import Registry

_LIBRARIES = ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
_LOCAL_BACKENDS = ('local', 'LocalBackend', 'disk', 'HardDiskBackend')
# Transforms that wrap others, which may be user-defined.
_WRAPPERS = 'mmcv.transforms.wrappers'


def class_of(description: Mapping[str, Any], registry: Registry) -> Any:
    """Resolve the ``type`` of a config in the current scope.

    Returns:
        The class, None if it is not registered.
    """
    name = description.get('type')
    if not isinstance(name, str):
        return name
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(name)


def map_datasets(change: Callable[[Any], Any], dataset: Any) -> Any:
    """Change the data sets inside any wrappers (repeat, concatenate, ...).

    Args:
        change: Gets the config of a data set and returns another.
        dataset: Config of a data set or a wrapper; anything else is returned
            as it is.
    """
    if not isinstance(dataset, Mapping):
        return dataset
    wrapped = {
        key: [map_datasets(change, inner) for inner in dataset[key]]
        if isinstance(dataset[key], Sequence)
        else map_datasets(change, dataset[key])
        for key in ('dataset', 'datasets')
        if _describes_datasets(dataset.get(key))
    }
    return {**dataset, **wrapped} if wrapped else change(dataset)


def _describes_datasets(value: Any) -> bool:
    """Whether a value is one or several data set configs."""
    several = value if isinstance(value, Sequence) else [value]
    return bool(several) and all(
        isinstance(item, Mapping) and 'type' in item for item in several
    )


def leaf_datasets(dataset: Any) -> list[Mapping[str, Any]]:
    """Configs of the data sets inside any wrappers."""
    leaves: list[Mapping[str, Any]] = []
    map_datasets(leaves.append, dataset)
    return leaves


def datasets_of(config: Config, split: str) -> list[Mapping[str, Any]]:
    """Configs of the data sets that the loader of a split reads."""
    loader = config.get(f'{split}_dataloader')
    # A user-defined loop may take something else.
    described = loader if isinstance(loader, Mapping) else {}
    return leaf_datasets(described.get('dataset'))


def library_of(cls: Any) -> str:
    """The package that a class comes from."""
    return str(getattr(cls, '__module__', '')).partition('.')[0]


def defining_class(cls: Any, method: str) -> str:
    """The class that defines a method (``'mmdet.CocoDataset'``), or ''."""
    for base in getattr(cls, '__mro__', ()):
        if method in vars(base):
            return f'{library_of(base)}.{base.__name__}'
    return ''


def are_from_libraries(cls: Any, *methods: str) -> bool:
    """Whether the methods that a class has come from OpenMMLab libraries."""
    defining = (defining_class(cls, method) for method in methods)
    return all(
        name.partition('.')[0] in (*_LIBRARIES, '') for name in defining
    )


def reads_local_files(backend_args: Mapping[str, Any] | None) -> bool:
    """Whether a file backend of mmengine takes paths as they are."""
    return not backend_args or backend_args.get('backend') in _LOCAL_BACKENDS


@dataclass(frozen=True)
class Loading:
    """How a data set loads its samples, as far as known.

    Attributes:
        files: Whether its pictures are the files named ``img_path`` on a
            local disk.
        decoded: Whether OpenCV decodes them, upright.
        sizes: Whether boxes refer to the annotated sizes of these pictures.
        label_maps: Whether label maps are local files of class numbers.
        classes: Number of its classes; 0 if unknown.
        ignored: Other labels, which are ignored in training.
    """

    files: bool = False
    decoded: bool = False
    sizes: bool = False
    label_maps: bool = False
    classes: int = 0
    ignored: frozenset[int] = frozenset({255})


def loading_of(dataset: Any) -> Loading:
    """Inspect a built data set and its pipeline.

    Args:
        dataset: A built data set of any class.
    """
    cls = type(dataset)
    methods = ('__getitem__', 'prepare_data', 'get_data_info')
    if not isinstance(dataset, BaseDataset) or any(
        defining_class(cls, method) != 'mmengine.BaseDataset'
        for method in methods
    ):
        return Loading()
    steps = list(getattr(dataset.pipeline, 'transforms', ()))
    first: Any = steps[0] if steps else None
    # Any other step before it may load from elsewhere.
    if type(first) is not LoadImageFromFile or first.ignore_empty:
        return Loading()
    for backend_args in (first.backend_args, first.file_client_args):
        if not reads_local_files(backend_args):
            return Loading()
    decoded = (
        first.imdecode_backend == 'cv2'
        # Other decoders do not apply the EXIF rotation.
        and first.color_type in ('color', 'grayscale')
    )
    parsing = defining_class(cls, 'parse_data_info')
    return Loading(
        files=True,
        decoded=decoded,
        sizes=decoded and parsing.startswith('mmdet.'),
        label_maps=decoded and _are_label_maps_known(steps),
        classes=len(dataset.metainfo.get('classes') or ()),
        ignored=frozenset({255, getattr(dataset, 'ignore_index', 255)}),
    )


def _are_label_maps_known(steps: list[Any]) -> bool:
    """Whether mmseg loads label maps and no step remaps their labels."""
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
