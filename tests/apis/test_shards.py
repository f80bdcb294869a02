"""Results of several processes: shared out, resumed, merged."""

import json
import os
import shutil
import signal
from collections import Counter

import cv2
import numpy as np
import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from mmtransxnet.apis import Inferencer
from mmtransxnet.apis.inputs import find_sources
from mmtransxnet.apis.shards import Shards
from mmtransxnet.utils.errors import UserError
from tests.support.processes import run_ranks

COUNT = 12


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Small pictures, and a video of five frames."""
    folder = tmp_path_factory.mktemp('many') / 'photos'
    folder.mkdir()
    for index in range(COUNT):
        image = np.full((64, 64, 3), 20 * index, 'uint8')
        cv2.imwrite(str(folder / f'{index:02d}.png'), image)
    writer = cv2.VideoWriter(
        str(folder / 'clip.avi'), cv2.VideoWriter.fourcc(*'MJPG'), 10, (64, 64)
    )
    for value in range(5):
        writer.write(np.full((64, 64, 3), 50 * value, 'uint8'))
    writer.release()
    return folder


def predict(rank, folder, model, inputs, json_file, killed_after=None):
    """Work of a process; the last one may be killed on its way."""
    results = Inferencer(*model, 'cpu')(inputs, json=json_file)
    names = []
    for count, result in enumerate(results, 1):
        names.append(str(result.source))
        if rank == 1 and count == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
    return names


@pytest.fixture
def group(tmp_path):
    """A process group of this process alone."""
    dist.init_process_group(
        'gloo', init_method=f'file://{tmp_path}/meet', rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def entries_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def keys(entries):
    return Counter((e['file_name'], e.get('frame')) for e in entries)


def everything(folder):
    names = [(str(folder / f'{i:02d}.png'), None) for i in range(COUNT)]
    return [*names, *((str(folder / 'clip.avi'), n) for n in range(5))]


def test_killed_and_continued_with_another_number(
    tiny, folder, tmp_path, group
):
    """Two processes, one of which is killed; then one that finishes."""
    file = tmp_path / 'out/r.jsonl'
    work = (tiny['classifier'], str(folder), str(file))
    (tmp_path / 'a').mkdir()
    with pytest.raises(mp.ProcessExitedException):
        run_ranks(predict, tmp_path / 'a', *work, 3)
    shards = sorted(path.name for path in file.parent.iterdir())
    assert shards == ['r.jsonl.0-of-2.jsonl', 'r.jsonl.1-of-2.jsonl']
    torn = file.with_name(shards[1])
    assert len(entries_of(torn)) == 1 + 3  # whole lines
    with torn.open('a') as tail:
        tail.write('{"file_name": "torn')
    done = len(entries_of(file.with_name(shards[0]))) - 1 + 3
    rest = predict(0, tmp_path, *work)
    assert len(rest) == COUNT + 5 - done > 0
    merged = entries_of(file)
    assert [*keys(merged)] == everything(folder)
    assert [entry['id'] for entry in merged] == [*range(COUNT + 5)]
    assert not any('last' in entry for entry in merged)
    # Nothing was done twice.
    lines = [
        json.loads(line)
        for path in file.parent.glob('r.jsonl.*-of-*.jsonl')
        for line in path.read_text().split('\n')[1:]
        if line.endswith('}')
    ]
    assert set(keys(lines).values()) == {1}


def test_other_inputs_are_refused(models, folder, tmp_path, group):
    """Another folder with the same names."""
    model, file = models['classifier'], tmp_path / 'r.json'
    assert len(list(model(folder, json=file))) == COUNT + 5
    content = file.read_bytes()
    assert len(json.loads(content)['images']) == COUNT + 5
    # Once more: nothing to do, the same file.
    assert list(model(folder, json=file)) == []
    assert file.read_bytes() == content
    other = tmp_path / 'photos'
    shutil.copytree(folder, other)
    with pytest.raises(UserError, match='another run: inputs'):
        list(model(other, json=file))
    with pytest.raises(UserError, match='leave --out'):
        list(model(folder, tmp_path / 'drawn', json=file))


@pytest.fixture
def sources(tmp_path):
    for name in 'abcde':
        (tmp_path / f'{name}.png').touch()
    return find_sources([tmp_path])


def entry(source, **more):
    return {'file_name': str(source.origin), 'results': [], **more}


def test_shares_are_everything_once(sources, tmp_path):
    plan = Shards(tmp_path / 'r.json', {}).plan(sources)
    shares = [plan.share(rank, 3).sources for rank in range(3)]
    assert [len(share) for share in shares] == [2, 2, 1]
    assert {s.origin for share in shares for s in share} == {
        source.origin for source in sources
    }


def test_what_failed_is_tried_again(sources, tmp_path):
    shards = Shards(tmp_path / 'r.jsonl', {'tile': None})
    shard = shards.open(0, 1)
    shard.add(entry(sources[0]))
    shard.add({'file_name': str(sources[1].origin), 'error': 'broken'})
    shard.close()
    assert shards.plan(sources).sources == sources[1:]
    shards.merge(sources, None)
    assert [*entries_of(tmp_path / 'r.jsonl')][1]['error'] == 'broken'
    shard = shards.open(2, 4)
    shard.add(entry(sources[1]))
    shard.close()
    shards.merge(sources, None)
    assert [e['id'] for e in entries_of(tmp_path / 'r.jsonl')] == [0, 1]


def test_a_torn_line_is_cut(sources, tmp_path):
    shards = Shards(tmp_path / 'r.json', {})
    shard = shards.open(0, 1)
    shard.add(entry(sources[0]))
    shard.close()
    path = tmp_path / 'r.json.0-of-1.jsonl'
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"file_name": "' + b'x' * 100_000)
    assert shards.plan(sources).sources == sources[1:]
    shards.open(0, 1).close()
    assert path.read_bytes() == whole


def test_a_damaged_line_is_told(sources, tmp_path):
    shards = Shards(tmp_path / 'r.json', {})
    shards.open(0, 1).close()
    path = tmp_path / 'r.json.0-of-1.jsonl'
    path.write_bytes(path.read_bytes() + b'\0\0\n')
    with pytest.raises(UserError, match='damaged at byte'):
        shards.plan(sources)


def test_another_run_is_told(sources, tmp_path):
    Shards(tmp_path / 'r.json', {'tile': 3, 'weights': 'x'}).open(0, 1).close()
    with pytest.raises(UserError, match='another run: tile differ'):
        Shards(tmp_path / 'r.json', {'tile': 4, 'weights': 'x'}).plan(sources)
    # The file of another result is not ours.
    assert Shards(tmp_path / 'q.json', {'tile': 4}).plan(sources).sources


def test_a_video_continues_at_its_frame(tmp_path):
    (tmp_path / 'v.avi').touch()
    (source,) = find_sources([tmp_path / 'v.avi'])
    shards = Shards(tmp_path / 'r.json', {})
    for rank, frames in ((1, (0, 1)), (0, (2,))):
        shard = shards.open(rank, 2)
        for frame in frames:
            shard.add(entry(source, frame=frame), last=False)
        shard.close()
    assert shards.plan([source]).share(0, 1).starts == {0: 3}
    shard = shards.open(0, 2)
    shard.add(entry(source, frame=3))
    shard.close()
    assert shards.plan([source]).sources == []
