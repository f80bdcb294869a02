"""What is on the disk, whenever a run is killed or the disk is full."""

import errno
import os
from types import SimpleNamespace

import pytest
import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import MessageHub, MMLogger

from mmtransxnet.engine.hooks.checkpoint import INTERRUPTED, SafeCheckpointHook
from mmtransxnet.utils import atomic_write
from mmtransxnet.utils.atomic_write import (
    TEMPORARY,
    remove_unfinished,
    write_safely,
)
from mmtransxnet.utils.errors import UserError

pytestmark = pytest.mark.distribution


class Killed(BaseException):
    """Nothing catches a SIGKILL."""


def fail(error):
    def call(*_, **__):
        raise error

    return call


class TestFiles:
    def test_replaces(self, tmp_path):
        path = tmp_path / 'new' / 'file'
        write_safely(path, b'one')
        write_safely(path, b'two')
        assert path.read_bytes() == b'two'
        assert os.listdir(path.parent) == ['file']

    @pytest.mark.parametrize('step', ['fsync', 'replace'])
    def test_killed(self, tmp_path, monkeypatch, step):
        """The old content is there; the rest goes at the next start."""
        path = tmp_path / 'file'
        write_safely(path, b'old')
        monkeypatch.setattr(os, step, fail(Killed()))
        with pytest.raises(Killed):
            write_safely(path, b'new')
        assert path.read_bytes() == b'old'
        orphan = tmp_path / f'file{TEMPORARY}'
        assert remove_unfinished(tmp_path) == [orphan]
        assert os.listdir(tmp_path) == ['file']

    def test_content_is_on_the_disk_before_the_name(
        self, tmp_path, monkeypatch
    ):
        """In this order, or a power cut leaves an empty file."""
        steps = []
        for name in ('fsync', 'replace'):
            real = getattr(os, name)

            def note(*args, name=name, real=real):
                steps.append(name)
                return real(*args)

            monkeypatch.setattr(os, name, note)
        write_safely(tmp_path / 'file', b'new')
        assert steps == ['fsync', 'replace', 'fsync']

    def test_full_disk(self, tmp_path, monkeypatch):
        path = tmp_path / 'file'
        write_safely(path, b'old')
        full = OSError(errno.ENOSPC, 'No space left on device')
        monkeypatch.setattr(os, 'fsync', fail(full))
        with pytest.raises(UserError, match='No space left') as told:
            write_safely(path, b'new')
        assert str(path) in str(told.value)
        assert path.read_bytes() == b'old'
        assert os.listdir(tmp_path) == ['file']

    def test_no_folder(self, tmp_path):
        (tmp_path / 'file').touch()
        with pytest.raises(UserError, match='cannot be written'):
            write_safely(tmp_path / 'file/inside', b'new')

    def test_folders_that_cannot_be_flushed(self, tmp_path, monkeypatch):
        real = os.fsync

        def refuse_folders(descriptor):
            if os.path.isdir(f'/proc/self/fd/{descriptor}'):
                raise OSError(errno.EINVAL, 'Invalid argument')
            real(descriptor)

        monkeypatch.setattr(os, 'fsync', refuse_folders)
        write_safely(tmp_path / 'file', b'new')
        assert (tmp_path / 'file').read_bytes() == b'new'


class FakeRunner(SimpleNamespace):
    """Saves a number instead of a model, through mmengine's backends."""

    hooks = ()

    def save_checkpoint(self, out_dir, filename, *_, meta, **options):
        backend = get_file_backend(
            out_dir, backend_args=options['backend_args']
        )
        backend.put(str(meta).encode(), backend.join_path(out_dir, filename))


@pytest.fixture
def runner(tmp_path):
    (tmp_path / f'epoch_1.pth{TEMPORARY}').touch()
    return FakeRunner(
        work_dir=str(tmp_path),
        epoch=0,
        iter=9,
        max_epochs=99,
        logger=MMLogger.get_instance('test', log_level='ERROR'),
        message_hub=MessageHub(f'hub of {tmp_path}'),
    )


def make_hook(runner, **options):
    hook = SafeCheckpointHook(interval=1, **options)
    hook.before_train(runner)
    return hook


def files_of(runner):
    return sorted(os.listdir(runner.work_dir))


def test_orphans_go_at_the_start(runner):
    make_hook(runner)
    assert files_of(runner) == []


