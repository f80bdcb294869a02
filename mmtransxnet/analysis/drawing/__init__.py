"""Pictures of the analyses."""

from mmtransxnet.analysis.drawing.receptive_field import draw_fields

__all__ = ['draw_fields']
