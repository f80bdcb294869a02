"""Recognises the layout of a folder of annotated pictures and reads it."""

from pathlib import Path

from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Collection,
)
from mmtransxnet.own_data.folder import Folder
from mmtransxnet.own_data.hints import hint
from mmtransxnet.own_data.label_maps import MAX_CLASSES
from mmtransxnet.own_data.layouts import CLASS_FOLDERS, LAYOUTS, Layout
from mmtransxnet.utils.errors import UserError

BACKGROUND = 'background'

TASKS = (CLASSIFICATION, DETECTION, SEGMENTATION)


def read(folder: str | Path, task: str | None = None) -> Collection:
    """Read a folder of annotated pictures.

    Args:
        folder: The pictures and their annotations, in any layout of
            :data:`~mmtransxnet.own_data.layouts.LAYOUTS`.
        task: ``classification``, ``detection`` or ``segmentation``; None for
            the usual one of the layout.

    Returns:
        What the folder has, with what was decided and what was dropped.

    Raises:
        UserError: The layout is unknown or not clear, or the data cannot be
            used.
    """
    if task not in (None, *TASKS):
        raise UserError(f'unknown task {task}: use one of {", ".join(TASKS)}')
    files = Folder(folder)
    layout, why = _recognise(files, task)
    if task not in (None, *layout.tasks):
        raise UserError(
            f'{folder} was recognised as {layout.kind} ({why}), which can be '
            f'read for {" or ".join(layout.tasks)}, not for {task}: use '
            f'--task {layout.tasks[0]}, or give other annotations'
        )
    collection = layout.read(files, task or layout.tasks[0])
    collection.reasons.insert(0, f'Read as {layout.kind}: {why}.')
    if collection.task == SEGMENTATION:
        _check_classes_of_pixels(collection)
    return collection


def _check_classes_of_pixels(collection: Collection) -> None:
    """Check the classes of a segmentation set; masks get a background."""
    objects = [o for p in collection.pictures for o in p.objects]
    if any(picture.label_map is None for picture in collection.pictures):
        if not collection.has_masks:
            bare = sum(not o.mask for o in objects)
            raise UserError(
                f'{collection.root}: {bare} of {len(objects)} objects have '
                'only a box, which gives no classes of pixels: use --task '
                'detection, or annotate masks'
            )
        collection.classes = (BACKGROUND, *collection.classes)
        if collection.classes.count(BACKGROUND) > 1:
            raise UserError(
                f'{collection.root} has a class named {BACKGROUND}, which '
                'pixels outside of all objects get: rename it'
            )
        collection.reasons.append(
            'Label maps are drawn from the masks: small objects above large '
            f'ones, the rest is {BACKGROUND}.'
        )
    if not 2 <= len(collection.classes) <= MAX_CLASSES:
        raise UserError(
            f'{collection.root} has {len(collection.classes)} classes of '
            f'pixels: segmentation needs 2 to {MAX_CLASSES}'
        )


def _recognise(folder: Folder, task: str | None) -> tuple[Layout, str]:
    """The layout of a folder, and why."""
    found = [
        (layout, why)
        for layout in LAYOUTS
        if (why := layout.recognise(folder)) is not None
    ]
    fitting = [row for row in found if task in row[0].tasks]
    found = fitting or found
    if len(found) > 1:
        several = ', and '.join(f'{row.kind} ({why})' for row, why in found)
        tasks = {row.tasks for row, _ in found}
        raise UserError(
            f'{folder.root} has several annotations: {several}: keep one of '
            'them in the folder'
            + (', or choose by --task' if len(tasks) > 1 else '')
        )
    if found:
        return found[0]
    why = CLASS_FOLDERS.recognise(folder)
    if why is not None:
        return CLASS_FOLDERS, why
    kinds = ', '.join(row.kind for row in (*LAYOUTS, CLASS_FOLDERS))
    cause = hint(folder)
    raise UserError(
        f'{folder.root} has no annotations that are known '
        f'({len(folder.pictures)} pictures, {len(folder.files)} files): '
        f'looked for {kinds}; '
        + (cause or 'give the folder that has both pictures and annotations')
    )
