"""Printed letters on photographs: another set than the digits, to adapt to.

Five letters in fonts that matplotlib bundles, on pictures that scikit-image
bundles, drawn as the embedded digits are and then inverted: dark ink on bright
negatives. Fonts and parts of the pictures for validation are not used in
training.

    letters.json                             written last
    single/{train,val}/{A,E,K,R,S}/0000.png
    scenes/{train,val}/0000.png
    scenes/{train,val}.json                  boxes and masks (COCO)
    scenes/labels/{train,val}/0000.png       as of the digits: 1 is background
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from mmtransxnet.datasets.digits.scans import SPLITS, Sources, dim
from mmtransxnet.datasets.digits.scenes import Scene, draw_scene, draw_single
from mmtransxnet.utils.extras import import_extra

LETTERS = ('A', 'E', 'K', 'R', 'S')

FONTS = dict(
    train=(
        'DejaVuSans',
        'DejaVuSans-Bold',
        'DejaVuSans-Oblique',
        'DejaVuSansMono',
        'DejaVuSerif',
        'DejaVuSerif-Bold',
        'STIXGeneral',
        'STIXGeneralBol',
    ),
    val=('cmb10', 'cmr10', 'cmss10', 'cmtt10'),
)

PICTURES = ('astronaut', 'brick', 'chelsea', 'coffee', 'grass', 'gravel')

SINGLES = dict(train=120, val=40)
"""Pictures of each letter."""

SCENES = dict(train=600, val=100)

_SIDE = 160
"""Side of a scene in pixels, that of the digits."""

_SINGLE = 64
_GLYPH = 32
"""Side of the drawing of a letter in pixels, before it is enlarged."""

_WIDTH = 1024
"""Width to which pictures are enlarged: the part for validation must hold the
largest background."""

_NAME = 'letters.json'


def build_letters(root: Path) -> None:
    """Build the set, unless it is complete already.

    Args:
        root: Folder to create.

    Raises:
        ImportError: matplotlib, scikit-image or pycocotools is not installed.
    """
    if (root / _NAME).exists():
        return
    sources = _load_sources()
    for split in SPLITS:
        _write_singles(root / 'single' / split, sources, split)
        _write_scenes(root / 'scenes', sources, split)
    content = dict(letters=LETTERS, singles=SINGLES, scenes=SCENES)
    (root / _NAME).write_text(json.dumps(content))


def _load_sources() -> Sources:
    """Letters in the place of scans, and photographs."""
    glyphs: list[NDArray[np.float32]] = []
    labels: list[int] = []
    pools: dict[str, Any] = {split: [] for split in SPLITS}
    for split in SPLITS:
        for font in FONTS[split]:
            for label, letter in enumerate(LETTERS):
                pools[split].append(len(glyphs))
                glyphs.append(_draw(letter, font))
                labels.append(label)
    return Sources(
        scans=np.stack(glyphs),
        labels=np.array(labels, dtype=np.int64),
        pools={split: np.array(pool) for split, pool in pools.items()},
        photos={name: _photo(name) for name in PICTURES},
    )


def _draw(letter: str, font: str) -> NDArray[np.float32]:
    """A letter ``(32, 32)``, 0 for paper to 1."""
    matplotlib = import_extra('matplotlib', 'matplotlib')
    path = Path(matplotlib.get_data_path()) / 'fonts/ttf' / f'{font}.ttf'
    drawing = Image.new('L', (_GLYPH, _GLYPH))
    ImageDraw.Draw(drawing).text(
        (_GLYPH / 2, _GLYPH / 2),
        letter,
        fill=255,
        font=ImageFont.truetype(str(path), _GLYPH),
        anchor='mm',
    )
    return (np.asarray(drawing) / 255).astype(np.float32)


def _photo(name: str) -> NDArray[np.uint8]:
    """An RGB picture ``(h, 1024, 3)``, dimmed."""
    data = import_extra('skimage.data', 'scikit-image')
    picture = Image.fromarray(getattr(data, name)()).convert('RGB')
    height = round(picture.height * _WIDTH / picture.width)
    return dim(np.asarray(picture.resize((_WIDTH, height))))


def _write_singles(folder: Path, sources: Sources, split: str) -> None:
    for label, letter in enumerate(LETTERS):
        (folder / letter).mkdir(parents=True, exist_ok=True)
        pool = sources.pools[split]
        pool = pool[sources.labels[pool] == label]
        for number in range(SINGLES[split]):
            rng = np.random.default_rng([SPLITS.index(split), label, number])
            image, _ = draw_single(
                rng,
                sources,
                split,
                int(rng.choice(pool)),
                size=_SINGLE,
                scene_size=_SIDE,
            )
            _save(folder / letter / f'{number:04d}.png', 255 - image)


def _write_scenes(root: Path, sources: Sources, split: str) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(SCENES[split]):
        rng = np.random.default_rng([2 + SPLITS.index(split), number])
        scene = draw_scene(rng, sources, split, _SIDE)
        name = f'{number:04d}.png'
        labels = [2 + sources.labels[glyph] for glyph in scene.digits]
        label_map = np.array([1, *labels], dtype=np.uint8)[scene.owner + 1]
        _save(root / split / name, 255 - scene.image)
        _save(root / 'labels' / split / name, label_map)
        images.append(
            dict(id=number, file_name=name, height=_SIDE, width=_SIDE)
        )
        for annotation in _annotations(scene, sources):
            annotation.update(id=len(annotations) + 1, image_id=number)
            annotations.append(annotation)
    categories = [dict(id=i, name=name) for i, name in enumerate(LETTERS)]
    content = dict(
        images=images, annotations=annotations, categories=categories
    )
    (root / f'{split}.json').write_text(json.dumps(content))


def _annotations(scene: Scene, sources: Sources) -> Iterator[dict[str, Any]]:
    coco_mask = import_extra('pycocotools.mask', 'pycocotools')
    for number, glyph in enumerate(scene.digits):
        mask = np.asfortranarray(scene.owner == number, dtype=np.uint8)
        code = coco_mask.encode(mask)
        yield dict(
            category_id=int(sources.labels[glyph]),
            segmentation=dict(
                size=list(mask.shape), counts=code['counts'].decode('ascii')
            ),
            bbox=coco_mask.toBbox(code).tolist(),
            area=int(mask.sum()),
            iscrowd=0,
        )


def _save(path: Path, image: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
