"""The annotations are the pictures, and the two parts share nothing."""

import contextlib
import io

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from sklearn.datasets import load_digits

from mmtransxnet.datasets import CLASSES, PALETTE, SEG_CLASSES, SEG_PALETTE
from mmtransxnet.datasets.digits.scans import photo_columns, random_background
from mmtransxnet.datasets.digits.scenes import PHOTO_SIDES

SPLITS = ('train', 'val')


def scans_of(digits_set, split):
    records = [*digits_set.coco[split]['annotations']]
    return [record['digit_index'] for record in records] + [
        record['digit_index'] for record in digits_set.singles[split]
    ]


def boxes_of(digits_set, split):
    records = digits_set.coco[split]['images'] + digits_set.singles[split]
    return [(record['photo'], *record['photo_box']) for record in records]


def read(path):
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def by_image(document):
    groups = {image['id']: [] for image in document['images']}
    for annotation in document['annotations']:
        groups[annotation['image_id']].append(annotation)
    return groups


def test_no_scan_in_both_parts(digits_set, all_sources):
    train, val = (set(scans_of(digits_set, split)) for split in SPLITS)
    assert not train & val
    assert train | val == set(range(1797))
    # The singles hold every scan; the scenes must obey the same split.
    for split, scans in zip(SPLITS, (train, val), strict=True):
        assert scans == set(all_sources.pools[split].tolist())


def test_no_scan_twice_under_another_number():
    scans = load_digits().images.reshape(1797, -1)
    assert len(np.unique(scans, axis=0)) == 1797


def test_parts_are_stratified(all_sources):
    labels = load_digits().target
    for label in range(10):
        of_class = np.flatnonzero(labels == label)
        share = np.isin(of_class, all_sources.pools['val']).mean()
        assert share == pytest.approx(0.2, abs=0.01)


def test_no_pixel_of_a_photo_in_both_parts(digits_set):
    used = {
        split: {
            name: np.zeros((427, 640), bool)
            for name in ('china.jpg', 'flower.jpg')
        }
        for split in SPLITS
    }
    for split in SPLITS:
        for name, x, y, w, h in boxes_of(digits_set, split):
            assert 0 <= x < x + w <= 640
            assert 0 <= y < y + h <= 427
            used[split][name][y : y + h, x : x + w] = True
    for name in ('china.jpg', 'flower.jpg'):
        assert used['train'][name].mean() > 0.6
        assert used['val'][name].mean() > 0.2
        assert not (used['train'][name] & used['val'][name]).any()


def test_parts_of_a_photo_meet_but_do_not_overlap():
    for width in (640, 641, 999):
        first, cut = photo_columns(width, 'train')
        assert (first, width) == (0, photo_columns(width, 'val')[1])
        assert photo_columns(width, 'val')[0] == cut


def test_every_cut_stays_in_its_part(all_sources):
    """Extremes that the few pictures of the fixture may miss."""
    for split, low, high in (('train', 0, 416), ('val', 416, 640)):
        rng = np.random.default_rng(0)
        crops = [
            random_background(
                rng, all_sources, split, sides=(150, PHOTO_SIDES[1]), size=1
            )[1]
            for _ in range(1200)
        ]
        assert min(crop.box[0] for crop in crops) == low
        assert max(crop.box[0] + crop.box[2] for crop in crops) == high


def test_background_is_the_photo_box_that_is_told(digits_set, all_sources):
    """The metadata that proves the split is itself true."""
    for split in SPLITS:
        document = digits_set.coco[split]
        groups = by_image(document)
        for record in document['images']:
            picture = read(
                digits_set.root / 'coco' / split / record['file_name']
            )[..., ::-1]
            x, y, w, h = record['photo_box']
            photo = all_sources.photos[record['photo']]
            cut = photo[y : y + h, x : x + w]
            cut = cv2.resize(
                cut, picture.shape[:2], interpolation=cv2.INTER_AREA
            )
            ink = np.zeros(picture.shape[:2], np.uint8)
            for annotation in groups[record['id']]:
                ink |= coco_mask.decode(annotation['segmentation'])
            paper = cv2.dilate(ink, np.ones((7, 7))) == 0
            error = np.abs(picture.astype(int) - cut)[paper].mean()
            assert error < 8, record


