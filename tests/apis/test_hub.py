"""Save, load and push by Hugging Face's own mixin, on a local folder."""

import json

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file, save_file

from mmtransxnet.apis.hub import HubBackbone, HubClassifier
from tests.support.models import fill_by_name, make_input, micro


def backbone():
    settings = dict(arch=micro(), image_size=64, out_indices=(1, 3))
    return fill_by_name(HubBackbone(**settings)).eval()


def classifier():
    settings = dict(arch=micro(), img_size=64, num_classes=5)
    return fill_by_name(HubClassifier(**settings)).eval()


@pytest.mark.parametrize('build', [backbone, classifier])
def test_saved_and_loaded(build, tmp_path):
    model = build()
    model.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        'model.safetensors',
        'config.json',
        'README.md',
    }
    again = type(model).from_pretrained(tmp_path)
    assert not again.training
    x = make_input(0, (1, 3, 64, 64))
    with torch.no_grad():
        expected, found = model(x), again(x)
    if build is classifier:
        expected, found = [expected], [found]
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_weights_have_the_published_names(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    assert load_file(tmp_path / 'model.safetensors').keys() == (
        model.state_dict().keys()
    )


def test_config_tells_what_is_not_default(tmp_path):
    backbone().save_pretrained(tmp_path)
    config = json.loads((tmp_path / 'config.json').read_text())
    assert config['arch'] == micro()
    assert config['out_indices'] == [1, 3]
    assert config['image_size'] == 64


def test_card(tmp_path):
    classifier().save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / 'README.md')
    assert card.data.library_name == 'mmtransxnet'
    assert card.data.license == 'apache-2.0'
    assert card.data.pipeline_tag == 'image-classification'
    assert 'transxnet' in card.data.tags
    assert f"HubClassifier.from_pretrained('{tmp_path}')" in card.text
    assert '| `num_classes` | `5` |' in card.text
    assert 'arxiv.org/abs/2310.19380' in card.text


def test_a_new_head_is_saved_as_such(tmp_path):
    model = classifier()
    model.reset_classifier(3, 'max')
    model.save_pretrained(tmp_path)
    again = HubClassifier.from_pretrained(tmp_path)
    assert again.num_classes == 3
    assert again.global_pool == 'max'


def test_settings_can_be_overridden(tmp_path):
    backbone().save_pretrained(tmp_path)
    model = HubBackbone.from_pretrained(tmp_path, frozen_stages=1)
    assert not model.patch_embed.proj.conv.weight.requires_grad


def test_missing_weights_are_an_error(tmp_path):
    classifier().save_pretrained(tmp_path)
    path = tmp_path / 'model.safetensors'
    state = load_file(path)
    del state['classifier.2.bias']
    save_file(state, path)
    with pytest.raises(RuntimeError, match=r'classifier\.2\.bias'):
        HubClassifier.from_pretrained(tmp_path)


def test_push_uploads_all_of_it(tmp_path, monkeypatch):
    uploaded = {}

    class Created:
        repo_id = 'user/name'

    def upload(self, *, repo_id, folder_path, **kwargs):
        for path in folder_path.iterdir():
            uploaded[path.name] = path.read_bytes()
        return f'commit in {repo_id}'

    monkeypatch.setattr(HfApi, 'create_repo', lambda *a, **k: Created)
    monkeypatch.setattr(HfApi, 'upload_folder', upload)
    assert classifier().push_to_hub('user/name') == 'commit in user/name'
    assert uploaded.keys() == {
        'model.safetensors',
        'config.json',
        'README.md',
    }
    assert b"from_pretrained('user/name')" in uploaded['README.md']
