import mmtransxnet  # noqa: F401  (mmcv's operators, before mmdet is imported)
