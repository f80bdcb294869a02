"""Recorded numbers of the published implementation."""

import hashlib
import json
from functools import cache

import numpy as np
from torch import Tensor, nn

from tests.support.compare import assert_close
from tests.support.models import gradients, make_input, micro, probe_loss
from tests.support.paths import GOLDEN


def sample(tensor: Tensor, count: int = 256) -> np.ndarray:
    """``count`` values of ``tensor``, at indices its size determines."""
    flat = tensor.detach().double().reshape(-1).numpy()
    rng = np.random.RandomState(flat.size % 2**31)
    return flat[rng.randint(0, flat.size, count)].astype('float32')


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
