_base_ = './maskrcnn_transxnet_t.py'

model = dict(
    backbone=dict(
        arch='b',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='transxnet://b')),
    neck=dict(in_channels=[76, 152, 336, 672]))
