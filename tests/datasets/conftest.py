"""One small set for all tests, and a quick way to build others."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import mmtransxnet  # noqa: F401
from mmtransxnet.datasets import build_digits
from mmtransxnet.datasets.digits import build as builder
from mmtransxnet.datasets.digits import scans

SMALL = {'size': 96, 'train_images': 12, 'val_images': 10, 'renderings': 1}


@pytest.fixture(scope='session')
def all_sources():
    return scans.load_sources()


@pytest.fixture(scope='session')
def digits_set(tmp_path_factory):
    """A set of all scans: its options, root and annotations per split."""
    root = tmp_path_factory.mktemp('digits') / 'set'
    built = build_digits(root, **SMALL)
    return SimpleNamespace(
        root=built.root,
        options=SMALL,
        counts=built.counts,
        coco={split: _read_coco(root, split) for split in ('train', 'val')},
        singles={
            split: json.loads((root / f'imagenet/{split}.json').read_bytes())
            for split in ('train', 'val')
        },
    )


def _read_coco(root: Path, split: str) -> dict:
    path = root / f'coco/annotations/instances_{split}.json'
    return json.loads(path.read_bytes())


@pytest.fixture
def quick_build(monkeypatch, all_sources):
    """build_digits with a few scans per split: a tenth of a second."""
    few = {name: pool[:12] for name, pool in all_sources.pools.items()}
    some = dataclasses.replace(all_sources, pools=few)
    monkeypatch.setattr(builder, 'load_sources', lambda: some)

    def build(root, **options):
        defaults = {'size': 64, 'train_images': 3, 'val_images': 2}
        return build_digits(root, **{**defaults, **options})

    return build
