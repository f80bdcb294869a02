"""What the runtime computes with numpy and pillow, against the libraries."""

import io

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS as CLASSIFICATION
from mmseg.registry import TRANSFORMS as SEGMENTATION
from PIL import Image
from pycocotools import mask as coco

from mmtransxnet.apis import inputs as package
from mmtransxnet.deploy import runtime
from tests.support import corrupt_files
from tests.support.fuzz import fuzz

SIDES = st.integers(1, 90)
SEEDS = st.integers(0, 2**16)


def mmdet_paste(*arguments, **options):
    # After mmtransxnet, which provides the operators.
    from mmdet.models.roi_heads.mask_heads import fcn_mask_head

    return fcn_mask_head._do_paste_mask(*arguments, **options)


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, 'uint8')


@pytest.mark.parametrize('name', corrupt_files.GOOD)
def test_reads_like_the_package(tmp_path, name):
    content, _ = corrupt_files.GOOD[name]
    path = tmp_path / 'picture'
    path.write_bytes(content)
    expected = package.read_picture(path)[..., ::-1].astype(int)
    for source in (path, str(path), content):
        read = runtime.read_picture(source)
        assert read.dtype == np.uint8
        # Each has its own formula for CMYK, and its own decoder of JPEG.
        limit = 8 if 'CMYK' in name else 2
        assert np.abs(read - expected).max() <= limit


@pytest.mark.parametrize('name', corrupt_files.BAD)
def test_refuses_what_the_package_refuses(tmp_path, name):
    content, _ = corrupt_files.BAD[name]
    path = tmp_path / 'picture'
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(runtime.PictureError):
            runtime.read_picture(source)


def test_images_and_arrays():
    pixels = noise(0, 5, 7, 3)
    assert np.array_equal(runtime.read_picture(pixels), pixels)
    image = Image.fromarray(pixels)
    assert np.array_equal(runtime.read_picture(image), pixels)
    for wrong in (pixels[..., 0], pixels / 255, pixels[:0]):
        with pytest.raises(runtime.PictureError, match='expected uint8'):
            runtime.read_picture(wrong)
    with pytest.raises(runtime.PictureSizeError, match='more than 30'):
        runtime.read_picture(image, max_pixels=30)


@fuzz(60)
@given(SIDES, SIDES, SIDES, SIDES, SEEDS)
def test_bilinear_as_opencv(height, width, new_height, new_width, seed):
    pixels = noise(seed, height, width, 3)
    expected = cv2.resize(pixels, (new_width, new_height))
    result = runtime.resize_bilinear(pixels, new_width, new_height)
    assert result.shape == expected.shape
    assert np.abs(result.astype(int) - expected).max() <= 1


def test_bilinear_of_a_photo_is_nearly_equal():
    pixels = noise(0, 240, 320, 3)
    expected = cv2.resize(pixels, (533, 400))
    result = runtime.resize_bilinear(pixels, 533, 400)
    assert (result != expected).mean() < 0.01


TRANSFORMS = [
    (
        SEGMENTATION,
        [dict(type='Resize', scale=(96, 64), keep_ratio=True)],
        [{'step': 'resize', 'scale': [96, 64], 'keep_ratio': True}],
    ),
    (
        SEGMENTATION,
        [dict(type='Resize', scale=(48, 64), keep_ratio=False)],
        [{'step': 'resize', 'scale': [48, 64], 'keep_ratio': False}],
    ),
    (
        SEGMENTATION,
        [dict(type='ResizeToMultiple', size_divisor=32)],
        [{'step': 'resize_to_multiple', 'divisor': 32}],
    ),
    *(
        (
            CLASSIFICATION,
            [
                dict(
                    type='ResizeEdge',
                    scale=40,
                    edge=edge,
                    backend='pillow',
                    interpolation='bicubic',
                ),
                dict(type='CenterCrop', crop_size=(20, 33)),
            ],
            [
                {
                    'step': 'resize_edge',
                    'scale': 40,
                    'edge': edge,
                    'backend': 'pillow',
                    'interpolation': 'bicubic',
                },
                {'step': 'center_crop', 'size': [33, 20]},
            ],
        )
        for edge in ('short', 'long', 'width', 'height')
    ),
]


@fuzz(8)
@pytest.mark.parametrize('case', range(len(TRANSFORMS)))
@given(st.integers(8, 90), st.integers(8, 90), SEEDS)
def test_steps_as_the_libraries(case, height, width, seed):
    registry, transforms, steps = TRANSFORMS[case]
    pixels = noise(seed, height, width, 3)
    results = dict(img=pixels, img_shape=(height, width))
    with DefaultScope.overwrite_default_scope(registry.scope):
        for transform in transforms:
            results = registry.build(transform).transform(results)
    mine = runtime.apply_steps(pixels, steps)
    assert mine.shape == results['img'].shape
    assert np.abs(mine.astype(int) - results['img']).max() <= 1


