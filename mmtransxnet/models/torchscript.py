"""A form of the network that TorchScript can compile.

TorchScript indexes module lists by literals only and does not support looking
up modules by name. The modules and parameters are those of the model; their
names are not.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from mmtransxnet.models.transxnet import (
    TransXNet,
    check_size,
)


class ScriptableTransXNet(nn.Module):
    """The stages of a TransXNet, compiled by ``torch.jit.script``.

    Args:
        model: The backbone.
        out_indices: Stages whose outputs are returned.
        norms: Norms of these outputs.
    """

    def __init__(
        self,
        model: TransXNet,
        out_indices: Sequence[int],
        norms: Sequence[nn.Module],
    ) -> None:
        super().__init__()
        stages = range(out_indices[-1] + 1)
        parts = list(model.network)
        embeds = [model.patch_embed, *parts[1::2]]
        norm_of = dict(zip(out_indices, norms, strict=True))
        self.embeds = nn.ModuleList(embeds[i] for i in stages)
        self.stages = nn.ModuleList(parts[2 * i] for i in stages)
        self.tables = nn.ParameterList(
            model.relative_pos_enc[i] for i in stages
        )
        self.norms = nn.ModuleList(
            norm_of.get(i, nn.Identity()) for i in stages
        )
        self.returned = [i in out_indices for i in stages]
        self.train(model.training)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Extract features; see :meth:`TransXNet.forward`."""
        check_size(x)
        tables: list[Tensor] = []
        for table in self.tables:
            tables.append(table)
        outputs: list[Tensor] = []
        for i, (embed, stage, norm) in enumerate(
            zip(self.embeds, self.stages, self.norms)  # noqa: B905
        ):
            x = stage(embed(x), tables[i])
            if self.returned[i]:
                outputs.append(norm(x))
        return outputs
