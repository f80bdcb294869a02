"""Pictures of the analyses."""

from mmtransxnet.analysis.drawing.activation import draw_activations
from mmtransxnet.analysis.drawing.dynamics import (
    draw_attention,
    draw_kernels,
    draw_scales,
    draw_spread,
)
from mmtransxnet.analysis.drawing.receptive_field import draw_fields

__all__ = [
    'draw_activations',
    'draw_attention',
    'draw_fields',
    'draw_kernels',
    'draw_scales',
    'draw_spread',
]
