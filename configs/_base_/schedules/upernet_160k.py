# 160,000 iterations on (8 GPUs) x (2 samples): the recipe of Swin and of the
# authors' later backbone. No UperNet result of TransXNet is published.
train_cfg = dict(
    type='ResumableIterLoop', max_iters=160000, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

# The two overlap: the warm-up is multiplied into the decay, as in mmcv 1.x.
# MMEngine reaches full rate at `end - 1`, mmcv 1.x at iteration 1500, and
# MMEngine's decay of `end - 1` steps is mmcv's of 160,000.
param_scheduler = [
    dict(
        type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0,
        end=1501),
    dict(
        type='PolyLR',
        power=1.0,
        eta_min=0.0,
        by_epoch=False,
        begin=0,
        end=160001),
]

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        custom_keys=dict(
            norm=dict(decay_mult=0.0),
            relative_pos_enc=dict(decay_mult=0.0))))

# (8 GPUs) x (2 samples)
auto_scale_lr = dict(enable=False, base_batch_size=16)
