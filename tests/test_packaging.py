"""The built wheel, installed outside the source tree, is all one needs."""

import shutil
import subprocess
import sys

import pytest
import yaml

from tests.support import tools as support
from tests.support.paths import ROOT

PIP = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """A folder with the installed wheel, built from a copy of the tree."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    source.mkdir()
    listed = subprocess.run(
        ['git', 'ls-files', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    offline = ['--no-deps', '--no-build-isolation', '--no-index']
    subprocess.run(
        [*PIP, 'wheel', *offline, '-w', str(folder), str(source)], check=True
    )
    (wheel,) = folder.glob('*.whl')
    subprocess.run(
        [*PIP, 'install', *offline, '--target', str(folder / 'site'), wheel],
        check=True,
    )
    return folder / 'site'


def run(site, *command):
    """Run Python where only the installed wheel can be found."""
    done = support.run(
        [sys.executable, *command],
        cwd=site.parent,
        env=support.environment(PYTHONPATH=str(site)),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_configs_of_the_wheel_build_models(site):
    program = """
import mmtransxnet
from pathlib import Path
from mmtransxnet.engine import load_config
from mmtransxnet.utils.build import build_model
home = Path(mmtransxnet.__file__).parent
print(home)
for path in sorted((home / '.mim/configs').glob('[!_]*/*_t.py')):
    model = build_model(load_config(str(path)), 'meta')
    print(path.stem, type(model).__name__)
"""
    told = run(site, '-c', program).splitlines()
    # Beside what the libraries log.
    assert {line for line in told if ' - INFO - ' not in line} == {
        str(site / 'mmtransxnet'),
        'transxnet_t ImageClassifier',
        'retinanet_transxnet_t RetinaNet',
        'maskrcnn_transxnet_t MaskRCNN',
        'sfpn_transxnet_t EncoderDecoder',
        'upernet_transxnet_t EncoderDecoder',
    }


def test_tools_of_the_wheel_run(site):
    mim = site / 'mmtransxnet/.mim'
    config = mim / 'configs/classification/transxnet_t.py'
    told = run(site, mim / 'tools/analysis/get_flops.py', config)
    assert '12.83 M' in told
    assert '1.80 GMACs' in told


def test_the_wheel_has_the_files_of_the_static_page(site):
    page = ROOT / 'mmtransxnet/deploy/page'
    inside = site / 'mmtransxnet/deploy/page'
    assert {p.name for p in inside.iterdir()} == {
        p.name for p in page.iterdir()
    }


def test_every_tool_of_the_wheel_tells_what_it_does(site):
    """Whatever a tool imports is in the wheel, too."""
    program = """
import contextlib, io, runpy, sys
from pathlib import Path
import mmtransxnet
home = Path(mmtransxnet.__file__).parent / '.mim/tools'
for path in sorted(home.rglob('*.py')):
    sys.argv = [str(path), '--help']
    told = io.StringIO()
    try:
        with contextlib.redirect_stdout(told):
            runpy.run_path(str(path), run_name='__main__')
    except SystemExit as ended:
        if not ended.code and 'usage: ' + path.name in told.getvalue():
            print('told', path.relative_to(home))
"""
    told = run(site, '-c', program).splitlines()
    tools = [
        path.relative_to(ROOT / 'tools')
        for path in (ROOT / 'tools').rglob('*.py')
    ]
    assert len(tools) >= 14
    assert {line for line in told if line.startswith('told ')} == {
        f'told {path}' for path in tools
    }


def command(site, folder, *arguments):
    """Run the command of the wheel in a folder of a user."""
    return support.run(
        [sys.executable, site / 'bin/mmtransxnet', *arguments],
        cwd=folder,
        env=support.environment(PYTHONPATH=str(site)),
    )


def test_the_command_has_every_program(site, tmp_path):
    done = command(site, tmp_path, '--help')
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines()
             if line.startswith('  ')}  # fmt: skip
    assert {'train', 'test', 'infer', 'export', 'serve', 'demo', 'check',
            'launch', 'get-flops', 'speed'} <= names  # fmt: skip
    assert len(names) == len(
        [p for p in (ROOT / 'tools').rglob('*.py') if p.stem[0] != '_']
    )


def test_the_command_runs_programs_with_configs_by_name(site, tmp_path):
    done = command(
        site, tmp_path, 'get-flops', 'transxnet_t', '--shape', '64', '64'
    )
    assert '12.83 M' in done.stdout, done.stderr
    path = 'configs/detection/retinanet_transxnet_t.py'
    done = command(site, tmp_path, 'train', path)
    assert done.returncode == 2
    assert 'COCO_ROOT' in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['work_dirs']


def test_errors_of_the_command_name_the_remedy(site, tmp_path):
    done = command(site, tmp_path, 'tran', 'transxnet_t')
    assert done.returncode == 1
    assert 'did you mean train' in done.stderr
    done = command(site, tmp_path, 'train', 'maskrcnn_transxnet_x')
    assert done.returncode == 2
    assert 'did you mean maskrcnn_transxnet_' in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize('name', ['mmengine', 'mmcv'])
def test_what_to_install_without_openmmlab(site, name):
    """After `pip install mmtransxnet` alone, before torch is loaded."""
    program = f'import sys; sys.modules[{name!r}] = None; import mmtransxnet'
    done = support.run(
        [sys.executable, '-c', program],
        cwd=site.parent,
        env=support.environment(PYTHONPATH=str(site)),
    )
    last = done.stderr.splitlines()[-1]
    assert f'{name} of OpenMMLab is not installed' in last
    assert "pip install 'mmtransxnet[onedl]'" in last


def test_the_index_of_the_wheel_names_files_that_are_there(site):
    mim = site / 'mmtransxnet/.mim'
    index = yaml.safe_load((mim / 'model-index.yml').read_text())
    configs = [
        model['Config']
        for name in index['Import']
        for model in yaml.safe_load((mim / name).read_text())['Models']
    ]
    assert len(configs) == 22
    for config in configs:
        assert (mim / config).is_file()
    assert (mim / 'tools/dist_train.sh').stat().st_mode & 0o100


def test_no_tests_and_no_caches_in_the_wheel(site):
    packages = {path.name for path in site.iterdir() if path.is_dir()}
    assert {p for p in packages if not p.endswith('.dist-info')} == {
        'bin',  # the command
        'mmtransxnet',
    }


def test_template_of_the_report_is_in_the_wheel(site):
    assert (site / 'mmtransxnet/report/page.html').is_file()
