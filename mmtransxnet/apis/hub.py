"""TransXNet on the Hugging Face hub: save, load and push.

A folder, local or on the hub, holds the weights (``model.safetensors``), how
to build the model (``config.json``) and a model card (``README.md``).

    model = HubClassifier(arch='t', num_classes=10)
    model.save_pretrained('folder')
    model.push_to_hub('user/name')
    model = HubClassifier.from_pretrained('user/name')
"""

from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin

from mmtransxnet.apis.timm import TimmTransXNet
from mmtransxnet.models import TransXNet

_CARD = """---
{{ card_data }}
---

# {{ model_name }}

{{ summary }}

With the package `mmtransxnet` installed:

    from mmtransxnet.apis.hub import {{ model_name }}
    model = {{ model_name }}.from_pretrained('{{ repo_id }}')

| setting | value |
|---|---|
{% for name, value in settings.items() -%}
| `{{ name }}` | `{{ value }}` |
{% endfor %}
The network: [TransXNet: Learning Both Global and Local Dynamics With a Dual
Dynamic Token Mixer for Visual Recognition]({{ paper_url }}).
The authors' code and weights: {{ repo_url }}.
"""


class _Hub(PyTorchModelHubMixin):
    """The shared part of both models, on top of Hugging Face's mixin."""

    _hub_mixin_config: dict[str, Any]
    _summary: str

    def save_pretrained(
        self, save_directory: str | Path, **kwargs: Any
    ) -> str | None:
        """Write weights, config and model card into a folder.

        Args:
            save_directory: The folder; created if missing.
            **kwargs: See ``PyTorchModelHubMixin.save_pretrained``.

        Returns:
            The URL of the commit with ``push_to_hub=True``.
        """
        card_settings = {
            'model_name': type(self).__name__,
            'summary': self._summary,
            # push_to_hub saves into a folder with the name of the repository.
            'repo_id': kwargs.get('repo_id') or str(save_directory),
            'settings': self._hub_mixin_config,
        }
        card_settings.update(kwargs.pop('model_card_kwargs', None) or {})
        return super().save_pretrained(
            save_directory, model_card_kwargs=card_settings, **kwargs
        )

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> str:
        """Upload weights, config and model card.

        Args:
            repo_id: ``'user/name'``; created if missing.
            **kwargs: See ``PyTorchModelHubMixin.push_to_hub``.

        Returns:
            The URL of the commit.
        """
        card_settings = {'repo_id': repo_id}
        card_settings.update(kwargs.pop('model_card_kwargs', None) or {})
        return super().push_to_hub(
            repo_id, model_card_kwargs=card_settings, **kwargs
        )

    @classmethod
    def _from_pretrained(cls, **kwargs: Any) -> Any:
        # By default, the mixin ignores missing weights.
        return super()._from_pretrained(**{**kwargs, 'strict': True})


class HubBackbone(
    TransXNet,
    _Hub,
    library_name='mmtransxnet',
    license='apache-2.0',
    pipeline_tag='image-feature-extraction',
    tags=['transxnet', 'image-feature-extraction', 'backbone'],
    repo_url='https://github.com/LMMMEng/TransXNet',
    paper_url='https://arxiv.org/abs/2310.19380',
    model_card_template=_CARD,
):
    """The backbone, with the arguments of :class:`TransXNet`."""

    _summary = 'A TransXNet backbone: feature maps at strides 4 to 32.'


class HubClassifier(
    TimmTransXNet,
    _Hub,
    library_name='mmtransxnet',
    license='apache-2.0',
    pipeline_tag='image-classification',
    tags=['transxnet', 'image-classification'],
    repo_url='https://github.com/LMMMEng/TransXNet',
    paper_url='https://arxiv.org/abs/2310.19380',
    model_card_template=_CARD,
):
    """The classifier, with the arguments of :class:`TimmTransXNet`."""

    _summary = 'A TransXNet image classifier.'

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None
    ) -> None:
        """Replace the classifier; saved settings reflect it.

        Args:
            num_classes: Number of classes, 0 for pooled features.
            global_pool: Name of the pooling; None keeps it.
        """
        super().reset_classifier(num_classes, global_pool)
        self._hub_mixin_config = {
            **self._hub_mixin_config,
            'num_classes': num_classes,
            'global_pool': self.global_pool,
        }
