"""The JSON is that of predict.py of the exported model."""

import json

import pytest
import torch

from mmtransxnet.deploy import runtime
from mmtransxnet.deploy.graphs import deploy_form
from mmtransxnet.deploy.metadata import describe
from tests.apis.conftest import TASKS
from tests.apis.test_results import assert_close
from tests.support.suite_configs import load


class Engine:
    """Runs the graph that is exported, without the time to trace it."""

    package = 'torch'

    def __init__(self, form):
        self._form = form

    @torch.no_grad()
    def __call__(self, inputs):
        tensors = [torch.from_numpy(inputs[n]) for n in self._form.input_names]
        outputs = self._form(*tensors)
        return {
            name: value.numpy()
            for name, value in zip(
                self._form.output_names, outputs, strict=True
            )
        }


@pytest.fixture(autouse=True)
def stable_sort(monkeypatch):
    """Equal scores in the order of their indices, as in the graph."""
    sort = torch.Tensor.sort

    def stable(self, **options):
        return sort(self, **{**options, 'stable': True})

    monkeypatch.setattr(torch.Tensor, 'sort', stable)


@pytest.mark.parametrize('task', TASKS)
def test_same_file(models, tiny, pictures, tmp_path, monkeypatch, task):
    config, checkpoint = tiny[task]
    model = models[task]
    form = deploy_form(model.model)
    description = describe(
        model.model,
        form,
        load(config),
        dataset_meta={
            'classes': model.info.classes,
            'palette': model.info.palette,
        },
        checkpoint=checkpoint,
        raw_masks=False,
    )
    (tmp_path / 'model.json').write_text(
        json.dumps({**description, 'files': {}})
    )
    monkeypatch.setattr(runtime, '_load_engine', lambda *_: Engine(form))
    ours, theirs = tmp_path / 'a/r.json', tmp_path / 'b/r.json'
    list(model(pictures, json=ours))
    words = [str(pictures), '--json', str(theirs), '--model', str(tmp_path)]
    assert runtime.main(words) == 1
    first, second = (json.loads(path.read_text()) for path in (ours, theirs))
    assert [*first] == [*second]
    for name in ('task', 'classes', 'images'):
        assert first[name] == second[name]
    names = [[e['file_name'] for e in c['failed']] for c in (first, second)]
    assert names[0] == names[1] == [str(pictures / '3.torn.png')]
    assert first['results']
    assert_close(first['results'], second['results'])
