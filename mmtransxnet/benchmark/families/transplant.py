"""TransXNet-T in place of the backbone of any model.

The outputs of the model's own backbone determine the number and strides of the
maps; the necks and heads that read them get the channels of TransXNet's stages
instead.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmtransxnet.benchmark.families.batches import BATCH
from mmtransxnet.benchmark.families.zoo import Unsupported, walk
from mmtransxnet.models.arch import NUM_STAGES, resolve_arch

ARCH = 't'
_HEADS = (
    'rpn_head',
    'bbox_head',
    'mask_head',
    'panoptic_head',
    'decode_head',
    'auxiliary_head',
    'head',
)


@dataclass(frozen=True)
class Output:
    """An output of a backbone for an image.

    Attributes:
        channels: Channels of the map, or of a vector.
        stride: Stride of the map in pixels. A vector represents the entire
            image, like the pooled last map.
        pooled: Whether it is a vector.
    """

    channels: int
    stride: int
    pooled: bool = False


@torch.no_grad()
def outputs_of(model: Any, size: int) -> list[Output]:
    """Run the backbone of a model on images of a size.

    Raises:
        Unsupported: It has no backbone, or one that returns neither maps nor
            vectors.
    """
    if not isinstance(getattr(model, 'backbone', None), nn.Module):
        raise Unsupported('has no backbone of its own')
    model.eval()  # returns None in some backbones
    try:
        outputs = model.backbone(torch.zeros(BATCH, 3, size, size))
    except TypeError as error:
        raise Unsupported('its backbone takes more than pictures') from error
    maps = outputs if isinstance(outputs, list | tuple) else [outputs]
    if not all(isinstance(m, Tensor) and m.dim() in (2, 4) for m in maps):
        raise Unsupported('its backbone returns neither maps nor vectors')
    return [
        Output(m.size(1), round(size / m.size(3)))
        if m.dim() == 4
        else Output(m.size(1), 32, pooled=True)
        for m in maps
    ]


def stages_for(strides: Sequence[int]) -> tuple[int, ...]:
    """Stages with these strides, else the same number of last stages.

    Raises:
        Unsupported: There are fewer stages.
    """
    if len(strides) > NUM_STAGES:
        raise Unsupported(
            f'asks for {len(strides)} maps, TransXNet has {NUM_STAGES}'
        )
    exact = [math.log2(stride / 4) for stride in strides]
    if sorted(set(exact)) == exact and set(exact) <= set(range(NUM_STAGES)):
        return tuple(int(stage) for stage in exact)
    # Dilated backbones and plain transformers.
    return tuple(range(NUM_STAGES - len(strides), NUM_STAGES))


def replace_backbone(config: Config, outputs: Sequence[Output]) -> None:
    """Replace the backbone of a config by TransXNet-T.

    Args:
        config: The config, changed in place.
        outputs: :func:`outputs_of` the model's own backbone.

    Raises:
        Unsupported: No neck or head states its input channels.
    """
    model = config.model
    stages = stages_for([output.stride for output in outputs])
    model.backbone = ConfigDict(
        type='TransXNet', arch=ARCH, out_indices=stages
    )
    dims = [resolve_arch(ARCH)['embed_dims'][stage] for stage in stages]
    known = dict(
        zip((output.channels for output in outputs), dims, strict=True)
    )
    if len(known) < len(dims):
        known = {}  # not unique: distinguished only by their order
    necks, heads = _listed(model.get('neck')), _heads(model)
    pooled = all(output.pooled for output in outputs)
    if necks and _set_channels(necks[0], known, dims):
        if pooled and 'with_avg_pool' in necks[0]:
            necks[0]['with_avg_pool'] = True
        return
    if not necks and pooled:
        model.neck = ConfigDict(type='GlobalAveragePooling')
    if not sum(_set_channels(head, known, dims) for head in heads):
        raise Unsupported(
            'no neck and no head says how many channels it reads'
        )


def _listed(part: object) -> list[dict]:
    """Return none, one or several parts of a model as a list."""
    parts = part if isinstance(part, list | tuple) else [part]
    return [part for part in parts if isinstance(part, dict)]


def _heads(model: ConfigDict) -> list[dict]:
    """The heads and their parts that select maps themselves."""
    heads = [head for name in _HEADS for head in _listed(model.get(name))]
    return [
        node
        for head in heads
        for node in walk(head)
        if node is head or 'in_index' in node
    ]


def _set_channels(
    reader: dict, known: dict[int, int], dims: Sequence[int]
) -> bool:
    """Set the new channels of a neck or head; return whether it has any.

    Args:
        reader: Config of the neck or head.
        known: New channels by old ones, if those are unique.
        dims: New channels in the order of the maps.
    """
    changed = False
    for key in ('in_channels', 'c1_in_channels'):
        old = reader.get(key)
        # The second is always that of the first map.
        index: Any = reader.get('in_index') if key == 'in_channels' else 0
        if isinstance(old, list | tuple):
            # Some necks require a tuple.
            reader[key] = type(old)(
                _channels_of_several(old, index, known, dims)
            )
        elif isinstance(old, int):
            reader[key] = (
                known.get(old, dims[-1]) if index is None else dims[index]
            )
        else:
            continue
        changed = True
    if changed and reader.get('num_convs') == 0:
        reader['channels'] = reader['in_channels']  # must be equal
    return changed


def _channels_of_several(
    old: Sequence[int],
    index: Sequence[int] | None,
    known: dict[int, int],
    dims: Sequence[int],
) -> list[int]:
    """New channels of several maps, by index or by old channels."""
    if index is None and all(channels in known for channels in old):
        return [known[channels] for channels in old]
    places = range(len(old)) if index is None else index
    return [dims[place] for place in places]
