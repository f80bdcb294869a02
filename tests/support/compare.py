"""Comparisons of tensors, gradients and states."""

from collections.abc import Mapping

import numpy as np
import torch
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


def assert_identical(one, other, where='value') -> None:
    """Whether two nested structures are the same to the last bit."""
    assert type(one) is type(other), where
    if isinstance(one, Mapping):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_identical(one[key], other[key], f'{where}.{key}')
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_identical(*pair, f'{where}.{number}')
    elif isinstance(one, torch.Tensor | np.ndarray):
        assert one.shape == other.shape, where
        assert (one == other).all(), where
    else:
        assert one == other, where


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
