_base_ = './maskrcnn_transxnet_t_ms_3x.py'

model = dict(
    backbone=dict(
        arch='s',
        drop_path_rate=0.2,
        init_cfg=dict(checkpoint='transxnet://s')),
    neck=dict(in_channels=[64, 128, 320, 512]))
