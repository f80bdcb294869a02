"""The layouts of annotated pictures that are read; a row for each."""

from collections.abc import Callable
from typing import NamedTuple

from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Collection,
)
from mmtransxnet.own_data.folder import Folder
from mmtransxnet.own_data.layouts import (
    class_folders,
    coco,
    csv_boxes,
    label_maps,
    labelme,
    voc,
    yolo,
)


class Layout(NamedTuple):
    """A layout.

    Attributes:
        kind: Its name.
        tasks: What it can be read for; the first unless another is asked for.
        recognise: Why a folder has it; None if it has another.
        read: Reads a folder for a task.
    """

    kind: str
    tasks: tuple[str, ...]
    recognise: Callable[[Folder], str | None]
    read: Callable[[Folder, str], Collection]


LAYOUTS = (
    Layout(coco.KIND, (DETECTION, SEGMENTATION), coco.recognise, coco.read),
    Layout(voc.KIND, (DETECTION,), voc.recognise, voc.read),
    Layout(csv_boxes.KIND, (DETECTION,), csv_boxes.recognise, csv_boxes.read),
    Layout(yolo.KIND, (DETECTION, SEGMENTATION), yolo.recognise, yolo.read),
    Layout(
        labelme.KIND,
        (DETECTION, SEGMENTATION),
        labelme.recognise,
        labelme.read,
    ),
    Layout(
        label_maps.KIND,
        (SEGMENTATION,),
        label_maps.recognise,
        label_maps.read,
    ),
)

CLASS_FOLDERS = Layout(
    class_folders.KIND,
    (CLASSIFICATION,),
    class_folders.recognise,
    class_folders.read,
)
"""Any folder of folders may be this one, so it is tried last."""
