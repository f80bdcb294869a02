# 12 epochs on (8 GPUs) x (2 samples); the published recipe.
train_cfg = dict(type='ResumableEpochLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# The two overlap: the warm-up is multiplied into the steps, as in mmcv 1.x.
# MMEngine reaches full rate at `end - 1`, mmcv 1.x at iteration 500.
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.001, by_epoch=False, begin=0,
        end=501),
    dict(
        type='MultiStepLR',
        begin=0,
        end=12,
        by_epoch=True,
        milestones=[8, 11],
        gamma=0.1),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4))

# (8 GPUs) x (2 samples)
auto_scale_lr = dict(enable=False, base_batch_size=16)
