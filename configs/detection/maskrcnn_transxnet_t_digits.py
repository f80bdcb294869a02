# Mask R-CNN on the embedded digits, small enough for two CPU cores: narrow
# neck and heads, few proposals, small scenes. The backbone starts from
# classification/transxnet_t_digits.py: train that first (`make demo` does),
# or start from scratch with --cfg-options model.backbone.init_cfg=None.
_base_ = [
    '../_base_/models/maskrcnn_transxnet.py',
    '../_base_/datasets/digits_instance.py',
    '../_base_/schedules/digits_detection.py',
    '../_base_/runtime/detection.py',
]

model = dict(
    backbone=dict(
        # The design size of the pretraining, so that the position tables
        # load; they are resized for the scenes.
        image_size=64,
        drop_path_rate=0.0,
        layer_scale_init_value=0.3,
        init_cfg=dict(
            checkpoint='work_dirs/transxnet_t_digits/iter_140.pth',
            prefix='backbone.')),
    neck=dict(out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64),
        bbox_head=dict(in_channels=64, fc_out_channels=256, num_classes=10),
        mask_roi_extractor=dict(out_channels=64),
        mask_head=dict(
            num_convs=2, in_channels=64, conv_out_channels=64,
            num_classes=10)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=400, max_per_img=100),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(
        rpn=dict(nms_pre=300, max_per_img=100),
        rcnn=dict(max_per_img=30)))

default_hooks = dict(
    logger=dict(interval=20), checkpoint=dict(max_keep_ckpts=1))
