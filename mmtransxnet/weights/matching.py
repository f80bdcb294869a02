"""Published weights become ours: which name goes where, and which nowhere."""

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
from mmtransxnet.utils.text import first_few


@dataclass
class Fit:
    """How the weights of a file fill a model.

    Attributes:
        state: Weights under the model's names.
        left_out: Names in the file that are not used, and why.
        fresh: Names in the model that the file does not fill, and why that
            is as it should be.
        misfits: Names that should fit and do not: what is wrong with them,
            and which they are.
        hint: What to do instead, where that is known.
    """

    state: dict[str, Tensor]
    left_out: dict[str, str] = field(default_factory=dict)
    fresh: dict[str, str] = field(default_factory=dict)
    misfits: dict[str, list[str]] = field(default_factory=dict)
    hint: str = ''

    @property
    def problems(self) -> list[str]:
        """Why the file does not fit, one line a reason; none if it does."""
        reasons = [
            f'{len(names)} {what}: {first_few(names)}'
            for what, names in self.misfits.items()
        ]
        return [*reasons, self.hint] if reasons and self.hint else reasons

    def report(self) -> list[str]:
        """What was loaded, what was not, and why, one line each."""
        lines = [f'{len(self.state)} tensors loaded']
        for names, what in (
            (self.left_out, 'of the file left out'),
            (self.fresh, 'of the model not in the file'),
        ):
            lines += [
                f'{len(_of(names, reason))} {what} ({reason}): '
                f'{first_few(_of(names, reason), 8)}'
                for reason in dict.fromkeys(names.values())
            ]
        return lines


def _of(names: Mapping[str, str], reason: str) -> list[str]:
    return [name for name, why in names.items() if why == reason]


def fit(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    allow: Iterable[str] = (),
) -> Fit:
    """Find out how weights of any known format fill a model.

    Args:
        state: Weights, as :func:`state_dict_of` returns them: a published
            classifier or dense model, a model of our configs, a backbone.
        expected: The model's own state dict: a backbone's, or that of a
            whole model with a backbone in it.
        allow: Names, or patterns such as ``head.fc.*``, in the file or the
            model, that need not fit.
    """
    outcome = Fit(dict(state))
    _translate(outcome, expected)
    _drop_unused_norms(outcome, expected)
    _compare(outcome, expected, tuple(allow))
    return outcome


def _translate(outcome: Fit, expected: Mapping[str, Tensor]) -> None:
    """Give the weights the names of the model."""
    state = outcome.state
    if STEM in expected and BACKBONE + STEM in state:
        _keep_backbone(outcome)
    elif STEM in expected:
        for name in names_below(state, 'classifier.'):
            if name not in expected:
                del state[name]
                outcome.left_out[name] = 'as the published dense runs did'
    elif STEM in state and BACKBONE + STEM in expected:
        if HEAD in expected:
            rename_classifier(state)
        else:
            outcome.hint = (
                'it holds a backbone or a classifier and not this model; '
                'start from it by model.backbone.init_cfg'
            )


def _keep_backbone(outcome: Fit) -> None:
    """Take the backbone out of a whole model."""
    state = outcome.state
    outcome.left_out.update(
        dict.fromkeys(
            (name for name in state if not name.startswith(BACKBONE)),
            'not of the backbone',
        )
    )
    outcome.state = {
        name.removeprefix(BACKBONE): state[name]
        for name in names_below(state, BACKBONE)
    }


def _drop_unused_norms(outcome: Fit, expected: Mapping[str, Tensor]) -> None:
    prefix = _backbone_prefix(expected)
    if prefix is None:
        return
    inner = {
        name.removeprefix(prefix) for name in names_below(expected, prefix)
    }
    outcome.left_out.update(
        dict.fromkeys(
            drop_unused_norms(outcome.state, prefix, inner),
            'norm of an output that this backbone does not return',
        )
    )


def _backbone_prefix(expected: Iterable[str]) -> str | None:
    """What stands before the backbone's names, None without a TransXNet."""
    names = set(expected)
    return next((p for p in ('', BACKBONE) if p + STEM in names), None)


def _compare(
    outcome: Fit, expected: Mapping[str, Tensor], allow: Sequence[str]
) -> None:
    """Note what is missing, unexpected or of another shape."""
    state = outcome.state
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    mismatched = [
        name
        for name in state
        if name in expected and not _same_shape(name, state, expected)
    ]
    for name in _allowed((*unexpected, *mismatched), allow):
        del state[name]
        outcome.left_out[name] = 'allowed by name'
    for name in _allowed((*missing, *mismatched), allow):
        outcome.fresh[name] = 'allowed by name'
    for name in missing:
        reason = _why_fresh(name, STEM in expected)
        if reason:
            outcome.fresh.setdefault(name, reason)
    shapes = [
        f'{name} {tuple(state[name].shape)} for {tuple(expected[name].shape)}'
        for name in mismatched
        if name in state
    ]
    kinds = {
        'missing': [name for name in missing if name not in outcome.fresh],
        'unexpected': [name for name in unexpected if name in state],
        'of another shape': shapes,
    }
    outcome.misfits = {what: names for what, names in kinds.items() if names}


def _same_shape(
    name: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> bool:
    ours, theirs = expected[name].shape, state[name].shape
    if 'relative_pos_enc.' in name and len(theirs) == 4:
        # Resized to the model's design size when it is loaded.
        return ours[:2] == theirs[:2]
    return ours == theirs


def _allowed(names: Iterable[str], allow: Sequence[str]) -> list[str]:
    return [
        name
        for name in names
        if any(fnmatch.fnmatchcase(name, one) for one in allow)
    ]


def _why_fresh(name: str, is_backbone: bool) -> str | None:
    """Why a name of the model need not be in the file, or None."""
    if name.endswith('num_batches_tracked'):
        return 'a count that nothing computes with'
    if is_backbone and name.startswith(OUTPUT_NORMS):
        return 'output norms, which start anew as in the published dense runs'
    return None
