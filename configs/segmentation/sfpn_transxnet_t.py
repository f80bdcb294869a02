_base_ = [
    '../_base_/models/sfpn_transxnet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/sfpn_80k.py',
    '../_base_/runtime/segmentation.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='transxnet://t')))
