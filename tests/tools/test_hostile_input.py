"""What no tool may answer with a bare traceback, a hang or a lost run."""

import pytest
import torch

from mmtransxnet.weights.reader import read_checkpoint
from tests.support.tools import with_path

SCRATCH = 'model.backbone.init_cfg=None'
FLOPS = 'analysis/get_flops.py'
CHECK = 'dataset/check.py'


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Checkpoints that are none, and places that take no files."""
    folder = tmp_path_factory.mktemp('hostile')
    names = (
        'empty', 'html', 'cut', 'malicious', 'arch', 'nan', 'taken', 'config'
    )  # fmt: skip
    paths = {name: folder / f'{name}.pth' for name in names}
    paths['empty'].write_bytes(b'')
    paths['html'].write_text('<!DOCTYPE html><title>404</title>')
    torch.save(dict(state_dict=dict(a=torch.zeros(999))), paths['cut'])
    data = paths['cut'].read_bytes()
    paths['cut'].write_bytes(data[: len(data) // 2])
    torch.save(dict(args=Call(folder / 'trace')), paths['malicious'])
    torch.save(dict(state_dict=dict(a=torch.zeros(9))), paths['arch'])
    bad = dict(a=torch.full((9,), float('nan')))
    torch.save(dict(state_dict=bad), paths['nan'])
    paths['taken'].write_text('a file, not a folder')
    paths['config'].write_text('model = dict(\n')
    paths['config'] = paths['config'].rename(folder / 'broken.py')
    paths['picture'] = folder / 'picture.png'
    return paths


class Call:
    """Pickles to a call that leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), 'w')


def one_error(status, log):
    """The only complaint, in one line and without a traceback."""
    assert status == 2, log
    assert 'Traceback' not in log
    (line,) = [text for text in log.splitlines() if 'error: ' in text]
    return line


OPTIONS = [
    ('train.py', 'train_dataloader.batch_size=abc', 'batch_size'),
    ('train.py', 'model.backbone.arch=xyz', "arch 'xyz' is unknown"),
    ('train.py', 'optim_wrapper.optimizer.type=Adamm', 'optim_wrapper'),
    ('train.py', 'train_dataloader.prefetch_factor=2', 'train_dataloader'),
    ('train.py', 'default_hooks.bad_numbers.policy=x', "policy='x'"),
    ('train.py', 'optim_wrapper.optimizer.lr=-1', 'Invalid learning rate'),
    ('test.py', 'model.head.num_classes=-5', 'num_classes'),
    ('infer.py', 'key', 'expected key=value'),
    (FLOPS, 'model.backbone.arch=xyz', "arch 'xyz' is unknown"),
    (CHECK, 'train_dataloader=[]', 'is a list'),
]


@pytest.mark.parametrize(('name', 'option', 'message'), OPTIONS)
def test_options(tool, configs, tmp_path, files, name, option, message):
    arguments = [configs['classifier']]
    if name == 'infer.py':
        arguments += [files['arch'], files['picture'], '--out', tmp_path]
    if name == 'test.py':
        arguments += [files['arch'], '--work-dir', tmp_path]
    if name == 'train.py':
        arguments += ['--work-dir', tmp_path]
    if 'test.py' not in name:
        arguments += ['--cfg-options', SCRATCH, option]
    else:
        arguments += ['--cfg-options', option]
    assert message in one_error(*tool(name, *arguments))


CHECKPOINTS = dict(
    empty='is empty',
    html='is a web page',
    cut='damaged, cut short',
    malicious='refused',
    arch='',
    nan='holds NaN',
)


def test_checkpoints_of_any_kind_are_told(files):
    """One reader is behind all tools."""
    for name, message in CHECKPOINTS.items():
        if message:
            with pytest.raises(ValueError, match=message):
                read_checkpoint(files[name])


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('test.py', 'arch'),
        ('train.py', 'nan'),
        ('infer.py', 'html'),
        ('convert_checkpoint.py', 'malicious'),
        ('replay.py', 'malicious'),
        ('replay.py', 'arch'),
    ],
)
def test_checkpoints(tool, configs, tmp_path, files, name, kind):
    config, file = configs['classifier'], files[kind]
    arguments = {
        'test.py': [config, file, '--work-dir', tmp_path],
        'train.py': [
            config, '--work-dir', tmp_path, '--cfg-options',
            f'load_from={file}',
        ],
        'infer.py': [config, file, files['picture'], '--out', tmp_path],
        'convert_checkpoint.py': [file, tmp_path / 'out.pth'],
        'replay.py': [config, file],
    }[name]  # fmt: skip
    assert CHECKPOINTS[kind] in one_error(*tool(name, *arguments))
    assert not (file.parent / 'trace').exists()


@pytest.mark.parametrize(
    ('name', 'flag'),
    [
        ('train.py', '--work-dir'),
        ('test.py', '--out'),
        ('infer.py', '--out'),
        ('convert_checkpoint.py', ''),
        ('benchmark/reproduce.py', '--out'),
    ],
)
def test_places_that_take_no_files(tool, configs, tmp_path, files, name, flag):
    """Told before the work that would be lost."""
    config, place = configs['classifier'], files['taken'] / 'x.pkl'
    arguments = {
        'train.py': [config],
        'test.py': [config, files['arch'], '--work-dir', tmp_path],
        'infer.py': [config, files['arch'], files['picture']],
        'convert_checkpoint.py': [files['arch'], files['taken'] / 'x.pth'],
        'benchmark/reproduce.py': ['--task', 'digits'],
    }[name]
    if flag:
        arguments = [*arguments, flag, place]
    line = one_error(*tool(name, *arguments))
    assert str(files['taken']) in line
    assert flag in line


def test_a_config_that_python_cannot_read(tool, files):
    line = one_error(*tool(CHECK, files['config']))
    assert 'broken.py cannot be read: SyntaxError' in line


def test_reproduce_passes_options_that_fit(tool, tmp_path):
    outcome = tool(
        'benchmark/reproduce.py', '--task', 'digits', '--out', tmp_path,
        '--cfg-options', 'key',
    )  # fmt: skip
    assert 'expected key=value' in one_error(*outcome)


def test_bugs_keep_their_traceback(tool, configs, tmp_path):
    """An exception while training is not the config's fault."""
    (tmp_path / 'faulty.py').write_text(
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n'
        '@HOOKS.register_module()\n'
        'class Faulty(Hook):\n'
        '    def after_train_iter(self, runner, *args, **kwargs):\n'
        '        raise KeyError("a bug")\n'
    )
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {str(configs["classifier"])!r}\n'
        "custom_imports = dict(imports=['mmtransxnet', 'faulty'])\n"
        "custom_hooks = [dict(type='Faulty')]\n"
    )
    status, log = tool(
        'train.py', config, '--work-dir', tmp_path, '--cfg-options', SCRATCH,
        PYTHONPATH=with_path(tmp_path),
    )  # fmt: skip
    assert status == 1
    assert 'Traceback' in log
    assert log.rstrip().endswith("KeyError: 'a bug'")
