# Settings of all runs, independent of the task.
custom_imports = dict(imports=['mmtransxnet'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # A kill at any moment leaves a checkpoint for --resume.
    checkpoint=dict(type='SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # SIGTERM and SIGUSR1: save at once, exit with status 75.
    preemption=dict(type='PreemptionHook'),
    # NaN or infinite: policy 'error' stops the run, 'skip' skips the step.
    bad_numbers=dict(type='NonFiniteHook', policy='error', limit=10))

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

# The published runs convert every BN to SyncBN when distributed.
sync_bn = 'torch'

randomness = dict(seed=None, deterministic=False, diff_rank_seed=False)
vis_backends = [dict(type='LocalVisBackend')]
log_level = 'INFO'
load_from = None
# Names that need not fit load_from, as a new head's: 'roi_head.bbox_head.*'
load_allow = []
resume = False
# Corrupt pictures, invalid boxes, unknown labels: 'error' ends the run, 'skip'
# trains without them, up to a limit (docs/reliability.md).
bad_data = dict(policy='error', limit=20)
