"""Compute an iteration again that gave a loss or a gradient that is no number.

The file is not trusted: it holds plain data, and the model that its config
describes may consist of registered classes only.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.registry import MODELS, TASK_UTILS, init_default_scope
from torch import Tensor, nn

from mmtransxnet.engine.hooks.non_finite import FORMAT
from mmtransxnet.engine.runner.plain import from_plain
from mmtransxnet.utils.errors import UserError
from mmtransxnet.utils.random_streams import set_random_states
from mmtransxnet.weights.reader import read_checkpoint

# What mmdet looks up in mmcv.ops instead of a registry.
_OTHER_TYPES = ('RoIAlign', 'RoIPool', 'nms', 'soft_nms')


@dataclass(frozen=True)
class Culprit:
    """The module that gave the first value that is not finite.

    Attributes:
        name: Its name in the model, ``''`` for the model itself.
        kind: Its class.
        given: Whether its inputs were not finite already: they were computed
            outside of a module then.
    """

    name: str
    kind: str
    given: bool


@dataclass(frozen=True)
class Replay:
    """What an iteration gave.

    Attributes:
        losses: The losses by name, the parts before the whole.
        culprit: The first module with a bad output, None if all are finite.
        inputs: Places in the batch that are not finite.
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
    """Read what :class:`BadNumbersHook` saved; nothing in it is run.

    Raises:
        UserError: The file cannot be read, or is something else.
    """
    try:
        record = read_checkpoint(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    if record.get('format') != FORMAT:
        raise UserError(
            f'{path} is not a file of bad numbers; they are called '
            'bad_numbers_iter_N_rankN.pth'
        )
    if record.get('weights') is None:
        raise UserError(
            f'{path} holds no weights, as sharded runs (--fsdp) cannot save '
            'them; train without --fsdp to replay'
        )
    return record


def replay(record: Mapping[str, Any], config: Config | None = None) -> Replay:
    """Run forward and backward pass of a saved iteration.

    Args:
        record: What :func:`read_record` returned.
        config: The run's config, where the file's own will not do. The
            caller trusts it.

    Raises:
        UserError: The model cannot be built from what is there, or the file
            is damaged.
    """
    if config is None:
        config = _config_in(record)
    device = get_device()
    try:
        model = _build(config).to(device).train()
        model.load_state_dict(record['weights'])
        batch = from_plain(record['batch'])
        set_random_states(record['states'])
    # Whatever constructors make of a damaged file.
    except Exception as error:
        raise UserError(f'the iteration cannot be set up: {error}') from error
    before = [n for n, v in model.state_dict().items() if not _finite(v)]
    watch = _Watch(model)
    loss, losses = _forward(model, batch, record['precision'], device)
    watch.remove()
    (loss * record['precision'].get('loss_scale', 1.0)).backward()
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


def _forward(
    model: Any, batch: Any, precision: Mapping[str, Any], device: str
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss, and all losses by name, as mmengine's train step has them."""
    dtype = precision.get('dtype')
    if dtype not in (None, 'float16', 'bfloat16', 'float32'):
        raise UserError(f'the file has {dtype!r} where a dtype should be')
    autocast = torch.autocast(
        device.partition(':')[0],
        dtype and getattr(torch, dtype),
        enabled=precision['autocast'],
    )
    with autocast:
        data = model.data_preprocessor(batch, True)
        losses = model._run_forward(data, mode='loss')
    return model.parse_losses(losses)


def _config_in(record: Mapping[str, Any]) -> Config:
    """The config in a file, if it describes nothing but a known model."""
    content = record.get('config')
    if not isinstance(content, Mapping) or 'model' not in content:
        raise UserError('the file holds no config; give --config')
    config = Config(_without_init(content))
    init_default_scope(config.get('default_scope') or 'mmengine')
    known = _registered(config.get('default_scope'))
    model = [config.model, config.get('data_preprocessor')]
    unknown = sorted({one for one in _types(model) if one not in known})
    if unknown:
        raise UserError(
            f'the model in the file has {", ".join(map(repr, unknown))}, '
            'which the libraries do not register; give --config with the '
            'config of the run'
        )
    return config


def _build(config: Config) -> Any:
    init_default_scope(config.get('default_scope') or 'mmengine')
    model = config.model
    if config.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', config.data_preprocessor)
    return MODELS.build(ConfigDict(_without_init(model)))


def _without_init(value: Any) -> Any:
    """A config without the files that models start from."""
    if isinstance(value, Mapping):
        return {
            key: _without_init(one)
            for key, one in value.items()
            if key not in ('init_cfg', 'pretrained')
        }
    if isinstance(value, list | tuple):
        return type(value)(_without_init(one) for one in value)
    return value


def _types(value: Any) -> Iterator[Any]:
    """All types that a config names."""
    if isinstance(value, Mapping):
        if 'type' in value:
            yield value['type']
        for one in value.values():
            yield from _types(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _types(one)


def _registered(scope: str | None) -> set[str]:
    """Names of the classes that models of a scope are made of.

    A registry that does not know a name imports it, whatever it is, so it
    must not be asked for others.
    """
    names: set[str] = {*_OTHER_TYPES}
    for root in (MODELS, TASK_UTILS):
        with root.switch_scope_and_registry(scope) as scoped:
            for registry in (root, scoped):
                registry.import_from_location()
                for name in registry.module_dict:
                    names |= {name, f'{registry.scope}.{name}'}
    return names


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
            given = not _all_finite([args, kwargs])
            self.culprit = Culprit(name, type(module).__name__, given)

        return look

    def remove(self) -> None:
        """Stop watching."""
        for handle in self._handles:
            handle.remove()


def _all_finite(value: Any) -> bool:
    return all(_finite(one) for _, one in _tensors(value))


def _finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _tensors(value: Any, where: str = '') -> Iterator[tuple[str, Tensor]]:
    """All tensors in a batch or an output, and their places."""
    if isinstance(value, Tensor):
        yield where.lstrip('.'), value
        return
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif hasattr(value, 'metainfo_items'):  # a data sample
        items = value.items()
    for key, one in items:
        yield from _tensors(one, f'{where}.{key}')
