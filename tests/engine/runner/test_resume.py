"""The checkpoint that --resume finds."""

import os

import pytest
import torch
from mmengine.config import Config

from mmtransxnet.engine.runner.resume import (
    adopt,
    checkpoint_to_load,
    checkpoints_of,
    newest_checkpoint,
)
from mmtransxnet.utils.errors import UserError
from mmtransxnet.weights.mmengine_loaders import load_from_local
from mmtransxnet.weights.reader import read_checkpoint

pytestmark = pytest.mark.distribution

CONFIG = dict(
    model=dict(type='A', depth=2, backbone=dict(init_cfg=None)),
    train_dataloader=dict(batch_size=4, dataset=dict(data_root='here')),
    randomness=dict(seed=None),
    launcher='none',
    work_dir='there',
    resume=True,
)


def write(path, iteration, age, **meta):
    """A checkpoint as the Runner's, ``age`` seconds old."""
    meta = dict(
        iter=iteration,
        epoch=0,
        seed=3,
        processes=1,
        cfg=Config(CONFIG).pretty_text,
        **meta,
    )
    torch.save(
        dict(
            meta=meta,
            state_dict=dict(weight=torch.arange(1000.0)),
            optimizer=dict(state={}),
        ),
        path,
    )
    then = path.stat().st_mtime - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def work_dir(tmp_path):
    write(tmp_path / 'epoch_1.pth', 10, age=300)
    write(tmp_path / 'epoch_2.pth', 20, age=200)
    write(tmp_path / 'interrupted_iter_25.pth', 25, age=100)
    write(tmp_path / 'best_ap_epoch_2.pth', 20, age=0)
    last = tmp_path / 'last_checkpoint'
    last.write_text(str(tmp_path / 'interrupted_iter_25.pth'))
    return tmp_path


def iteration(folder):
    return newest_checkpoint(folder)[1]['meta']['iter']


def empty(path):
    path.write_bytes(b'')


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-100])


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    """In the middle of the weights, where torch does not look."""
    content = bytearray(path.read_bytes())
    middle = content.index(torch.arange(500.0, 502.0).numpy().tobytes())
    content[middle + 1] ^= 1
    path.write_bytes(content)


def remove_optimizer(path):
    content = torch.load(path)
    del content['optimizer']
    torch.save(content, path)


def add_nan(path):
    content = torch.load(path)
    content['state_dict']['weight'][3] = torch.nan
    torch.save(content, path)


def test_newest(work_dir):
    assert iteration(work_dir) == 25
    assert [p.name for p in checkpoints_of(work_dir)] == [
        'interrupted_iter_25.pth', 'epoch_2.pth', 'epoch_1.pth',
    ]  # fmt: skip


@pytest.mark.parametrize(
    'damage',
    [empty, cut_short, halve, flip_a_bit, remove_optimizer, add_nan],
)
def test_damaged_ones_are_skipped(work_dir, damage, caplog):
    damage(work_dir / 'interrupted_iter_25.pth')
    assert iteration(work_dir) == 20
    damage(work_dir / 'epoch_2.pth')
    assert iteration(work_dir) == 10
    damage(work_dir / 'epoch_1.pth')
    with pytest.raises(UserError, match='interrupted_iter_25') as told:
        newest_checkpoint(work_dir)
    for name in ('epoch_1.pth', 'epoch_2.pth', 'Start without --resume'):
        assert name in str(told.value)


@pytest.mark.parametrize('text', ['', '\0\0', 'nowhere/epoch_9.pth', None])
def test_last_checkpoint_is_a_hint(work_dir, text):
    last = work_dir / 'last_checkpoint'
    last.unlink()
    if text is not None:
        last.write_text(text)
    assert iteration(work_dir) == 25


def test_newer_than_last_checkpoint_says(work_dir):
    """Killed after the checkpoint, before the note of it."""
    write(work_dir / 'epoch_3.pth', 30, age=10)
    assert iteration(work_dir) == 30


def test_a_link_to_nothing_is_skipped(work_dir):
    before = checkpoints_of(work_dir)
    (work_dir / 'epoch_9.pth').symlink_to(work_dir / 'gone.pth')
    assert checkpoints_of(work_dir) == before


def test_checkpoints_of_another_name(work_dir, tmp_path_factory):
    """What last_checkpoint names counts, in a folder that moved too."""
    other = tmp_path_factory.mktemp('other')
    write(other / 'step-7.pth', 40, age=0)
    (work_dir / 'last_checkpoint').write_text(str(other / 'step-7.pth'))
    assert iteration(work_dir) == 40
    os.rename(other / 'step-7.pth', work_dir / 'step-7.pth')
    assert iteration(work_dir) == 40


@pytest.mark.parametrize('text', [None, '', '\0\0'])
def test_nothing_saved_yet(tmp_path, capsys, text):
    """Begins, with the weights that it would begin with, and says so."""
    (tmp_path / '20260101_000000.log').write_text('killed early')
    (tmp_path / 'iter_2.pth.unfinished').write_bytes(b'half')
    if text is not None:
        (tmp_path / 'last_checkpoint').write_text(text)
    config = run_config(tmp_path, resume=False, load_from='weights.pth')
    assert checkpoint_to_load(config, 'auto') == 'weights.pth'
    assert config.resume is False
    assert f'no checkpoint in {tmp_path}, starting from the beginning' in (
        capsys.readouterr().out
    )


