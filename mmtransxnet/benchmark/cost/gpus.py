"""GPUs as data, and the time of a step by their published figures."""

from dataclasses import dataclass

import torch

from mmtransxnet.benchmark.cost.counter import Cost
from mmtransxnet.benchmark.cost.operators import Operator

KERNEL_SECONDS = 2e-6
"""Assumed time between the work of two kernels."""

HOST_SECONDS = 8e-6
"""Assumed time that the host needs to launch a kernel, eagerly."""


@dataclass(frozen=True)
class Gpu:
    """Published figures of a GPU.

    Attributes:
        name: Name.
        memory: Memory in GiB.
        bandwidth: Memory bandwidth in GB/s.
        fp32: TFLOP/s in float32, without matrix units.
        tf32: TFLOP/s of its matrix units in TF32, without sparsity; None if
            it has none.
        fp16: Likewise in float16, accumulated in float32.
        bf16: Likewise in bfloat16.
    """

    name: str
    memory: float
    bandwidth: float
    fp32: float
    tf32: float | None
    fp16: float
    bf16: float | None

    def peak(self, operator: Operator, tf32: bool) -> float:
        """FLOP/s for an operator.

        Args:
            operator: The operator.
            tf32: Whether float32 products may use TF32. Convolutions do by
                default in PyTorch, matrix products do not.
        """
        by_type = {torch.float16: self.fp16, torch.bfloat16: self.bf16}
        peak = by_type.get(operator.dtype)
        if operator.dtype == torch.float32 and tf32:
            peak = self.tf32
        if not operator.dense or peak is None:
            peak = self.fp32
        return peak * 1e12


# From the vendor's documents; docs/gpu.md names them. A T4 with error
# correction has 15 of its 16 GiB.
GPUS = {
    'a100-40g': Gpu('A100 SXM 40 GB', 40, 1555, 19.5, 156, 312, 312),
    'a100-80g': Gpu('A100 SXM 80 GB', 80, 2039, 19.5, 156, 312, 312),
    'h100': Gpu('H100 SXM 80 GB', 80, 3350, 66.9, 494.7, 989.4, 989.4),
    'rtx4090': Gpu('RTX 4090', 24, 1008, 82.6, 82.6, 165.2, 165.2),
    't4': Gpu('T4', 15, 320, 8.1, None, 65, None),
}


def estimated_seconds(
    cost: Cost, gpu: Gpu, tf32_convs: bool, tf32_products: bool
) -> float:
    """Time of a step by the roofline model, which real steps rarely reach.

    Each operator takes as long as its FLOPs at the GPU's peak or its bytes at
    the full bandwidth, whichever is longer, and a gap for each kernel. The
    step takes no less than the host needs to launch all kernels.

    Args:
        cost: The counted step.
        gpu: The GPU.
        tf32_convs: Whether convolutions use TF32 for float32.
        tf32_products: Whether other products do.
    """
    device = 0.0
    for operator in cost.operators:
        tf32 = tf32_convs if 'conv' in operator.name else tf32_products
        device += operator.kernels * KERNEL_SECONDS + max(
            operator.flops / gpu.peak(operator, tf32),
            operator.nbytes / (gpu.bandwidth * 1e9),
        )
    return max(device, cost.kernels * HOST_SECONDS)
