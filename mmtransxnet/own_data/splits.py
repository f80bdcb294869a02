"""Division of annotated pictures into training and validation."""

import hashlib
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from mmtransxnet.own_data.collection import Collection, Picture
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.text import first_few

SHARE = 0.2
"""Share of the pictures for validation."""

MIN_PICTURES = 4
MIN_CUT_PICTURES = 2
"""If pictures are cut into tiles: one to train, one to validate."""

_FEW = 100
"""Below this, the sizes of pictures do not average out."""

_DRAWS = 20

Labels = dict[Path, frozenset[str]]


def split(
    collection: Collection,
    labels: Labels,
    seed: int = 0,
    cut: bool = False,
) -> Collection:
    """Give each picture a split.

    Splits that the data has are used; a training picture that has a copy in
    validation or test is left out. Else a fifth of the pictures is for
    validation: for each class, beginning with the rarest, a fifth of the
    pictures that show it, but at least one stays for training. Pictures that
    are copies of each other stay together.

    Args:
        collection: The data.
        labels: The classes that each picture shows.
        seed: For the order in which pictures are drawn.
        cut: Whether pictures will be cut into tiles. Few pictures of
            different sizes are then divided by their area.

    Returns:
        The collection with splits ``train`` and ``val``, and ``test`` if the
        data has it.

    Raises:
        UserError: There are too few pictures, or no training pictures in the
            splits that the data has, or none of a class without the copies.
    """
    given = {picture.split for picture in collection.pictures} - {None}
    if not given:
        return _divided(collection, collection.pictures, labels, seed, cut)
    outside = [p for p in collection.pictures if p.split is None]
    collection.pictures = [p for p in collection.pictures if p.split]
    if outside:
        reason = 'picture outside of the given splits'
        collection.dropped[reason] += len(outside)
        collection.reasons.append(
            f'Not taken over ({len(outside)}): {reason}, for example '
            f'{outside[0].path}.'
        )
    if 'train' not in given:
        raise UserError(
            f'{collection.root} has {" and ".join(sorted(map(str, given)))} '
            'pictures and none for training: add a split named train, or '
            'remove the names of splits to have a new one made'
        )
    _leave_copies_out(collection, labels)
    if 'val' in given:
        collection.reasons.append('The splits are those of the data.')
        return collection
    training = [p for p in collection.pictures if p.split == 'train']
    return _divided(collection, training, labels, seed, cut)


def _divided(
    collection: Collection,
    pictures: list[Picture],
    labels: Labels,
    seed: int,
    cut: bool,
) -> Collection:
    """The collection with some pictures newly divided."""
    least = MIN_CUT_PICTURES if cut else MIN_PICTURES
    if len(pictures) < least:
        raise UserError(
            f'{collection.root} has {len(pictures)} usable training pictures: '
            f'add some, at least {least} are needed to learn from some '
            f'and validate on others ({MIN_CUT_PICTURES} large ones with '
            '--tile)'
        )
    groups = _copies(pictures)
    if len(groups) < 2:
        raise UserError(
            f'{collection.root} has only copies of one picture: add others'
        )
    if cut and len(groups) < _FEW:
        draws = range(seed * _DRAWS, (seed + 1) * _DRAWS)
        chosen = min(
            (_choose(groups, labels, draw) for draw in draws),
            key=lambda paths: abs(_share_of_area(paths, pictures) - SHARE),
        )
    else:
        chosen = _choose(groups, labels, seed)
    divided = {picture.path for picture in pictures}
    collection.pictures = [
        replace(picture, split='val' if picture.path in chosen else 'train')
        if picture.path in divided
        else picture
        for picture in collection.pictures
    ]
    collection.reasons.append(
        f'{len(chosen)} of {len(pictures)} pictures were drawn for '
        f'validation, stratified by class, with seed {seed}.'
    )
    together = [group for group in groups if len(group) > 1]
    if together:
        collection.reasons.append(
            f'{sum(map(len, together))} pictures are copies of others (such '
            f'as {_names(together[0])}); copies are in the same split.'
        )
    return collection


