"""COCO's json: boxes, polygons and run-lengths."""

from pathlib import PurePosixPath
from typing import Any

from mmtransxnet.own_data.collection import Collection
from mmtransxnet.own_data.folder import Folder, split_in_name, split_of
from mmtransxnet.own_data.gathering import NO_PICTURE, Gatherer
from mmtransxnet.own_data.layouts.common import has_texts, one_split_each
from mmtransxnet.own_data.parsing import class_name, number, read_json
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

KIND = 'COCO'


def recognise(folder: Folder) -> str | None:
    """Return why a folder has this layout, None if it has another."""
    files = _annotation_files(folder)
    if not files:
        return None
    names = first_few([str(file) for file in files])
    return f'{names} has "images", "annotations" and "categories"'


def read(folder: Folder, task: str) -> Collection:
    """Read a folder that was recognised."""
    files = _annotation_files(folder)
    gatherer = Gatherer(folder, KIND)
    splits = one_split_each(
        folder,
        {file: split_in_name(file.stem) or split_of(file) for file in files},
    )
    contents = {file: _content(folder, file) for file in files}
    classes = _classes(folder, contents)
    for file, content in contents.items():
        _add_file(gatherer, file, content, splits[file])
    gatherer.drop_unlisted()
    gatherer.reasons.append(
        'Pictures that a COCO file lists without objects are kept as '
        'background.'
    )
    return gatherer.collection(list(classes.values()), task)


def _annotation_files(folder: Folder) -> list[PurePosixPath]:
    files = [
        file
        for file in folder.with_suffix('.json')
        if has_texts(
            folder.root / file, '"images"', '"annotations"', '"categories"'
        )
    ]
    # COCO has captions and keypoints of the same pictures beside them.
    instances = [file for file in files if file.name.startswith('instances')]
    return instances or files


def _content(folder: Folder, file: PurePosixPath) -> dict[str, list]:
    content = read_json(folder.root / file)
    keys = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list)
        and all(isinstance(row, dict) for row in content[key])
        for key in keys
    ):
        raise UserError(
            f'{folder.root / file} is not COCO\'s json: "images", '
            '"annotations" and "categories" must be lists of objects; export '
            'it again'
        )
    return content


def _classes(
    folder: Folder, contents: dict[PurePosixPath, dict[str, list]]
) -> dict[Any, str]:
    """Names by number, the same in all files, in the order of numbers."""
    first: dict[Any, str] | None = None
    for file, content in contents.items():
        classes: dict[Any, str] = {}
        for row in content['categories']:
            name, key = class_name(row.get('name')), row.get('id')
            if name is None or type(key) is not int or key in classes:
                raise UserError(
                    f'{folder.root / file} has a category without a name or '
                    'without a number of its own: correct "categories"'
                )
            classes[key] = name
        classes = _without_unused_root(classes, contents)
        if len(set(classes.values())) < len(classes):
            raise UserError(
                f'{folder.root / file} has two categories of one name: give '
                'them different names, or merge them'
            )
        if first is not None and classes != first:
            raise UserError(
                f'{folder.root} has other categories in {file} than in '
                f'{next(iter(contents))}: export all splits with the same '
                'names and numbers'
            )
        first = classes
    if not first:
        raise UserError(f'{folder.root} has no categories: export it again')
    return dict(sorted(first.items()))


def _without_unused_root(
    classes: dict[Any, str],
    contents: dict[PurePosixPath, dict[str, list]],
) -> dict[Any, str]:
    """Categories without Roboflow's first, which groups the others."""
    parents = {
        _key(row, 'supercategory')
        for content in contents.values()
        for row in content['categories']
        if row.get('id') != 0
    }
    everywhere = {
        _key(row, 'category_id')
        for content in contents.values()
        for row in content['annotations']
    }
    groups = (
        len(classes) > 1
        and 0 in classes
        and 0 not in everywhere
        and parents == {classes[0]}
    )
    return {k: v for k, v in classes.items() if not (groups and k == 0)}


def _key(row: dict[str, Any], name: str) -> Any:
    """A number or text that refers to another row, None if it is neither."""
    value = row.get(name)
    return value if isinstance(value, int | str) else None


def _add_file(
    gatherer: Gatherer,
    file: PurePosixPath,
    content: dict[str, list],
    split: str | None,
) -> None:
    names = {row['id']: row['name'].strip() for row in content['categories']}
    objects: dict[Any, list[dict[str, Any]]] = {}
    for row in content['annotations']:
        objects.setdefault(_key(row, 'image_id'), []).append(row)
    keys: set[Any] = set()
    for image in content['images']:
        key = _key(image, 'id')
        if key in keys:
            raise UserError(
                f'{gatherer.folder.root / file} has two pictures with the id '
                f'{key}: give each an id of its own'
            )
        keys.add(key)
        rows = objects.pop(key, []) if key is not None else []
        name = image.get('file_name')
        picture = (
            gatherer.folder.find(name, file) if isinstance(name, str) else None
        )
        if picture is None:
            gatherer.drop(NO_PICTURE, name)
            continue
        declared = number(image.get('width')), number(image.get('height'))
        canvas = gatherer.open(picture, declared)
        if canvas is None:
            continue
        for row in rows:
            _add_object(gatherer, canvas, names, row)
        canvas.keep(split)
    for key, rows in objects.items():
        for _ in rows:
            gatherer.drop('object of a picture that is not in "images"', key)


def _add_object(gatherer, canvas, names, row) -> None:
    label = names.get(_key(row, 'category_id'))
    if label is None:
        gatherer.drop('object of an unknown category', row.get('category_id'))
        return
    box, mask = _box(row), row.get('segmentation')
    crowd = row.get('iscrowd') in (1, True)
    if row.get('ignore'):
        gatherer.drop('object to be ignored', row.get('id'))
    elif not mask:
        canvas.add_box(label, box or (), crowd)
    elif isinstance(mask, dict):
        canvas.add_run_lengths(label, mask, box, crowd)
    else:
        canvas.add_polygons(label, mask, box, crowd)


def _box(row: dict[str, Any]) -> tuple[float, ...] | None:
    """Left, top, right, bottom; None if there is no box."""
    value = row.get('bbox')
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != 4:
        return ()
    x, y, width, height = map(number, value)
    return x, y, x + width, y + height
