"""What a run says on the terminal: a summary instead of dumps.

mmengine prints the environment, the whole config and the order of all hooks,
several hundred lines. They remain in the log file.
"""

import logging
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn

# How the long messages begin; see Runner.__init__ and Runner._log_env.
_DUMPS = ('System environment:', 'Config:\n', 'Hooks will be executed')


def _is_short(record: logging.LogRecord) -> bool:
    """Whether a message belongs on the terminal."""
    return not str(record.msg).lstrip('\n- ').startswith(_DUMPS)


class ReadableRunner(Runner):
    """A Runner whose dumps go to the log file only."""

    def build_logger(self, *args: Any, **kwargs: Any) -> MMLogger:
        """Build the logger; its terminal leaves the dumps out."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_is_short)
        return logger

    def build_visualizer(
        self, visualizer: Visualizer | dict | None = None
    ) -> Visualizer:
        """Build the visualizer, a new one for each run.

        mmengine returns an existing one of the same name, with the files of
        another run or, of an inferencer, without any: curves would be lost.
        """
        if isinstance(visualizer, dict):
            visualizer = dict(visualizer)
            name = visualizer.setdefault('name', self._experiment_name)
            if Visualizer.check_instance_created(name):
                visualizer['name'] = f'{name}-{self._experiment_name}'
        return super().build_visualizer(visualizer)


class SummaryHook(Hook):
    """Log what is trained with what, before the first iteration."""

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Log the summary; all parts of the run are built by now."""
        rows = [
            ('data', _data(runner)),
            ('model', _model(runner.model)),
            ('schedule', _schedule(runner)),
            ('device', _device(runner.model)),
            ('files', f'{runner.work_dir}'),
            ('log', f'{runner.log_dir}, with config and environment'),
        ]
        lines = [f'  {name:<9} {text}' for name, text in rows]
        runner.logger.info('\n'.join(['This run:', *lines]))


def _data(runner: Runner) -> str:
    """Numbers of samples, batches and classes."""
    loader = runner.train_dataloader
    dataset = loader.dataset
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
    parts = [type(dataset).__name__]
    if hasattr(dataset, '__len__'):
        parts.append(f'{len(dataset):,} samples')
    if classes:
        parts.append(f'{len(classes)} classes')
    # Of loaders with a batch sampler, as in detection, it is there.
    batch = loader.batch_size or getattr(
        loader.batch_sampler, 'batch_size', None
    )
    if batch:
        processes = get_world_size()
        each = f' x {processes} processes' if processes > 1 else ''
        parts.append(f'batches of {batch}{each}')
    return ', '.join(parts)


def _model(model: nn.Module) -> str:
    """Name and parameters in millions."""
    model = getattr(model, 'module', model)
    parameters = list(model.parameters())
    count = sum(p.numel() for p in parameters)
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    text = f'{type(model).__name__}, {count / 1e6:.2f} M parameters'
    if trained != count:
        text += f', {trained / 1e6:.2f} M of them trained'
    return text


def _schedule(runner: Runner) -> str:
    """Length, optimizer and the largest learning rate."""
    length = f'{runner.max_iters:,} iterations'
    if runner.max_epochs and runner.max_epochs < runner.max_iters:
        length = f'{runner.max_epochs:,} epochs, {length}'
    if runner.iter:
        length += f', resumed after {runner.iter:,}'
    optimizers = _optimizers(runner.optim_wrapper)
    names = ', '.join(dict.fromkeys(type(o).__name__ for o in optimizers))
    rate = max(
        group.get('initial_lr', group['lr'])
        for optimizer in optimizers
        for group in optimizer.param_groups
    )
    return f'{length}, {names}, learning rate {rate:g}'


def _optimizers(wrapper: Any) -> list[Any]:
    """The optimizers of a wrapper, or of a dict of wrappers."""
    if isinstance(wrapper, OptimWrapperDict):
        return [optimizer.optimizer for optimizer in wrapper.values()]
    return [wrapper.optimizer]


def _device(model: nn.Module) -> str:
    """The device of this process."""
    device = next(model.parameters()).device
    if device.type != 'cuda':
        return f'{device.type}, {torch.get_num_threads()} threads'
    return f'{device}, {torch.cuda.get_device_name(device)}'
