"""Shared by the tests: golden data, weights by name, comparisons."""

import copy
import hashlib
import json
import socket
import zlib
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

DATA = Path(__file__).parent / 'data'
GOLDEN = DATA / 'golden'
ROOT = Path(__file__).parents[1]

# Every branch of the network in a second.
MICRO = dict(
    layers=[1, 1, 2, 1],
    embed_dims=[16, 32, 48, 64],
    kernel_size=[7, 7, 7, 7],
    num_groups=[2, 2, 3, 4],
    sr_ratio=[8, 4, 2, 1],
    num_heads=[1, 2, 3, 4],
    mlp_ratios=[4, 4, 3, 2],
)


def micro(**changes) -> dict:
    """A fresh copy of the micro architecture, with ``changes``."""
    return {**copy.deepcopy(MICRO), **changes}


# --------------------------------------------------------------- numbers
def _draw(name: str, shape: tuple) -> np.ndarray:
    """The value that belongs to the official key ``name``."""
    # RandomState is the one NumPy generator whose stream is frozen, so a
    # name and a shape fix the numbers for good.
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('num_batches_tracked'):
        return np.zeros(shape)
    if name.endswith('running_mean'):
        return rng.uniform(-0.2, 0.2, shape)
    if name.endswith('running_var'):
        return rng.uniform(0.5, 1.5, shape)
    if 'layer_scale' in name and name.endswith('weight'):
        return rng.uniform(0.1, 0.5, shape)
    if 'relative_pos_enc' in name:
        return 0.5 * rng.standard_normal(shape)
    if len(shape) == 4:
        fan_in = np.prod(shape[1:])
        return rng.standard_normal(shape) / np.sqrt(fan_in)
    if name.endswith('weight'):
        return rng.uniform(0.8, 1.2, shape)
    return 0.05 * rng.standard_normal(shape)


# Most models of the suite are micro ones; drawing takes longer than a step.
_draw_again = lru_cache(maxsize=1024)(_draw)


@torch.no_grad()
def fill_by_name(module: nn.Module) -> nn.Module:
    """Give every parameter and buffer the value its key name stands for."""
    for name, tensor in module.state_dict().items():
        # What is large belongs to a published size, and fills the memory.
        draw = _draw_again if tensor.numel() < 200_000 else _draw
        value = np.asarray(draw(name, tuple(tensor.shape)))
        tensor.copy_(torch.from_numpy(value).to(tensor))
    return module


def make_input(seed: int, shape) -> Tensor:
    """Standard-normal float32 values of ``shape``."""
    values = np.random.RandomState(seed).standard_normal(tuple(shape))
    return torch.from_numpy(values.astype('float32'))


def sample(tensor: Tensor, count: int = 256) -> np.ndarray:
    """``count`` values of ``tensor``, at indices its size determines."""
    flat = tensor.detach().double().reshape(-1).numpy()
    rng = np.random.RandomState(flat.size % 2**31)
    return flat[rng.randint(0, flat.size, count)].astype('float32')


# ---------------------------------------------------------------- golden
@cache
def golden(which: str) -> dict:
    """``forward`` or ``backward``: ``{case: {field: array}}``."""
    cases: dict = {}
    with np.load(GOLDEN / f'{which}.npz') as data:
        for key in data.files:
            parts = key.split('|')
            case, field = '|'.join(parts[:4]), '|'.join(parts[4:])
            cases.setdefault(case, {})[field] = data[key]
    return cases


def parse_case(case: str) -> tuple:
    """``'micro|224|1|2x3x224x224'`` -> arch, image size, seed, shape."""
    arch, image_size, seed, shape = case.split('|')
    shape = tuple(int(n) for n in shape.split('x'))
    return arch, int(image_size), int(seed), shape


def golden_cases(which: str, *archs: str) -> list:
    """Names of the golden cases, of ``archs`` only if there are any."""
    return [c for c in golden(which) if not archs or c.split('|')[0] in archs]


