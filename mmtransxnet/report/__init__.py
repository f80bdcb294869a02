"""One page about a training run: what it was, and how good it became."""
