# 300 epochs on (8 GPUs) x (128 samples); the published recipe.
train_cfg = dict(type='ResumableEpochLoop', max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()

# Rates change between epochs, as in timm: the warm-up takes the place of the
# first epochs of the cosine.
param_scheduler = dict(
    type='WarmupCosineLR',
    warmup_epochs=5,
    warmup_lr=1e-6,
    eta_min=1e-5,
    T_max=300)

# No decay of norms, biases and IDConv's learned biases, as in timm.
optim_wrapper = dict(
    type='MixedPrecisionOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(
        type='AdamW', lr=2e-3, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0))

# (8 GPUs) x (128 samples). The published rate is fixed: it was not scaled.
auto_scale_lr = dict(enable=False, base_batch_size=1024)

# An average of weights and running statistics, evaluated and saved.
custom_hooks = [
    dict(
        type='EMAHook',
        ema_type='ExponentialMovingAverage',
        momentum=2e-4,
        update_buffers=True,
        priority='ABOVE_NORMAL')
]
