"""The published parameter names, which the state dict uses."""

from collections.abc import Iterable, MutableMapping

from torch import Tensor

# Every TransXNet has it; its prefix in a file tells which kind of model the
# file holds.
STEM = 'patch_embed.proj.conv.weight'

BACKBONE = 'backbone.'
OUTPUT_NORMS = ('norm0.', 'norm2.', 'norm4.', 'norm6.')
# The published classifier's prefixes, and those of mmpretrain's classifier
# with a linear head.
_CLASSIFIER = {
    'classifier.0.': f'{BACKBONE}norm6.',
    'classifier.2.': 'head.fc.',
}
HEAD = 'head.fc.weight'


def rename_classifier(
    state: MutableMapping[str, Tensor], prefix: str = ''
) -> None:
    """Rename a published classifier's weights to mmpretrain's, in place.

    Its norm becomes the backbone's last output norm, its 1x1 convolution
    the linear head. Any other state dict stays unchanged.

    Args:
        state: Weights.
        prefix: Prefix of all names.
    """
    if prefix + STEM not in state:
        return
    for name in names_below(state, prefix):
        short = name.removeprefix(prefix)
        value = state.pop(name)
        for published, renamed in _CLASSIFIER.items():
            if short.startswith(published):
                short = renamed + short.removeprefix(published)
                break
        else:
            short = BACKBONE + short
        if short == HEAD and value.ndim == 4:
            value = value.flatten(1)
        state[prefix + short] = value


def drop_unused_norms(
    state: MutableMapping[str, Tensor], prefix: str, expected: Iterable[str]
) -> list[str]:
    """Remove output norms of stages that a backbone does not return.

    A published model may have them without using them.

    Args:
        state: Weights, changed in place.
        prefix: Prefix of the backbone's names in ``state``.
        expected: Names of the backbone's own weights.

    Returns:
        The names removed.
    """
    known = set(expected)
    unused = [
        name
        for norm in OUTPUT_NORMS
        for name in names_below(state, prefix + norm)
        if name.removeprefix(prefix) not in known
    ]
    for name in unused:
        del state[name]
    return unused


def names_below(names: Iterable[str], prefix: str) -> list[str]:
    """List the names with a prefix."""
    return [name for name in names if name.startswith(prefix)]
