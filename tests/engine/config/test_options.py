"""Any ``--cfg-options``: a config comes of it, or one clear error."""

import contextlib
import io
import shutil
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

import mmtransxnet  # noqa: F401
from mmtransxnet.engine import UserError, config_parser, load_config
from tests.support.fuzz import fuzz
from tests.support.paths import ROOT

CONFIG = str(ROOT / 'configs/classification/transxnet_t_digits.py')
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)


def keys_of(value, prefix=''):
    """All dotted keys of a config."""
    items = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, one in items:
        yield f'{prefix}{key}'
        yield from keys_of(one, f'{prefix}{key}.')


KNOWN = sorted(keys_of(Config.fromfile(CONFIG).to_dict()))
KEYS = st.one_of(
    st.sampled_from(KNOWN),
    st.builds('{}.{}'.format, st.sampled_from(KNOWN), ANY_TEXT),
    st.builds('{}.0'.format, st.sampled_from(KNOWN)),
    ANY_TEXT,
)
VALUES = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats().map(str),
    st.sampled_from(
        ['None', 'True', '', '[]', '()', '[[1,2],(3)]', '(,', '[1', '{}', ','],
    ),
    st.text('[](),1a', max_size=30),
    ANY_TEXT,
)
OPTIONS = st.one_of(ANY_TEXT, st.builds('{}={}'.format, KEYS, VALUES))


def outcome(arguments, config=CONFIG):
    """The config, the error of ``load_config`` or that of the parser."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            args = config_parser('').parse_args(
                [config, '--cfg-options', *arguments]
            )
    except SystemExit as stop:
        return stop.code, errors.getvalue()
    try:
        return 0, load_config(args.config, args.cfg_options)
    except UserError as error:
        return 2, f'error: {error}'


@fuzz(60)
@given(st.lists(OPTIONS, min_size=1, max_size=3))
def test_any_options(options):
    status, told = outcome(options)
    if status == 0:
        assert isinstance(told, Config)
        return
    # Also --help, cut short.
    assert (status, 'error:' in told) in ((2, True), (0, False)), told
    assert len(told) < 4000
    assert '\n' not in told[told.index('error:') :].strip()


@pytest.mark.parametrize(
    'option',
    [
        'model.backbone.arch=' + '[' * 2000 + ']' * 2000,
        'model.backbone.arch=' + 'x' * 100_000,
        'work_dir=' + '[1,' * 15 + ']' * 15 + ',' * 3000,
        '.'.join('a' * 1000) + '=1',
    ],
)
def test_long_options_take_no_time(option):
    """Not many times as long as a short one that is refused, too."""
    expected = min(seconds_of('model.backbone.arch=5')[0] for _ in range(2))
    seconds, (status, told) = seconds_of(option)
    assert status == 2
    assert len(told) < 2000
    assert seconds < 20 * expected


def seconds_of(option):
    """The processor's time for an option, and the outcome."""
    start = time.process_time()
    found = outcome([option])
    return time.process_time() - start, found


@fuzz(60)
@given(content=st.one_of(st.binary(max_size=100), ANY_TEXT))
def test_any_config_file(tmp_path, content):
    """Text, which Python refuses or runs, and what is no text."""
    path = tmp_path / 'x.py'
    if isinstance(content, str):
        content = content.encode(errors='surrogatepass')
    path.write_bytes(b'model = ' + content)
    assert outcome(['model=1'], str(path))[0] in (0, 2)


@fuzz(60)
@given(st.text(st.characters(codec=None), max_size=300))
def test_any_name_of_a_config(name):
    with pytest.raises(UserError, match='is neither a file'):
        load_config('x' + name)


@pytest.mark.parametrize('suffix', ['.txt', '.json', '.yaml', ''])
def test_configs_of_another_kind(tmp_path, suffix):
    path = tmp_path / f'config{suffix}'
    shutil.copy(CONFIG, path)
    with pytest.raises(UserError, match='cannot be read'):
        load_config(str(path))


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('train_dataloader.batch_size=abc', "'abc' is a string, and the con"),
        ('train_dataloader.batch_size=0', 'expected an integer of at least 1'),
        (
            'train_dataloader.batch_size=1.5',
            'expected an integer of at least 1',
        ),
        (
            'train_dataloader.num_workers=-1',
            'expected an integer of at least 0',
        ),
        ('train_cfg.max_iters=-1', 'expected an integer of at least 1'),
        ('optim_wrapper.optimizer.lr=fast', "'fast' is a string, and the c"),
        ('optim_wrapper.optimizer.lr=nan', 'nan is not a number'),
        ('model.backbone=TransXNet', 'is a string, and the config has a dict'),
        ('model=3', '3 is a number, and the config has a dict'),
        ('default_hooks=[]', 'is a list, and the config has a dict'),
        ('default_hooks.bad_numbers.polcy=skip', "did you mean 'policy'"),
        ('work_dir=[1]', 'is a list, and mmengine expects a string'),
        ('load_from=5', 'is a number, and mmengine expects a string'),
        (
            'model.backbone.arch=5',
            '5 is a number, and the config has a string',
        ),
    ],
)
def test_wrong_types_and_counts(option, message):
    status, told = outcome([option])
    assert status == 2
    assert told.startswith('error: ')
    assert option.partition('=')[0].rpartition('.')[2] in told
    assert message in told


@pytest.mark.parametrize(
    'option',
    [
        'model.backbone.arch=t',
        'optim_wrapper.optimizer.weight_decay=0',
        'optim_wrapper.clip_grad=None',
        'train_dataloader.dataset.pipeline=[]',
        'custom_hooks=[]',
        'default_hooks.checkpoint=None',
    ],
)
def test_what_goes_together(option):
    assert outcome([option])[0] == 0
