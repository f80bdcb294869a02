"""Commands, paths, links, names and Python in the documents are right."""

import pytest

from tests.support.documents import problems_of
from tests.support.paths import ROOT

PAGES = [
    'README.md',
    'CONTRIBUTING.md',
    *(str(path.relative_to(ROOT)) for path in ROOT.glob('docs/**/*.md')),
    *(str(path.relative_to(ROOT)) for path in ROOT.glob('configs/*/*.md')),
]


@pytest.mark.parametrize('page', sorted(PAGES))
def test_what_a_document_names_is_there(page):
    assert not problems_of(ROOT / page)


@pytest.mark.parametrize(
    ('text', 'problem'),
    [
        ('    python tools/trian.py CONFIG', 'no file tools/trian.py'),
        ('`tools/trian.py`', 'no file tools/trian.py'),
        ('`docs/{faq,fqa}.md`', 'no file docs/{faq,fqa}.md'),
        (
            '    python tools/train.py CONFIG --rezume',
            'train.py has no --rezume',
        ),
        (
            '`python tools/train.py ... --rezume`',
            'train.py has no --rezume',
        ),
        ('`tools/train.py --rezume` goes on', 'train.py has no --rezume'),
        (
            '    python tools/train.py CONFIG \\\n        --rezume',
            'train.py has no --rezume',
        ),
        (
            '    python tools/test.py CONFIG exported/ [--motor onnxruntime]',
            'test.py has no --motor',
        ),
        (
            '    python tools/test.py CONFIG',
            'the following arguments are required: checkpoint',
        ),
        (
            '    python tools/train.py CONFIG --launcher sulrm',
            "invalid choice: 'sulrm'",
        ),
        (
            '    python tools/train.py configs/detection/maskrcnn.py',
            'no file configs/detection/maskrcnn.py',
        ),
        (
            '    tools/dist_train.sh CONFIG 8 --rezume',
            'train.py has no --rezume',
        ),
        (
            '    GPUS=8 tools/slurm_test.sh PART JOB CONFIG CKPT --rezume',
            'test.py has no --rezume',
        ),
        ('    make domo', 'no target domo of make'),
        ('run `make domo` first', 'no target domo of make'),
        ('    mmtransxnet trian CONFIG', 'no program trian of mmtransxnet'),
        ('    mmtransxnet train maskrcnn', 'no config maskrcnn'),
        ("    pip install 'mmtransxnet[exprot]'", 'no extra exprot'),
        ('[there](nowhere.md)', 'no target of the link nowhere.md'),
        ('![drawn](nowhere.png)', 'no target of the link nowhere.png'),
        (
            '[there](demo.md#nowhere)',
            'no heading for the link demo.md#nowhere',
        ),
        ('# A title\n\n[there](#b-title)', 'no heading for the link #b-title'),
        ('`mmtransxnet.apis.Inferrer`', 'no name mmtransxnet.apis.Inferrer'),
        ('::: mmtransxnet.models.unfold', 'no name mmtransxnet.models.unfold'),
        ('    import mmtransxnet.nowhere', 'no name mmtransxnet.nowhere'),
        (
            '    from mmtransxnet.models import unfold',
            'no name mmtransxnet.models.unfold',
        ),
        ('    x = (1, 2', 'not Python'),
        ('`test_no_thing`', 'no test test_no_thing'),
        (
            '`tests/utils/test_errors.py::test_nothing`',
            'no test test_nothing in tests/utils/test_errors.py',
        ),
    ],
)
def test_what_is_not_there_is_found(text, problem):
    found = problems_of(ROOT / 'docs/page.md', text)
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    'text',
    [
        '    python tools/train.py CONFIG --resume --amp  # a comment',
        '    mmtransxnet train maskrcnn_transxnet_s',
        '    make fuzz SEED=1',
        '[there](demo.md#the-demo-and-its-data), [out](https://example.org)',
        '`mmtransxnet/engine/hooks/NAME.py`',
        '    from mmtransxnet import TransXNet\n    TransXNet("t")',
        '# A `title`, again\n\n[there](#a-title-again)',
    ],
)
def test_what_is_there_is_no_problem(text):
    assert not problems_of(ROOT / 'docs/page.md', text)