def _choose(
    groups: list[list[Picture]], labels: Labels, seed: int
) -> set[Path]:
    """The pictures for validation."""
    shown = [
        frozenset().union(*(labels[picture.path] for picture in group))
        for group in groups
    ]
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    total = Counter(label for some in shown for label in some)
    left = total.copy()
    chosen: set[int] = set()

    def has_enough(label: str) -> bool:
        return total[label] - left[label] >= round(SHARE * total[label])

    def choose(members: list[int], number: int) -> None:
        # Sorting keeps the drawn order of those that are alike.
        for i in sorted(members, key=lambda i: sum(map(has_enough, shown[i]))):
            # Training keeps a picture of each class.
            keeps = all(left[label] > 1 for label in shown[i])
            if number > 0 and keeps and i not in chosen:
                chosen.add(i)
                left.subtract(shown[i])
                number -= 1

    for label in sorted(total, key=lambda label: (total[label], label)):
        members = [i for i in order if label in shown[i]]
        already = total[label] - left[label]
        choose(members, round(SHARE * total[label]) - already)
    empty = [i for i in order if not shown[i]]
    choose(empty, round(SHARE * len(empty)))
    # Rounding gives few or none for small classes.
    choose(order, max(1, round(SHARE * len(groups))) - len(chosen))
    if not chosen:  # each picture is the only one of a class
        chosen.add(order[0])
    return {picture.path for i in chosen for picture in groups[i]}


def _share_of_area(paths: set[Path], pictures: list[Picture]) -> float:
    areas = {p.path: p.width * p.height for p in pictures}
    return sum(areas[path] for path in paths) / sum(areas.values())


def _copies(pictures: list[Picture]) -> list[list[Picture]]:
    """Pictures with the same pixels, together; in the order of pictures."""
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        groups.setdefault(_hash(picture.path), []).append(picture)
    return list(groups.values())


def _hash(path: Path) -> str:
    """Hash of the decoded pixels, of the content if they cannot be decoded.

    A copy in another lossless format has the same pixels.
    """
    content = path.read_bytes()
    if content:
        try:
            pixels = cv2.imdecode(
                np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR
            )
        except cv2.error:
            pixels = None
        if pixels is not None:
            digest = hashlib.sha256(str(pixels.shape).encode())
            digest.update(pixels.tobytes())
            return digest.hexdigest()
    return hashlib.sha256(content).hexdigest()


def _leave_copies_out(collection: Collection, labels: Labels) -> None:
    """Leave training pictures out that have a copy in another given split.

    Copies in both validation and test are only pointed out: each of these is
    a set to compare with others.

    Raises:
        UserError: Training would lose all its pictures, or all of a class.
    """
    held_out: set[Path] = set()
    for group in _copies(collection.pictures):
        splits = {picture.split for picture in group}
        if {'val', 'test'} <= splits:
            collection.reasons.append(
                f'Warning: validation and test have copies of each other '
                f'({_names(group)}).'
            )
        if 'train' in splits and len(splits) > 1:
            held_out |= {p.path for p in group if p.split == 'train'}
    if not held_out:
        return
    kept = [p for p in collection.pictures if p.path not in held_out]
    if not any(picture.split == 'train' for picture in kept):
        raise UserError(
            f'{collection.root}: every training picture has a copy in '
            'validation or test, so results would say nothing: keep each '
            'picture in one split'
        )
    before = _classes_in_training(collection.pictures, labels)
    lost = sorted(before - _classes_in_training(kept, labels))
    if lost:
        raise UserError(
            f'{collection.root}: every training picture of {first_few(lost)} '
            'has a copy in validation or test and would be left out: remove '
            'these copies from validation and test, or add other training '
            'pictures'
        )
    collection.pictures = kept
    reason = 'training picture with a copy in validation or test'
    collection.dropped[reason] += len(held_out)
    collection.reasons.append(
        f'Not taken over ({len(held_out)}): {reason}, for example '
        f'{min(held_out)}.'
    )


def _classes_in_training(pictures: list[Picture], labels: Labels) -> set[str]:
    return {
        label
        for picture in pictures
        if picture.split == 'train'
        for label in labels[picture.path]
    }


def _names(group: list[Picture]) -> str:
    return first_few([picture.path.name for picture in group])
