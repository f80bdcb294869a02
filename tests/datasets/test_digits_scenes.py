"""What is drawn: size, turn, contrast, overlap."""

import cv2
import numpy as np
import pytest

from mmtransxnet.datasets.digits import render, scans, scenes


def many_scenes(all_sources, count=40, size=160, split='val'):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        yield scenes.draw_scene(rng, all_sources, split, size)


@pytest.fixture
def drawn(monkeypatch):
    """Record what lies under each digit, its alpha and its ink."""
    record = []
    blend = scenes.blend

    def recording(canvas, alpha, ink):
        record.append((canvas.copy(), alpha, np.asarray(ink)))
        blend(canvas, alpha, ink)

    monkeypatch.setattr(scenes, 'blend', recording)
    return record


def test_stamp_has_the_height_and_the_turn_asked_for():
    block = np.ones((8, 8), np.float32)
    assert render.stamp(block, 40, 0).shape == pytest.approx((40, 40), abs=2)
    turned = render.stamp(block, 40, 20).shape
    side = 40 * (np.cos(np.pi / 9) + np.sin(np.pi / 9))
    assert turned == pytest.approx((side, side), abs=2.5)
    bar = np.zeros((8, 8), np.float32)
    bar[:, 3:5] = 1
    alpha = render.stamp(bar, 64, 20)
    # Counterclockwise: what was up is left now.
    assert alpha[:8].nonzero()[1].mean() < alpha[-8:].nonzero()[1].mean()
    assert render.MAX_ANGLE <= 25


