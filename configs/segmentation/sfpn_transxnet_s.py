_base_ = './sfpn_transxnet_t.py'

model = dict(
    backbone=dict(
        arch='s',
        drop_path_rate=0.2,
        init_cfg=dict(
            checkpoint='https://github.com/LMMMEng/TransXNet/releases/download/v1.0/transx-s.pth.tar'  # noqa: E501
        )),
    neck=dict(in_channels=[64, 128, 320, 512]))