def test_keeps_the_newest(runner):
    hook = make_hook(runner, max_keep_ckpts=2)
    for runner.epoch in range(4):
        hook.after_train_epoch(runner)
    assert files_of(runner) == [
        'epoch_3.pth', 'epoch_4.pth', 'last_checkpoint',
    ]  # fmt: skip
    last = hook.file_backend.get_text(f'{runner.work_dir}/last_checkpoint')
    assert last.endswith('epoch_4.pth')


def test_the_old_goes_after_the_new_is_there(runner, monkeypatch):
    """mmengine's hook has nothing left here when it is killed."""
    hook = make_hook(runner, max_keep_ckpts=1)
    hook.after_train_epoch(runner)
    runner.epoch = 1
    with monkeypatch.context() as patched:
        patched.setattr(os, 'replace', fail(Killed()))
        with pytest.raises(Killed):
            hook.after_train_epoch(runner)
    assert 'epoch_1.pth' in files_of(runner)
    assert 'epoch_2.pth' not in files_of(runner)


def test_killed_before_the_old_is_removed(runner, monkeypatch):
    """The next start removes it."""
    hook = make_hook(runner, max_keep_ckpts=1)
    hook.after_train_epoch(runner)
    runner.epoch = 1
    with monkeypatch.context() as patched:
        patched.setattr(SafeCheckpointHook, '_remove', fail(Killed()))
        with pytest.raises(Killed):
            hook.after_train_epoch(runner)
    assert 'epoch_1.pth' in files_of(runner)
    make_hook(runner, max_keep_ckpts=1)
    assert files_of(runner) == ['epoch_2.pth', 'last_checkpoint']


def test_a_regular_checkpoint_replaces_interrupted_ones(runner):
    hook = make_hook(runner)
    hook.save_interrupted(runner)
    name = INTERRUPTED.format(10)
    assert files_of(runner) == [name, 'last_checkpoint']
    hook.after_train_epoch(runner)
    assert files_of(runner) == ['epoch_1.pth', 'last_checkpoint']


@pytest.mark.parametrize('metrics', [['a'], ['a', 'b']])
def test_the_best_one(runner, monkeypatch, metrics):
    """The former best one goes when the new one is safe, not before."""
    hook = make_hook(runner, save_best=metrics, rule='greater')
    hook.after_train_epoch(runner)
    runner.epoch = 1
    hook.after_val_epoch(runner, dict.fromkeys(metrics, 0.5))
    best = [f'best_{name}_epoch_1.pth' for name in metrics]
    assert set(best) <= set(files_of(runner))
    hook.after_train_epoch(runner)
    runner.epoch = 2
    # Worse: all stays.
    hook.after_val_epoch(runner, dict.fromkeys(metrics, 0.4))
    assert set(best) <= set(files_of(runner))
    with monkeypatch.context() as patched:
        patched.setattr(os, 'replace', fail(Killed()))
        with pytest.raises(Killed):
            hook.after_val_epoch(runner, dict.fromkeys(metrics, 0.6))
    assert set(best) <= set(files_of(runner))


def test_the_best_one_is_replaced(runner):
    hook = make_hook(runner, save_best='a', rule='greater')
    for runner.epoch, score in ((1, 0.1), (2, 0.3), (3, 0.2)):
        hook.after_val_epoch(runner, dict(a=score))
    best = [name for name in files_of(runner) if name.startswith('best')]
    assert best == ['best_a_epoch_2.pth']


def test_full_disk_while_saving(runner, monkeypatch):
    hook = make_hook(runner, max_keep_ckpts=1)
    hook.after_train_epoch(runner)
    runner.epoch = 1
    full = OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(atomic_write.os, 'fsync', fail(full))
    with pytest.raises(UserError, match=r'epoch_2\.pth cannot be written'):
        hook.after_train_epoch(runner)
    assert files_of(runner) == ['epoch_1.pth', 'last_checkpoint']


def test_other_backends_are_left_alone():
    hook = SafeCheckpointHook(backend_args=dict(backend='local'))
    assert hook.backend_args == dict(backend='local')


def test_no_limit_keeps_all(runner):
    hook = make_hook(runner)
    for runner.epoch in range(3):
        hook.after_train_epoch(runner)
    assert len(files_of(runner)) == 4


def test_saved_weights_are_readable(tmp_path):
    """Through mmengine's function, as the Runner does."""
    from mmengine.runner import save_checkpoint

    path = str(tmp_path / 'model.pth')
    save_checkpoint(
        dict(state_dict=dict(weight=torch.ones(2))),
        path,
        backend_args=dict(backend='CrashSafeBackend'),
    )
    assert torch.load(path)['state_dict']['weight'].sum() == 2
