"""What pretraining, freezing and layer-wise rates are worth for few pictures.

Models pretrained on the embedded digits are adapted to printed letters
(:mod:`~mmtransxnet.benchmark.experiments.letters`) by the suite's own configs
with the changes that a user would make.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmtransxnet.benchmark.experiments.letters import LETTERS, SINGLES
from mmtransxnet.benchmark.experiments.small_net import (
    LEARNING_RATE,
    set_length,
    use_small_net,
)
from mmtransxnet.benchmark.experiments.training import train_briefly
from mmtransxnet.benchmark.experiments.trials import Trial
from mmtransxnet.engine import load_config

COUNTS = (10, 50, 200)
"""Numbers of training pictures."""


@dataclass(frozen=True)
class Recipe:
    """How a model is adapted.

    Attributes:
        title: In the table.
        pretrained: Whether all but the layers for classes starts from the
            digits.
        rate: Learning rate, times that from scratch.
        length: Iterations, times those of the task.
        frozen_stages: Of the backbone.
        layer_decay_rate: Factor of the rate from layer to layer; None for one
            rate.
    """

    title: str
    pretrained: bool = True
    rate: float = 1.0
    length: int = 1
    frozen_stages: int = -1
    layer_decay_rate: float | None = None


RECIPES = {
    'scratch': Recipe('from scratch', pretrained=False),
    'scratch_long': Recipe(
        'from scratch, three times as long', pretrained=False, length=3
    ),
    'full_rate': Recipe('all weights'),
    'low_rate': Recipe('all weights, a quarter of the rate', rate=0.25),
    'frozen_2': Recipe('stem and 2 stages frozen', frozen_stages=2),
    'frozen_4': Recipe('backbone frozen', frozen_stages=4),
    'layer_decay': Recipe(
        'layer-wise rates, 0.7 from layer to layer', layer_decay_rate=0.7
    ),
}


@dataclass(frozen=True)
class Task:
    """A task and its trainings.

    Attributes:
        title: In the table.
        config: Config of the suite for the digits.
        metric: Name of the metric.
        metric_title: In the table.
        factor: From the metric to the table's figure.
        letters: Changes a config to the letters.
        new_layers: Names of the weights that depend on the classes.
        iterations: Of an adaptation.
        pretraining: Iterations on the digits.
        batch: Pictures in a batch.
        recipes: Names of those that are measured.
    """

    title: str
    config: str
    metric: str
    metric_title: str
    letters: Callable[[Config], None]
    new_layers: str
    iterations: int
    pretraining: int
    batch: int
    factor: float = 1.0
    recipes: Sequence[str] = field(default=tuple(RECIPES))


def _letters_single(config: Config) -> None:
    for name in ('train', 'val', 'test'):
        split = 'train' if name == 'train' else 'val'
        dataset = config[f'{name}_dataloader'].dataset
        dataset.data_prefix = f'single/{split}'
    config.data_preprocessor.num_classes = len(LETTERS)
    config.model.head.num_classes = len(LETTERS)


def _letters_semantic(config: Config) -> None:
    classes = ('background', *LETTERS)
    palette = config.metainfo.palette[: len(classes)]
    for name in ('train', 'val', 'test'):
        split = 'train' if name == 'train' else 'val'
        config[f'{name}_dataloader'].dataset.update(
            metainfo=dict(classes=classes, palette=palette),
            data_prefix=dict(
                img_path=f'scenes/{split}',
                seg_map_path=f'scenes/labels/{split}',
            ),
            img_suffix='.png',
        )
    head = config.model.decode_head
    head.num_classes = len(classes)
    head.loss_decode.class_weight = [0.1] + [1.0] * len(LETTERS)


def _letters_boxes(config: Config) -> None:
    for name in ('train', 'val', 'test'):
        split = 'train' if name == 'train' else 'val'
        config[f'{name}_dataloader'].dataset.update(
            metainfo=dict(classes=LETTERS),
            ann_file=f'scenes/{split}.json',
            data_prefix=dict(img=f'scenes/{split}/'),
        )
    for name in ('val_evaluator', 'test_evaluator'):
        config[name].ann_file = f'{config.data_root}/scenes/val.json'
    config.model.bbox_head.num_classes = len(LETTERS)


_OF_DENSE_TASKS = ('scratch', 'full_rate', 'frozen_2', 'layer_decay')

TASKS = {
    'classification': Task(
        'classification',
        'transxnet_t_digits',
        'accuracy/top1',
        'top-1',
        _letters_single,
        'head.fc.*',
        iterations=100,
        pretraining=600,
        batch=16,
    ),
    'segmentation': Task(
        'semantic segmentation (Semantic FPN)',
        'sfpn_transxnet_t_digits',
        'mIoU',
        'mIoU',
        _letters_semantic,
        'decode_head.conv_seg.*',
        iterations=100,
        pretraining=600,
        batch=4,
        recipes=_OF_DENSE_TASKS,
    ),
    'detection': Task(
        'detection (RetinaNet)',
        'retinanet_transxnet_t_digits',
        'coco/bbox_mAP_50',
        'box AP50',
        _letters_boxes,
        'bbox_head.retina_cls.*',
        iterations=100,
        pretraining=600,
        batch=4,
        factor=100.0,
        recipes=_OF_DENSE_TASKS,
    ),
}

PRETRAINING = 'digits'


def list_trials(tasks: Sequence[str], seeds: int) -> list[Trial]:
    """The pretraining of each task, then all adaptations, seed by seed."""
    pretrainings: list[Trial] = [
        dict(
            task=name,
            recipe=PRETRAINING,
            iterations=TASKS[name].pretraining,
        )
        for name in tasks
    ]
    return pretrainings + [
        dict(
            task=name,
            recipe=recipe,
            pictures=count,
            seed=seed,
            iterations=TASKS[name].iterations * RECIPES[recipe].length,
        )
        for seed in range(seeds)
        for name in tasks
        for count in COUNTS
        for recipe in TASKS[name].recipes
    ]


def measure(
    trial: Trial, folder: Path, digits: Path, letters: Path
) -> dict[str, Any]:
    """Train a model and validate it.

    Args:
        trial: One of :func:`list_trials`.
        folder: Folder of all trials; weights of pretrained models stay there.
        digits: Root of the embedded digits.
        letters: Root of the letters.
    """
    name, recipe = trial['task'], trial['recipe']
    if recipe == PRETRAINING:
        config = pretraining_config(name, folder, digits)
        target = _pretrained(folder, name).parent
        return train_briefly(config, target, seed=0)[1]
    config = adaptation_config(trial, folder, letters)
    target = folder / 'last'
    return train_briefly(config, target, trial['seed'])[1]


def pretraining_config(name: str, folder: Path, digits: Path) -> Config:
    """The training of a task's model on the digits."""
    config = _base_config(name, digits)
    backbone = config.model.backbone
    backbone.init_cfg = None
    if name != 'classification':
        backbone.init_cfg = dict(
            type='Pretrained',
            checkpoint=str(_pretrained(folder, 'classification')),
            prefix='backbone.',
        )
    set_length(config, TASKS[name].pretraining)
    return config


