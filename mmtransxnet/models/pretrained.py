"""Loading weights into the backbone: all of them, or an error."""

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
        """Start from ``init_cfg``.

        Raises:
            ValueError: The pretrained weights cannot be read or do not fit.
        """
        given = self.init_cfg
        if not given or self.is_init:
            super().init_weights()
            return
        configs = given if isinstance(given, list) else [given]
        kinds = ('Pretrained', PretrainedInit)
        pretrained = [c for c in configs if c['type'] in kinds]
        self.init_cfg = [c for c in configs if c not in pretrained]
        super().init_weights()
        self.init_cfg = given
        for config in pretrained:
            # By its name: models read no files themselves.
            WEIGHT_INITIALIZERS.build(
                {**config, 'type': 'TransXNetPretrained'}
            )(self)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args
    ) -> None:
        """Take tables of another design size, but no other architecture."""
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        drop_unused_norms(state_dict, prefix, own)
        resized = self._resize_tables_in(state_dict, prefix)
        if resized:
            print_log(
                f'Position tables resized: {"; ".join(resized)}', 'current'
            )
        found = {
            name: state_dict[prefix + name]
            for name in own
            if prefix + name in state_dict
        }
        misfits = [
            f'{name} {tuple(value.shape)} for {tuple(own[name].shape)}'
            for name, value in found.items()
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
        """Resize tables to this design size as the forward pass would."""
        resized = []
        for stage, own in enumerate(self.relative_pos_enc):
            key = f'{prefix}relative_pos_enc.{stage}'
            table = state_dict.get(key)
            # Other heads are another architecture.
            if table is None or table.shape[:-2] != own.shape[:-2]:
                continue
            if table.shape != own.shape:
                size = own.shape[-2:]
                # Not every type of half precision resizes everywhere.
                state_dict[key] = resize_position_table(table.float(), *size)
                resized.append(f'{key} {tuple(table.shape)} to {tuple(size)}')
        return resized

    def _checkpoint_filter(
        self, state_dict: dict[str, Tensor], prefix: str, *args
    ) -> None:
        """Let mmpretrain's classifier load a published one; it calls this."""
        rename_classifier(state_dict, prefix)
