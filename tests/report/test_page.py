"""The page of a micro run of each task, and of runs that lack something."""

import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import InstanceData

from mmtransxnet.report.build import build_report
from mmtransxnet.report.detector import DetectorStudy
from mmtransxnet.report.findings import Confusion, Curve, Findings
from mmtransxnet.report.page import write_page
from mmtransxnet.report.run import read_run
from mmtransxnet.utils.errors import UserError
from tests.support.tools import command, run

TASKS = ('classifier', 'detector', 'segmentor')
SECTIONS = dict(
    classifier='metrics curves classes details confusion worst best run',
    detector='metrics curves classes details confusion worst best run',
    segmentor='metrics curves classes confusion worst best run',
)
CHROMIUM = '/usr/bin/chromium'
HOSTILE = '<script>alert(1)</script>" onload="x'


def report(folder, out, **options):
    """The evaluation, the notes and the text of a page."""
    calls = []
    found, notes = build_report(
        read_run(folder, **options), out, lambda *step: calls.append(step)
    )
    return found, notes, out.read_text('utf-8'), calls


@pytest.fixture(scope='session')
def pages(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp('pages')
    return {
        name: (*report(runs / name, folder / f'{name}.html'), folder)
        for name in TASKS
    }


@pytest.mark.parametrize('name', TASKS)
def test_page_of_a_run(pages, runs, name):
    found, notes, page, calls, folder = pages[name]
    assert not notes
    assert re.findall('<h2 id="(.*?)"', page) == SECTIONS[name].split()
    for key in re.findall('href="#([a-z]+)"', page):
        assert f'id="{key}"' in page
    ids = re.findall(r'\bid="(.*?)"', page)
    assert len(ids) == len(set(ids))
    assert len(page) < 5e6
    assert not re.search(r'(?:src|href|url)\s*[=(]\s*["\']?https?:', page)
    assert found.pictures >= 5
    assert calls[-1][0] == calls[-1][1]
    logs = (runs / name).glob('*/*.log')
    text = ''.join(log.read_text() for log in logs)
    for key, value in found.metrics.items():
        shown = re.findall(rf'{key}: (-?[\d.]+)', text)
        assert float(shown[-1]) == pytest.approx(value, abs=6e-4)
    assert 'seed' in page
    assert 'finished' in page

    again, _, _, calls = report(runs / name, folder / f'{name}.html')
    assert again.metrics == found.metrics
    assert not calls


def test_tool(runs, tmp_path):
    out = tmp_path / 'page.html'
    done = run(
        command(
            'report.py', runs / 'segmentor', '--out', out, '--cfg-options',
            'val_dataloader.batch_size=1',
        )
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 'mIoU' in done.stdout
    assert str(out) in done.stdout
    assert 'Confusion matrix' in out.read_text()


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the classifier's run."""
    folder = shutil.copytree(runs / 'classifier', tmp_path / 'run')
    # It names the checkpoint of the original.
    (folder / 'last_checkpoint').unlink()
    return folder


def test_run_without_checkpoint(copied):
    for file in copied.glob('*.pth'):
        file.unlink()
    found, notes, page, _ = report(copied, copied / 'report.html')
    assert found is None
    assert 'has saved no checkpoint' in notes[0]
    assert notes[0] in page
    assert 'id="curves"' in page


def test_run_that_has_recorded_nothing(copied):
    for file in copied.glob('*/vis_data/scalars.json'):
        file.unlink()
    (copied / 'iter_2.pth').unlink()
    *_, page, _ = report(copied, copied / 'report.html')
    assert 'has recorded no curve' in page


def test_interrupted_run(copied):
    options = {'train_cfg.max_iters': 9}
    read = read_run(copied, options=options)
    page = write_page(read, None, [])
    assert 'not finished: 2 of 9 iterations' in page
    assert '--resume' in page


def test_config_without_validation_data(copied):
    read = read_run(copied)
    read.config.val_dataloader = None
    out = copied / 'report.html'
    found, notes = build_report(read, out, lambda *_: None)
    assert found is None
    assert 'no validation data' in notes[0]


def test_data_that_is_elsewhere(copied, tmp_path):
    out = copied / 'report.html'
    gone = str(tmp_path / 'gone')
    found, notes, page, _ = report(copied, out, data_root=gone)
    assert found is None
    assert gone in notes[0]
    assert 'build_digits.py' in page


def test_best_checkpoint_is_chosen(copied):
    shutil.copy(copied / 'iter_2.pth', copied / 'best_top1_iter_2.pth')
    read = read_run(copied)
    assert read.checkpoint.name == 'best_top1_iter_2.pth'
    assert read_run(copied, str(copied / 'iter_2.pth')).checkpoint.name == (
        'iter_2.pth'
    )


def test_wrong_arguments(copied, tmp_path):
    with pytest.raises(UserError, match='not a folder'):
        read_run(tmp_path / 'gone')
    with pytest.raises(UserError, match='has no config'):
        read_run(tmp_path)
    with pytest.raises(UserError, match=r'gone\.pth is not a file'):
        read_run(copied, 'gone.pth')


def test_damaged_checkpoint(copied):
    for file in copied.glob('*.pth'):
        file.write_bytes(file.read_bytes()[:1000])
    _, notes, page, _ = report(copied, copied / 'report.html')
    assert 'Nothing was evaluated' in page
    assert 'iter_2.pth' in notes[0]


def hostile_findings():
    return Findings(
        pictures=1,
        metrics={HOSTILE: 0.5},
        columns=['class', 'AP'],
        rows=[[HOSTILE, 0.5]],
        curves=[Curve(HOSTILE, [0.0, 1.0], [1.0, 1.0], 1.0)] * 2,
        confusion=Confusion([HOSTILE], [[1]], HOSTILE),
        legend=[(HOSTILE, '#000000')],
    )


def test_names_are_escaped(runs):
    page = write_page(read_run(runs / 'classifier'), hostile_findings(), [])
    assert '<script' not in page
    assert '" onload="' not in page
    assert '&lt;script&gt;' in page


def study_of(truths, found, classes=('a', 'b')):
    """A detector's findings of pictures without files."""
    infos = [
        dict(
            img_id=number,
            instances=[
                dict(bbox=box, bbox_label=label, ignore_flag=0)
                for label, box in truth
            ],
        )
        for number, truth in enumerate(truths)
    ]

    class Dataset:
        metainfo = dict(classes=classes)

        def __len__(self):
            return len(infos)

        def get_data_info(self, place):
            return infos[place]

    study = DetectorStudy(Dataset())
    for number, rows in enumerate(found):
        predictions = InstanceData(
            bboxes=torch.tensor([row[2] for row in rows]).reshape(-1, 4),
            scores=torch.tensor([row[1] for row in rows]),
            labels=torch.tensor([row[0] for row in rows], dtype=torch.int64),
        )
        sample = SimpleNamespace(
            pred_instances=predictions, ori_shape=(64, 64)
        )
        sample.get = dict(img_id=number).get
        study.add({}, [sample])
    return study.findings()


BOX = [4.0, 4.0, 20.0, 20.0]


def test_detector_with_one_class(runs):
    found = study_of([[(0, BOX)]], [[(0, 0.9, BOX)]], ('a',))
    assert found.rows == [['a', 1, 1, 1.0, 1.0, 1.0, 1.0]]
    assert found.confusion.counts == [[1, 0], [0, 0]]
    page = write_page(read_run(runs / 'detector'), found, [])
    assert 'Kinds of errors' in page


def test_detector_that_finds_nothing(runs):
    found = study_of([[(0, BOX)], []], [[], []])
    assert 'has detected nothing' in found.notes[0]
    assert found.rows[0] == ['a', 1, 0, None, 0.0, 0.0, 0.0]
    # A class without objects.
    assert found.rows[1] == ['b', 0, 0, None, None, None, None]
    page = write_page(read_run(runs / 'detector'), found, [])
    assert 'has detected nothing' in page


def test_detector_on_pictures_without_objects(runs):
    found = study_of([[]], [[(0, 0.9, BOX)]])
    assert 'no annotated object' in found.notes[0]
    assert write_page(read_run(runs / 'detector'), found, [])


def test_low_scores_are_said(runs):
    found = study_of([[(0, BOX)]], [[(0, 0.25, BOX)]])
    assert 'the highest is 0.25' in found.notes[0]
    assert found.rows[0][-1] == 1.0


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api')
    if shutil.which(CHROMIUM) is None:
        pytest.skip(f'{CHROMIUM} is missing: apt-get install chromium')
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=['--no-sandbox', '--disable-gpu']
        )
        yield browser
        browser.close()


@pytest.fixture(scope='session')
def hostile_page(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp('hostile') / 'hostile.html'
    read = read_run(runs / 'classifier')
    out.write_text(write_page(read, hostile_findings(), [HOSTILE * 20]))
    return out


@pytest.mark.parametrize('width', [400, 1280])
def test_browser(browser, pages, hostile_page, width):
    """No complaint of the console, nothing wider than the window."""
    folder = pages['detector'][-1]
    files = [folder / f'{name}.html' for name in TASKS]
    for file in [*files, hostile_page]:
        context = browser.new_context(viewport=dict(width=width, height=800))
        page, complaints, requests = context.new_page(), [], []
        page.on('console', lambda one, to=complaints: to.append(one.text))
        page.on('pageerror', lambda one, to=complaints: to.append(str(one)))
        page.on('request', lambda one, to=requests: to.append(one.url))
        page.goto(file.as_uri())
        assert not complaints, file.name
        assert {url.partition(':')[0] for url in requests} <= {'file', 'data'}
        content = page.evaluate('document.documentElement.scrollWidth')
        assert content <= width, file.name
        broken = page.evaluate(
            '[...document.images].filter(one => !one.naturalWidth).length'
        )
        assert broken == 0
        # The keyboard opens the config and reaches the tables.
        page.focus('summary')
        page.keyboard.press('Enter')
        assert page.locator('details[open] pre').is_visible()
        page.keyboard.press('Tab')
        assert page.evaluate('document.activeElement.className') == 'scroll'
        context.close()
