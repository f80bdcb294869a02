"""Write a config as a person would: what differs from ours, and why."""

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path

from mmtransxnet.own_data.anchors import generator_of
from mmtransxnet.own_data.collection import (
    CLASSIFICATION,
    DETECTION,
    SEGMENTATION,
    Prepared,
)
from mmtransxnet.own_data.decisions import Decisions
from mmtransxnet.own_data.recipes import read
from mmtransxnet.utils.atomic_write import write_safely
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.paths import ROOT

DATA_ROOT = 'DATA_ROOT'
"""Environment variable that names the data of these configs."""

CLASSES = 'classes.txt'
"""File beside the annotations with many classes, one a line."""

_AGAIN = 'start again'

_WIDTH = 79

# Longer tuples of classes are read from a file.
_LONGEST_TUPLE = 6 * 70

# mmengine puts this path into strings of the config.
_PLAIN_PATH = re.compile(r'[\w/.\- ]+')

# mmengine searches for the default of a variable by a regular expression.
_PLAIN_DEFAULT = re.compile(r'[\w/.\-]+')


def config_text(prepared: Prepared, made: Decisions, path: Path) -> str:
    """The text of a config.

    Args:
        prepared: The data.
        made: All choices.
        path: Where the config will be; ``prepared.folder`` lies beside it.
    """
    return _Writer(prepared, made, path).text()


def check_path(path: Path) -> None:
    """Check that mmengine can read a config at a path.

    Raises:
        UserError: It cannot, because of its name or its folders.
    """
    if path.suffix != '.py':
        raise UserError(f'--out {path}: a config ends in .py')
    # mmengine refuses dots in the name of a config.
    if '.' in path.stem:
        raise UserError(f'--out {path}: no dot but that of .py, please')
    if not _PLAIN_PATH.fullmatch(path.resolve().as_posix()):
        raise UserError(
            f'--out {path}: mmengine reads no config below a folder with '
            'quotes, brackets or the like in its name; choose another place'
        )


def is_in_file(classes: Sequence[str]) -> bool:
    """Whether classes are too many for a config, and can be in a file."""
    in_lines = all(name.splitlines() == [name] for name in classes)
    return in_lines and sum(map(len, classes)) > _LONGEST_TUPLE


def write_config(prepared: Prepared, made: Decisions, path: Path) -> None:
    """Write a config, and the file of its classes if there are many.

    Args:
        prepared: The data.
        made: All choices.
        path: The config; ``prepared.folder`` lies beside it.

    Raises:
        UserError: It cannot be written.
    """
    classes = prepared.collection.classes
    if is_in_file(classes):
        content = '\n'.join(classes).encode()
        write_safely(prepared.folder / CLASSES, content, _AGAIN)
    text = config_text(prepared, made, path)
    write_safely(path, text.encode(), _AGAIN)


