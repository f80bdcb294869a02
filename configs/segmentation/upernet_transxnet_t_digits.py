# UperNet on the embedded digits, small enough for two CPU cores: narrow
# heads, small scenes. The backbone starts from
# classification/transxnet_t_digits.py: train that first, or start from
# scratch with --cfg-options model.backbone.init_cfg=None.
_base_ = [
    '../_base_/models/upernet_transxnet.py',
    '../_base_/datasets/digits_semantic.py',
    '../_base_/schedules/digits_segmentation.py',
    '../_base_/runtime/segmentation.py',
]

# Nine pixels of ten are background: with equal weights, so short a training
# finds nothing else.
loss_decode = dict(class_weight=[0.1] + [1.0] * 10)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(
        image_size=64,
        drop_path_rate=0.0,
        layer_scale_init_value=0.3,
        init_cfg=dict(
            checkpoint='work_dirs/transxnet_t_digits/iter_140.pth',
            prefix='backbone.')),
    decode_head=dict(channels=64, num_classes=11, loss_decode=loss_decode),
    auxiliary_head=dict(channels=64, num_classes=11, loss_decode=loss_decode))

default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(interval=300, max_keep_ckpts=1))
