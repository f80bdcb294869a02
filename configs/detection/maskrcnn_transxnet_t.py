_base_ = [
    '../_base_/models/maskrcnn_transxnet.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime/detection.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='transxnet://t')))

# The published config tries to exempt the position tables too, by names that
# match no parameter. So they were decayed, as they are here.
optim_wrapper = dict(
    optimizer=dict(weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))))
