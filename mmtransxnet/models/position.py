"""The relative position table of a stage and the attention that adds it."""

import torch.nn.functional as F
from torch import Tensor


def resize_position_table(table: Tensor, num_q: int, num_k: int) -> Tensor:
    """Resize a relative position table to another number of tokens.

    The published network treats the **flattened** ``(Nq, Nk)`` matrix as an
    image and resizes that (bicubic, ``align_corners=False``), although its
    rows and columns are grids themselves. Odd as that is, the published
    dense-prediction results were trained and measured with it.

    Args:
        table: Position table ``(1, heads, Nq0, Nk0)``.
        num_q: Number of queries Nq.
        num_k: Number of keys Nk.

    Returns:
        Table ``(1, heads, Nq, Nk)``; the input itself where it fits.
    """
    if tuple(table.shape[-2:]) == (num_q, num_k):
        return table
    return F.interpolate(
        table, size=(num_q, num_k), mode='bicubic', align_corners=False
    )


def attention(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Tensor:
    """Attention with a relative position bias, paper equation of OSRA.

    ``softmax(q k^T / sqrt(D) + table) v``

    Args:
        q: Queries ``(B, heads, Nq, D)``.
        k: Keys ``(B, heads, Nk, D)``.
        v: Values ``(B, heads, Nk, D)``.
        table: Position bias ``(1, heads, Nq, Nk)``.

    Returns:
        Tensor ``(B, heads, Nq, D)``.
    """
    # Under autocast q, k, v come in low precision, the table as a parameter.
    return F.scaled_dot_product_attention(q, k, v, attn_mask=table.to(q.dtype))
