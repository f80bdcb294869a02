"""The commands of docs/own_data.md, on few pictures."""

import json

import pytest

from tests.support.models import MICRO
from tests.support.paths import ROOT

# One iteration, and any box as a result, so that there is a metric.
SHORT = {
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_interval': 1,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'param_scheduler.0.end': 1,
}
OF_TASK = dict(
    singles={
        'train_cfg.max_iters': None,
        'train_dataloader.batch_size': 4,
        'train_dataloader.dataset.indices': 4,
        'val_dataloader.dataset.indices': 8,
    },
    boxes={
        'train_cfg.max_iters': None,
        'model.test_cfg.score_thr': 0.0,
    },
    pixels={
        'train_cfg.max_epochs': None,
        'default_hooks.checkpoint.interval': 1,
    },
)


# Conversion takes long, so that only the classifier is exported.
EXPORTED = 'singles'

# Lines of a config for a network that trains in seconds.
SMALL = f"model['backbone']['arch'] = dict(_delete_=True, **{MICRO})"
SMALL_OF_TASK = dict(
    singles=f"model['head']['in_channels'] = {MICRO['embed_dims'][-1]}",
    boxes=f"model['neck'] = dict(in_channels={MICRO['embed_dims'][1:]})",
    pixels=f"model['neck'] = dict(in_channels={MICRO['embed_dims']})",
)


def commands():
    """Words of the commands, by the config that they are for."""
    text = (ROOT / 'docs' / 'own_data.md').read_text()
    _, _, examples = text.partition('## One example for each task')
    examples, _, _ = examples.partition('\n## ')
    found = {}
    for line in examples.splitlines():
        words = line.split()
        if line.startswith('    python tools/') and 'build_digits' not in line:
            (name,) = (n for n in OF_TASK if f'/{n}' in line)
            found.setdefault(name, []).append(words[1:])
    return found


@pytest.mark.parametrize('name', OF_TASK)
def test_four_commands(digits, tmp_path, tool, name):
    lines = commands()[name]
    tools = [words[0].removeprefix('tools/') for words in lines]
    assert tools == ['new_config.py', 'train.py', 'report.py', 'export.py']
    for program, words in zip(tools, lines, strict=True):
        arguments = [arg for word in words[1:] for arg in moved(
            word, digits, tmp_path)]  # fmt: skip
        if program == 'train.py':
            arguments += ['--work-dir', tmp_path / 'work_dirs' / name]
            arguments += ['--cfg-options', *short(name)]
        if program == 'export.py':
            assert len(arguments) == 4  # a checkpoint was found
            arguments += ['--format', 'onnx']
            if name != EXPORTED:
                break
        status, text = tool(program, *arguments)
        assert status == 0, text
        if program == 'new_config.py':
            with (tmp_path / 'my_configs' / f'{name}.py').open('a') as file:
                file.write(f'{SMALL}\n{SMALL_OF_TASK[name]}\n')
    page = (tmp_path / 'work_dirs' / name / 'report.html').read_text()
    assert name in page
    if name == EXPORTED:
        path = tmp_path / 'exported' / name / 'model.json'
        assert '7' in json.loads(path.read_text())['classes']


def moved(word, digits, folder):
    """A word of a command with the paths of this test."""
    for name in ('my_configs', 'work_dirs', 'exported'):
        if word.startswith(f'{name}/'):
            path = folder / word
            if '*' not in word:
                return [str(path)]
            return [str(p) for p in path.parent.glob(path.name)]
    return [word.replace('data/digits', str(digits))]


def short(name):
    """Options for a short training."""
    options = {**SHORT, **OF_TASK[name]}
    return [f'{k}={v}' for k, v in options.items() if v is not None]
