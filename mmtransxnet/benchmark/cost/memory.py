"""Memory of the tensors that are alive, without allocating any."""

import math
import weakref

from torch import Tensor

# PyTorch's allocator for GPUs rounds sizes up to multiples of this.
_ALIGNMENT = 512


class LiveMemory:
    """Bytes of the storages of the tensors seen, while they are alive.

    Views share a storage. What a library allocates for itself within an
    operator (workspaces of convolutions and matrix products) is not seen.

    Attributes:
        now: Bytes that are alive.
        peak: The most that were alive at the same time.
    """

    def __init__(self) -> None:
        self.now = 0
        self.peak = 0
        self._alive: set[int] = set()

    def add(self, tensor: Tensor) -> None:
        """Count the storage of a tensor until nothing refers to it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        size = math.ceil(storage.nbytes() / _ALIGNMENT) * _ALIGNMENT
        self._alive.add(key)
        # The Python object of a storage lives as long as the storage.
        weakref.finalize(storage, self._remove, key, size).atexit = False
        self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, key: int, size: int) -> None:
        self._alive.remove(key)
        self.now -= size