class _Writer:
    """The parts of a config."""

    def __init__(
        self, prepared: Prepared, made: Decisions, path: Path
    ) -> None:
        self.prepared = prepared
        self.made = made
        self.path = path
        self.data = prepared.collection
        self.root, self.prefix = _root_of(prepared)

    def text(self) -> str:
        """All parts, an empty line between them."""
        task = self.data.task
        if task == CLASSIFICATION:
            parts = [self._classifier(), self._classifier_pipelines()]
        elif task == DETECTION:
            parts = [self._detector(), self._detector_pipelines()]
        else:
            parts = [self._segmentor(), self._segmentor_pipelines()]
        lines = [
            *self._head(),
            '',
            *self._where(),
            '',
            *parts[0],
            '',
            *parts[1],
            '',
            *self._loaders(),
            '',
            *self._schedule(),
        ]
        return '\n'.join(lines) + '\n'

    def _why(self, title: str, *names: str, indent: str = '') -> list[str]:
        """A comment with the reasons for choices."""
        reasons = [
            self.made.find(name).reason for name in names if name in self.made
        ]
        return _comment(f'{title}: {"; ".join(reasons)}.', indent)

    def _head(self) -> list[str]:
        splits = ', '.join(
            f'{split.pictures} to {_PURPOSE[name]}'
            for name, split in self.prepared.splits.items()
        )
        tiles = f', in tiles of {tile}' if (tile := self.prepared.tile) else ''
        return [
            *_comment(
                f'{self.data.kind}, {self.data.task}: pictures{tiles}: '
                f'{splits}; {len(self.data.classes)} classes. Written by '
                'tools/new_config.py (docs/own_data.md).'
            ),
            *self._why(self.made.algorithm.title, 'algorithm'),
            *self._why(f'Size {self.made["arch"].upper()}', 'arch'),
            f'_base_ = {_base_path(self.made.base, self.path)!r}',
        ]

    def _where(self) -> list[str]:
        """Paths and classes."""
        lines = [
            f"lists = '{{{{ fileDirname }}}}/{self.prepared.folder.name}'"
        ]
        if self.root is None:
            lines.append('data_root = lists')
        elif _PLAIN_DEFAULT.fullmatch(str(self.root)):
            lines.append(f"data_root = '{{{{${DATA_ROOT}:{self.root}}}}}'")
            lines.append(
                f"data_remedy = 'export {DATA_ROOT} if the pictures are "
                "elsewhere'"
            )
        else:
            lines.append(f'data_root = {_quoted(str(self.root))}')
            lines.append("data_remedy = 'correct data_root in the config'")
        return [*lines, *self._classes()]

    def _classes(self) -> list[str]:
        data = self.data
        if is_in_file(data.classes):
            lines = [
                f"with open(lists + '/{CLASSES}', encoding='utf-8') as file:",
                '    classes = tuple(file.read().splitlines())',
                'del file',
            ]
        else:
            lines = _tuple('classes', [_quoted(name) for name in data.classes])
        if data.palette and data.task == SEGMENTATION:
            lines += _tuple('palette', [str(c) for c in data.palette])
        return lines

    def _start(self) -> list[str]:
        """The weights that training starts from."""
        weights = self.made['weights']
        heads = self.made.algorithm.new_heads
        lines = self._why('Weights', 'weights')
        whole = weights and weights == self.made.algorithm.weights(
            self.made['arch']
        )
        if not whole:
            return lines
        lines.append(f'load_from = {weights!r}')
        if len(heads) == 1:
            return [*lines, f'load_allow = {list(heads)}']
        listed = [f'    {head!r},' for head in heads]
        return [*lines, 'load_allow = [', *listed, ']']

    def _backbone(self) -> list[str]:
        """What differs in the backbone, inside ``model = dict(``."""
        arguments = []
        if self.made['weights'] is None:
            if self.data.task != CLASSIFICATION:
                arguments.append('init_cfg=None')
            # Short trainings cannot grow it from the published 1e-5.
            arguments.append('layer_scale_init_value=0.3')
        if not arguments:
            return []
        return [f'    backbone=dict({", ".join(arguments)}),']

    @property
    def _count(self) -> str:
        return f'num_classes={len(self.data.classes)}'

    def _classifier(self) -> list[str]:
        gentle = self.made['augmentation'] == 'gentle'
        return [
            *self._start(),
            'model = dict(',
            *self._backbone(),
            *(['    train_cfg=None,  # mixes no pictures'] if gentle else []),
            f'    head=dict({self._count}))',
            f'data_preprocessor = dict({self._count})',
        ]

    def _classifier_pipelines(self) -> list[str]:
        size = self.made['size']
        steps = read(self.made.base).test_pipeline
        edge = size * steps[1].scale // steps[2].crop_size
        if self.made['augmentation'] == 'gentle':
            train = [
                'train_pipeline = [',
                "    dict(type='LoadImageFromFile'),",
                '    dict(',
                f"        type='RandomResizedCrop', scale={size}, "
                'crop_ratio_range=(0.5, 1.0),',
                "        backend='pillow', interpolation='bicubic'),",
                "    dict(type='RandomFlip', prob=0.5),",
                "    dict(type='PackInputs'),",
                ']',
            ]
        else:
            train = [
                'train_pipeline = _base_.train_pipeline',
                f'train_pipeline[1].scale = {size}',
            ]
        return [
            *self._why(f'{size} pixels', 'size'),
            *self._why('Augmentation', 'augmentation'),
            *train,
            'test_pipeline = _base_.test_pipeline',
            f'test_pipeline[1].scale = {edge}',
            f'test_pipeline[2].crop_size = {size}',
        ]

    def _detector(self) -> list[str]:
        return [
            *self._start(),
            'model = dict(',
            *self._backbone(),
            *self._why('Anchors', 'anchors', indent='    '),
            *getattr(self, f'_heads_of_{self.made["algorithm"]}')(),
        ]

    def _anchors(self) -> str:
        """The anchors' scale where it is not that of the recipe."""
        generator = generator_of(read(self.made.base).model)
        scale = self.made['anchors']
        if 'octave_base_scale' in generator:
            if scale == generator['octave_base_scale']:
                return ''
            return f'anchor_generator=dict(octave_base_scale={scale})'
        if [scale] == generator['scales']:
            return ''
        return f'anchor_generator=dict(scales=[{scale}])'

    def _heads_of_retinanet(self) -> list[str]:
        arguments = ', '.join(filter(None, (self._count, self._anchors())))
        if 'norm' not in self.made:
            return [f'    bbox_head=dict({arguments}))']
        return [
            *self._why('Norm', 'norm', indent='    '),
            '    bbox_head=dict(',
            "        norm_cfg=dict(type='GN', num_groups=32),",
            f'        {arguments}))',
        ]

    def _rpn_head(self) -> list[str]:
        anchors = self._anchors()
        return [f'    rpn_head=dict({anchors}),'] if anchors else []

    def _heads_of_maskrcnn(self) -> list[str]:
        return [
            *self._rpn_head(),
            '    roi_head=dict(',
            f'        bbox_head=dict({self._count}),',
            f'        mask_head=dict({self._count})))',
        ]

    def _heads_of_cascade(self) -> list[str]:
        return [
            *self._rpn_head(),
            '    roi_head=dict(',
            f'        bbox_head=[dict(head, {self._count})',
            '                   for head in _base_.model.roi_head.bbox_head],',
            f'        mask_head=dict({self._count})))',
        ]

    def _detector_pipelines(self) -> list[str]:
        size = self.made['size']
        lines = [
            *self._why(f'{size[0]} x {size[1]} pixels', 'size', 'tiles'),
            *self._why('Augmentation', 'augmentation'),
        ]
        if self.made['algorithm'] == 'cascade':  # its recipe draws sizes
            lines += [
                'train_pipeline = [',
                "    dict(type='LoadImageFromFile'),",
                "    dict(type='LoadAnnotations', with_bbox=True, "
                'with_mask=True),',
                f"    dict(type='Resize', scale={size}, keep_ratio=True),",
                "    dict(type='RandomFlip', prob=0.5),",
                "    dict(type='PackDetInputs'),",
                ']',
                'test_pipeline = _base_.test_pipeline',
                f'test_pipeline[1].scale = {size}',
            ]
        else:
            lines += [
                'train_pipeline = _base_.train_pipeline',
                'test_pipeline = _base_.test_pipeline',
                f'train_pipeline[2].scale = test_pipeline[1].scale = {size}',
            ]
        return lines

    def _segmentor(self) -> list[str]:
        size = self.made['size']
        lines = [
            *self._start(),
            'model = dict(',
            *self._backbone(),
            f'    data_preprocessor=dict(size=({size}, {size})),',
        ]
        arguments, loss = self._count, []
        if 'class_weight' in self.made:
            arguments += ', loss_decode=loss_decode'
            loss = self._class_weight()
        if self.made['algorithm'] == 'upernet':
            lines.append(f'    auxiliary_head=dict({arguments}),')
        return [*loss, *lines, f'    decode_head=dict({arguments}))']

    def _class_weight(self) -> list[str]:
        number, weight = self.made['class_weight']
        after = len(self.data.classes) - number - 1
        weights = f'[1.0] * {number} + [{weight:g}] + [1.0] * {after}'
        return [
            *self._why('Weights of classes', 'class_weight'),
            f'loss_decode = dict(class_weight={weights})',
        ]

    def _segmentor_pipelines(self) -> list[str]:
        size = self.made['size']
        gentle = self.made['augmentation'] == 'gentle'
        ratios = '(0.75, 1.5)' if gentle else '(0.5, 2.0)'
        scale = f'({4 * size}, {size})'
        return [
            *self._why(f'{size} x {size} pixels', 'size', 'tiles'),
            *self._why('Augmentation', 'augmentation'),
            'train_pipeline = [',
            "    dict(type='LoadImageFromFile'),",
            "    dict(type='LoadAnnotations'),",
            f"    dict(type='RandomResize', scale={scale}, "
            f'ratio_range={ratios},',
            '         keep_ratio=True),',
            f"    dict(type='RandomCrop', crop_size=({size}, {size}), "
            'cat_max_ratio=0.75),',
            "    dict(type='RandomFlip', prob=0.5),",
            *([] if gentle else ["    dict(type='PhotoMetricDistortion'),"]),
            "    dict(type='PackSegInputs'),",
            ']',
            'test_pipeline = [',
            "    dict(type='LoadImageFromFile'),",
            f"    dict(type='Resize', scale={scale}, keep_ratio=True),",
            "    dict(type='ResizeToMultiple', size_divisor=32),",
            "    dict(type='LoadAnnotations'),",
            "    dict(type='PackSegInputs'),",
            ']',
            # That of ADE20K has other labels.
            'tta_pipeline = None',
        ]

    def _loaders(self) -> list[str]:
        """Loaders and evaluators of all splits."""
        lines = [
            *self._dataset(),
            *self._left_out(),
            *self._why(f'Batches of {self.made["batch"]}', 'batch'),
            *self._loader('train', f'batch_size={self.made["batch"]}'),
            *self._loader('val', *self._val_batch()),
        ]
        has_test = 'test' in self.prepared.splits
        if has_test:
            lines += self._loader('test', *self._val_batch())
        else:
            lines.append('test_dataloader = val_dataloader')
        if self.data.task == CLASSIFICATION:
            lines.append('val_evaluator = dict(topk=(1, ))')
            lines.append('test_evaluator = val_evaluator')
        elif self.data.task == DETECTION:
            lines.append(f'val_evaluator = dict(ann_file={self._ann("val")})')
            lines.append(
                f'test_evaluator = dict(ann_file={self._ann("test")})'
                if has_test
                else 'test_evaluator = val_evaluator'
            )
        return lines

    def _left_out(self) -> list[str]:
        if 'left_out' not in self.made:
            return []
        return self._why('Objects', 'left_out')

    def _val_batch(self) -> list[str]:
        if self.data.task != CLASSIFICATION:
            return []
        return [f'batch_size={self.made["batch"]}']

    def _dataset(self) -> list[str]:
        """What the data sets of all splits share."""
        if self.data.task == CLASSIFICATION:
            return [
                'dataset = dict(',
                "    _delete_=True, type='CustomDataset', "
                'data_root=data_root,',
                f'    data_prefix={self.prefix!r}, '
                'metainfo=dict(classes=classes))',
            ]
        if self.data.task == DETECTION:
            return [
                'dataset = dict(',
                f'    data_root=data_root, '
                f'data_prefix=dict(img={self.prefix!r}),',
                '    metainfo=dict(classes=classes))',
            ]
        label_maps = self.prepared.label_map_root
        assert label_maps is not None
        palette = ', palette=palette' if self.data.palette else ''
        return [
            'dataset = dict(',
            "    _delete_=True, type='BaseSegDataset', data_root=data_root,",
            f'    metainfo=dict(classes=classes{palette}),',
            f'    img_suffix={self.prepared.img_suffix!r},',
            '    data_prefix=dict(',
            f'        img_path={self.prefix!r},',
            f'        seg_map_path={self._place(label_maps)}))',
        ]

    def _loader(self, split: str, *settings: str) -> list[str]:
        pipeline = 'train' if split == 'train' else 'test'
        start = ', '.join([*settings, 'dataset=dict('])
        return [
            f'{split}_dataloader = dict({start}',
            f'    **dataset, ann_file={self._ann(split)},',
            f'    pipeline={pipeline}_pipeline))',
        ]

    def _ann(self, split: str) -> str:
        return self._place(self.prepared.splits[split].ann_file)

    def _place(self, path: Path) -> str:
        """A path as an expression in the config."""
        roots = [('lists', self.prepared.folder)]
        if self.root is not None:
            roots.append(('data_root', self.root))
        for name, root in roots:
            if path == root:
                return name
            if path.is_relative_to(root):
                below = path.relative_to(root).as_posix()
                return f'{name} + {_quoted("/" + below)}'
        return _quoted(path.as_posix())

    def _schedule(self) -> list[str]:
        made = self.made
        interval, warmup = made['interval'], made['warmup']
        scratch = made['weights'] is None
        clip = ', clip_grad=dict(max_norm=10.0)' if scratch else ''
        lines = [
            *self._why('Learning rate', 'rate'),
            f'optim_wrapper = dict(optimizer=dict(lr={made["rate"]:g}){clip})',
            f'auto_scale_lr = dict(base_batch_size={made["batch"]})',
        ]
        if 'epochs' in made:
            count, by_epoch = made['epochs'], ''
            lines += self._why(f'{count} epochs', 'epochs')
            length = f'max_epochs={count}'
            cosine = f'T_max={count}, convert_to_iter_based=True'
        else:
            count, by_epoch = made['iterations'], 'by_epoch=False, '
            lines += self._why(f'{count} iterations', 'iterations')
            length = f'max_iters={count}'
            cosine = f'T_max={count}'
        metric, gain = made['best'], made.algorithm.least_gain
        return [
            *lines,
            f'train_cfg = dict({length}, val_interval={interval})',
            'param_scheduler = [',
            "    dict(type='LinearLR', start_factor=0.01, by_epoch=False, "
            f'end={warmup}),',
            f"    dict(type='CosineAnnealingLR', {by_epoch}{cosine}),",
            ']',
            *self._why('Best and last', 'best', 'patience'),
            f'best = {metric!r}',
            'default_hooks = dict(checkpoint=dict(',
            f'    interval={interval}, max_keep_ckpts=1, save_best=best))',
            "custom_hooks = [dict(type='EarlyStoppingHook', monitor=best,",
            f'    patience={made["patience"]}, min_delta={gain:g})]',
        ]


