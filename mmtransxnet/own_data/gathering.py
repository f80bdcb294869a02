"""Collects what a layout's files say about pictures, and checks it."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from PIL import Image

from mmtransxnet.engine.checks.pictures import (
    CorruptSampleError,
    check_picture,
)
from mmtransxnet.own_data import geometry
from mmtransxnet.own_data.collection import DETECTION, Collection, Object
from mmtransxnet.own_data.collection import Picture as PictureRecord
from mmtransxnet.own_data.folder import Folder
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import shorten

_EXIF_ORIENTATION = 0x0112
_ON_ITS_SIDE = (5, 6, 7, 8)

NOT_LISTED = 'picture without annotation'
NO_PICTURE = 'annotation without picture'


class Gatherer:
    """Collects the pictures of a layout.

    Args:
        folder: The files.
        kind: Name of the layout.

    Attributes:
        folder: The files.
        dropped: Reasons and how often.
        pictures: What was kept.
        reasons: Choices made, each a sentence.
    """

    def __init__(self, folder: Folder, kind: str) -> None:
        self.folder = folder
        self.kind = kind
        self.dropped: Counter[str] = Counter()
        self.pictures: list[PictureRecord] = []
        self.reasons: list[str] = []
        self._examples: dict[str, str] = {}
        self._seen: set[PurePosixPath] = set()

    def drop(self, reason: str, example: object) -> None:
        """Count something that is not taken over."""
        self.dropped[reason] += 1
        self._examples.setdefault(reason, shorten(str(example)))

    def open(
        self, file: PurePosixPath, declared: tuple[float, float] | None = None
    ) -> 'Canvas | None':
        """Start with a picture.

        Args:
            file: Relative to the folder.
            declared: Width and height that it was annotated with, if known.

        Returns:
            None if it was dropped: it cannot be read, has another size, or
            was there before.
        """
        path = self.folder.root / file
        if file in self._seen:
            self.drop('picture that is listed twice (the first is kept)', file)
            return None
        self._seen.add(file)
        if not _is_listable(file):
            self.drop(
                'picture with a line break, or a space at an end, in its name',
                repr(str(file)),
            )
            return None
        try:
            width, height = check_picture(str(path))
        except CorruptSampleError as error:
            self.drop('picture that cannot be read', error)
            return None
        orientation = 1
        if declared and declared != (width, height) and min(declared) > 0:
            orientation = _orientation_of(str(path))
            if declared != (height, width) or orientation not in _ON_ITS_SIDE:
                self.drop(
                    'picture that was annotated with another size',
                    f'{file} has {width} x {height} pixels and was annotated '
                    f'as {declared[0]:g} x {declared[1]:g}',
                )
                return None
        return Canvas(self, file, width, height, orientation)

    def drop_unlisted(self) -> None:
        """Count the pictures that no annotation mentioned."""
        for file in self.folder.pictures:
            if file not in self._seen:
                self.drop(NOT_LISTED, file)

    def require_pictures(self) -> None:
        """Raise an error if nothing is left, with the main reason."""
        if self.pictures:
            return
        root = self.folder.root
        if not self.folder.pictures:
            raise UserError(
                f'{root} ({self.kind}) has no pictures: put them beside their '
                'annotations'
            )
        if self.dropped[NO_PICTURE]:
            raise UserError(
                f'{root} ({self.kind}): the annotations name no picture that '
                f'is there, such as {self._examples[NO_PICTURE]} (there is '
                f'{self.folder.pictures[0]}): correct the names, or put the '
                'pictures into the folder'
            )
        reason, count = next(iter(self.dropped.most_common(1)), ('', 0))
        detail = (
            f'{count} x {reason}, such as {self._examples[reason]}'
            if reason
            else 'no picture is annotated'
        )
        raise UserError(
            f'{root} ({self.kind}) has no usable picture: {detail}'
        )

    def collection(
        self, classes: Sequence[str], task: str = DETECTION, **fields: Any
    ) -> Collection:
        """Return what was collected.

        Raises:
            UserError: No picture was kept, or, in detection, no object.
        """
        self.require_pictures()
        objects = [o for p in self.pictures for o in p.objects]
        if task == DETECTION and not objects:
            counted = ', '.join(
                f'{count} x {reason} (such as {self._examples[reason]})'
                for reason, count in self.dropped.most_common(3)
            )
            raise UserError(
                f'{self.folder.root} ({self.kind}) has no usable object'
                f'{": " + counted if counted else ""}: check the annotations'
            )
        examples = [
            f'Not taken over ({self.dropped[reason]}): {reason}, for example '
            f'{example}.'
            for reason, example in self._examples.items()
        ]
        return Collection(
            kind=self.kind,
            root=self.folder.root,
            task=task,
            classes=tuple(classes),
            pictures=self.pictures,
            reasons=[*self.reasons, *examples],
            dropped=self.dropped,
            has_masks=bool(objects) and all(o.mask for o in objects),
            **fields,
        )


class Canvas:
    """A picture whose objects are being collected.

    Objects have the coordinates of the picture as it was annotated; one that
    was annotated on its side is turned as EXIF says, like the picture is when
    OpenMMLab loads it.
    """

    def __init__(
        self,
        gatherer: Gatherer,
        file: PurePosixPath,
        width: int,
        height: int,
        orientation: int,
    ) -> None:
        self.width = width
        self.height = height
        self._gatherer = gatherer
        self._file = file
        self._orientation = orientation
        self._objects: list[Object] = []

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height as it was annotated."""
        turned = self._orientation in _ON_ITS_SIDE
        size = self.width, self.height
        return size[::-1] if turned else size

    def add_box(
        self, label: str, box: Sequence[float], crowd: bool = False
    ) -> None:
        """Add an object of which only the box is known."""
        self._add(label, box, None, crowd)

    def add_polygons(
        self,
        label: str,
        value: Any,
        box: Sequence[float] | None = None,
        crowd: bool = False,
    ) -> None:
        """Add an object with polygons, and the box around it if not given."""
        polygons = geometry.parse_polygons(value)
        if polygons is None:
            self._drop('object whose mask is not valid')
            return
        box = geometry.box_around(polygons) if box is None else box
        if self._orientation in _ON_ITS_SIDE:
            polygons = [
                geometry.turn_points(
                    polygon, self.stored_size, self._orientation
                )
                for polygon in polygons
            ]
        kept = [p for p in map(self._clipped, polygons) if p]
        if not kept:
            self._drop('object outside of its picture')
            return
        self._add(label, box, kept, crowd)

    def add_run_lengths(
        self,
        label: str,
        value: Any,
        box: Sequence[float] | None = None,
        crowd: bool = False,
    ) -> None:
        """Add an object with COCO's run-lengths, as above."""
        parsed = geometry.parse_run_lengths(value)
        if parsed is None or parsed[0] != self.stored_size[::-1]:
            self._drop('object whose mask is not valid')
            return
        around = geometry.box_of_mask(geometry.mask_of(*parsed))
        if around is None:
            self._drop('object whose mask is empty')
            return
        mask = value
        if self._orientation in _ON_ITS_SIDE:
            turned = geometry.turn_mask(
                geometry.mask_of(*parsed), self._orientation
            )
            mask = dict(
                size=list(turned.shape), counts=geometry.counts_of(turned)
            )
        self._add(label, around if box is None else box, mask, crowd)

    def keep(self, split: str | None) -> None:
        """Take the picture and its objects over."""
        self._gatherer.pictures.append(
            PictureRecord(
                path=self._gatherer.folder.root / self._file,
                width=self.width,
                height=self.height,
                split=split,
                objects=tuple(self._objects),
            )
        )

    def _clipped(self, polygon: list[float]) -> list[float]:
        inside = all(0 <= x <= self.width for x in polygon[::2]) and all(
            0 <= y <= self.height for y in polygon[1::2]
        )
        if inside:
            return polygon
        self._gatherer.drop(
            'part of a mask outside of its picture (clipped)', self._file
        )
        return geometry.clip_polygon(polygon, (0, 0, self.width, self.height))

    def _add(
        self, label: str, box: Sequence[float], mask: Any, crowd: bool
    ) -> None:
        if len(box) != 4 or not all(map(math.isfinite, box)):
            self._drop('box that is not four numbers')
            return
        left, top, right, bottom = box
        if right <= left or bottom <= top:
            self._drop('empty box (no width or height, or corners swapped)')
            return
        if self._orientation in _ON_ITS_SIDE:
            xs_ys = geometry.turn_points(
                box, self.stored_size, self._orientation
            )
            left, right = sorted(xs_ys[::2])
            top, bottom = sorted(xs_ys[1::2])
        whole = (float(left), float(top), float(right), float(bottom))
        clipped = geometry.clip_box(whole, (0, 0, self.width, self.height))
        if not geometry.area_of(clipped):
            self._drop('box outside of its picture')
            return
        # mmdet leaves them out without a word.
        if clipped[2] - clipped[0] < 1 or clipped[3] - clipped[1] < 1:
            self._drop('box narrower than a pixel (or not in pixels)')
            return
        # Sums of left and width may be off by a rounding error.
        if max(abs(a - b) for a, b in zip(whole, clipped, strict=True)) > 0.01:
            self._gatherer.drop(
                'part of a box outside of its picture (clipped)', self._file
            )
        self._objects.append(Object(label, clipped, mask, crowd))

    def _drop(self, reason: str) -> None:
        self._gatherer.drop(reason, f'in {self._file}')


def _is_listable(file: PurePosixPath) -> bool:
    """Whether a file can be named in a list with a line for each."""
    text = str(file)
    return text == text.strip() and len(text.splitlines()) == 1


def _orientation_of(path: str) -> int:
    with Image.open(path) as image:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
