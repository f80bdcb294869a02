_base_ = './transxnet_t.py'

model = dict(
    backbone=dict(arch='s', drop_path_rate=0.2), head=dict(in_channels=512))

# The published decay is 0.99985 for S and B.
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExponentialMovingAverage',
        momentum=1.5e-4,
        update_buffers=True,
        priority='ABOVE_NORMAL')
]
