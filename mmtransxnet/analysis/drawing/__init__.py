"""Pictures of the analyses."""

from mmtransxnet.analysis.drawing.activation import draw_activations
from mmtransxnet.analysis.drawing.receptive_field import draw_fields

__all__ = ['draw_activations', 'draw_fields']
