"""Recompute an iteration whose loss or gradients were not finite.

The file holds what cannot be recomputed: the weights. The batch of a resumable
run is a function of seed, rank and iteration.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from mmtransxnet.engine.hooks.non_finite import FORMAT
from mmtransxnet.engine.runner.build import build_runner
from mmtransxnet.engine.runner.loops import Resumable
from mmtransxnet.engine.runner.temporary import temporary_work_dir
from mmtransxnet.utils.errors import UserError, in_a_line
from mmtransxnet.utils.text import first_few
from mmtransxnet.weights.reader import read_checkpoint


@dataclass(frozen=True)
class Culprit:
    """The module with the first output that is not finite.

    Attributes:
        name: Its name in the model, ``''`` for the model itself.
        kind: Its class.
        bad_inputs: Whether its inputs were already not finite: then these were
            computed outside of a module.
    """

    name: str
    kind: str
    bad_inputs: bool


@dataclass(frozen=True)
class Replay:
    """The result of a recomputed iteration.

    Attributes:
        losses: The losses by name, the total last.
        culprit: The first module whose output is not finite, or None.
        inputs: Parts of the batch that are not finite.
        weights: Parameters and buffers that are not finite.
        gradients: Parameters whose gradient is not finite.
    """

    losses: dict[str, float]
    culprit: Culprit | None
    inputs: list[str]
    weights: list[str]
    gradients: list[str]

    @property
    def bad(self) -> bool:
        """Whether a loss or a gradient is not finite."""
        values = torch.tensor(list(self.losses.values()))
        return bool(self.gradients) or not bool(values.isfinite().all())


def read_record(path: str | Path) -> dict[str, Any]:
    """Read a file of :class:`NonFiniteHook` without running code in it.

    Raises:
        UserError: The file cannot be read or is not such a file.
    """
    try:
        record = read_checkpoint(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    if record.get('format') != FORMAT:
        raise UserError(
            f'{path} is not a file of a non-finite iteration; these are named '
            'non_finite_iter_N_rankN.pth. Those of earlier versions '
            '(bad_numbers_*) cannot be replayed'
        )
    return record


def replay(record: Mapping[str, Any], config: Config) -> Replay:
    """Run the forward and backward pass of a saved iteration again.

    Args:
        record: What :func:`read_record` returned.
        config: The run's config, data and options as in the run; changed in
            place.

    Raises:
        UserError: The data is incomplete, the weights do not match the model,
            or the batch cannot be reloaded.
    """
    with temporary_work_dir() as folder:
        runner = _build(record, config, folder)
        model: Any = runner.model
        before = [n for n, v in model.state_dict().items() if not _finite(v)]
        batch = _load_batch(record, runner, before)
        watch = _Watch(model)
        loss, losses = _forward(model, batch, record['precision'])
        watch.remove()
        (loss * record['precision']['loss_scale']).backward()
    return Replay(
        losses={name: value.item() for name, value in losses.items()},
        culprit=watch.culprit,
        inputs=[name for name, v in _tensors(batch) if not _finite(v)],
        weights=before,
        gradients=[
            name
            for name, p in model.named_parameters()
            if p.grad is not None and not _finite(p.grad)
        ],
    )


def _build(record: Mapping[str, Any], config: Config, folder: str) -> Runner:
    """Build a Runner with the weights of the file, logging to a folder."""
    config.update(
        launcher='none',
        work_dir=folder,
        log_level='WARNING',
        # mmengine would reuse objects of this name for the next Runner.
        experiment_name=Path(folder).name,
        visualizer=dict(type='Visualizer', vis_backends=[]),
        randomness=dict(config.get('randomness', {}), seed=record['seed']),
    )
    # The pretrained file is not needed and may be missing.
    if 'backbone' in config.model:
        config.model.backbone.init_cfg = None
    runner = build_runner(config, ['train'])
    try:
        runner.model.load_state_dict(record['weights'])
    except RuntimeError as error:
        raise UserError(
            f'the weights do not fit the model of {config.filename}, give '
            f'the config and options of the run: {in_a_line(error)}'
        ) from error
    runner.model.train()
    return runner


def _load_batch(
    record: Mapping[str, Any], runner: Runner, broken: list[str]
) -> Any:
    """Load the batch of the process that wrote the file."""
    with _in_place_of(record['rank'], record['processes']):
        loop = runner.train_loop
    if not isinstance(loop, Resumable):
        raise UserError(
            f'the batch cannot be reloaded: {type(loop).__name__} is '
            'not a resumable loop (ResumableEpochLoop, ResumableIterLoop). '
            'Not finite in the weights before the iteration: '
            f'{first_few(broken) or "nothing"}'
        )
    return loop.batch_of(record['iteration'] - 1)


@contextmanager
def _in_place_of(rank: int, processes: int) -> Iterator[None]:
    """Let samplers be built for one of several processes."""
    if processes == 1:
        yield
        return
    dist.init_process_group(
        'fake', rank=rank, world_size=processes, store=FakeStore()
    )
    try:
        yield
    finally:
        dist.destroy_process_group()


def _forward(
    model: Any, batch: Any, precision: Mapping[str, Any]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and all losses by name, as in mmengine's train step."""
    with torch.autocast(
        get_device().partition(':')[0],
        precision['dtype'],
        enabled=precision['autocast'],
    ):
        data = model.data_preprocessor(batch, True)
        losses = model._run_forward(data, mode='loss')
    return model.parse_losses(losses)


class _Watch:
    """Finds the first module whose output is not finite."""

    def __init__(self, model: nn.Module) -> None:
        self.culprit: Culprit | None = None
        self._handles = [
            module.register_forward_hook(self._hook(name), with_kwargs=True)
            for name, module in model.named_modules()
        ]

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            if self.culprit or _all_finite(out):
                return
            bad_inputs = not _all_finite([args, kwargs])
            self.culprit = Culprit(name, type(module).__name__, bad_inputs)

        return look

    def remove(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()


def _all_finite(value: Any) -> bool:
    return all(_finite(tensor) for _, tensor in _tensors(value))


def _finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _tensors(value: Any, path: str = '') -> Iterator[tuple[str, Tensor]]:
    """All tensors in a batch or an output, with their paths."""
    if isinstance(value, Tensor):
        yield path.lstrip('.'), value
        return
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif hasattr(value, 'metainfo_items'):  # a data sample
        items = value.items()
    for key, inner in items:
        yield from _tensors(inner, f'{path}.{key}')
