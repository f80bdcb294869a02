"""Strict loading of weights into the backbone."""

from mmengine.logging import print_log
from mmengine.model import BaseModule, PretrainedInit
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from mmtransxnet.kernels.attention import resize_position_table
from mmtransxnet.models.state_dict import drop_unused_norms, rename_classifier
from mmtransxnet.utils.text import first_few


class PretrainedModule(BaseModule):
    """A module with position tables that starts from published weights."""

    init_cfg: dict | list[dict] | None
    relative_pos_enc: nn.ParameterList

    def init_weights(self) -> None:
        """Initialise the weights from ``init_cfg``.

        Raises:
            ValueError: The pretrained weights cannot be read or do not match.
        """
        init_cfg = self.init_cfg
        if not init_cfg or self.is_init:
            super().init_weights()
            return
        configs = init_cfg if isinstance(init_cfg, list) else [init_cfg]
        kinds = ('Pretrained', PretrainedInit)
        pretrained = [c for c in configs if c['type'] in kinds]
        self.init_cfg = [c for c in configs if c not in pretrained]
        super().init_weights()
        self.init_cfg = init_cfg
        for config in pretrained:
            # Built by name, because models must not import the file reader.
            WEIGHT_INITIALIZERS.build(
                {**config, 'type': 'TransXNetPretrained'}
            )(self)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args
    ) -> None:
        """Load weights; tables of another design size are resized."""
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        drop_unused_norms(state_dict, prefix, own)
        resized = self._resize_tables_in(state_dict, prefix)
        if resized:
            print_log(
                f'Position tables resized: {"; ".join(resized)}', 'current'
            )
        weights = {
            name: state_dict[prefix + name]
            for name in own
            if prefix + name in state_dict
        }
        misfits = [
            f'{name} {tuple(value.shape)} for {tuple(own[name].shape)}'
            for name, value in weights.items()
            if value.shape != own[name].shape
        ]
        if misfits:
            raise ValueError(
                'the weights are of another architecture than this '
                f'TransXNet: {len(misfits)} of another shape: '
                f'{first_few(misfits)}'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _resize_tables_in(
        self, state_dict: dict[str, Tensor], prefix: str
    ) -> list[str]:
        """Resize tables in a state dict to this model's design size."""
        resized = []
        for stage, own in enumerate(self.relative_pos_enc):
            key = f'{prefix}relative_pos_enc.{stage}'
            table = state_dict.get(key)
            # Another number of heads is another architecture.
            if table is None or table.shape[:-2] != own.shape[:-2]:
                continue
            if table.shape != own.shape:
                size = own.shape[-2:]
                # Not every device can resize every half-precision type.
                state_dict[key] = resize_position_table(table.float(), *size)
                resized.append(f'{key} {tuple(table.shape)} to {tuple(size)}')
        return resized

    def _checkpoint_filter(
        self, state_dict: dict[str, Tensor], prefix: str, *args
    ) -> None:
        """Rename a published classifier; called by mmpretrain."""
        rename_classifier(state_dict, prefix)
