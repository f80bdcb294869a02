"""Comparisons of tensors, gradients and states."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor


def relative_error(actual, expected, floor: float = 0.0) -> float:
    """``max |a - b| / max(max |b|, floor)``; nan counts as infinite."""
    actual, expected = (
        np.asarray(
            v.detach().double().numpy() if isinstance(v, Tensor) else v,
            dtype='float64',
        )
        for v in (actual, expected)
    )
    assert actual.shape == expected.shape, (
        f'shape {actual.shape}, expected {expected.shape}'
    )
    error = np.abs(actual - expected).max(initial=0.0)
    scale = max(np.abs(expected).max(initial=0.0), floor, 1e-30)
    return float(error / scale) if np.isfinite(error) else float('inf')


def assert_close(actual, expected, tol: float, what: str, floor=0.0) -> None:
    """Fail, naming ``what``, unless the relative error is within ``tol``."""
    error = relative_error(actual, expected, floor)
    assert error <= tol, f'{what}: relative error {error:.3g} > {tol:.3g}'


def assert_all_close(actual, expected, tol: float, what: str) -> None:
    """``assert_close`` for two sequences of feature maps."""
    assert len(actual) == len(expected), (
        f'{what}: {len(actual)} outputs, expected {len(expected)}'
    )
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        assert_close(a, b, tol, f'{what}, output {i}')


def differences(actual, expected, where='value') -> list[str]:
    """Names of what differs in any bit between two nested structures."""
    mappings = isinstance(actual, Mapping) and isinstance(expected, Mapping)
    if not mappings and type(actual) is not type(expected):
        return [f'{where}: {type(actual)}, not {type(expected)}']
    if isinstance(actual, list | tuple):
        actual, expected = dict(enumerate(actual)), dict(enumerate(expected))
    if isinstance(actual, Mapping):
        different = sorted(map(str, actual.keys() ^ expected.keys()))
        return [f'{where}.{key}: in one only' for key in different] + [
            name
            for key in actual.keys() & expected.keys()
            for name in differences(
                actual[key], expected[key], f'{where}.{key}'
            )
        ]
    if isinstance(actual, Tensor | np.ndarray):
        same = actual.shape == expected.shape and (actual == expected).all()
    else:
        same = actual == expected
    return [] if same else [where]


def identical(actual, expected) -> bool:
    """Whether two nested structures are equal bit by bit."""
    return not differences(actual, expected)


def assert_identical(actual, expected, where='value') -> None:
    """Fail, naming what differs, unless two structures are equal bit by bit.

    A state dict may be any mapping; all other types have to be the same.
    """
    found = differences(actual, expected, where)
    assert not found, f'{len(found)} differ: {found[:20]}'


def assert_same_gradients(
    actual: dict, expected: dict, tol: float, floor: float = 1e-6
) -> None:
    """Compare two ``gradients`` dicts, listing every parameter that fails.

    ``floor`` keeps gradients that are zero but for rounding (a bias in
    front of a BatchNorm) from being compared with themselves.
    """
    assert actual.keys() == expected.keys(), (
        f'parameters differ: {sorted(actual.keys() ^ expected.keys())}'
    )
    bad = []
    for name, want in expected.items():
        got = actual[name]
        if got is None or want is None:
            if got is not want:
                bad.append(f'{name}: only one of the two has a gradient')
            continue
        error = relative_error(got, want, floor)
        if error > tol:
            bad.append(f'{name}: relative error {error:.3g}')
    assert not bad, f'{len(bad)} gradients > {tol:.3g}:\n' + '\n'.join(bad)


def assert_same_buffers(actual: dict, expected: dict, tol: float) -> None:
    """Compare two ``buffers`` dicts, listing every buffer that fails."""
    assert actual.keys() == expected.keys(), (
        f'buffers differ: {sorted(actual.keys() ^ expected.keys())}'
    )
    bad = []
    for name, want in expected.items():
        error = relative_error(actual[name], want)
        if error > (0 if name.endswith('num_batches_tracked') else tol):
            bad.append(f'{name}: relative error {error:.3g}')
    assert not bad, f'{len(bad)} buffers > {tol:.3g}:\n' + '\n'.join(bad)
