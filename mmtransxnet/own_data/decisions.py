"""What a config for given data should be, and why.

Every choice has its reason in a sentence. Rates and sizes come from the
recipes of the suite; how they change with the data is written here and
described in docs/own_data.md.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmtransxnet.own_data.anchors import best_scale
from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Prepared,
)
from mmtransxnet.own_data.label_maps import pixel_shares
from mmtransxnet.own_data.recipes import (
    ALGORITHMS,
    ARCHS,
    Algorithm,
    algorithms_of,
    rate_of,
    read,
    size_of_pictures,
)
from mmtransxnet.own_data.sizes import (
    object_sizes,
    of_split,
    picture_sizes,
    quantiles,
    sides,
)
from mmtransxnet.own_data.tiles import LARGE
from mmtransxnet.utils.errors import UserError

FEW = {CLASSIFICATION: 100_000, SEGMENTATION: 1000}
"""Below this number of training pictures, augmentation is gentle. That of the
published classifiers is for 300 epochs of a million pictures."""

_STEP = 32
"""Sides are multiples of this, the network's largest stride."""

_SMALL_OBJECT = 32
"""Side in pixels below which COCO calls an object small."""

_PIXELS = {CLASSIFICATION: 32 * 224**2}
"""Pixels of a batch; for other tasks, those of the recipe on one GPU."""

_MOST_IN_A_BATCH = {CLASSIFICATION: 32, DETECTION: 16, SEGMENTATION: 16}

_ITERATIONS = {CLASSIFICATION: 1500, DETECTION: 2000, SEGMENTATION: 2000}
"""Length of fine-tuning, within the limits of epochs."""

_EPOCHS = {
    CLASSIFICATION: (30, 100),
    DETECTION: (12, 100),
    SEGMENTATION: (12, 400),
}
"""Least and most epochs of fine-tuning."""

_LONGER_FROM_SCRATCH = 3

_MOST_PIXELS = 0.8
"""Share of the pixels from which a class gets a lower weight in the loss."""

_LEAST_WEIGHT = 0.1
_COUNTED = 100
"""Label maps whose pixels are counted, evenly spread."""

_VALIDATIONS = 20
_PATIENCE = 6


# What docs/small_data.md measured.
_ALL_LAYERS = {
    CLASSIFICATION: 'all are trained: freezing two stages cost a classifier 6 '
    'points of top-1 with 10 and 50 pictures, 31 with 200',
    DETECTION: 'all are trained: freezing two stages cost a RetinaNet 21, 22 '
    'and 24 points of AP50 with 10, 50 and 200 pictures',
    SEGMENTATION: 'all are trained: freezing two stages gained nothing with '
    '10, 50 and 200 pictures',
}
_FULL_RATE = (
    'not less of it: a quarter cost 1, 2 and 17 points of top-1 with 10, 50 '
    'and 200 pictures'
)


@dataclass(frozen=True)
class Choice:
    """A decision.

    Attributes:
        name: What was decided.
        value: The result.
        reason: Why, in a sentence.
    """

    name: str
    value: Any
    reason: str


