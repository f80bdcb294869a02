"""Whatever is in a file: it is read, or told in one error; nothing runs."""

import io
import os
import pickle
import sys
import zipfile

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import save

from mmtransxnet import TransXNet
from mmtransxnet.weights.reader import read_checkpoint, state_dict_of
from tests.support.fuzz import fuzz
from tests.support.models import MICRO
from tests.support.published_files import training_dict


class Watch:
    """Notes what no reader of weights does."""

    FORBIDDEN = {
        'os.system', 'os.exec', 'os.posix_spawn', 'os.remove', 'os.rename',
        'subprocess.Popen', 'socket.connect',
    }  # fmt: skip

    def __init__(self):
        self.seen = None
        sys.addaudithook(self)

    def __call__(self, event, arguments):
        if self.seen is None:
            return
        writes = event == 'open' and set(str(arguments[1])) & set('wax+')
        if event in self.FORBIDDEN or writes:
            self.seen.append((event, arguments))


# Such a hook stays until Python ends.
WATCH = Watch()


@pytest.fixture(scope='module')
def good():
    """A valid file of each format."""
    tensors = {
        'a.weight': torch.randn(3, 4),
        'b.half': torch.randn(5).half(),
        'b.count': torch.tensor(3),
    }
    files = {'safetensors': save(tensors, {'format': 'pt'})}
    for name, new in (('zip', True), ('legacy', False)):
        file = io.BytesIO()
        torch.save(
            training_dict(tensors), file, _use_new_zipfile_serialization=new
        )
        files[name] = file.getvalue()
    return files


def check(path, data):
    """Read bytes; say whether they were read."""
    path.write_bytes(data)
    WATCH.seen = []
    message = None
    try:
        state_dict_of(read_checkpoint(path))
    except ValueError as error:
        message = str(error)
    finally:
        seen, WATCH.seen = WATCH.seen, None
    assert not seen
    if message is None:
        return True
    assert str(path) in message
    assert '\n' not in message
    return False


@fuzz(200)
@given(st.binary(max_size=300))
def test_any_bytes(tmp_path, data):
    check(tmp_path / 'x.pth', data)


# What files of old torch begin with.
MAGIC = b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'


@fuzz(200)
@given(
    start=st.sampled_from(
        [
            b'PK\x03\x04',
            b'\x80\x02',
            b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.',
        ]
    ),
    data=st.binary(max_size=300),
)
def test_any_bytes_that_begin_well(tmp_path, start, data):
    check(tmp_path / 'x.pth', start + data)


@fuzz(200)
@given(header=st.binary(max_size=200), length=st.integers(0, 2**64 - 1))
def test_any_header_of_safetensors(tmp_path, header, length):
    for size in (length, len(header) + 1):
        data = size.to_bytes(8, 'little') + b'{' + header
        check(tmp_path / 'x.safetensors', data)


@pytest.mark.parametrize('name', ['zip', 'legacy', 'safetensors'])
@fuzz(200)
@given(data=st.data())
def test_damaged_files(good, tmp_path, name, data):
    content = bytearray(good[name])
    for _ in range(data.draw(st.integers(0, 4), 'changes')):
        place = data.draw(st.integers(0, len(content) - 1), 'place')
        content[place] = data.draw(st.integers(0, 255), 'value')
    end = data.draw(st.integers(0, len(content)), 'end')
    whole = data.draw(st.booleans(), 'whole')
    was_read = check(
        tmp_path / 'x', bytes(content if whole else content[:end])
    )
    if bytes(content) == good[name] and whole:
        assert was_read


@pytest.mark.parametrize('name', ['zip', 'legacy', 'safetensors'])
def test_good_files_are_read(good, tmp_path, name):
    assert check(tmp_path / 'x', good[name])


# Names that lead somewhere, and those that the reader lets through.
NAMES = [
    'os system', 'posix system', 'builtins eval', 'builtins exec',
    'builtins getattr', 'builtins open', 'subprocess Popen', 'io open',
    'importlib import_module', 'torch load', 'torch.hub load',
    'torch._utils _rebuild_tensor_v2', 'argparse Namespace',
    'collections OrderedDict', 'numpy._core.multiarray _reconstruct',
    'numpy ndarray', 'numpy dtype', 'mmtransxnet.weights.reader _statistic',
    'mmengine.logging.history_buffer HistoryBuffer',
]  # fmt: skip
ARGUMENTS = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-9, 9),
        st.sampled_from(['touch trace', 'trace', 'w', '__init__', 'f8']),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=5,
)


def body(value):
    """The opcodes of a value, without a frame around them."""
    return pickle.dumps(value, 2)[2:-1]


@st.composite
def programs(draw):
    """Pickles that call things, the result of one in another."""
    code = b'\x80\x02}X\x01\x00\x00\x00a'  # a dict, and a key of it
    for depth in range(draw(st.integers(1, 3))):
        code += b'c' + draw(st.sampled_from(NAMES)).replace(' ', '\n').encode()
        code += b'\n' + body(tuple(draw(st.lists(ARGUMENTS, max_size=4))))
        code += draw(st.sampled_from([b'R', b'\x81']))  # call, or make new
        if depth or draw(st.booleans()):
            code += body(draw(ARGUMENTS)) + b'b'  # set its state
    return code + b's.'


@fuzz(200)
@given(program=programs(), zipped=st.booleans())
def test_programs_in_pickles(tmp_path, monkeypatch, program, zipped):
    monkeypatch.chdir(tmp_path)
    data = program
    if zipped:
        file = io.BytesIO()
        with zipfile.ZipFile(file, 'w') as archive:
            archive.writestr('x/data.pkl', program)
            archive.writestr('x/version', '3\n')
        data = file.getvalue()
    check(tmp_path / 'x.pth', data)
    assert not (tmp_path / 'trace').exists()


def is_there(name):
    """Hypothesis draws texts of programs, too, such as a path in /proc."""
    try:
        return os.path.exists(os.path.expanduser(name))
    except ValueError:  # no name that the system takes
        return False


@fuzz(200)
@given(path=st.text(st.characters(codec=None), max_size=400))
def test_any_name_of_a_file(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    for name in (path, '~' + path, 'x' * 300 + path):
        assume(not is_there(name))
        with pytest.raises(ValueError, match='is not a file'):
            read_checkpoint(name)


def test_a_model_is_not_confused_by_damage(tmp_path):
    """What is read of a damaged file fits, or is told."""
    model = TransXNet(MICRO, 64)
    file = tmp_path / 'x.pth'
    torch.save(model.state_dict(), file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    assert isinstance(check(file, bytes(data)), bool)
