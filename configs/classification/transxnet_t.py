_base_ = [
    '../_base_/models/transxnet_classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_300e.py',
    '../_base_/runtime/classification.py',
]