@dataclass
class Decisions:
    """All choices for a config, in the order in which they were made."""

    choices: list[Choice] = field(default_factory=list)

    def add(self, name: str, value: Any, reason: str) -> Any:
        """Add a choice and return its value."""
        self.choices.append(Choice(name, value, reason))
        return value

    def find(self, name: str) -> Choice:
        """The choice of a name."""
        return next(item for item in self.choices if item.name == name)

    def __getitem__(self, name: str) -> Any:
        return self.find(name).value

    def __contains__(self, name: str) -> bool:
        return any(item.name == name for item in self.choices)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that was chosen."""
        return ALGORITHMS[self['algorithm']]

    @property
    def base(self) -> str:
        """The config it inherits from, relative to ``configs``."""
        return self.algorithm.base(self['arch'])


def decide(
    prepared: Prepared,
    algorithm: str | None = None,
    arch: str | None = None,
    batch_size: int | None = None,
    from_scratch: bool = False,
) -> Decisions:
    """Decide what a config for this data should be.

    Args:
        prepared: The data; its collection names the task.
        algorithm: Key of ``ALGORITHMS``; chosen by the task if None.
        arch: ``t``, ``s`` or ``b``; t if None.
        batch_size: Pictures in a batch; chosen by their size if None.
        from_scratch: Whether no pretrained weights are used.

    Raises:
        UserError: The algorithm is not one of the task, or needs masks that
            the data does not have.
    """
    made = Decisions()
    _algorithm(made, prepared, algorithm)
    made.add(
        'arch',
        arch or ARCHS[0],
        'as asked by --arch'
        if arch
        else 'the smallest size: trains fastest, and suits few pictures',
    )
    _SIZES[prepared.collection.task](made, prepared)
    if prepared.collection.task == DETECTION:
        _anchors(made, prepared)
        count = _with_objects(made, prepared)
    else:
        count = prepared.splits['train'].pictures
    if prepared.collection.task == SEGMENTATION:
        _class_weight(made, prepared)
    _weights(made, from_scratch)
    if from_scratch and made['algorithm'] == 'retinanet':
        made.add(
            'norm',
            'GN',
            'group norm, with which the head learns many times faster from '
            'scratch; published weights are without',
        )
    _batch(made, count, batch_size)
    _rate(made, from_scratch)
    _schedule(made, count, from_scratch)
    _augmentation(made, count)
    _best(made)
    return made


def _algorithm(made: Decisions, prepared: Prepared, asked: str | None) -> None:
    """Choose by the task and by whether there are masks."""
    data = prepared.collection
    if data.task == DETECTION and not len(
        object_sizes(of_split(prepared, 'train'))
    ):
        raise UserError(
            f'{data.root}: no object in the pictures to train from; annotate '
            'some, or move annotated pictures there'
        )
    known = algorithms_of(data.task)
    if asked is None:
        chosen, reason = _usual_algorithm(data.task, data.has_masks)
        made.add('algorithm', chosen, reason)
        return
    if asked not in known:
        raise UserError(
            f'--algorithm {asked} is not for {data.task}, the task of this '
            f'data; choose {", ".join(known)}, or another --task'
        )
    if ALGORITHMS[asked].masks and not data.has_masks:
        raise UserError(
            f'--algorithm {asked} needs a mask for every object, and '
            f'{data.root} has boxes only; choose retinanet, or annotate '
            'outlines'
        )
    made.add('algorithm', asked, 'as asked by --algorithm')


def _usual_algorithm(task: str, has_masks: bool) -> tuple[str, str]:
    if task == CLASSIFICATION:
        return 'classifier', 'every picture has one class'
    if task == SEGMENTATION:
        return 'sfpn', (
            'every pixel has a class; published weights exist, and it is '
            'faster than UperNet'
        )
    if has_masks:
        return 'maskrcnn', 'every object has a mask; published weights exist'
    return 'retinanet', (
        'objects have boxes without masks; published weights exist'
    )


def _up(value: float, least: int = 64) -> int:
    """Round up to a side that the network takes without padding."""
    return max(least, math.ceil(round(value, 3) / _STEP) * _STEP)


def _classifier_size(made: Decisions, prepared: Prepared) -> None:
    """The published size, or less if the pictures have less."""
    crop = read(made.base).test_pipeline[-2].crop_size
    (side,) = quantiles(_short_sides(prepared), [0.5])
    if side >= crop:
        made.add(
            'size',
            crop,
            f'the size of the published weights; half of the pictures have '
            f'a short side of {side:.0f} pixels or more',
        )
        return
    size = _up(side)
    made.add(
        'size',
        size,
        f'half of the pictures have a short side of at most {side:.0f} '
        f'pixels: enlarging them to {crop} would only cost time',
    )


def _short_sides(prepared: Prepared) -> np.ndarray:
    pictures = of_split(prepared, 'train')
    return picture_sizes(pictures).min(axis=1)


def _detector_size(made: Decisions, prepared: Prepared) -> None:
    """The pictures' own size, more for small objects, less than published."""
    long_most, short_most = size_of_pictures(made.base)
    pictures = of_split(prepared, 'train')
    shapes = picture_sizes(pictures)
    long = float(np.median(shapes.max(axis=1)))
    short = float(np.median(shapes.min(axis=1)))
    largest = min(long_most / long, short_most / short)
    (small,) = quantiles(sides(object_sizes(pictures)), [0.1])
    own = min(1.0, largest)
    scale = max(own, min(largest, 2.0, _SMALL_OBJECT / max(small, 1.0)))
    reason = f'the pictures have {long:.0f} x {short:.0f} pixels (median)'
    if scale > own:
        reason += (
            f', enlarged {scale:.1f} times because a tenth of the objects '
            f'has sides below {small:.0f} pixels'
        )
    if scale == largest:
        reason += '; this is the largest of the published recipe'
        made.add('size', (long_most, short_most), reason)
    else:
        reason += ', kept' if scale == own else ''
        made.add('size', (_up(long * scale), _up(short * scale)), reason)
    made.add(
        'scale',
        min(made['size'][0] / long, made['size'][1] / short),
        'from the pictures to the size of training',
    )
    _advise_tiles(made, prepared, long)


