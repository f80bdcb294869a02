"""The drill, short; and that it would notice."""

import json

import pytest
import torch

from mmtransxnet.benchmark.drill import Drill, differences


@pytest.fixture(scope='module')
def drilled(tmp_path_factory):
    """A folder with an undisturbed run of each loop by one process."""
    drill = Drill(tmp_path_factory.mktemp('drill'), seed=0)
    return drill, drill.undisturbed('epoch', 1)


def kill(drill, work_dir, kind):
    """Start or resume once, and interrupt in a certain way."""
    drill.random.choice = lambda kinds: kind if kind in kinds else kinds[0]
    work_dir.mkdir(exist_ok=True)
    return drill.kill(1, work_dir, 'epoch', 1)


def test_all_kinds_of_kills_in_one_run(drilled, tmp_path):
    """Each resumes where the one before stopped it."""
    drill, undisturbed = drilled
    work_dir = tmp_path / 'run'
    kinds = ['SIGTERM', 'SIGKILL in a write', 'disk full', 'SIGKILL']
    kills = [kill(drill, work_dir, kind) for kind in kinds]
    drill._damage(work_dir)
    happened = [one.kind for one in kills if one]
    assert happened[:3] == kinds[:3]
    assert kills[0].status == 75
    assert kills[2].status == 2
    output = (work_dir / 'output.txt').read_text()
    assert 'Interrupted: saved after iteration' in output
    assert 'error:' in output
    assert 'cannot be written (File too large)' in output
    assert drill.start(work_dir, 'epoch', 1, None).wait() == 0
    assert differences(undisturbed, work_dir) == []


def test_differences_are_noticed(drilled, tmp_path):
    """One bit of one weight, one logged loss."""
    _, undisturbed = drilled
    other = tmp_path / 'other'
    log = next(undisturbed.glob('*/vis_data/scalars.json'))
    (other / 'x/vis_data').mkdir(parents=True)
    path = undisturbed / 'epoch_4.pth'
    content = torch.load(path, weights_only=False)
    weight = content['state_dict']['head.fc.bias']
    weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    torch.save(content, other / path.name)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines[0]['loss'] += 1e-6
    text = '\n'.join(map(json.dumps, lines))
    (other / 'x/vis_data/scalars.json').write_text(text)
    weights, losses = differences(undisturbed, other)
    assert weights == 'state_dict.head.fc.bias differs'
    assert losses.startswith('loss of iteration 1:')