def adaptation_config(trial: Trial, folder: Path, letters: Path) -> Config:
    """The training of a task's model on some letters by a recipe."""
    name = trial['task']
    task, recipe = TASKS[name], RECIPES[trial['recipe']]
    config = _base_config(name, letters)
    task.letters(config)
    loader = config.train_dataloader
    loader.batch_size = task.batch
    loader.sampler = dict(type='InfiniteSampler', shuffle=True)
    loader.dataset.indices = pictures_of(
        name, trial['pictures'], trial['seed']
    )
    backbone = config.model.backbone
    backbone.init_cfg = None
    if recipe.pretrained:
        config.load_from = str(_pretrained(folder, name))
        config.load_allow = [task.new_layers]
    backbone.frozen_stages = recipe.frozen_stages
    config.optim_wrapper.optimizer.lr *= recipe.rate
    if recipe.layer_decay_rate is not None:
        config.optim_wrapper.constructor = 'LayerDecayOptimWrapperConstructor'
        config.optim_wrapper.paramwise_cfg = dict(
            config.optim_wrapper.get('paramwise_cfg') or {},
            layer_decay_rate=recipe.layer_decay_rate,
        )
    set_length(config, trial['iterations'])
    return config


def pictures_of(name: str, count: int, seed: int) -> list[int]:
    """Numbers of the training pictures of a trial.

    Trials of different seeds have no picture in common; those of a larger
    count have all of a smaller one.
    """
    if name != 'classification':
        start = seed * max(COUNTS)
        return list(range(start, start + count))
    of_letter = count // len(LETTERS)
    start = seed * max(COUNTS) // len(LETTERS)
    return [
        letter * SINGLES['train'] + start + i
        for letter in range(len(LETTERS))
        for i in range(of_letter)
    ]


def _base_config(name: str, root: Path) -> Config:
    """A task's config with the small network."""
    config = load_config(TASKS[name].config, data_root=str(root))
    use_small_net(config)
    if name == 'classification':
        config.optim_wrapper.optimizer.lr = LEARNING_RATE
    return config


def _pretrained(folder: Path, name: str) -> Path:
    """The weights of a task's pretrained model."""
    last = f'iter_{TASKS[name].pretraining}.pth'
    return folder / f'{name}_{PRETRAINING}' / last
