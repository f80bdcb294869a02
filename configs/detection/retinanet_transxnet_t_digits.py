# RetinaNet on the embedded digits, small enough for two CPU cores: narrow
# neck and head, small scenes, small anchors. The backbone starts from
# classification/transxnet_t_digits.py: train that first, or start from
# scratch with --cfg-options model.backbone.init_cfg=None.
_base_ = [
    '../_base_/models/retinanet_transxnet.py',
    '../_base_/datasets/digits_instance.py',
    '../_base_/schedules/digits_detection.py',
    '../_base_/runtime/detection.py',
]

model = dict(
    backbone=dict(
        image_size=64,
        drop_path_rate=0.0,
        layer_scale_init_value=0.3,
        init_cfg=dict(
            checkpoint='work_dirs/transxnet_t_digits/iter_140.pth',
            prefix='backbone.')),
    neck=dict(out_channels=64),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        stacked_convs=2,
        feat_channels=64,
        # Learns several times faster than without, at batches of 4.
        norm_cfg=dict(type='GN', num_groups=8),
        anchor_generator=dict(octave_base_scale=2)),
    test_cfg=dict(nms_pre=300, max_per_img=30))

val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator

# A single-stage detector takes longer to learn than a two-stage one.
max_epochs = 4
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=8e-4))
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True),
]

default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1))
