# 80,000 iterations on (8 GPUs) x (4 samples); the published recipe.
train_cfg = dict(type='ResumableIterLoop', max_iters=80000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# The two overlap: the warm-up is multiplied into the cosine, as in mmcv 1.x.
# MMEngine reaches full rate at `end - 1`, mmcv 1.x at iteration 1000.
param_scheduler = [
    dict(
        type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=1001),
    dict(
        type='CosineAnnealingLR',
        eta_min=2e-12,
        by_epoch=False,
        begin=0,
        end=80000),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4))

# (8 GPUs) x (4 samples)
auto_scale_lr = dict(enable=False, base_batch_size=32)
