"""Fast kernels of the network; results equal those of the formula."""
