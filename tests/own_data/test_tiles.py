import cv2
import numpy as np
import pytest

from mmtransxnet.own_data import tiles
from mmtransxnet.own_data.prepare import prepare
from mmtransxnet.own_data.reading import read
from mmtransxnet.utils.errors import UserError
from tests.own_data.test_prepare import LOAD, dataset_of, segmentation_dataset
from tests.support import own_data

TILE = 32


def polygons(box):
    return [own_data.corners(box)]


def run_lengths(box):
    mask = np.zeros((own_data.SIZE[1], own_data.SIZE[0]), bool)
    left, top, right, bottom = map(int, box)
    mask[top:bottom, left:right] = True
    changes = np.flatnonzero(np.diff(mask.T.ravel().astype(int))) + 1
    counts = np.diff([0, *changes, mask.size]).tolist()
    return dict(size=list(mask.shape), counts=counts)


@pytest.mark.parametrize('mask', [None, polygons, run_lengths])
def test_boxes_go_back_to_the_whole_picture(tmp_path, mask):
    root = own_data.coco(tmp_path / 'data', 4, mask)
    result = prepare(read(root), tmp_path / 'out', tile=TILE)
    record = tiles.read_record(tmp_path / 'out/tiles')
    assert len(record) == 4 * 2 * 3
    boxes = {}
    for picture in result.collection.pictures:
        name = picture.path.relative_to(result.picture_root).as_posix()
        boxes[name] = [item.box for item in picture.objects]
    whole = tiles.whole_picture(record, boxes)
    assert len(whole) == 4
    for found in whole.values():
        assert found
        for label, truth in own_data.BOXES.items():
            parts = [
                box
                for _, box in found
                if box[0] >= truth[0]
                and box[1] >= truth[1]
                and box[2] <= truth[2]
                and box[3] <= truth[3]
            ]
            assert parts, label
            area = max((b[2] - b[0]) * (b[3] - b[1]) for b in parts)
            complete = (truth[2] - truth[0]) * (truth[3] - truth[1])
            assert area >= tiles.LEAST_SHARE * complete


@pytest.mark.parametrize('mask', [polygons, run_lengths])
def test_masks_of_tiles_are_those_of_the_picture(tmp_path, mask):
    root = own_data.coco(tmp_path / 'data', 4, mask)
    result = prepare(read(root), tmp_path / 'out', tile=TILE)
    record = tiles.read_record(tmp_path / 'out/tiles')
    dataset = dataset_of(
        result,
        'train',
        data_prefix=dict(img=str(result.picture_root)),
        pipeline=[*LOAD, dict(type='LoadAnnotations', with_mask=True)],
    )
    truth = own_data.class_map()
    checked = 0
    for sample in dataset:
        name = sample['img_path'][len(str(result.picture_root)) + 1 :]
        tile = record[name]
        area = np.s_[
            tile.top : tile.top + tile.height,
            tile.left : tile.left + tile.width,
        ]
        masks = sample['gt_masks'].masks
        for inside, label in zip(
            masks, sample['gt_bboxes_labels'], strict=True
        ):
            assert np.array_equal(inside, truth[area] == label + 1)
            checked += 1
    assert checked > 5


def test_tiles_have_the_pixels_and_label_maps_of_the_picture(tmp_path):
    root = own_data.label_maps(tmp_path / 'data', 5, suffix='.png')
    result = prepare(read(root), tmp_path / 'out', tile=TILE)
    assert result.tile == TILE
    record = tiles.read_record(tmp_path / 'out/tiles')
    maps = {}
    for split in ('train', 'val'):
        for sample in segmentation_dataset(result, split):
            name = sample['img_path'][len(str(result.picture_root)) + 1 :]
            tile = record[name]
            whole = cv2.imread(str(root / tile.picture))
            area = np.s_[
                tile.top : tile.top + tile.height,
                tile.left : tile.left + tile.width,
            ]
            assert np.array_equal(sample['img'], whole[area])
            maps[name] = sample['gt_seg_map']
    assert len(maps) == len(record) == 30
    joined = tiles.whole_label_map(record, maps)
    assert len(joined) == 5
    for numbers in joined.values():
        assert np.array_equal(numbers, own_data.class_map())


def test_tiles_of_a_picture_are_in_one_split(tmp_path):
    root = own_data.voc(tmp_path / 'data', 6)
    result = prepare(read(root), tmp_path / 'out', tile=TILE)
    sides = {}
    for picture in result.collection.pictures:
        name = picture.path.name.partition('_')[0]
        sides.setdefault(name, set()).add(picture.split)
    assert all(len(splits) == 1 for splits in sides.values())
    assert result.splits['val'].pictures == 6
    assert any('36 tiles of 32 pixels' in r for r in result.collection.reasons)


def test_what_cannot_be_cut_is_an_error(tmp_path):
    collection = read(own_data.voc(tmp_path / 'data'))
    with pytest.raises(UserError, match='at least 32'):
        prepare(collection, tmp_path / 'out', tile=8)
    with pytest.raises(UserError, match='below 1'):
        prepare(collection, tmp_path / 'out', tile=32, overlap=1)
    folders = read(own_data.class_folders(tmp_path / 'folders'))
    with pytest.raises(UserError, match='leave --tile out'):
        prepare(folders, tmp_path / 'out', tile=32)
