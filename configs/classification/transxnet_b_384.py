# 30 epochs of fine-tuning at 384 pixels, from the weights trained at 224. The
# result is published, its recipe is not: this recipe follows Swin's.
_base_ = './transxnet_b.py'

# The complete classifier, not only the backbone; position tables are resized.
load_from = 'transxnet://b'

model = dict(
    backbone=dict(image_size=384),
    # Short fine-tuning at a small rate; mixing would only blur the labels.
    train_cfg=None)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=384,
        backend='pillow',
        interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=2,
        total_level=10,
        magnitude_level=9,
        magnitude_std=0.5,
        hparams=dict(pad_val=[104, 116, 124], interpolation='bicubic')),
    dict(type='PackInputs'),
]
# Crop ratio 0.95: floor(384 / 0.95) = 404.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge',
        scale=404,
        edge='short',
        backend='pillow',
        interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=384),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# (8 GPUs) x (64 samples)
auto_scale_lr = dict(base_batch_size=512)
train_cfg = dict(max_epochs=30)
optim_wrapper = dict(optimizer=dict(lr=2e-5, weight_decay=1e-8))
param_scheduler = dict(
    warmup_epochs=5, warmup_lr=2e-8, eta_min=2e-7, T_max=30)