def test_what_was_saved_is_gone(tmp_path):
    """No fresh start over what a run has left elsewhere."""
    (tmp_path / 'last_checkpoint').write_text('elsewhere/epoch_3.pth')
    with pytest.raises(UserError, match=r'names elsewhere.*not there'):
        newest_checkpoint(tmp_path)


def run_config(work_dir, **changes):
    config = Config(CONFIG)
    config.work_dir = str(work_dir)
    config.merge_from_dict(changes)
    return config


def test_the_runner_gets_the_file(work_dir):
    """Not what it would find itself."""
    empty(work_dir / 'interrupted_iter_25.pth')
    config = run_config(work_dir)
    assert checkpoint_to_load(config) == str(work_dir / 'epoch_2.pth')
    assert config.load_from == str(work_dir / 'epoch_2.pth')
    assert config.randomness.seed == 3


def test_without_resume(work_dir):
    config = run_config(work_dir, resume=False, load_from='weights.pth')
    assert checkpoint_to_load(config) == 'weights.pth'
    assert config.randomness.seed is None


def test_an_explicit_file_is_not_replaced(work_dir):
    named = work_dir / 'epoch_1.pth'
    config = run_config(work_dir, load_from=str(named))
    assert checkpoint_to_load(config) == str(named)
    for damage in (cut_short, os.remove):
        damage(named)
        with pytest.raises(UserError, match=r'epoch_1\.pth'):
            checkpoint_to_load(config)


@pytest.mark.parametrize(
    ('variable', 'value'),
    [('RENDEZVOUS_ROUND', '2'), ('TORCHELASTIC_RESTART_COUNT', '1')],
)
def test_processes_that_were_started_again_go_on(
    work_dir, tmp_path_factory, monkeypatch, variable, value
):
    """From what the first ones have saved, not from what they began with."""
    monkeypatch.setenv(variable, value)
    named = write(tmp_path_factory.mktemp('before') / 'iter_2.pth', 2, age=0)
    newest = str(work_dir / 'interrupted_iter_25.pth')
    for resume in (None, 'auto', str(named)):
        config = run_config(work_dir, resume=False, launcher='pytorch')
        assert checkpoint_to_load(config, resume) == newest
        assert config.resume
    # Nothing was started again where nothing launches.
    config = run_config(work_dir, resume=False)
    assert checkpoint_to_load(config) is None


def test_read_once(work_dir, monkeypatch):
    """By whoever asks, until it is loaded; what has changed is read anew."""
    reads = []
    load = torch.load
    monkeypatch.setattr(
        'torch.load', lambda *a, **k: reads.append(a[0]) or load(*a, **k)
    )
    path = checkpoint_to_load(run_config(work_dir))
    assert read_checkpoint(path)['meta']['iter'] == 25
    assert load_from_local(path)['meta']['iter'] == 25
    assert len(reads) == 1
    assert load_from_local(path)['meta']['iter'] == 25
    assert len(reads) == 2
    checkpoint_to_load(run_config(work_dir))
    write(work_dir / 'interrupted_iter_25.pth', 26, age=50)
    assert load_from_local(path)['meta']['iter'] == 26


def warnings_of(monkeypatch, config, **meta):
    lines = []
    monkeypatch.setattr(
        'mmtransxnet.engine.runner.resume.print_log',
        lambda text, *_: lines.append(text),
    )
    before = dict(cfg=Config(CONFIG).pretty_text, seed=3, processes=1)
    adopt(config, dict(meta={**before, **meta}), 'epoch_1.pth')
    return ' '.join(lines)


def test_the_same_run(work_dir, monkeypatch):
    assert not warnings_of(monkeypatch, run_config(work_dir))


def test_harmless_differences(work_dir, monkeypatch):
    config = run_config(
        work_dir,
        **{
            'train_dataloader.dataset.data_root': 'elsewhere',
            'model.backbone.init_cfg': 'Pretrained',
            'log_level': 'ERROR',
        },
    )
    assert not warnings_of(monkeypatch, config)


def test_another_config_is_named(work_dir, monkeypatch):
    config = run_config(work_dir, **{'model.depth': 3})
    told = warnings_of(monkeypatch, config)
    assert 'another config: model.depth=2 in the checkpoint, 3 now' in told
    assert 'not be the interrupted one' in told


def test_another_seed_is_named(work_dir, monkeypatch):
    config = run_config(work_dir, **{'randomness.seed': 4})
    assert 'seed 3, this one has 4' in warnings_of(monkeypatch, config)


def test_another_number_of_processes_is_named(work_dir, monkeypatch):
    """That of the run itself, not of a job around it."""
    monkeypatch.setenv('SLURM_NTASKS', '8')
    told = warnings_of(monkeypatch, run_config(work_dir), processes=8)
    assert 'of 8 processes, this one has 1' in told


def test_a_config_that_cannot_be_read(work_dir, monkeypatch):
    told = warnings_of(monkeypatch, run_config(work_dir), cfg='a = (')
    assert 'its config cannot be read' in told


def test_the_config_in_a_checkpoint_is_not_run(work_dir, monkeypatch):
    text = f'a = open({str(work_dir / "trace")!r}, mode="w")'
    told = warnings_of(monkeypatch, run_config(work_dir), cfg=text)
    assert 'another config' in told
    assert not (work_dir / 'trace').exists()