def golden_arch(name: str):
    """What to pass as ``arch`` for a golden architecture name."""
    return micro() if name == 'micro' else name


@cache
def official_keys() -> dict:
    return json.loads((GOLDEN / 'official_keys.json').read_text())


def dense_keys(size: str = 't') -> dict:
    """``{key: shape}`` of the published four-output backbone of size T."""
    facts = official_keys()[size]
    drop = set(facts['only_in_classification'])
    keys = {
        k: tuple(shape)
        for k, shape in facts['classification'].items()
        if k not in drop
    }
    # One affine norm per stage, as wide as the stage.
    for key in facts['only_in_dense']:
        stage = key.split('.')[0].removeprefix('norm')
        width = keys[f'network.{stage}.0.norm1.weight']
        keys[key] = width
    return keys


def keys_sha256(shapes: dict) -> str:
    """The fingerprint ``official_keys.json`` records of a key list."""
    lines = sorted(f'{k} {tuple(shape)}' for k, shape in shapes.items())
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


# ----------------------------------------------------------- comparisons
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


def free_port() -> str:
    """A port of this machine that nothing listens to."""
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


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


def probe_loss(outs) -> Tensor:
    """The loss of ``backward.npz``: a fixed random projection per output."""
    return sum(
        (out * make_input(100 + i, out.shape).to(out)).mean()
        for i, out in enumerate(outs)
    )


def gradients(module: nn.Module) -> dict:
    """``{name: gradient or None}`` of all parameters, detached copies."""
    return {
        name: None if p.grad is None else p.grad.detach().clone()
        for name, p in module.named_parameters()
    }


def buffers(module: nn.Module) -> dict:
    """``{name: value}`` of all buffers, detached copies."""
    return {n: b.detach().clone() for n, b in module.named_buffers()}


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


# ---------------------------------------------------------- golden checks
def check_golden_forward(outs, case: str, tol: float = 1e-4) -> None:
    """Compare four outputs with the recorded ones, stage by stage."""
    facts = golden('forward')[case]
    assert len(outs) == 4
    for i, out in enumerate(outs):
        what = f'{case}, stage {i}'
        shape = tuple(facts[f'stage{i}|shape'])
        assert tuple(out.shape) == shape, f'{what}: shape {out.shape}'
        assert_close(sample(out), facts[f'stage{i}|sample'], tol, what)
        # The samples are a few values of many; these see all of them.
        whole = out.detach().double()
        stat = [whole.mean().item(), whole.std().item()]
        assert_close(stat, facts[f'stage{i}|stat'], tol, f'{what}, mean/std')


def check_golden_backward(model: nn.Module, case: str, tol: float) -> None:
    """One training step of a freshly filled model, as recorded."""
    facts = golden('backward')[case]
    _, _, seed, shape = parse_case(case)
    image = make_input(seed, shape).requires_grad_()
    loss = probe_loss(model.train()(image))
    loss.backward()
    assert_close(loss, facts['loss'], tol, f'{case}, loss')
    assert_close(sample(image.grad), facts['input'], tol, f'{case}, input')
    found = gradients(model)
    assert sorted(found) == sorted(facts['names']), f'{case}, parameters'
    bad = []
    for name, norm, values in zip(
        facts['names'], facts['norm'], facts['grad'], strict=True
    ):
        if found[name] is None:
            bad.append(f'{name}: no gradient')
            continue
        error = max(
            abs(found[name].double().norm().item() - norm),
            np.abs(sample(found[name], 8) - values).max(),
        ) / max(norm, 1e-3)
        if not error <= tol:
            bad.append(f'{name}: relative error {error:.3g}')
    assert not bad, f'{case}: gradients > {tol:.3g}:\n' + '\n'.join(bad)
    state = model.state_dict()
    for name, values in zip(
        facts['buffer_names'], facts['buffer'], strict=True
    ):
        assert_close(sample(state[name], 8), values, 1e-4, f'{case}, {name}')