def _advise_tiles(made: Decisions, prepared: Prepared, long: float) -> None:
    if long > LARGE and prepared.tile is None:
        made.add(
            'tiles',
            None,
            f'pictures of {long:.0f} pixels are reduced; if objects are '
            'small, cut them with --tile 512',
        )


def _segmentor_size(made: Decisions, prepared: Prepared) -> None:
    """The published crop, or less if the pictures have less."""
    (most, _) = read(made.base).crop_size
    shapes = picture_sizes(of_split(prepared, 'train'))
    short = float(np.median(shapes.min(axis=1)))
    long = float(np.median(shapes.max(axis=1)))
    size = min(most, _up(short))
    reason = f'the pictures have {long:.0f} x {short:.0f} pixels (median)'
    if size == most:
        reason += '; this is the crop of the published recipe'
    made.add('size', size, reason)
    _advise_tiles(made, prepared, long)


_SIZES: Mapping[str, Callable[[Decisions, Prepared], None]] = {
    CLASSIFICATION: _classifier_size,
    DETECTION: _detector_size,
    SEGMENTATION: _segmentor_size,
}


def _anchors(made: Decisions, prepared: Prepared) -> None:
    """Smaller anchors if those of the recipe fit the objects badly."""
    boxes = object_sizes(of_split(prepared, 'train')) * made['scale']
    low, half, high = quantiles(sides(boxes), [0.05, 0.5, 0.95])
    choice = best_scale(boxes, read(made.base).model)
    objects = (
        f'objects have {low:.0f}, {half:.0f}, {high:.0f} pixels (5%, 50%, '
        '95%) at this size'
    )
    if choice.scale == choice.published:
        reason = f'{objects}: the published anchors fit {choice.fit:.0%}'
    else:
        reason = (
            f'{objects}: these anchors fit {choice.fit:.0%}, the published '
            f'{choice.published} only {choice.published_fit:.0%}'
        )
    made.add('anchors', choice.scale, reason)


def _with_objects(made: Decisions, prepared: Prepared) -> int:
    """The number of training pictures that mmdet does not filter out."""
    pictures = of_split(prepared, 'train')
    count = sum(bool(picture.objects) for picture in pictures)
    if count < len(pictures):
        made.add(
            'left_out',
            len(pictures) - count,
            f'{len(pictures) - count} of {len(pictures)} training pictures '
            'have none and are left out, as in the published recipe; '
            'filter_cfg=dict(filter_empty_gt=False) in the training data set '
            'keeps them',
        )
    return count


def _class_weight(made: Decisions, prepared: Prepared) -> None:
    """A low weight for a class that has nearly all pixels."""
    pictures = of_split(prepared, 'train')
    step = math.ceil(len(pictures) / _COUNTED)
    shares = pixel_shares(pictures[::step], len(prepared.collection.classes))
    number = int(shares.argmax())
    share = shares[number]
    if share < _MOST_PIXELS:
        return
    weight = max(_LEAST_WEIGHT, round((1 - share) / share, 2))
    made.add(
        'class_weight',
        (number, weight),
        f'{prepared.collection.classes[number]} has {share:.0%} of the '
        'pixels; with equal weights, short trainings find little else',
    )


def _weights(made: Decisions, from_scratch: bool) -> None:
    algorithm, arch = made.algorithm, made['arch']
    if from_scratch:
        made.add('weights', None, 'from scratch, as asked by --from-scratch')
        return
    weights = algorithm.weights(arch)
    if weights:
        made.add(
            'weights',
            weights,
            f'the published {algorithm.title} of this size; its layers for '
            f'classes start anew, and {_ALL_LAYERS[algorithm.task]}',
        )
        return
    made.add(
        'weights',
        f'transxnet://{arch}',
        f'the published classifier of this size fills the backbone: no '
        f'{algorithm.title} is published; {_ALL_LAYERS[algorithm.task]}',
    )


