# No UperNet result of TransXNet is published.
_base_ = [
    '../_base_/models/upernet_transxnet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/upernet_160k.py',
    '../_base_/runtime/segmentation.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='transxnet://t')))

train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=16000))
