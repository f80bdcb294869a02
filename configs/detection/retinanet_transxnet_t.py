_base_ = [
    '../_base_/models/retinanet_transxnet.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/detection_1x.py',
    '../_base_/runtime/detection.py',
]

model = dict(
    backbone=dict(
        init_cfg=dict(checkpoint='transxnet://t')))