def _batch(made: Decisions, count: int, asked: int | None) -> None:
    """As many pixels as in the recipe on one GPU."""
    if asked is not None:
        made.add('batch', asked, 'as asked by --batch-size')
        return
    task, base = made.algorithm.task, read(made.base)
    size = made['size']
    area = size[0] * size[1] if isinstance(size, tuple) else size**2
    if task == DETECTION:
        published = math.prod(size_of_pictures(made.base))
    elif task == SEGMENTATION:
        published = math.prod(base.crop_size)
    else:
        published = 0
    per_gpu = base.train_dataloader.batch_size
    pixels = _PIXELS.get(task, per_gpu * published)
    most = _MOST_IN_A_BATCH[task]
    fitting = max(1, min(most, pixels // area))
    batch = 2 ** int(math.log2(fitting))
    reason = f'at most {most} pictures'
    if task != CLASSIFICATION:
        reason = (
            'about as many pixels as the published recipe has on one GPU, '
            f'{reason}'
        )
    # Several steps an epoch, so that epochs differ.
    few = max(1, 2 ** int(math.log2(max(1, count // 4))))
    if few < batch:
        batch, reason = few, f'at least four steps with {count} pictures'
    made.add('batch', batch, reason)


def _rate(made: Decisions, from_scratch: bool) -> None:
    """The rate of a recipe, by the square root of the batch."""
    algorithm, batch = made.algorithm, made['batch']
    config = algorithm.scratch if from_scratch else made.base
    rate, base_batch = rate_of(config)
    scaled = rate * math.sqrt(batch / base_batch)
    reason = (
        f'{rate:g} for batches of {base_batch} in {config}, times the '
        f'square root of {batch}/{base_batch}'
    )
    if algorithm.task == CLASSIFICATION and not from_scratch:
        reason += f'; {_FULL_RATE}'
    made.add('rate', float(f'{scaled:.1e}'), reason)


def _schedule(made: Decisions, count: int, from_scratch: bool) -> None:
    """Enough iterations, between the least and most epochs."""
    task = made.algorithm.task
    iterations = _ITERATIONS[task]
    least, most = _EPOCHS[task]
    if from_scratch:
        iterations *= _LONGER_FROM_SCRATCH
        least, most = (n * _LONGER_FROM_SCRATCH for n in (least, most))
    per_epoch = math.ceil(count / made['batch'])
    epochs = min(most, max(least, math.ceil(iterations / per_epoch)))
    total = epochs * per_epoch
    if epochs in (least, most):
        limit = 'least' if epochs == least else 'most'
        reason = f'the {limit} that pictures are repeated'
    else:
        reason = f'about {iterations} iterations in all'
    if from_scratch:
        reason += ', three times as many as in fine-tuning'
    reason += f'; {count} pictures are {per_epoch} iterations'
    if task == SEGMENTATION:
        made.add('iterations', total, f'{epochs} epochs: {reason}')
        interval = max(1, total // _VALIDATIONS)
    else:
        made.add('epochs', epochs, reason)
        interval = max(1, epochs // _VALIDATIONS)
    made.add('warmup', max(1, min(500, total // 10)), 'a tenth of it')
    made.add('interval', interval, f'about {_VALIDATIONS} times in all')


def _augmentation(made: Decisions, count: int) -> None:
    task = made.algorithm.task
    if task == DETECTION:
        made.add(
            'augmentation',
            'flip',
            'flipping only, as in the published recipe; remove it where '
            'left and right differ, as in text',
        )
    elif count < FEW[task]:
        made.add(
            'augmentation',
            'gentle',
            f'{count:,} pictures are few for the published recipe, so they '
            'change little; remove flipping where left and right differ, as '
            'in text',
        )
    else:
        made.add(
            'augmentation',
            'published',
            f'{count} pictures are enough for that of the published recipe; '
            'remove flipping where left and right differ',
        )


def _best(made: Decisions) -> None:
    made.add(
        'best',
        made.algorithm.metric,
        'the metric of the task decides which checkpoint is the best',
    )
    made.add(
        'patience',
        _PATIENCE,
        f'training ends when {_PATIENCE} validations bring no better value',
    )
