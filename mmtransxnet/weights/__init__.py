"""Weight files: read safely, matched by name, loaded, written."""

# Imported for its registration.
from mmtransxnet.weights import initializer  # noqa: F401
from mmtransxnet.weights.loading import load_weights, save_weights
from mmtransxnet.weights.mmengine_loaders import install

__all__ = ['install', 'load_weights', 'save_weights']
