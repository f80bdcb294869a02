# Recipe of this suite: no 3x result of TransXNet is published.
_base_ = [
    '../_base_/models/cascade_maskrcnn_transxnet.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/detection_3x.py',
    '../_base_/runtime/detection.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='transxnet://t')))
