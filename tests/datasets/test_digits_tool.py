"""tools/dataset/build_digits.py and the sheet it draws."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtransxnet.datasets import PALETTE
from mmtransxnet.datasets.digits.preview import contact_sheet

TOOL = Path(__file__).parents[2] / 'tools/dataset/build_digits.py'


@pytest.fixture
def tool(quick_build, monkeypatch):
    """Run the tool in this process; returns its exit status."""

    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(TOOL), run_name='__main__')
        return caught.value.code

    return run


def test_tool_builds_reports_and_draws(tool, tmp_path, capsys):
    root, sheet = tmp_path / 'set', tmp_path / 'sheet.png'
    args = ('--root', root, '--size', 64, '--train', 4, '--val', 2)
    assert tool(*args, '--preview', sheet) == 0
    output = capsys.readouterr().out
    assert f'Built {root}' in output
    assert str(sheet) in output
    train, val = (
        next(line for line in output.splitlines() if name in line)
        for name in ('train', 'val')
    )
    assert '4' in train.split()
    assert '48' in train.split()
    assert '12' in val.split()
    assert Image.open(sheet).width > 1000
    assert len(list((root / 'coco/train').iterdir())) == 4
    assert tool(*args) == 0
    assert f'Already there: {root}' in capsys.readouterr().out


def test_tool_states_errors_in_one_line(tool, tmp_path, capsys):
    args = ('--root', tmp_path / 'set', '--train', 2, '--val', 1)
    assert tool(*args, '--size', 8) == 1
    error = capsys.readouterr().err
    assert error == 'error: size must be from 64 to 2048, not 8\n'
    assert tool(*args, '--size', 64) == 0
    assert tool(*args, '--size', 72) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert '--force' in error
    assert tool(*args, '--size', 72, '--force') == 0


def test_help_states_the_defaults_of_the_builder(tool, capsys):
    assert tool('--help') == 0
    text = capsys.readouterr().out
    for default in ('data/digits', '160', '800', '4', '0'):
        assert f'({default})' in text
    assert 'None' not in text


def test_sheet_shows_masks_of_the_right_class(digits_set):
    sheet = np.asarray(contact_sheet(digits_set.root))
    assert sheet.shape[1] == 1600
    plain, annotated = sheet[:200, :200], sheet[400:600, :200]
    first = [
        PALETTE[annotation['category_id']]
        for annotation in digits_set.coco['train']['annotations']
        if annotation['image_id'] == 1
    ]
    for colour in PALETTE:
        painted = (annotated == colour).all(-1).sum()
        assert (painted > 50) == (colour in first)
        assert (plain == colour).all(-1).sum() < 5
