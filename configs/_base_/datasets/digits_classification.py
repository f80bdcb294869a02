# The embedded single digits (tools/dataset/build_digits.py) in ImageNet's
# layout. Export DIGITS_ROOT where the data is elsewhere.
data_root = '{{$DIGITS_ROOT:data/digits}}'

data_remedy = (
    'run tools/dataset/build_digits.py, or export DIGITS_ROOT if it is '
    'elsewhere')

data_preprocessor = dict(
    num_classes=10,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    # No flipping: a mirrored digit is not a valid digit.
    dict(
        type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3,
        backend='cv2'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='imagenet/train',
        with_label=True,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=64,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CustomDataset',
        data_root=data_root,
        data_prefix='imagenet/val',
        with_label=True,
        pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
