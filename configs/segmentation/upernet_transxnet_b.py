_base_ = './upernet_transxnet_t.py'

model = dict(
    backbone=dict(
        arch='b',
        drop_path_rate=0.3,
        init_cfg=dict(checkpoint='transxnet://b')),
    decode_head=dict(in_channels=[76, 152, 336, 672]),
    auxiliary_head=dict(in_channels=336))
