"""Tables and the picture of what a data set has."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
)
from mmtransxnet.own_data.decisions import decide
from mmtransxnet.own_data.overview import decisions_table, overview_tables
from mmtransxnet.own_data.overview_picture import draw_overview, samples_of
from tests.support.prepared_data import prepared


def printed(*tables) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(*tables)
    return capture.get()


@pytest.mark.parametrize('task', [CLASSIFICATION, DETECTION, SEGMENTATION])
def test_draws_every_task(tmp_path, task):
    data = prepared(tmp_path / 'data', task, train=20, masks=True)
    path = tmp_path / 'overview.png'
    draw_overview(data, path)
    drawn = np.asarray(Image.open(path).convert('RGB')).astype(int)
    # The annotations and bars are coloured, the pictures almost grey.
    assert (np.ptp(drawn, axis=2) > 100).mean() > 0.01


def test_names_do_not_hide_many_objects(tmp_path):
    """The more objects, the more is drawn, but for their names."""
    data = prepared(tmp_path / 'data', DETECTION, train=2, val=1)
    few = drawn_share(data, tmp_path)
    for number, picture in enumerate(data.collection.pictures):
        data.collection.pictures[number] = replace(
            picture, objects=picture.objects * 21
        )
    assert drawn_share(data, tmp_path) < few


def drawn_share(data, folder):
    """Share of coloured pixels in the samples."""
    path = folder / 'overview.png'
    draw_overview(data, path)
    drawn = np.asarray(Image.open(path).convert('RGB')).astype(int)
    samples = drawn[: len(drawn) // 2]
    return (np.ptp(samples, axis=2) > 100).mean()


def test_draws_what_cannot_be_read(tmp_path):
    data = prepared(tmp_path / 'data', SEGMENTATION)
    data.collection.pictures[0].path.write_bytes(b'')
    data.collection.pictures[1].label_map.write_bytes(b'')
    draw_overview(data, tmp_path / 'overview.png')


def test_samples_show_every_class(tmp_path):
    names = tuple('abcdefgh')
    data = prepared(tmp_path / 'data', DETECTION, train=60, classes=names)
    chosen = samples_of(data)
    assert len({picture.path for picture in chosen}) == 18
    assert {p.objects[0].label for p in chosen} == set(names)


def test_tables_tell_everything(tmp_path):
    names = ('disc', '[bold]square', 'rare')
    data = prepared(tmp_path / 'data', DETECTION, test=3, classes=names)
    data.splits['train'].objects.update(disc=90, rare=1)
    data.splits['val'].objects['rare'] = 0
    data.splits['test'].objects['rare'] = 0
    text = printed(
        *overview_tables(data, ['0003.png: broken']),
        decisions_table(decide(data)),
    )
    for words in (
        'pictures of a test',
        'it was made by a test',
        'detection, boxes',
        '8 train, 4 val, 3 test',
        '15 with sides of 78, 78, 78 pixels',
        '15 with sides of 21, 21, 21 pixels',
        '[bold]square',
        'uneven: disc has',
        'boxes without area',
        '1: 0003.png: broken',
        'at least four steps with 8 pictures',
    ):
        assert words in text, words


def test_a_class_without_examples(tmp_path):
    names = ('disc', 'square', 'third')
    data = prepared(tmp_path / 'data', SEGMENTATION, classes=names)
    assert 'no example of square, third' in printed(*overview_tables(data))