BOX = st.tuples(
    st.floats(-10, 60),
    st.floats(-10, 60),
    st.floats(0.5, 70),
    st.floats(0.5, 70),
)


@fuzz(60)
@given(BOX, st.integers(1, 50), st.integers(1, 50), SEEDS)
def test_pastes_as_mmdet(box, height, width, seed):
    # mmdet's boxes are within the picture.
    x, y = box[0] % width, box[1] % height
    corners = [x, y, min(x + box[2], width), min(y + box[3], height)]
    corners = np.array(corners, np.float32)
    mask = np.random.default_rng(seed).random((28, 28), 'float32')
    patch = runtime.paste_mask(mask, corners, (height, width), 0.5)
    (expected,), (rows, columns) = mmdet_paste(
        torch.from_numpy(mask)[None, None],
        torch.from_numpy(corners)[None],
        height,
        width,
    )
    assert (patch.top, patch.left) == (rows.start, columns.start)
    assert patch.pixels.shape == expected.shape
    # Where sums are rounded in another order, a pixel on the threshold may
    # differ.
    clear = (expected - 0.5).abs().numpy() > 1e-5
    inside = expected.numpy() >= 0.5
    assert np.array_equal(patch.pixels[clear], inside[clear])


def test_pastes_an_empty_box_as_mmdet():
    box = np.array([3, 2, 3, 9], np.float32)
    mask = np.full((28, 28), 0.7, np.float32)
    patch = runtime.paste_mask(mask, box, (12, 12), 0.5)
    expected, place = mmdet_paste(
        torch.from_numpy(mask)[None, None],
        torch.from_numpy(box)[None],
        12,
        12,
        skip_empty=True,
    )
    assert (patch.top, patch.left) == (place[0].start, place[1].start)
    assert np.array_equal(patch.pixels, expected[0].numpy() >= 0.5)


@fuzz(80)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([0, 0.02, 0.5, 0.98, 1]),
    SEEDS,
)
def test_run_lengths_as_coco(height, width, share, seed):
    draw = np.random.default_rng(seed)
    full = np.zeros((height, width), bool)
    top, left = draw.integers(0, (height, width))
    part = full[top:, left:]
    part[:] = draw.random(part.shape) < share
    patch = runtime.Patch(part.copy(), int(top), int(left))
    expected = coco.encode(np.asfortranarray(full.astype(np.uint8)))
    assert patch.run_length(height, width) == {
        'size': [height, width],
        'counts': expected['counts'].decode(),
    }


@pytest.mark.parametrize('size', [(2000, 2000), (1, 5000)])
def test_long_runs(size):
    full = np.zeros(size, bool)
    full[-1:, -9:] = True
    full[0, ::2] = True
    expected = coco.encode(np.asfortranarray(full.astype(np.uint8)))
    counts = runtime.Patch(full, 0, 0).run_length(*size)['counts']
    assert counts == expected['counts'].decode()


def test_colours_are_distinct():
    assert len(set(runtime.colours(200))) == 200


def test_knows_the_suffixes_of_its_formats():
    assert set(package.IMAGE_SUFFIXES) < set(runtime.IMAGE_SUFFIXES)
    registered = Image.registered_extensions().items()
    known = {end for end, kind in registered if kind in runtime._FORMATS}
    # PFM has values of float32, which are refused.
    assert known - {'.pfm'} <= set(runtime.IMAGE_SUFFIXES)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('channels', [1, 3])
def test_turns_a_tiff_as_opencv(orientation, channels):
    pixels = noise(0, 6, 9, channels)
    content = corrupt_files.encoded(
        pixels.squeeze(), 'TIFF', tiffinfo={0x0112: orientation}
    )
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    read = runtime.read_picture(content)
    assert np.array_equal(read, expected[..., ::-1])
    # Loaded before, as a user's may be.
    image = Image.open(io.BytesIO(content))
    image.load()
    assert np.array_equal(runtime.read_picture(image), read)


def test_a_truncated_image_of_pillow_is_a_picture_error():
    content, _ = corrupt_files.BAD['truncated JPEG']
    with pytest.raises(runtime.PictureError, match='the image cannot be dec'):
        runtime.read_picture(Image.open(io.BytesIO(content)))
