"""The tools that look and count: check.py, get_flops.py, tables.py."""

import shutil

from tests.support.paths import ROOT

TINY = 'configs/segmentation/sfpn_transxnet_t_digits.py'


def test_check_counts_the_pictures(tool):
    status, log = tool('dataset/check.py', TINY)
    assert status == 0, log
    assert 'good' in log
    for split in ('train', 'val'):
        assert split in log


def test_check_takes_the_root_from_a_flag(tool, digits, tmp_path):
    elsewhere = dict(root=tmp_path / 'none')
    status, log = tool(
        'dataset/check.py', TINY, '--data-root', digits, **elsewhere
    )
    assert status == 0, log
    status, log = tool('dataset/check.py', TINY, **elsewhere)
    assert status == 1
    assert 'does not exist' in log
    assert 'run tools/dataset/build_digits.py' in log


def test_check_names_the_first_broken_picture(tool, digits, tmp_path):
    root = shutil.copytree(digits, tmp_path / 'digits')
    broken = sorted((root / 'ade/images/training').iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:100])
    status, log = tool('dataset/check.py', TINY, root=root)
    assert status == 1
    assert f'{broken} cannot be decoded' in log
    # Training says the same before it starts.
    status, log = tool(
        'train.py', TINY, '--work-dir', tmp_path / 'work', root=root
    )
    assert status == 2
    assert str(broken) in log


def test_cost_of_any_config(tool):
    config = 'configs/detection/retinanet_transxnet_t.py'
    status, log = tool('analysis/get_flops.py', config, '--shape', 800, 1280)
    assert status == 0, log
    assert '22.44 M' in log
    assert '209.95 GMACs' in log


def test_cost_of_no_shape(tool):
    config = 'configs/classification/transxnet_t.py'
    status, log = tool('analysis/get_flops.py', config, '--shape', 0)
    assert status == 2
    assert '--shape takes one or two positive numbers' in log


def test_tables_are_fresh(tool):
    status, log = tool('tables.py', '--check')
    assert status == 0, log


def test_stale_tables_are_told(tool):
    page = ROOT / 'configs/detection/README.md'
    text = page.read_text()
    try:
        page.write_text(text.replace('| 43.1 |', '| 44.1 |'))
        status, log = tool('tables.py', '--check')
    finally:
        page.write_text(text)
    assert status == 1
    assert 'stale tables' in log
    assert 'configs/detection/README.md' in log


def test_a_broken_file_of_figures_is_named(tool):
    path = ROOT / 'docs/benchmarks/broken.json'
    try:
        path.write_text('{}')
        status, log = tool('tables.py', '--check')
    finally:
        path.unlink()
    assert status == 2
    assert 'broken.json is not a file of `make bench`' in log
