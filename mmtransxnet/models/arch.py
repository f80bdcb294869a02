"""The sizes of the network, as data."""

from collections.abc import Mapping, Sequence
from typing import Any

NUM_STAGES = 4

ARCH_KEYS = (
    'layers',  # blocks of each stage
    'embed_dims',  # channels C
    'kernel_size',  # IDConv's kernel K, odd
    'num_groups',  # IDConv's learned kernels G
    'sr_ratio',  # OSRA's spatial reduction r
    'num_heads',  # OSRA's heads
    'mlp_ratios',  # MS-FFN's hidden channels over C
)

_Arch = dict[str, tuple[int, ...]]

_TINY: _Arch = {
    'layers': (3, 3, 9, 3),
    'embed_dims': (48, 96, 224, 448),
    'kernel_size': (7, 7, 7, 7),
    'num_groups': (2, 2, 2, 2),
    'sr_ratio': (8, 4, 2, 1),
    'num_heads': (1, 2, 4, 8),
    'mlp_ratios': (4, 4, 4, 4),
}
_SMALL: _Arch = {
    'layers': (4, 4, 12, 4),
    'embed_dims': (64, 128, 320, 512),
    'kernel_size': (7, 7, 7, 7),
    'num_groups': (2, 2, 3, 4),
    'sr_ratio': (8, 4, 2, 1),
    'num_heads': (1, 2, 5, 8),
    'mlp_ratios': (6, 6, 4, 4),
}
_BASE: _Arch = {
    'layers': (4, 4, 21, 4),
    'embed_dims': (76, 152, 336, 672),
    'kernel_size': (7, 7, 7, 7),
    'num_groups': (2, 2, 4, 4),
    'sr_ratio': (8, 4, 2, 1),
    'num_heads': (2, 4, 8, 16),
    'mlp_ratios': (8, 8, 4, 4),
}
ARCHS: dict[str, _Arch] = {
    't': _TINY,
    'tiny': _TINY,
    's': _SMALL,
    'small': _SMALL,
    'b': _BASE,
    'base': _BASE,
}


def resolve_arch(
    arch: str | Mapping[str, Sequence[int]],
) -> _Arch:
    """Validate and return the settings of an architecture.

    Args:
        arch: Name of a published size, or a dict with the keys
            ``ARCH_KEYS``, four positive integers each.

    Raises:
        ValueError: Unknown name, missing, unknown or mis-sized keys, or
            channels that do not divide into halves and heads, kernels or
            reductions of a size that is not supported. The message lists
            what is expected.
    """
    if isinstance(arch, str):
        if arch not in ARCHS:
            raise ValueError(
                f"arch '{arch}' is unknown; choose one of {sorted(ARCHS)} "
                f'or pass a dict with the keys {list(ARCH_KEYS)}'
            )
        return dict(ARCHS[arch])
    problems = _problems(arch)
    if problems:
        raise ValueError(
            f'arch dict: {"; ".join(problems)}. Expected are the keys '
            f'{list(ARCH_KEYS)}, each with {NUM_STAGES} positive integers'
        )
    return {key: tuple(arch[key]) for key in ARCH_KEYS}


def _problems(arch: Any) -> list[str]:
    """List what is wrong with an arch dict."""
    if not isinstance(arch, Mapping):
        return [f'a {type(arch).__name__} is neither a name nor a dict']
    missing = [key for key in ARCH_KEYS if key not in arch]
    unknown = [key for key in arch if key not in ARCH_KEYS]
    problems = []
    if missing:
        problems.append(f'missing {missing}')
    if unknown:
        problems.append(f'unknown {unknown}')
    sized = {key: arch[key] for key in ARCH_KEYS if key in arch}
    mis_sized = [
        key for key, value in sized.items() if not _is_per_stage(value)
    ]
    problems += [f'{key}={sized[key]!r} is mis-sized' for key in mis_sized]
    if not problems:
        problems = _size_problems(sized)
    return problems


def _is_per_stage(values: Any) -> bool:
    return (
        isinstance(values, Sequence)
        and not isinstance(values, str)
        and len(values) == NUM_STAGES
        and all(type(value) is int and value > 0 for value in values)
    )


def _size_problems(arch: Mapping[str, Sequence[int]]) -> list[str]:
    problems = []
    for stage in range(NUM_STAGES):
        channels = arch['embed_dims'][stage]
        heads = arch['num_heads'][stage]
        if channels % (2 * heads):
            problems.append(
                f'stage {stage}: half of the {channels} channels must '
                f'divide into {heads} heads'
            )
        # IDConv predicts its kernel from a quarter of half the channels.
        if channels < 8:
            problems.append(f'stage {stage}: {channels} channels are too few')
        if arch['kernel_size'][stage] % 2 == 0:
            problems.append(f'stage {stage}: kernel_size must be odd')
        # An odd reduction has an even kernel, which gives one row more than
        # expected where it divides the map.
        if arch['sr_ratio'][stage] % 2 and arch['sr_ratio'][stage] > 1:
            problems.append(f'stage {stage}: sr_ratio must be 1 or even')
    return problems
