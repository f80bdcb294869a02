"""Annotated pictures, independent of the layout that they were read from."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLASSIFICATION = 'classification'
DETECTION = 'detection'
SEGMENTATION = 'segmentation'


@dataclass(frozen=True)
class Object:
    """An annotated object.

    Attributes:
        label: Name of its class.
        box: Left, top, right, bottom in pixels of the picture; the right and
            the bottom edge are outside.
        mask: Its outline as COCO has it: polygons ``[[x, y, x, y, ...], ...]``
            or run-lengths ``{'size', 'counts'}``; None if only boxes are
            annotated.
        crowd: Whether it stands for many objects, as COCO's ``iscrowd``.
    """

    label: str
    box: tuple[float, float, float, float]
    mask: Any = None
    crowd: bool = False


@dataclass(frozen=True)
class Picture:
    """A picture and what is annotated.

    Attributes:
        path: The file.
        width: In pixels.
        height: In pixels.
        split: ``train``, ``val`` or ``test``; None if the data has no split.
        label: Its class, in classification.
        objects: Its objects, in detection; may be empty.
        label_map: File with a class per pixel, in segmentation; None if it
            is drawn from the masks of ``objects``.
    """

    path: Path
    width: int
    height: int
    split: str | None = None
    label: str | None = None
    objects: tuple[Object, ...] = ()
    label_map: Path | None = None


@dataclass
class Collection:
    """What a folder of data has.

    Attributes:
        kind: Name of the layout, such as ``Pascal VOC``.
        root: The folder.
        task: ``classification``, ``detection`` or ``segmentation``.
        classes: Names in the order of their numbers.
        pictures: All usable pictures, in a fixed order.
        reasons: Why it was taken for this kind, and choices made in reading,
            each a sentence.
        dropped: What was not taken over: a reason and how often.
        palette: A colour ``(red, green, blue)`` for each class, None if the
            data has none.
        has_masks: Whether all objects of a detection set have masks.
        label_values: What a pixel of a label map's file has for each class, a
            number or a colour; None if these are the numbers of the classes.
            Pixels with any other value are ignored in training.
    """

    kind: str
    root: Path
    task: str
    classes: tuple[str, ...]
    pictures: list[Picture]
    reasons: list[str] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    palette: tuple[tuple[int, int, int], ...] | None = None
    has_masks: bool = False
    label_values: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Split:
    """A part of the data as a config names it.

    Attributes:
        ann_file: Annotations (COCO's json), or a list of pictures.
        pictures: Number of pictures (tiles, if it was tiled).
        objects: Number of objects by class: pictures in classification,
            pictures that show the class in segmentation.
    """

    ann_file: Path
    pictures: int
    objects: dict[str, int]


@dataclass(frozen=True)
class Prepared:
    """Data that the data sets of OpenMMLab can load.

    Attributes:
        collection: What it was made from, with splits and tiles.
        folder: Where the written files are.
        picture_root: Folder that the names of pictures are relative to.
        splits: ``train`` and ``val``, and ``test`` if the data has it.
        label_map_root: Folder of the label maps, in segmentation.
        img_suffix: What mmseg appends to the listed names of pictures, in
            segmentation; '' if they have different suffixes. The label maps
            end in ``.png``.
        tile: Side of a tile in pixels, None if the pictures are whole.
    """

    collection: Collection
    folder: Path
    picture_root: Path
    splits: dict[str, Split]
    label_map_root: Path | None = None
    img_suffix: str | None = None
    tile: int | None = None