_PURPOSE = dict(train='train', val='validate', test='test')


def _root_of(prepared: Prepared) -> tuple[Path | None, str]:
    """The data root and the pictures' folder below it.

    Returns:
        The root, None for the folder of the lists; the folder relative to it.
    """
    pictures = prepared.picture_root
    for root, base in (
        (None, prepared.folder),
        (prepared.collection.root, prepared.collection.root),
        (pictures, pictures),
    ):
        if pictures.is_relative_to(base):
            below = pictures.relative_to(base).as_posix()
            return root, '' if below == '.' else f'{below}/'
    raise AssertionError('a folder is inside itself')


def _base_path(base: str, path: Path) -> str:
    """Path of a base config, relative inside one checkout."""
    target, folder = ROOT / 'configs' / base, path.resolve().parent
    checkout = not ROOT.name.startswith('.')
    if checkout and folder.is_relative_to(ROOT):
        return Path(os.path.relpath(target, folder)).as_posix()
    return target.as_posix()


def _quoted(text: str) -> str:
    """A string of the config in which mmengine substitutes nothing."""
    return repr(text).replace('{{', '{\\x7b')


def _comment(text: str, indent: str = '') -> list[str]:
    plain = ' '.join(text.split()).replace('{{', '{ {')
    start = f'{indent}# '
    return textwrap.wrap(
        plain,
        _WIDTH,
        initial_indent=start,
        subsequent_indent=start,
        break_on_hyphens=False,
    )


def _tuple(name: str, items: Sequence[str]) -> list[str]:
    """Assign a tuple, broken between items."""
    lines = [f'{name} = (']
    for number, item in enumerate(items, 1):
        last = number == len(items)
        end = ')' if last and number > 1 else ', )' if last else ','
        space = '' if lines[-1].endswith('(') else ' '
        if len(lines[-1] + space + item + end) > _WIDTH:
            lines.append(' ' * len(f'{name} = (') + item + end)
        else:
            lines[-1] += space + item + end
    return lines
