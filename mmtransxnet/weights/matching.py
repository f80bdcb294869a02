"""Matching of the weights in a file with those of a model."""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from mmtransxnet.models.state_dict import (
    BACKBONE,
    HEAD,
    OUTPUT_NORMS,
    STEM,
    drop_unused_norms,
    names_below,
    rename_classifier,
)
from mmtransxnet.utils.errors import CheckpointError
from mmtransxnet.utils.text import first_few


@dataclass
class Match:
    """How the weights of a file match a model.

    Attributes:
        state: Weights under the model's names.
        left_out: Names in the file that are not used, and why.
        fresh: Names in the model that the file lacks, and why that is valid.
        misfits: Names that should match and do not, by problem.
        hint: What to do instead, if known.
    """

    state: dict[str, Tensor]
    left_out: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    misfits: dict[str, list[str]] = field(default_factory=dict)
    hint: str = ''

    @property
    def problems(self) -> list[str]:
        """Why the file does not match, one line per reason; else empty."""
        reasons = [
            f'{len(names)} {problem}: {first_few(names)}'
            for problem, names in self.misfits.items()
        ]
        return [*reasons, self.hint] if reasons and self.hint else reasons

    def require(self, source: str, model: str) -> None:
        """Raise an error unless the file matches.

        Args:
            source: Name of the file, for the message.
            model: Name of the model, for the message.

        Raises:
            CheckpointError: It does not match.
        """
        if self.problems:
            raise CheckpointError(
                f'checkpoint {source} does not fit {model}: '
                f'{"; ".join(self.problems)}. Is it of this config, size and '
                'task? Names that may differ can be allowed'
            )

    def report(self) -> list[str]:
        """What was loaded, what was not, and why, one line each."""
        lines = [f'{len(self.state)} tensors loaded']
        for names, label in (
            (self.left_out, 'of the file left out'),
            (self.fresh, 'of the model not in the file'),
        ):
            lines += [
                f'{len(_with_reason(names, reason))} {label} ({reason}): '
                f'{first_few(_with_reason(names, reason), 8)}'
                for reason in dict.fromkeys(names.values())
            ]
        return lines


def _with_reason(names: Mapping[str, str], reason: str) -> list[str]:
    return [name for name, why in names.items() if why == reason]


def match_weights(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    allow: Iterable[str] = (),
) -> Match:
    """Match weights of any known format with a model.

    Args:
        state: Weights, as :func:`state_dict_of` returns them: a published
            classifier or dense model, a model of the configs of this suite, or
            a backbone.
        expected: The state dict of the model: a backbone, or a complete model
            that contains one.
        allow: Names, or patterns such as ``head.fc.*``, in the file or the
            model, that need not fit.
    """
    match = Match(dict(state))
    _translate(match, expected)
    _drop_unused_norms(match, expected)
    _compare(match, expected, tuple(allow))
    return match


def _translate(match: Match, expected: Mapping[str, Tensor]) -> None:
    """Rename the weights to the names of the model."""
    state = match.state
    if STEM in expected and BACKBONE + STEM in state:
        _keep_backbone(match)
    elif STEM in expected:
        for name in names_below(state, 'classifier.'):
            if name not in expected:
                del state[name]
                match.left_out[name] = 'as the published dense runs did'
    elif STEM in state and BACKBONE + STEM in expected:
        if HEAD in expected:
            rename_classifier(state)
        else:
            match.hint = (
                'it holds a backbone or a classifier and not this model; '
                'start from it by model.backbone.init_cfg'
            )


def _keep_backbone(match: Match) -> None:
    """Keep only the backbone of a complete model."""
    state = match.state
    match.left_out.update(
        dict.fromkeys(
            (name for name in state if not name.startswith(BACKBONE)),
            'not of the backbone',
        )
    )
    match.state = {
        name.removeprefix(BACKBONE): state[name]
        for name in names_below(state, BACKBONE)
    }


def _drop_unused_norms(match: Match, expected: Mapping[str, Tensor]) -> None:
    prefix = _backbone_prefix(expected)
    if prefix is None:
        return
    inner = {
        name.removeprefix(prefix) for name in names_below(expected, prefix)
    }
    match.left_out.update(
        dict.fromkeys(
            drop_unused_norms(match.state, prefix, inner),
            'norm of an output that this backbone does not return',
        )
    )


def _backbone_prefix(expected: Iterable[str]) -> str | None:
    """Prefix of the backbone's names, None without a TransXNet."""
    names = set(expected)
    return next((p for p in ('', BACKBONE) if p + STEM in names), None)


def _compare(
    match: Match, expected: Mapping[str, Tensor], allow: Sequence[str]
) -> None:
    """Record missing and unexpected names and other shapes."""
    state = match.state
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    mismatched = [
        name
        for name in state
        if name in expected and not _same_shape(name, state, expected)
    ]
    for name in _allowed((*unexpected, *mismatched), allow):
        del state[name]
        match.left_out[name] = 'allowed by name'
    for name in _allowed((*missing, *mismatched), allow):
        match.fresh[name] = 'allowed by name'
    for name in missing:
        reason = _why_fresh(name, STEM in expected)
        if reason:
            match.fresh.setdefault(name, reason)
    shapes = [
        f'{name} {tuple(state[name].shape)} for {tuple(expected[name].shape)}'
        for name in mismatched
        if name in state
    ]
    misfits = {
        'missing': [name for name in missing if name not in match.fresh],
        'unexpected': [name for name in unexpected if name in state],
        'of another shape': shapes,
    }
    match.misfits = {
        problem: names for problem, names in misfits.items() if names
    }


def _same_shape(
    name: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> bool:
    shape, stored = expected[name].shape, state[name].shape
    if 'relative_pos_enc.' in name and len(stored) == 4:
        # Position tables are resized to the design size on loading.
        return shape[:2] == stored[:2]
    return shape == stored


def _allowed(names: Iterable[str], allow: Sequence[str]) -> list[str]:
    return [
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in allow)
    ]


def _why_fresh(name: str, is_backbone: bool) -> str | None:
    """Why a file may lack a name of the model, or None."""
    if name.endswith('num_batches_tracked'):
        return 'a counter that is not used'
    if is_backbone and name.startswith(OUTPUT_NORMS):
        return 'newly initialised output norms, as in the published dense runs'
    return None
