_base_ = './transxnet_s.py'

model = dict(
    backbone=dict(arch='b', drop_path_rate=0.4), head=dict(in_channels=672))

# Crop ratio 0.95: floor(224 / 0.95) = 235.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge',
        scale=235,
        edge='short',
        backend='pillow',
        interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