def test_labels_are_those_of_the_scans(digits_set):
    labels = load_digits().target
    for split in SPLITS:
        document = digits_set.coco[split]
        assert [c['name'] for c in document['categories']] == list(CLASSES)
        name = {c['id']: c['name'] for c in document['categories']}
        for annotation in document['annotations']:
            digit = labels[annotation['digit_index']]
            assert name[annotation['category_id']] == str(digit)
        for record in digits_set.singles[split]:
            assert record['label'] == labels[record['digit_index']]
            folder, file = record['file_name'].split('/')
            assert folder == str(record['label'])
            assert int(file[:4]) == record['digit_index']


def test_boxes_are_tight_and_masks_disjoint(digits_set):
    for split in SPLITS:
        document = digits_set.coco[split]
        ids = [annotation['id'] for annotation in document['annotations']]
        assert ids == list(range(1, len(ids) + 1))
        for annotations in by_image(document).values():
            assert 1 <= len(annotations) <= 6
            total = np.zeros((96, 96), int)
            for annotation in annotations:
                mask = coco_mask.decode(annotation['segmentation'])
                rows, columns = mask.any(1), mask.any(0)
                x, y = columns.argmax(), rows.argmax()
                right = 96 - columns[::-1].argmax()
                bottom = 96 - rows[::-1].argmax()
                assert annotation['bbox'] == [x, y, right - x, bottom - y]
                assert annotation['area'] == mask.sum() > 0
                assert annotation['iscrowd'] == 0
                total += mask
            assert total.max() == 1


def test_label_maps_are_the_masks(digits_set):
    folders = {'train': 'training', 'val': 'validation'}
    for split in SPLITS:
        groups = by_image(digits_set.coco[split])
        for number, annotations in groups.items():
            expected = np.ones((96, 96), np.uint8)
            for annotation in annotations:
                mask = coco_mask.decode(annotation['segmentation']) == 1
                expected[mask] = 2 + annotation['category_id']
            labels = read(
                digits_set.root
                / f'ade/annotations/{folders[split]}/{number:06d}.png'
            )
            np.testing.assert_array_equal(labels, expected)


def test_mask_is_where_the_ink_is(digits_set):
    """A mask that is off by a pixel holds more paper, and more colours."""
    shifts = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    best = []
    for split in SPLITS:
        for number, annotations in by_image(digits_set.coco[split]).items():
            path = digits_set.root / f'coco/{split}/{number:06d}.jpg'
            picture = read(path).astype(float)
            for annotation in annotations:
                mask = coco_mask.decode(annotation['segmentation']) == 1
                spread = [
                    picture[np.roll(mask, shift, (0, 1))].std(axis=0).sum()
                    for shift in shifts
                ]
                best.append(np.argmin(spread))
    assert np.mean(np.array(best) == 0) > 0.95


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
@pytest.mark.parametrize('split', SPLITS)
def test_truth_scores_full_marks(digits_set, split, kind):
    path = digits_set.root / f'coco/annotations/instances_{split}.json'
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        results = [
            {
                'image_id': annotation['image_id'],
                'category_id': annotation['category_id'],
                'bbox': annotation['bbox'],
                'segmentation': annotation['segmentation'],
                'score': 1.0,
            }
            for annotation in digits_set.coco[split]['annotations']
        ]
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_names_and_colours_agree():
    assert tuple('0123456789') == CLASSES
    assert ('background', *CLASSES) == SEG_CLASSES
    assert len(set(PALETTE)) == len(CLASSES)
    assert len(set(SEG_PALETTE)) == len(SEG_CLASSES)
    assert list(SEG_PALETTE[1:]) == list(PALETTE)
