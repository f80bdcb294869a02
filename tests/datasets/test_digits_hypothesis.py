"""The builder, with whatever options: a consistent set, or a clear error."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask

from mmtransxnet.datasets import CLASSES
from mmtransxnet.datasets.digits import build
from mmtransxnet.datasets.digits.formats import ADE_SPLITS
from tests.support.fuzz import fuzz

SIZE = st.integers(64, 160)


@st.composite
def valid_options(draw):
    """Options that the builder promises to take, small ones."""
    size = draw(SIZE)
    single = st.integers(-(-size * 9 // 32), size)
    return {
        'size': size,
        'train_images': draw(st.integers(1, 3)),
        'val_images': draw(st.integers(1, 3)),
        'renderings': draw(st.integers(1, 2)),
        'single_size': draw(st.none() | single),
        'seed': draw(st.integers(0, 2**32 - 1)),
    }


def check_scenes(root, split, options):
    """COCO's boxes and masks are ADE20K's label maps, picture by picture."""
    size = options['size']
    path = root / f'coco/annotations/instances_{split}.json'
    document = json.loads(path.read_bytes())
    assert [one['name'] for one in document['categories']] == list(CLASSES)
    ids = [one['id'] for one in document['annotations']]
    assert ids == list(range(1, len(ids) + 1))
    assert len(document['images']) == options[f'{split}_images']
    for record in document['images']:
        name = Path(record['file_name']).stem
        with Image.open(root / f'coco/{split}/{name}.jpg') as picture:
            assert picture.size == (record['width'], record['height'])
        folder = root / 'ade/annotations' / ADE_SPLITS[split]
        with Image.open(folder / f'{name}.png') as picture:
            labels = np.array(picture)
        assert labels.shape == (size, size)
        expected = np.ones_like(labels)
        own = [
            one
            for one in document['annotations']
            if one['image_id'] == record['id']
        ]
        assert own
        for one in own:
            expected[check_box(one, size)] = 2 + one['category_id']
        assert np.array_equal(labels, expected)
    return len(ids)


def check_box(annotation, size):
    """The box is that of the mask and within the picture."""
    mask = coco_mask.decode(annotation['segmentation']).astype(bool)
    assert mask.shape == (size, size)
    rows, columns = np.nonzero(mask)
    x, y, width, height = annotation['bbox']
    assert (x, x + width - 1) == (columns.min(), columns.max())
    assert (y, y + height - 1) == (rows.min(), rows.max())
    assert annotation['area'] == mask.sum() > 0
    return mask


def check_singles(root, split, options):
    side = options['single_size'] or options['size'] * 2 // 5
    records = json.loads((root / f'imagenet/{split}.json').read_bytes())
    for record in records:
        assert record['file_name'].startswith(f'{record["label"]}/')
        with Image.open(root / 'imagenet' / split / record['file_name']) as p:
            assert p.size == (side, side)
    listed = {record['file_name'] for record in records}
    folder = root / 'imagenet' / split
    assert listed == {
        path.relative_to(folder).as_posix() for path in folder.glob('*/*')
    }
    return len(records)


@fuzz(12)
@given(options=valid_options())
def test_valid_options_give_a_consistent_set(quick_build, options):
    with tempfile.TemporaryDirectory() as folder:
        built = quick_build(Path(folder) / 'set', **options)
        for split in ('train', 'val'):
            assert built.counts[split] == {
                'scenes': options[f'{split}_images'],
                'instances': check_scenes(built.root, split, options),
                'singles': check_singles(built.root, split, options),
            }


FORBIDDEN = {
    'size': st.integers(max_value=63) | st.integers(min_value=2049),
    'train_images': st.integers(max_value=0) | st.integers(10**6),
    'val_images': st.integers(max_value=0) | st.integers(10**6),
    'renderings': st.integers(max_value=0) | st.integers(1001),
    'single_size': st.integers(max_value=0) | st.integers(2049),
    'seed': st.integers(max_value=-1) | st.integers(2**32),
}


@fuzz(12)
@given(data=st.data(), options=valid_options())
@pytest.mark.parametrize('name', FORBIDDEN)
def test_an_option_out_of_range_is_named(name, data, options):
    options[name] = data.draw(FORBIDDEN[name])
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(ValueError) as caught:
            build.build_digits(Path(folder) / 'set', **options)
        assert str(caught.value).startswith(f'{name} ')
        assert str(options[name]) in str(caught.value)
        assert not list(Path(folder).iterdir())


@fuzz(12)
@given(
    options=valid_options(),
    name=st.sampled_from(sorted(FORBIDDEN)),
    value=st.floats() | st.text() | st.none() | st.lists(st.integers()),
)
def test_an_option_that_is_no_whole_number_is_named(options, name, value):
    assume(value is not None or name != 'single_size')
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(TypeError, match=f'^{name} must be an integer'):
            build.build_digits(
                Path(folder) / 'set', **{**options, name: value}
            )
        assert not list(Path(folder).iterdir())