def test_stamp_is_the_scan(all_sources):
    """Back at 8 x 8, an upright stamp is the thresholded scan."""
    agreement = []
    for index in range(0, 1797, 60):
        scan = all_sources.scans[index]
        ys, xs = np.nonzero(scan > 0.52)
        tight = scan[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        alpha = render.stamp(scan, 64, 0).astype(np.float32) / 255
        small = cv2.resize(
            alpha, tight.shape[::-1], interpolation=cv2.INTER_AREA
        )
        agreement.append(np.corrcoef(small.ravel(), tight.ravel())[0, 1])
    assert np.mean(agreement) > 0.85


def test_stamp_has_soft_edges_and_solid_ink(all_sources):
    alpha = render.stamp(all_sources.scans[0], 50, 10)
    assert alpha.max() == 255
    solid, empty = (alpha == 255).mean(), (alpha == 0).mean()
    assert solid > 0.15
    assert empty > 0.2
    assert 0.02 < 1 - solid - empty < 0.3
    assert alpha[0].any()
    assert alpha[-1].any()
    assert alpha[:, 0].any()
    assert alpha[:, -1].any()


def test_every_scan_fits_a_single_picture(all_sources):
    _, tallest = scenes.single_heights(64, 160)
    for scan in all_sources.scans:
        for angle in (-render.MAX_ANGLE, render.MAX_ANGLE):
            assert max(render.stamp(scan, tallest, angle).shape) <= 64


def test_singles_have_the_scale_of_scenes():
    low, high = scenes.single_heights(64, 160)
    assert low == 160 * scenes.HEIGHTS[0]
    assert low * 1.5 < high <= 160 * scenes.HEIGHTS[1]
    assert scenes.single_heights(160, 160)[1] == 160 * scenes.HEIGHTS[1]


def test_single_shows_its_digit_near_the_middle(all_sources, drawn):
    for digit in all_sources.pools['val'][:30]:
        rng = np.random.default_rng(digit)
        image, crop = scenes.draw_single(
            rng, all_sources, 'val', digit, size=64, scene_size=160
        )
        assert image.shape == (64, 64, 3)
        # Photo pixels are as large as in scenes: 112 to 224 over 160.
        assert 44 <= crop.box[2] <= 90
        y, x = position(image, *drawn[-1])
        h, w = drawn[-1][1].shape
        assert 0.2 * (64 - h) - 1 <= y <= 0.8 * (64 - h)
        assert 0.2 * (64 - w) - 1 <= x <= 0.8 * (64 - w)


def position(image, canvas, alpha, ink):
    """Find where a digit was drawn: its patch occurs once."""
    patch = canvas.copy()
    render.blend(patch, alpha, ink)
    found = cv2.matchTemplate(image, patch, cv2.TM_SQDIFF)
    y, x = np.unravel_index(found.argmin(), found.shape)
    assert found[y, x] < 1000  # single precision
    return y, x


def test_ink_stands_out_from_what_is_under_it(all_sources, drawn):
    """Brightness alone, as a person with weak colour vision sees it."""
    list(many_scenes(all_sources, split='train'))
    assert len(drawn) > 100
    shares = []
    for canvas, _, ink in drawn:
        weights = np.array([0.299, 0.587, 0.114])
        apart = np.abs(canvas @ weights - ink @ weights)
        shares.append((apart > 50).mean())
    assert min(shares) > 0.55  # a sample of the pixels was looked at
    assert np.mean(shares) > 0.85


@pytest.mark.parametrize('grey', [0, 60, 100, 130])
def test_ink_is_found_on_any_plain_ground(grey):
    ground = np.full((50, 3), grey, np.uint8)
    inks = [
        render.pick_ink(np.random.default_rng(seed), [ground])
        for seed in range(30)
    ]
    assert all(ink is not None for ink in inks)
    assert len({tuple(ink) for ink in inks}) > 20
    for ink in inks:
        assert abs(int(render.luma(ink)) - grey) >= 50


def test_ink_is_mostly_found_on_the_brightest_ground():
    """A digit for which it is not is laid elsewhere."""
    white = np.full((5, 10, 3), 255, np.uint8)
    ground = scans.dim(white).reshape(-1, 3)
    inks = [
        render.pick_ink(np.random.default_rng(seed), [ground])
        for seed in range(30)
    ]
    assert sum(ink is not None for ink in inks) >= 24


def test_no_ink_where_none_stands_out():
    """A small neighbour counts as much as a large background."""
    grounds = [
        np.full((40 if grey else 2, 3), grey, np.uint8)
        for grey in (0, 60, 120, 180, 240)
    ]
    rng = np.random.default_rng(0)
    assert render.pick_ink(rng, grounds) is None


def test_digits_differ_from_digits_they_touch(all_sources, drawn):
    for scene in many_scenes(all_sources):
        inks = [ink for _, _, ink in drawn[-len(scene.digits) :]]
        for number in range(len(inks)):
            mask = (scene.owner == number).astype(np.uint8)
            near = scene.owner[cv2.dilate(mask, np.ones((3, 3))) == 1]
            for other in set(near.tolist()) - {-1, number}:
                gap = np.abs(inks[number] - inks[other]).max()
                assert gap > 60


def test_overlap_hides_a_fifth_at_most(all_sources, drawn):
    hidden = []
    for scene in many_scenes(all_sources):
        stamps = drawn[-len(scene.digits) :]
        for number, (_, alpha, _) in enumerate(stamps):
            whole = (alpha > 127).sum()
            hidden.append(1 - (scene.owner == number).sum() / whole)
    assert max(hidden) <= 0.2
    assert min(hidden) == 0
    assert max(hidden) > 0.1  # but overlap there is
    assert np.mean(np.array(hidden) > 0) > 0.05


def test_scenes_vary(all_sources, drawn):
    numbers, photos, digits = set(), set(), set()
    for scene in many_scenes(all_sources, count=60):
        numbers.add(len(scene.digits))
        photos.add(scene.crop.photo)
        digits |= set(all_sources.labels[scene.digits].tolist())
    assert numbers == {1, 2, 3, 4, 5, 6}
    assert photos == {'china.jpg', 'flower.jpg'}
    assert digits == set(range(10))
    heights = np.array([alpha.shape[0] for _, alpha, _ in drawn])
    assert heights.min() >= 24
    assert heights.max() <= 75
    assert np.ptp(heights) > 25


@pytest.mark.parametrize('size', [64, 320])
def test_digits_grow_with_the_scene(all_sources, drawn, size):
    for scene in many_scenes(all_sources, count=15, size=size):
        assert scene.image.shape == (size, size, 3)
        assert scene.owner.shape == (size, size)
    heights = np.array([alpha.shape[0] for _, alpha, _ in drawn]) / size
    assert 0.2 < heights.mean() < 0.4
