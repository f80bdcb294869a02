# TransXNet-T on the embedded single digits, in minutes on two CPU cores.
# Its checkpoint starts the detectors and segmentors on the embedded scenes.
_base_ = [
    '../_base_/datasets/digits_classification.py',
    '../_base_/runtime/classification.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='TransXNet',
        arch='t',
        image_size=64,
        out_indices=(3, ),
        # A few hundred iterations are too short for LayerScale to grow from
        # the published 1e-5.
        layer_scale_init_value=0.3),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='LinearClsHead',
        num_classes=10,
        in_channels=448,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
        topk=(1, )))

max_iters = 140
train_cfg = dict(
    type='ResumableIterLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=5.0))

param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=15),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=False,
        begin=0,
        end=max_iters),
]
auto_scale_lr = dict(enable=False, base_batch_size=32)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1))
log_processor = dict(by_epoch=False)
